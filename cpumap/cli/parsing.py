"""The parser of a command's options: its help, with examples, and what it says of a wrong word."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import NoReturn

from cpumap.cli.words import did_you_mean
from cpumap.system.say import complain, plain, put

EXIT_CODES = """\
exit codes:
  0  done, or the answer is yes
  1  the answer is no (incompatible, not runnable, differs, does not hold)
  2  usage, or input that cannot be read
  3  the source failed (QEMU, libvirt, file system), or anything unforeseen
"""


_NO_CHOICE = re.compile(r"argument (?P<what>.+?): invalid choice: '(?P<word>.*)' \(choose from ")
"""What argparse says of a word that is none of those it may be."""


class Formatter(argparse.RawDescriptionHelpFormatter):
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


class Parser(argparse.ArgumentParser):
    """As argparse's, which passes over a help that cannot be written, repeats any word, and takes
    the value of an option that it does not know for a file.
    """

    command = ""

    def format_help(self) -> str:
        """The help; the examples are looked for only now."""
        from cpumap.cli.examples import examples_of

        self.epilog = examples_of(self.command) + EXIT_CODES
        return super().format_help()

    def print_help(self, file: object = None) -> None:
        put(self.format_help())

    def error(self, message: str) -> NoReturn:
        complain(f"{plain(self._said(message))}")
        complain(f"usage: {self.prog} --help says what there is")
        raise SystemExit(2)

    def _said(self, message: str) -> str:
        """The message, with what was probably meant."""
        found = _NO_CHOICE.match(message)
        for action in self._actions:
            names = {*action.option_strings, action.dest}
            if found and action.choices and found["what"].rpartition("/")[2] in names:
                return message + did_you_mean(found["word"], [str(one) for one in action.choices])
        return message

    def options(self) -> dict[str, argparse.Action]:
        """Every option by each of its names."""
        return dict(self._option_string_actions)

    def sections(self) -> Iterator[tuple[str, list[argparse.Action]]]:
        """The options and arguments as help groups them: each group's title, and what is in it."""
        for group in self._action_groups:
            shown = [one for one in group._group_actions if one.help != argparse.SUPPRESS]
            yield str(group.title), [one for one in shown if one.dest != "command"]

    def named(self, words: Sequence[str]) -> Iterator[str]:
        """Each long option among the words by its full name; what is none, as it is."""
        known = self.options()
        for word in words:
            if word == "--":
                return
            if word.startswith("--"):
                yield word if word in known else _completed(word.partition("=")[0], known)

    def rivals(self, option: str) -> set[str]:
        """The names of the options that exclude this one, its own among them."""
        action = self.options()[option]
        found = set(action.option_strings)
        for group in self._mutually_exclusive_groups:
            if action in group._group_actions:
                found.update(*(other.option_strings for other in group._group_actions))
        return found

    def refuse_unknown(self, words: Sequence[str]) -> None:
        """Ends with an error at the first option that there is not."""
        known = self.options()
        for name in self.named(words):
            if name not in known and not any(option.startswith(name) for option in known):
                after = "" if self.command else ": options stand after the command"
                self.error(f"no option {name}{after or did_you_mean(name, known)}")


def _completed(name: str, known: dict[str, argparse.Action]) -> str:
    """The option that this is the beginning of, if it is one."""
    if name in known:
        return name
    beginning = [option for option in known if option.startswith(name)]
    return beginning[0] if len(beginning) == 1 else name
