"""`hook`: the entry point that libvirt, vdsm and KubeVirt call. Whatever happens, the policy
says what comes of it.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import FrameType

from cpumap.cli.hook_words import KINDS
from cpumap.errors import CpumapError, InputError
from cpumap.hooks.install import DIRECTORIES, install, uninstall
from cpumap.hooks.policy import (
    POLICY,
    Policy,
    judge,
    libvirt_hook,
    pinned,
    read_guest,
    read_policy,
    require_explicit,
)
from cpumap.system.files import open_regular, write_atomically
from cpumap.system.say import plain, put_bytes, put_line, say
from cpumap.system.shape import at_top
from cpumap.system.xml_document import read_bounded, read_input

REFUSED = {"libvirt": 1, "vdsm": 2, "kubevirt": 1}
"""With 2, vdsm goes on with no other hook."""


LIBVIRT_WORDS = 4
"""DOMAIN OPERATION SUB-OPERATION EXTRA, always (libvirt's page on hooks)."""


PINS = {"model": "to its versioned model, everything named", "custom": "to `base`, all of it named"}


VDSM_VARIABLE = "_hook_domxml"
"""The environment variable in which vdsm names the file with the domain's XML."""


def add_hook(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument(
        "words", metavar="WORD", nargs="*", help="libvirt's: DOMAIN OPERATION SUB-OPERATION EXTRA"
    )
    parser.add_argument(
        "--policy", metavar="FILE", type=Path, default=POLICY, help=f"(default: {POLICY})"
    )
    parser.add_argument(
        "--event",
        metavar="NAME",
        default="before_vm_start",
        help="of vdsm (default: before_vm_start)",
    )
    parser.add_argument("--vmi", metavar="JSON", help="of KubeVirt: the virtual machine instance")
    parser.add_argument("--domain", metavar="XML", help="of KubeVirt: the domain, as text")
    one = parser.add_mutually_exclusive_group()
    one.add_argument(
        "--check",
        metavar="FILE",
        nargs="*",
        help="say what the policy is, and how it judges these domains",
    )
    one.add_argument("--install", action="store_true", help="put it where libvirt or vdsm finds it")
    one.add_argument("--uninstall", action="store_true", help="take it away again")
    parser.add_argument(
        "--hooks-dir",
        metavar="DIR",
        type=Path,
        help="where hooks are (default: the place of its kind)",
    )


class _Late(BaseException):
    """The time limit is over. No handler of errors on the way may take it for one."""


def run_hook(arguments: argparse.Namespace) -> int:
    if arguments.install or arguments.uninstall:
        return _installed(arguments)
    if arguments.check is not None:
        return _checked(arguments)
    run: dict[str, Callable[[argparse.Namespace, Policy], int]] = {
        "libvirt": _libvirt,
        "vdsm": _vdsm,
        "kubevirt": _kubevirt,
    }
    policy = _policy(arguments)
    try:
        return run[arguments.kind](arguments, policy)
    except Exception as err:  # not even a mistake of ours may keep a guest from running unasked
        return _decided(arguments.kind, policy, "", _account(err))


def _policy(arguments: argparse.Namespace) -> Policy:
    try:
        return read_policy(arguments.policy)
    except CpumapError as err:  # a policy that cannot be read must not keep guests from running
        say(str(err))
        return Policy()


def _libvirt(arguments: argparse.Namespace, policy: Policy) -> int:
    def work() -> None:
        document = read_bounded(sys.stdin.buffer, "<stdin>")
        if len(arguments.words) != LIBVIRT_WORDS:
            raise InputError(
                f"libvirt gives its hook {LIBVIRT_WORDS} words, and this has {len(arguments.words)}"
            )
        name, operation, sub, _ = arguments.words
        libvirt_hook(name, operation, sub, document, policy)

    what = " ".join(arguments.words[: LIBVIRT_WORDS - 1])
    return _decided(arguments.kind, policy, what, _guarded(policy, work))


def _vdsm(arguments: argparse.Namespace, policy: Policy) -> int:
    path = Path(os.environ.get(VDSM_VARIABLE, ""))

    def work() -> None:
        if not path.is_file():
            raise InputError("_hook_domxml names no file: is this run by vdsm?")
        document = read_guest(read_input(path))
        if (
            arguments.event == "before_vm_migrate_destination"
        ):  # the guest runs already: its CPU must stay
            require_explicit(judge(document, policy))
        else:
            write_atomically(path, pinned(document, policy))

    return _decided(arguments.kind, policy, arguments.event, _guarded(policy, work))


def _kubevirt(arguments: argparse.Namespace, policy: Policy) -> int:
    given = os.fsencode(arguments.domain or "")
    made = [given]

    def work() -> None:
        instance = at_top(json.loads(arguments.vmi or "{}"), "--vmi")
        metadata = instance.optional("metadata")
        named = metadata.optional("name") if metadata else None
        name = named.text if named else ""
        if not name or policy.covers(name):
            made[0] = pinned(read_guest(given, name), policy)

    code = _decided(arguments.kind, policy, "onDefineDomain", _guarded(policy, work))
    if code == 0:
        put_bytes(made[0])
    return code


def _guarded(policy: Policy, work: Callable[[], None]) -> str:
    """What went wrong, within the policy's time limit; empty when nothing did."""

    def late(_signal: int, _frame: FrameType | None) -> None:
        raise _Late

    signal.signal(signal.SIGALRM, late)
    try:
        signal.alarm(policy.time_limit)
        work()
        signal.alarm(0)
    except _Late:
        return f"not judged within {policy.time_limit} s"
    except CpumapError as err:
        return str(err)
    except (
        Exception
    ) as err:  # a mistake of ours must not keep a guest from running unless so wished
        return _account(err)
    finally:
        signal.alarm(0)
    return ""


def _account(err: Exception) -> str:
    return f"{type(err).__name__}: {err}"


def _decided(kind: str, policy: Policy, what: str, error: str) -> int:
    refuse = bool(error) and policy.on_error == "refuse"
    if error:
        say(f"{plain(what)}: {'refused' if refuse else 'passed, but'}: {error}")
    if policy.log:
        verdict = f"{'refused' if refuse else 'passed'}{': ' * bool(error)}{error}"
        _log(policy.log, f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} {kind} {what}: {verdict}")
    return REFUSED[kind] if refuse else 0


def _log(name: str, line: str) -> None:
    """Adds a line to the log; that it cannot be written is said, and changes no decision."""
    try:
        handle = open_regular(Path(name), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        with os.fdopen(handle, "w", encoding="utf-8") as log:
            log.write(plain(line) + "\n")
    except OSError as err:
        say(f"{name}: {err.strerror}")


def _installed(arguments: argparse.Namespace) -> int:
    directory = arguments.hooks_dir or Path(DIRECTORIES.get(arguments.kind, ""))
    if arguments.install:
        paths = install(arguments.kind, directory, arguments.policy)
        said = (
            "libvirtd finds it when it starts: restart it once"
            if arguments.kind == "libvirt"
            else ""
        )
    else:
        paths, said = uninstall(arguments.kind, directory), ""
    for path in paths:
        put_line(str(path))
    if said:
        say(said)
    return 0


def _checked(arguments: argparse.Namespace) -> int:
    policy = read_policy(arguments.policy)
    absent = "" if arguments.policy.exists() else " (not there: the defaults)"
    put_line(f"policy: {arguments.policy}{absent}")
    for line in _in_words(policy):
        put_line(line)
    worst = 0
    for file in arguments.check:
        error = _guarded(policy, partial(_judge_explicit, file, policy))
        put_line(f"{file}: {error or 'explicit, and runnable here'}")
        worst = max(worst, int(bool(error)))
    return worst


def _in_words(policy: Policy) -> list[str]:
    """What the policy means; the name of each setting beside it."""
    left_out = f", but for {', '.join(policy.exclude)}" if policy.exclude else ""
    own = "the domain's own emulator, if that can be trusted"
    recorded = (
        f"the recording of QEMU {policy.recorded}"
        if policy.recorded
        else ("the recording of the machine type's release")
    )
    refused = policy.on_error == "refuse"
    every = policy.domains == ("*",)
    return [
        f"guests looked at: {'every one' if every else ', '.join(policy.domains)}{left_out}"
        " (domains, exclude)",
        f"one whose CPU is not explicit, or cannot be judged, "
        f"{'does not start' if refused else 'starts, and that is said in the log'}"
        f" (on-error: {policy.on_error})",
        f"asked is {own if policy.run_emulator else recorded} (run-emulator, recorded)",
        f"hooks that may write pin the guest's CPU {PINS[policy.pin]} (pin: {policy.pin})",
        "the CPU that a guest has started with is "
        + (f"kept below {policy.state}" if policy.state else "not kept")
        + " (state)",
        f"decisions are {f'written to {policy.log}' if policy.log else 'written nowhere'} (log)",
        f"a judgement may take {policy.time_limit} s (time-limit)",
    ]


def _judge_explicit(file: str, policy: Policy) -> None:
    require_explicit(judge(read_guest(read_input(file)), policy))
