"""The command line: which command, its arguments, and what it exits with."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import import_module
from types import FrameType
from typing import Any, NamedTuple

from cpumap import __version__
from cpumap.cli.defaults import default_words
from cpumap.cli.hook_words import cut
from cpumap.cli.parsing import EXIT_CODES, Formatter, Parser
from cpumap.cli.words import did_you_mean, in_order
from cpumap.errors import CpumapError, SourceError, understood
from cpumap.system.say import (
    complain,
    flush,
    forget_stdout,
    prepare_streams,
    put,
    put_line,
    set_loudness,
)


class Subcommand(NamedTuple):
    """A command: the module in cpumap.commands that has its `add_NAME` and `run_NAME`, and what
    it does.
    """

    module: str
    summary: str


COMMANDS = {
    "translate": Subcommand("translate", "one domain XML becomes one explicit CPU"),
    "convert": Subcommand("fleet", "stored configs rewritten, by the thousand"),
    "plan": Subcommand("plan", "what an upgrade of QEMU, libvirt or machine type does to guests"),
    "lock": Subcommand("lock", "writes down the CPU of every guest of a fleet"),
    "audit": Subcommand(
        "lock", "which guests would see another CPU than the one locked, and because of what"
    ),
    "expand": Subcommand("inspect", "what a CPU model is, as QMP's CpuModelExpansionInfo"),
    "dump": Subcommand("inspect", "a -readconfig file that recreates a CPU"),
    "models": Subcommand(
        "inspect", "the CPU models of a QEMU: aliases, deprecated, unusable and why"
    ),
    "machines": Subcommand("inspect", "the machine types of a QEMU"),
    "host": Subcommand("host", "what can be enabled on a host, asked of its QEMU"),
    "check": Subcommand("check", "whether a domain's CPU can be run, and what stands in the way"),
    "compare": Subcommand(
        "comparing", "whether a host can provide a CPU: identical, superset or incompatible"
    ),
    "baseline": Subcommand("comparing", "the CPU that every one of several can provide"),
    "update": Subcommand(
        "comparing", "host-model, match='minimum' and optional features resolved against a host"
    ),
    "decode": Subcommand("comparing", "CPUID data become a <cpu>"),
    "explain": Subcommand(
        "explain", "what a feature is, which models have it since when, what removing it costs"
    ),
    "verify": Subcommand(
        "prove", "whether a guest's CPU stays the same elsewhere, by three judges"
    ),
    "diff": Subcommand(
        "prove", "which properties and bits two CPUs differ in, and because of what"
    ),
    "hook": Subcommand("hook", "the entry point of a hook of libvirt, vdsm or KubeVirt"),
    "measure": Subcommand(
        "record", "what guests read on one QEMU or two, so that moves between them are predicted"
    ),
    "record": Subcommand(
        "record", "writes down one QEMU's models and machine types, to be asked without it"
    ),
}


def parser(only: str | None = None) -> Parser:
    """The argument parser; with `only`, it knows just that command, so that no other is imported
    or described. With an empty `only` it knows their names.
    """
    return parsers(only)[0]


def parsers(only: str | None = None) -> tuple[Parser, dict[str, Parser]]:
    """As `parser`, and the parser of each command that it knows."""
    top = Parser(
        prog="cpumap",
        description="Translates libvirt CPU definitions into explicit QEMU CPUs, and proves that "
        "they hold. `cpumap help COMMAND` says more.",
        epilog=EXIT_CODES,
        formatter_class=Formatter,
    )
    top.add_argument("--version", action=_Version, nargs=0, help="the version of cpumap")
    top.add_argument(
        "--print-completion",
        action=_Completion,
        metavar="SHELL",
        help="completion for bash, zsh, … to be sourced",
    )
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    parsers: dict[str, Parser] = {}
    for name in (only,) if only else COMMANDS:
        summary = COMMANDS[name].summary
        sub = commands.add_parser(
            name,
            help=summary,
            description=summary[0].upper() + summary[1:] + ".",
            epilog=EXIT_CODES,
            formatter_class=Formatter,
        )
        sub.command = name
        if only != "":
            _function(name, "add")(sub)
            _add_loudness(sub)
        parsers[name] = sub
    return top, parsers


def _add_loudness(command: Parser) -> None:
    """-v, -q: of every command but the hook, whose policy says what is told."""
    if command.command == "hook":
        return
    command.add_argument(
        "-v", "--verbose", action="store_true", help="say also what is done, and with what"
    )
    command.add_argument(
        "-q", "--quiet", action="store_true", help="say nothing on stderr but what is wrong"
    )


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        put_line(f"cpumap {__version__}")
        parser.exit()


class _Completion(argparse.Action):
    def __call__(
        self, top: argparse.ArgumentParser, _namespace: object, shell: object, *_: object
    ) -> None:
        shtab = _shtab()
        if shell not in shtab.SUPPORTED_SHELLS:
            top.error(
                f"--print-completion: no completion for {shell!r}, only "
                f"{', '.join(shtab.SUPPORTED_SHELLS)}"
            )
        put(shtab.complete(parser(), str(shell)) + "\n")
        top.exit()


def _shtab() -> Any:
    try:
        return import_module("shtab")
    except ImportError as err:
        raise SourceError(
            "--print-completion needs shtab: pip install 'cpumap[completion]'"
        ) from err


def _function(name: str, verb: str) -> Callable[..., int]:
    module = import_module(f"cpumap.cli.{COMMANDS[name].module}")
    function: Callable[..., int] = getattr(module, f"{verb}_{name}")
    return function


def _terminated(number: int, frame: FrameType | None) -> None:
    sys.exit(
        128 + number
    )  # as an exception, so that every QEMU started is ended and every file left whole


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command line; the exit code, as documented in `--help`."""
    prepare_streams()
    with suppress(ValueError):  # signals are the main thread's
        signal.signal(signal.SIGTERM, _terminated)
    set_loudness()
    words = in_order(sys.argv[1:] if argv is None else argv, COMMANDS)
    code = _ended(lambda: _run(words))
    # What was shown last may find no place: that is an end of its own, unless another came first.
    flushed = _ended(_flushed)
    return code or flushed


def _run(words: Sequence[str]) -> int:
    named = words[0] if words and words[0] in COMMANDS else ""
    words, after = cut(words) if named == "hook" else (words, [])
    commands, known = parsers(named)
    if named:
        _refuse_empty(known[named], words, after)
        known[named].refuse_unknown(words[1:])
    else:
        _refuse_unknown(commands, words)
    arguments = commands.parse_args(_with_defaults(known.get(named), words))
    if after:
        arguments.words = after
    if named != "hook":
        set_loudness(quiet=arguments.quiet, verbose=arguments.verbose)
    return _function(arguments.command, "run")(arguments)


def _refuse_unknown(commands: Parser, words: Sequence[str]) -> None:
    """Ends with an error where the words begin with no command."""
    if words and not words[0].startswith("-"):
        meant = did_you_mean(words[0], COMMANDS)
        commands.error(f"no command {words[0]!r}{meant or ', see `cpumap help`'}")
    commands.refuse_unknown(words)


def _with_defaults(command: Parser | None, words: Sequence[str]) -> Sequence[str]:
    """The words, after what the files of defaults say. A hook is what its policy says."""
    if command is None or command.command == "hook" or "--help" in words or "-h" in words:
        return words
    return [words[0], *default_words(command, words[1:]), *words[1:]]


def _refuse_empty(commands: Parser, words: Sequence[str], hook_words: Sequence[str]) -> None:
    """A script's variable that is not set names nothing: no QEMU, no directory. Of a hook's words
    some may be empty.
    """
    for option, value in zip(words, [*words[1:], None], strict=False):
        if option.startswith("--") and (option.endswith("=") or value == "") and not hook_words:
            commands.error(f"argument {option.rstrip('=')}: is empty")


def _flushed() -> int:
    try:
        flush()
    except CpumapError:
        forget_stdout()
        raise
    return 0


def _ended(work: Callable[[], int]) -> int:
    """The exit code of the work, whatever ends it; what went wrong is said in one line."""
    try:
        return work()
    except CpumapError as err:
        complain(str(err))
        return err.exit_code
    except SystemExit as err:  # argparse has said what is wrong
        return err.code if isinstance(err.code, int) else 2
    except BrokenPipeError:
        forget_stdout()
        return 0
    except KeyboardInterrupt:
        complain("interrupted")
        return 130
    except Exception as err:  # never 1, which is an answer
        if os.environ.get("CPUMAP_TRACEBACK"):
            sys.excepthook(type(err), err, err.__traceback__)
        told = understood(err)
        complain(str(told))
        return told.exit_code
