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
from typing import NamedTuple

from cpumap import __version__
from cpumap.errors import CpumapError


class Command(NamedTuple):
    """A command: the module in cpumap.commands that has its `add_NAME` and `run_NAME`, and what
    it does.
    """

    module: str
    summary: str


COMMANDS = {
    "translate": Command("translate", "one domain XML becomes one explicit CPU"),
    "convert": Command("fleet", "stored configs rewritten, by the thousand"),
    "lock": Command("lock", "writes down the CPU of every guest of a fleet"),
    "audit": Command(
        "lock", "which guests would see another CPU than the one locked, and because of what"
    ),
    "expand": Command("inspect", "what a CPU model is, as QMP's CpuModelExpansionInfo"),
    "dump": Command("inspect", "a -readconfig file that recreates a CPU"),
    "models": Command("inspect", "the CPU models of a QEMU: aliases, deprecated, unusable and why"),
    "machines": Command("inspect", "the machine types of a QEMU"),
    "host": Command("check", "what can be enabled on a host, asked of its QEMU"),
    "check": Command("check", "whether a domain's CPU can be run, and what stands in the way"),
    "compare": Command(
        "comparing", "whether a host can provide a CPU: identical, superset or incompatible"
    ),
    "baseline": Command("comparing", "the CPU that every one of several can provide"),
    "update": Command(
        "comparing", "host-model, match='minimum' and optional features resolved against a host"
    ),
    "decode": Command("comparing", "CPUID data become a <cpu>"),
    "explain": Command(
        "explain", "what a feature is, which models have it since when, what removing it costs"
    ),
    "verify": Command("prove", "whether a guest's CPU stays the same elsewhere, by three judges"),
    "diff": Command("prove", "which properties and bits two CPUs differ in, and because of what"),
    "hook": Command("hook", "the entry point of a hook of libvirt, vdsm or KubeVirt"),
    "record": Command(
        "record", "writes down one QEMU's models and machine types, to be asked without it"
    ),
}


EXIT_CODES = """\
exit codes:
  0  done, or the answer is yes
  1  the answer is no (incompatible, not runnable, differs, does not hold)
  2  usage, or input that cannot be read
  3  the source failed (QEMU, libvirt, file system)
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
    top = argparse.ArgumentParser(
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


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        print(f"cpumap {__version__}")
        parser.exit()


class _Completion(argparse.Action):
    def __call__(
        self, top: argparse.ArgumentParser, _namespace: object, shell: object, *_: object
    ) -> None:
        import shtab

        if shell not in shtab.SUPPORTED_SHELLS:
            top.error(
                f"--print-completion: no completion for {shell!r}, only "
                f"{', '.join(shtab.SUPPORTED_SHELLS)}"
            )
        print(shtab.complete(parser(), str(shell)))
        top.exit()


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
    with suppress(ValueError):  # signals are the main thread's
        signal.signal(signal.SIGTERM, _terminated)
    words = list(sys.argv[1:] if argv is None else argv)
    named = words[0] if words and words[0] in COMMANDS else ""
    try:
        arguments = parser(named).parse_args(words)
        code = _function(arguments.command, "run")(arguments)
        sys.stdout.flush()
        return code
    except CpumapError as err:
        print(f"cpumap: {err}", file=sys.stderr)
        return err.exit_code
    except SystemExit as err:  # argparse has said what is wrong
        return err.code if isinstance(err.code, int) else 2
    except BrokenPipeError:
        os.dup2(
            os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno()
        )  # whoever read our output has enough of it
        return 0
    except KeyboardInterrupt:
        print("cpumap: interrupted", file=sys.stderr)
        return 130
