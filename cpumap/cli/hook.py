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

from cpumap.errors import CpumapError, InputError, SourceError
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
from cpumap.system.files import write_atomically
from cpumap.system.xml_document import read_input

REFUSED = {"libvirt": 1, "vdsm": 2, "kubevirt": 1}
"""With 2, vdsm goes on with no other hook."""


VDSM_VARIABLE = "_hook_domxml"
"""The environment variable in which vdsm names the file with the domain's XML."""


def add_hook(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kind", choices=("libvirt", "vdsm", "kubevirt"))
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


def run_hook(arguments: argparse.Namespace) -> int:
    if arguments.install or arguments.uninstall:
        return _installed(arguments)
    if arguments.check is not None:
        return _checked(arguments)
    try:
        policy = read_policy(arguments.policy)
    except CpumapError as err:  # a policy that cannot be read must not keep guests from running
        print(f"cpumap: {err}", file=sys.stderr)
        policy = Policy()
    run: dict[str, Callable[[argparse.Namespace, Policy], int]] = {
        "libvirt": _libvirt,
        "vdsm": _vdsm,
        "kubevirt": _kubevirt,
    }
    return run[arguments.kind](arguments, policy)


def _libvirt(arguments: argparse.Namespace, policy: Policy) -> int:
    name, operation, sub = (*arguments.words, "", "", "")[:3]
    document = sys.stdin.buffer.read()
    error = _guarded(policy, lambda: libvirt_hook(name, operation, sub, document, policy))
    return _decided(arguments.kind, policy, f"{name} {operation} {sub}", error)


def _vdsm(arguments: argparse.Namespace, policy: Policy) -> int:
    path = Path(os.environ.get(VDSM_VARIABLE, ""))

    def work() -> None:
        if not path.is_file():
            raise InputError("_hook_domxml names no file: is this run by vdsm?")
        document = read_guest(path.read_bytes())
        if (
            arguments.event == "before_vm_migrate_destination"
        ):  # the guest runs already: its CPU must stay
            require_explicit(judge(document, policy))
        else:
            write_atomically(path, pinned(document, policy))

    return _decided(arguments.kind, policy, arguments.event, _guarded(policy, work))


def _kubevirt(arguments: argparse.Namespace, policy: Policy) -> int:
    given = (arguments.domain or "").encode()
    made = [given]

    def work() -> None:
        name = json.loads(arguments.vmi or "{}").get("metadata", {}).get("name") or ""
        if not name or policy.covers(name):
            made[0] = pinned(read_guest(given, name), policy)

    code = _decided(arguments.kind, policy, "onDefineDomain", _guarded(policy, work))
    if code == 0:
        sys.stdout.buffer.write(made[0])
    return code


def _guarded(policy: Policy, work: Callable[[], None]) -> str:
    """What went wrong, within the policy's time limit; empty when nothing did."""

    def late(_signal: int, _frame: FrameType | None) -> None:
        raise SourceError(f"not judged within {policy.time_limit} s")

    signal.signal(signal.SIGALRM, late)
    signal.alarm(policy.time_limit)
    try:
        work()
    except CpumapError as err:
        return str(err)
    except Exception as err:  # whatever it is, a mistake of ours must not keep a guest from running unless so wished
        return f"{type(err).__name__}: {err}"
    finally:
        signal.alarm(0)
    return ""


def _decided(kind: str, policy: Policy, what: str, error: str) -> int:
    refuse = bool(error) and policy.on_error == "refuse"
    if error:
        print(f"cpumap: {what}: {'refused' if refuse else 'passed, but'}: {error}", file=sys.stderr)
    if policy.log:
        verdict = "refused" if refuse else "passed"
        try:
            with Path(policy.log).open("a") as log:
                log.write(
                    f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} {kind} {what}: "
                    f"{verdict}{': ' * bool(error)}{error}\n"
                )
        except OSError as err:
            print(f"cpumap: {policy.log}: {err.strerror}", file=sys.stderr)
    return REFUSED[kind] if refuse else 0


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
        print(path)
    if said:
        print(f"cpumap: {said}", file=sys.stderr)
    return 0


def _checked(arguments: argparse.Namespace) -> int:
    policy = read_policy(arguments.policy)
    print(
        f"policy: {arguments.policy}{'' if arguments.policy.exists() else ' (not there: the defaults)'}"
    )
    for name in Policy.__dataclass_fields__:
        print(f"{name.replace('_', '-')}: {getattr(policy, name)}")
    worst = 0
    for file in arguments.check:
        error = _guarded(policy, partial(_judge_explicit, file, policy))
        print(f"{file}: {error or 'explicit, and runnable here'}")
        worst = max(worst, int(bool(error)))
    return worst


def _judge_explicit(file: str, policy: Policy) -> None:
    require_explicit(judge(read_guest(read_input(file)), policy))
