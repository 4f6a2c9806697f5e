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
from typing import Any, NamedTuple, NoReturn

from cpumap import __version__
from cpumap.cli.hook_words import cut
from cpumap.errors import CpumapError, SourceError, understood
from cpumap.system.say import flush, forget_stdout, plain, prepare_streams, put, put_line, say


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
    "host": Subcommand("check", "what can be enabled on a host, asked of its QEMU"),
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


EXIT_CODES = """\
exit codes:
  0  done, or the answer is yes
  1  the answer is no (incompatible, not runnable, differs, does not hold)
  2  usage, or input that cannot be read
  3  the source failed (QEMU, libvirt, file system), or anything unforeseen
"""


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """argparse's own, which imports four compression libraries to learn a terminal's width, and
    for every argument asks anew.
    """

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=_columns() - 2)


def _columns() -> int:
    """The width of the terminal, as `shutil.get_terminal_size` finds it."""
    told = os.environ.get("COLUMNS", "")
    if told.isdecimal() and int(told):
        return int(told)
    with suppress(ValueError, OSError):
        if sys.__stdout__ is not None:
            return os.get_terminal_size(sys.__stdout__.fileno()).columns or 80
    return 80


def parser(only: str | None = None) -> argparse.ArgumentParser:
    """The argument parser; with `only`, it knows just that command, so that no other is imported
    or described. With an empty `only` it knows their names.
    """
    top = _Parser(
        prog="cpumap",
        description="Translates libvirt CPU definitions into explicit QEMU CPUs, and proves that "
        "they hold.",
        epilog=EXIT_CODES,
        formatter_class=_Formatter,
    )
    top.add_argument("--version", action=_Version, nargs=0, help="the version of cpumap")
    top.add_argument(
        "--print-completion",
        action=_Completion,
        metavar="SHELL",
        help="completion for bash, zsh, … to be sourced",
    )
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name in (only,) if only else COMMANDS:
        summary = COMMANDS[name].summary
        sub = commands.add_parser(
            name,
            help=summary,
            description=summary[0].upper() + summary[1:] + ".",
            epilog=EXIT_CODES,
            formatter_class=_Formatter,
        )
        if only != "":
            _function(name, "add")(sub)
    return top


class _Parser(argparse.ArgumentParser):
    """As argparse's, which passes over a help that cannot be written and repeats any word."""

    def print_help(self, file: object = None) -> None:
        put(self.format_help())

    def error(self, message: str) -> NoReturn:
        super().error(plain(message))


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
    words = list(sys.argv[1:] if argv is None else argv)
    code = _ended(lambda: _run(words))
    # What was shown last may find no place: that is an end of its own, unless another came first.
    flushed = _ended(_flushed)
    return code or flushed


def _run(words: Sequence[str]) -> int:
    named = words[0] if words and words[0] in COMMANDS else ""
    words, after = cut(words) if named == "hook" else (words, [])
    commands = parser(named)
    _refuse_empty(commands, words, after)
    arguments = commands.parse_args(words)
    if after:
        arguments.words = after
    return _function(arguments.command, "run")(arguments)


def _refuse_empty(
    commands: argparse.ArgumentParser, words: Sequence[str], hook_words: Sequence[str]
) -> None:
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
        say(str(err))
        return err.exit_code
    except SystemExit as err:  # argparse has said what is wrong
        return err.code if isinstance(err.code, int) else 2
    except BrokenPipeError:
        forget_stdout()
        return 0
    except KeyboardInterrupt:
        say("interrupted")
        return 130
    except Exception as err:  # never 1, which is an answer
        if os.environ.get("CPUMAP_TRACEBACK"):
            sys.excepthook(type(err), err, err.__traceback__)
        told = understood(err)
        say(str(told))
        return told.exit_code
