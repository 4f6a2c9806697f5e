#!/usr/bin/env python3
"""Writes the manual pages and the shells' completion from the command line's own parser.

    tools/manual.py DIRECTORY      as below /usr/share: man/man1, bash-completion, zsh, fish

Wants lxml and shtab. The build of the package runs it (setup.py); nothing of it is needed later.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import shtab

from cpumap import __version__
from cpumap.cli.examples import EXAMPLES
from cpumap.cli.main import COMMANDS, parsers
from cpumap.cli.parsing import EXIT_CODES, Parser

FILES = (
    ("~/.config/cpumap/config.toml, /etc/cpumap/config.toml", "What an option is by default."),
    ("/etc/cpumap/hook.toml", "What hooks do with a guest that is about to start."),
    ("~/.cache/cpumap", "Answers of QEMUs, until the binary changes."),
    ("~/.local/share/cpumap", "Recordings of one's own."),
)


VARIABLES = (
    ("CPUMAP_CONFIG", "The one file of defaults to read; empty: none."),
    ("CPUMAP_LIBVIRT", "The libvirt that is meant, as --libvirt."),
    ("CPUMAP_CACHE", "Where answers are kept."),
    ("NO_COLOR", "If set, no colours."),
)


def write_manual(directory: Path) -> list[Path]:
    """The files written, as they go below /usr/share."""
    top, commands = parsers()
    pages = {"cpumap.1": top_page(top)}
    pages |= {f"cpumap-{name}.1": command_page(name, one) for name, one in commands.items()}
    texts = {f"man/man1/{name}": text for name, text in pages.items()}
    texts["bash-completion/completions/cpumap"] = shtab.complete(top, "bash")
    texts["zsh/site-functions/_cpumap"] = shtab.complete(top, "zsh")
    texts["fish/vendor_completions.d/cpumap.fish"] = "".join(fish_lines(top, commands))
    for name, text in texts.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(text if text.endswith("\n") else text + "\n")
    return [directory / name for name in texts]


def top_page(top: Parser) -> str:
    """cpumap(1), in man(7)'s macros."""
    lines = [
        *_heading("cpumap", "explicit, verified CPUs for libvirt guests"),
        ".SH SYNOPSIS",
        ".B cpumap",
        r"\fICOMMAND\fR [\fIOPTION\fR]... [\fIARGUMENT\fR]...",
        ".SH DESCRIPTION",
        _roff(top.description or ""),
        ".SH COMMANDS",
    ]
    for name, command in COMMANDS.items():
        lines += [".TP", rf"\fBcpumap\-{_roff(name)}\fR(1)", _roff(f"{command.summary}.")]
    lines += [".SH OPTIONS", *_options(top), *_exit_codes()]
    for title, entries in (("FILES", FILES), ("ENVIRONMENT", VARIABLES)):
        lines.append(f".SH {title}")
        for name, about in entries:
            lines += [".TP", rf"\fB{_roff(name)}\fR", _roff(about)]
    return "\n".join([*lines, *_see_also(["virsh", "qemu"])]) + "\n"


def command_page(name: str, command: Parser) -> str:
    """The page of one command."""
    usage = " ".join(command.format_usage().removeprefix("usage: cpumap").split())
    lines = [
        *_heading(f"cpumap-{name}", COMMANDS[name].summary),
        ".SH SYNOPSIS",
        ".B cpumap",
        _roff(usage.replace(" [-h]", "")),
        ".SH DESCRIPTION",
        _roff(command.description or ""),
        ".SH OPTIONS",
        *_options(command),
        ".SH EXAMPLES",
    ]
    for example in EXAMPLES[name]:
        lines += [".PP", _roff(f"{example.about[0].upper()}{example.about[1:]}:"), ".PP", ".nf"]
        lines += [".RS 4", *map(_roff, example.line.splitlines()), ".RE", ".fi"]
    lines += _exit_codes()
    return "\n".join([*lines, *_see_also(["cpumap"])]) + "\n"


def _heading(name: str, about: str) -> Iterator[str]:
    yield rf'.TH "{_roff(name).upper()}" 1 "" "cpumap {__version__}" "User Commands"'
    yield ".SH NAME"
    yield rf"{_roff(name)} \- {_roff(about)}"


def _options(command: Parser) -> Iterator[str]:
    for title, shown in command.sections():
        if shown and title not in ("options", "positional arguments"):
            yield f".SS {_roff(title)}"
        for action in shown:
            yield ".TP"
            yield _names(command, action)
            yield _roff((action.help or "") % _values(action)) or r"\&"


def _names(command: Parser, action: argparse.Action) -> str:
    word = _word(action)
    if not action.option_strings:
        return rf"\fI{_roff(word)}\fR"
    value = "" if action.nargs == 0 else rf" \fI{_roff(word)}\fR"
    return ", ".join(rf"\fB{_roff(name)}\fR" for name in action.option_strings) + value


def _word(action: argparse.Action) -> str:
    if action.choices and action.metavar is None:
        return "|".join(map(str, action.choices))
    return str(action.metavar or action.dest.upper())


def _values(action: argparse.Action) -> dict[str, object]:
    return {"default": action.default, "prog": "cpumap", "choices": action.choices}


def _exit_codes() -> Iterator[str]:
    yield ".SH EXIT STATUS"
    for line in EXIT_CODES.splitlines()[1:]:
        number, about = line.split(maxsplit=1)
        yield from (".TP", rf"\fB{number}\fR", _roff(about))


def _see_also(names: list[str]) -> Iterator[str]:
    yield ".SH SEE ALSO"
    yield ", ".join(rf"\fB{name}\fR(1)" for name in names)


def _roff(text: str) -> str:
    """The text as roff takes it: on one line, no control line, hyphens that can be copied."""
    line = " ".join(text.split()).replace("\\", r"\e").replace("-", r"\-").replace("'", r"\(aq")
    return rf"\&{line}" if line.startswith(".") else line


def fish_lines(top: Parser, commands: dict[str, Parser]) -> Iterator[str]:
    """Completion for fish: a line for each command, and for each of its options."""
    first = "__fish_use_subcommand"
    for name in commands:
        about = _quoted(COMMANDS[name].summary)
        yield f"complete -c cpumap -f -n {first} -a {name} -d {about}\n"
    yield from _fish_options(top, first)
    for name, command in commands.items():
        yield from _fish_options(command, _quoted(f"__fish_seen_subcommand_from {name}"))


def _fish_options(command: Parser, when: str) -> Iterator[str]:
    for action in {id(one): one for one in command.options().values()}.values():
        long = [name[2:] for name in action.option_strings if name.startswith("--")]
        short = [name[1:] for name in action.option_strings if not name.startswith("--")]
        names = " ".join([*(f"-s {one}" for one in short), *(f"-l {_quoted(one)}" for one in long)])
        choices = " ".join(map(str, action.choices or ()))
        value = "" if action.nargs == 0 else f" -x -a {_quoted(choices)}" if choices else " -r"
        about = _quoted((action.help or "") % _values(action))
        yield f"complete -c cpumap -n {when} {names}{value} -d {about}\n"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


if __name__ == "__main__":
    for written in write_manual(Path(sys.argv[1])):
        print(written)
