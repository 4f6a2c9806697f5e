"""Whether a file is the system's or the caller's own, so that nobody else decides what is in it."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

LINKS_FOLLOWED = 40
"""As many as Linux follows (path_resolution(7))."""


_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
"""An access control list that lets somebody write shows in the group's bits (acl(5))."""


def program(name: str) -> str | None:
    """The program of this name in an absolute directory of PATH; None where there is none."""
    for directory in os.environ.get("PATH", "").split(os.pathsep):
        path = Path(directory, name)
        if path.is_absolute() and path.is_file() and os.access(path, os.X_OK):
            return str(path)
    return None


def reason_not_to_run(path: str) -> str:
    """Why a program must not be run on a document's word; empty when it may be.

    It may from an absolute path of which every directory, link and the file itself belong to root
    or to the caller and can be written by nobody else. Where others may write, even a sticky
    directory is not enough: they could have put the file there first.
    """
    if not Path(path).is_absolute():
        return "its path is not absolute"
    try:
        for place, status in _steps(Path(path)):
            if reason := _of_others(place, status):
                return reason
            last = status
    except (OSError, ValueError) as err:
        return getattr(err, "strerror", None) or str(err)
    if not stat.S_ISREG(last.st_mode) or not os.access(path, os.X_OK):
        return "it is no program"
    return ""


def reason_not_to_obey(path: Path, handle: int) -> str:
    """Why an open file must not be obeyed, by its owner and mode; empty when it may be."""
    return _of_others(path, os.fstat(handle))


def reason_not_to_be_told(path: Path) -> str:
    """Why a file must not say what we do, by its own owner and mode and those of the directories
    on the way; empty when it may. Errors: `OSError`.
    """
    for place, status in _steps(path):
        if reason := _of_others(place, status, sticky=place != path):
            return reason
    return ""


def reason_not_to_keep(directory: Path) -> str:
    """Why nothing may be kept in a directory, which need not be there yet; empty when it may.

    It may where nobody but root and the caller can put another one in its place: a sticky directory
    above it is enough for that, if what is in it is the caller's. It itself is the caller's alone.
    """
    place, status = Path("/"), Path("/").lstat()
    try:
        for place, status in _steps(directory):
            if reason := _of_others(place, status, sticky=place != directory):
                return reason
    except FileNotFoundError:
        return ""
    except OSError as err:
        return err.strerror or str(err)
    if status.st_uid != os.geteuid():
        return f"{place} is not the caller's own"
    return _of_others(place, status)


def _of_others(place: Path, status: os.stat_result, *, sticky: bool = False) -> str:
    if status.st_uid not in (0, os.geteuid()):
        return f"{place} belongs to another user"
    safe = stat.S_ISLNK(status.st_mode) or (sticky and status.st_mode & stat.S_ISVTX)
    if status.st_mode & _OTHERS_WRITE and not safe:
        return f"{place} can be written by others"
    return ""


def _steps(path: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Every directory and link on the way to the file, and the file, each with its own status."""
    reached = Path("/")
    yield reached, reached.lstat()
    parts = list(path.parts[1:])
    links = 0
    while parts:
        part = parts.pop(0)
        if part == "..":
            reached = reached.parent  # nothing behind us is a link any more
            continue
        step = reached / part
        status = step.lstat()
        yield step, status
        if not stat.S_ISLNK(status.st_mode):
            reached = step
            continue
        links += 1
        if links > LINKS_FOLLOWED:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        target = step.readlink()
        if target.is_absolute():
            reached = Path("/")
        parts = [part for part in target.parts if part != "/"] + parts
