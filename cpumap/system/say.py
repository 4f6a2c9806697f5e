"""What is said and shown: text from outside reaches a terminal, a log or a pipe only through here,
without control characters.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import re
import sys
from collections.abc import Iterator
from functools import cache
from typing import TextIO

from cpumap.errors import SourceError

_C0_AND_C1 = r"\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f"
"""But for tab and line end, and carriage return, which is harmless only before a line end."""


_DIRECTIONS = r"\u200e\u200f\u202a-\u202e\u2066-\u2069"
"""They show text in another order than it has (Unicode's bidirectional algorithm, UAX 9)."""


_LINE_ENDS = r"\u2028\u2029"


_BYTES = r"\udc00-\udfff\ud800-\udbff"
"""Surrogates: how Python carries the bytes of a name that is no valid UTF-8."""


_UNFIT = re.compile(rf"[{_C0_AND_C1}{_DIRECTIONS}{_LINE_ENDS}{_BYTES}]|\r(?!\n)")


_FORGED_LINE = re.compile(r"\n(?!  )")
"""A line end that begins no continuation of ours: those are indented."""


_ERRORS = "cpumap.escape"


def plain(text: str) -> str:
    """The text on one line, each control character as `\\uXXXX`: what a log or a name may hold."""
    return plain_lines(text).replace("\r", "\\u000d").replace("\n", "\\u000a")


def plain_lines(text: str) -> str:
    """The text with its line ends and tabs, every other control character as `\\uXXXX`.

    JSON stays JSON: it has such characters in strings only, where this is how it writes them.
    """
    return _UNFIT.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


_told = {"notes": True, "details": False}
"""What is told beside errors: this process's, for as long as one command line runs."""


def set_loudness(*, quiet: bool = False, verbose: bool = False) -> None:
    """What is said from now on: with `quiet` only what is wrong, with `verbose` also what is
    done.
    """
    _told.update(notes=not quiet, details=verbose and not quiet)


def say(message: str) -> None:
    """Tells the user something on stderr: one line, and further ones where they are indented."""
    if _told["notes"]:
        say_line(f"cpumap: {message}")


def detail(message: str) -> None:
    """As `say`, only where the user wants to know what is done."""
    if _told["details"]:
        say_line(f"cpumap: {message}")


def complain(message: str) -> None:
    """As `say`, of what is wrong: it is said however quiet we are to be, and in red."""
    say_line(f"cpumap: {message}", colour="31")


def colours(stream: TextIO) -> bool:
    """Whether this stream shows colours, and the user wants any (no-color.org)."""
    wanted = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return wanted and stream.isatty()


def say_line(line: str, *, colour: str = "") -> None:
    """As `say`, for a line that begins with the name of what it is about; in the colour of this
    number where a terminal shows any.
    """
    text = _FORGED_LINE.sub(r"\\u000a", plain_lines(line))
    with contextlib.suppress(OSError, ValueError):
        if colour and colours(sys.stderr):
            text = f"\033[{colour}m{text}\033[0m"
    with contextlib.suppress(OSError, ValueError):  # nobody is there to be told
        print(text, file=sys.stderr)


@cache
def say_once(message: str) -> None:
    """As `say`, and not again what was said before."""
    say(message)


def put(text: str) -> None:
    """Writes data to stdout, without control characters. Errors: `SourceError`, BrokenPipeError."""
    put_own(plain_lines(text))


def put_line(text: str) -> None:
    """Writes one line of data to stdout, whatever is in it. Errors as `put`."""
    put_own(plain(text) + "\n")


def put_own(text: str) -> None:
    """As `put`, for text in which the control characters are terminal colours of ours."""
    with _complaint():
        sys.stdout.write(text)


def put_bytes(data: bytes) -> None:
    """Writes a document to stdout, byte for byte. Errors as `put`."""
    with _complaint():
        sys.stdout.flush()
        sys.stdout.buffer.write(data)


def flush() -> None:
    """Has on stdout what was written to it. Errors as `put`."""
    with _complaint():
        sys.stdout.flush()


def forget_stdout() -> None:
    """Lets go of what could not be written: Python would try again when it ends, and complain."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextlib.contextmanager
def _complaint() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:  # whoever read our output has enough of it: the command line knows
        raise
    except OSError as err:
        raise SourceError(f"standard output: {err.strerror or err}") from err


def prepare_streams() -> None:
    """Makes the standard streams fit for a command: open, and never at a loss for a character.

    A stream that the caller has closed leaves its number to the next file that is opened, which
    would then be written to. It gets a place that answers as a closed one does.
    """
    for number, flags in ((0, os.O_WRONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        _keep_open(number, flags)
    codecs.register_error(_ERRORS, _escaped)
    sys.stdin = sys.stdin or open(0)  # noqa: SIM115 - as long as the process lives
    sys.stdout = _fit(sys.stdout or open(1, "w"))  # noqa: SIM115
    sys.stderr = _fit(sys.stderr or open(2, "w"))  # noqa: SIM115


def _keep_open(number: int, flags: int) -> None:
    try:
        os.fstat(number)
    except OSError:
        os.open(os.devnull, flags)  # takes the lowest number that is free: this one


def _fit(stream: TextIO) -> TextIO:
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors=_ERRORS)
    return stream


def _escaped(err: UnicodeError) -> tuple[str, int]:
    """What a terminal's encoding lacks, as JSON writes it."""
    if not isinstance(err, UnicodeEncodeError):
        raise err
    units = err.object[err.start : err.end].encode("utf-16-be", "surrogatepass")
    pairs = (units[at : at + 2].hex() for at in range(0, len(units), 2))
    return "".join(f"\\u{pair}" for pair in pairs), err.end
