"""A new document beside the place that it is to take: written, made to last, and put there."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cpumap.errors import SourceError
from cpumap.fleet.convert import Outcome
from cpumap.fleet.inputs import Stamp, stamp_of
from cpumap.fleet.journal import digest
from cpumap.system.files import Folder, take_after


@dataclass(slots=True)
class TargetFile:
    """The file that a new document becomes, and its status now; None: there is no such file."""

    folder: Folder
    name: str
    status: os.stat_result | None

    @property
    def path(self) -> str:
        """Its path."""
        return f"{self.folder.path}/{self.name}"

    @property
    def stamp(self) -> Stamp | None:
        """The stamp it had when it was looked at."""
        return None if self.status is None else stamp_of(self.status)


@dataclass(slots=True)
class Prepared:
    """A new document, complete in a file beside its place, locked and open."""

    outcome: Outcome
    place: TargetFile
    expected: tuple[int, ...] | None
    """The stamp of the file that is to be replaced, or how it begins; None: there is none."""
    handle: int
    is_there: bool = False
    """Whether it has taken its place."""

    @property
    def temporary(self) -> str:
        """The name of the file that it is in."""
        return _temporary(self.place)

    def failure_to_sync(self) -> OSError | None:
        """Why the document cannot be made to last: some file systems find no room for it only
        then.
        """
        try:
            os.fsync(self.handle)
        except OSError as err:
            return err
        return None

    def put(self) -> None:
        """Makes it the file at its place. Errors: `SourceError` when that is another file now,
        `OSError`.
        """
        folder, name = self.place.folder, self.place.name
        status = folder.status(name)
        now: tuple[int, ...] | None = None if status is None else stamp_of(status)
        if self.expected is not None and now is not None:
            now = now[: len(self.expected)]
        if now != self.expected:
            raise SourceError(f"{self.outcome.name}: changed while it was converted, left alone")
        folder.rename(self.temporary, name)
        self.is_there = True

    def close(self) -> None:
        """Lets go of it; it is removed unless it has taken its place."""
        if not self.is_there:
            self.place.folder.remove(self.temporary)
        os.close(self.handle)


Like = tuple[str, os.stat_result]
"""A file after whose mode, owner and attributes another one takes."""


def prepare(
    outcome: Outcome,
    content: bytes,
    place: TargetFile,
    expected: tuple[int, ...] | None,
    like: Like | None = None,
) -> Prepared:
    """The content in a file beside its place: complete, with mode, owner and attributes of the
    file there, or where there is none, of the one `like`; not durable yet. Errors: `SourceError`,
    `OSError`.
    """
    handle = _own_temporary(place)
    ready = Prepared(outcome, place, expected, handle)
    try:
        _write(handle, content)
        if place.status is None and like is not None:
            take_after(*like, handle)
        else:
            take_after(place.path, place.status, handle)
    except BaseException:
        ready.close()
        raise
    return ready


_LONGEST = 255
"""Bytes of a file's name, on the file systems of Linux."""


def _temporary(place: TargetFile) -> str:
    name = f".{place.name}.cpumap"
    if len(os.fsencode(name)) <= _LONGEST:
        return name
    return f".{digest(os.fsencode(place.name))}.cpumap"


def _own_temporary(place: TargetFile) -> int:
    """The file, opened, locked and empty; one that a killed run left is taken over, one in use is
    refused.
    """
    name = _temporary(place)
    while True:
        handle = place.folder.create(name)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as err:
            os.close(handle)
            raise SourceError(
                f"{place.folder.path}/{name}: another conversion is at work on it"
            ) from err
        # Between opening and locking, its run may have given it another name.
        found, own = place.folder.status(name), os.fstat(handle)
        if own.st_nlink > 1:
            # Another file's, waiting under this name: what is written would be written there.
            place.folder.remove(name)
        elif found is not None and found.st_ino == own.st_ino:
            if own.st_size:
                os.ftruncate(handle, 0)
            return handle
        os.close(handle)


def _write(handle: int, content: bytes) -> None:
    written = os.write(handle, content)
    while written < len(content):
        written += os.write(handle, content[written:])


def back_up(backup: Path, target: TargetFile, old: bytes) -> None:
    """Keeps the old document, durably, before anything happens to it; a backup is never
    overwritten.
    """
    if backup.is_symlink():
        raise SourceError(f"{backup}: a link is no backup: choose another --backup-dir")
    if backup.exists():
        if backup.samefile(target.path):
            raise SourceError(f"{backup}: it would be its own backup: choose another --backup-dir")
        if backup.read_bytes() != old:
            raise SourceError(f"{backup}: an older backup is there: choose another --backup-dir")
        return
    backup.parent.mkdir(parents=True, exist_ok=True)
    folder = Folder(str(backup.parent))
    try:
        outcome = Outcome(0, str(backup), "converted")
        like = None if target.status is None else (target.path, target.status)
        ready = prepare(outcome, old, TargetFile(folder, backup.name, None), None, like)
        try:
            os.fsync(ready.handle)
            ready.put()
        finally:
            ready.close()
        folder.sync()
    finally:
        folder.close()


def links(place: TargetFile) -> tuple[str, ...]:
    """What to say where the old document has other names, which lead to it still."""
    count = place.status.st_nlink - 1 if place.status is not None else 0
    if count < 1:
        return ()
    return (f"{count} other hard link{'s' * (count > 1)} to it still lead to the old document",)


def make_last(share: Sequence[Prepared]) -> list[OSError | None]:
    """Makes these last, one after the other; why not, for each that cannot."""
    return [ready.failure_to_sync() for ready in share]
