"""The errors of cpumap: one class per stage, each with the exit code the command line answers
with.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TypeVar


class CpumapError(Exception):
    """Anything cpumap refuses or cannot do; `exit_code` is what the command line exits with."""

    exit_code = 2


class InputError(CpumapError):
    """What was given cannot be read or makes no sense; says `file:line` where there is one."""

    def __init__(self, message: str, where: str = "") -> None:
        super().__init__(f"{where}: {message}" if where else message)
        self.where = where


Choice = TypeVar("Choice", bound=str)


def one_of(value: Choice, choices: Collection[str], what: str) -> Choice:
    """The value, where it is one of these. Errors: `InputError` that names them."""
    if value not in choices:
        raise InputError(f"no {what} {value!r}; there are {', '.join(choices)}")
    return value


class DomainError(InputError):
    """A domain XML, `<cpu>` element or `-cpu` string that cannot be read."""


class CpuMapError(InputError):
    """A CPU map (cpu_map.xml or an index.xml directory) that cannot be read."""


class CpuidError(InputError):
    """CPUID or MSR data that cannot be read."""


class UnknownNameError(InputError):
    """A CPU model, feature, property or machine type that nobody here knows."""


class ArchitectureError(InputError):
    """A CPU of one architecture, and a QEMU or a host of another."""


class ResolveError(CpumapError):
    """A CPU that was asked for but cannot be given: the answer is no."""

    exit_code = 1


class DriftError(CpumapError):
    """An explicit CPU that would not stay the same where it is to run: the answer is no."""

    exit_code = 1


class SourceError(CpumapError):
    """QEMU, libvirt or the file system failed to answer."""

    exit_code = 3


class CannotRealiseError(SourceError):
    """A source that shows a CPU which is there, and cannot make another one."""


class UnforeseenError(SourceError):
    """Something that nobody foresaw: a mistake of cpumap's own."""


LONGEST_ACCOUNT = 300
"""Characters of an unforeseen error: its message may hold a whole document."""


def understood(err: Exception) -> CpumapError:
    """The error as one of ours: what nobody foresaw is told in one line, with its place."""
    if isinstance(err, CpumapError):
        return err
    what = " ".join(f"{type(err).__name__}: {err}".split())[:LONGEST_ACCOUNT]
    return UnforeseenError(f"unforeseen, please report it: {what}{_place(err)}")


def _place(err: Exception) -> str:
    """Where it was raised: ` (resolve.py:120)`."""
    step = err.__traceback__
    while step is not None and step.tb_next is not None:
        step = step.tb_next
    if step is None:
        return ""
    return f" ({step.tb_frame.f_code.co_filename.rpartition('/')[2]}:{step.tb_lineno})"
