"""New documents put in their places, a group at a time: durable first, written down in the journal,
then renamed.

A crash leaves each file as it was or as it is to be, never in between; the journal says what is
left to do.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cpumap.errors import InputError, SourceError
from cpumap.fleet.convert import Outcome, failure, source_failure
from cpumap.fleet.inputs import Input, Stamp, stamp_of
from cpumap.fleet.journal import Journal, digest
from cpumap.system.files import sync_directory, take_after
from cpumap.system.interrupts import uninterrupted

SYNCED_AT_ONCE = 16
"""File systems make many files last together when many are asked for together."""


@dataclass(frozen=True, slots=True)
class Destination:
    """Where new documents go: over the old ones, or below a directory; old ones are kept below
    `backup`.
    """

    output: Path | None = None
    backup: Path | None = None

    def target(self, source: Input) -> Path:
        """The file that a new document becomes; behind a link, if it is one."""
        if self.output is not None:
            return self.output / source.place
        if source.path is None:
            raise InputError(
                "a document in an archive cannot be replaced: --output-dir takes it", source.name
            )
        return Path(os.path.realpath(source.path))


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A new document, durable beside the place that it is to take."""

    outcome: Outcome
    temporary: Path
    target: Path
    stamp: Stamp | None
    """Of the file that is to be replaced; None: there is none."""
    handle: int


class Writer:
    """Puts new documents into their places, group by group."""

    def __init__(
        self,
        destination: Destination,
        journal: Journal,
        on_step: Callable[[str], None] = lambda _: None,
    ):
        """`on_step` is told before each step that a crash could come between."""
        self.destination = destination
        self.journal = journal
        self.complete = True
        """Whether the file system took everything that there was to write."""
        self._on_step = on_step

    def done_before(self, source: Input) -> Outcome | None:
        """What an interrupted run made of this document, if it did and nobody has changed it
        since.
        """
        entry = self.journal.done.get(source.place)
        if entry is None:
            return None
        try:
            content = self.destination.target(source).read_bytes()
        except OSError:
            return None
        _, expected, status, notes = entry
        return (
            Outcome(0, source.name, status, notes=tuple(notes))
            if digest(content) == expected
            else None
        )

    def write(self, group: Sequence[tuple[Input, Outcome, Stamp | None, bytes]]) -> list[Outcome]:
        """The outcomes of a group (input, outcome, the input's stamp, its old content) once they
        are on disk.
        """
        outcomes: list[Outcome] = []
        prepared: dict[int, _Prepared] = {}
        try:
            for place, (source, outcome, stamp, old) in enumerate(group):
                outcomes.append(outcome)
                if outcome.content is not None or (
                    self.destination.output and outcome.status == "explicit"
                ):
                    with uninterrupted():
                        outcomes[place] = self._try_prepare(
                            source, outcome, stamp, old, prepared, place
                        )
            self._on_step("written")
            durable = self._durable(group, prepared, outcomes)
            self._on_step("journaled")
            for place, ready in durable.items():
                outcomes[place] = self._commit(group[place][0], ready)
                self._on_step("renamed")
            for directory in {ready.target.parent for ready in durable.values()}:
                _sync(directory)
        finally:
            with uninterrupted():
                for ready in prepared.values():
                    ready.temporary.unlink(missing_ok=True)
                    os.close(ready.handle)
        return [replace(outcome, content=None) for outcome in outcomes]

    def _durable(
        self,
        group: Sequence[tuple[Input, Outcome, Stamp | None, bytes]],
        prepared: Mapping[int, _Prepared],
        outcomes: list[Outcome],
    ) -> dict[int, _Prepared]:
        """Those of the prepared documents that are on disk, and in the journal; the outcomes of
        others say why not.
        """
        with ThreadPoolExecutor(SYNCED_AT_ONCE) as threads:
            failed = dict(
                zip(prepared, threads.map(_failure_to_sync, prepared.values()), strict=True)
            )
        self._on_step("durable")
        durable = {place: ready for place, ready in prepared.items() if failed[place] is None}
        try:
            self.journal.intend(
                [self._intent(group[place][0], ready) for place, ready in durable.items()]
            )
        except OSError as err:
            failed |= dict.fromkeys(durable, err)
            durable = {}
        for place, error in failed.items():
            if error is not None:
                outcomes[place] = self._unwritten(outcomes[place], error)
        return durable

    @staticmethod
    def _intent(source: Input, ready: _Prepared) -> list[Any]:
        outcome = ready.outcome
        return [source.place, digest(outcome.content or b""), outcome.status, outcome.notes]

    def _try_prepare(
        self,
        source: Input,
        outcome: Outcome,
        stamp: Stamp | None,
        old: bytes,
        prepared: dict[int, _Prepared],
        place: int,
    ) -> Outcome:
        content = outcome.content if outcome.content is not None else old
        try:
            target = self.destination.target(source)
            if self.destination.output is not None:
                target.parent.mkdir(parents=True, exist_ok=True)
                stamp = stamp_of(target.stat()) if target.exists() else None
                if stamp is not None and target.read_bytes() == content:
                    return outcome
            elif not target.stat().st_mode & 0o222 or not os.access(target, os.W_OK):
                return failure(
                    outcome.number,
                    outcome.name,
                    SourceError(f"{outcome.name}: read-only, left alone"),
                )
            if self.destination.backup is not None and self.destination.output is None:
                _back_up(self.destination.backup / source.place, target, old)
            links = _links(target) if self.destination.output is None else ()
            noted = replace(outcome, content=content, notes=(*outcome.notes, *links))
            like = target if target.exists() else source.path
            prepared[place] = _prepare(noted, target, stamp, like)
            return noted
        except (SourceError, InputError) as err:
            return failure(outcome.number, outcome.name, err)
        except OSError as err:
            return self._unwritten(outcome, err)

    def _unwritten(self, outcome: Outcome, err: OSError) -> Outcome:
        self.complete = False
        return source_failure(outcome.number, outcome.name, err)

    def _commit(self, source: Input, ready: _Prepared) -> Outcome:
        number, name = ready.outcome.number, ready.outcome.name
        try:
            now = stamp_of(ready.target.stat()) if ready.target.exists() else None
            if now != ready.stamp:
                return failure(
                    number, name, SourceError(f"{name}: changed while it was converted, left alone")
                )
            ready.temporary.replace(ready.target)
        except OSError as err:
            return self._unwritten(ready.outcome, err)
        return ready.outcome


def _failure_to_sync(ready: _Prepared) -> OSError | None:
    """Why the document cannot be made to last: some file systems find no room for it only then."""
    try:
        os.fsync(ready.handle)
    except OSError as err:
        return err
    return None


def _sync(directory: Path) -> None:
    try:
        sync_directory(directory)
    except OSError as err:
        raise SourceError(f"{directory}: {err.strerror}") from err


def _prepare(outcome: Outcome, target: Path, stamp: Stamp | None, like: Path | None) -> _Prepared:
    """The new content in a file beside the target: complete, with mode, owner and attributes,
    not durable yet.
    """
    temporary = target.parent / f".{target.name}.cpumap"
    handle = _own_temporary(temporary)
    try:
        os.ftruncate(handle, 0)
        with os.fdopen(handle, "wb", closefd=False) as stream:
            stream.write(outcome.content or b"")
        take_after(like or target, handle)
    except BaseException:
        temporary.unlink(missing_ok=True)
        os.close(handle)
        raise
    return _Prepared(outcome, temporary, target, stamp, handle)


def _own_temporary(path: Path) -> int:
    """The file, opened and locked; one that a killed run left is taken over, one in use is
    refused.
    """
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as err:
            os.close(handle)
            raise SourceError(f"{path}: another conversion is at work on it") from err
        if path.exists() and path.stat().st_ino == os.fstat(handle).st_ino:
            return handle
        os.close(handle)


def _back_up(backup: Path, target: Path, old: bytes) -> None:
    """Keeps the old document, durably, before anything happens to it; a backup is never
    overwritten.
    """
    if backup.exists():
        if backup.read_bytes() != old:
            raise SourceError(f"{backup}: an older backup is there: choose another --backup-dir")
        return
    backup.parent.mkdir(parents=True, exist_ok=True)
    outcome = Outcome(0, str(backup), "converted", content=old)
    ready = _prepare(outcome, backup, None, target)
    try:
        os.fsync(ready.handle)
        ready.temporary.replace(backup)
    finally:
        ready.temporary.unlink(missing_ok=True)
        os.close(ready.handle)
    sync_directory(backup.parent)


def _links(target: Path) -> tuple[str, ...]:
    count = target.stat().st_nlink - 1
    return (
        (f"{count} other hard link{'s' * (count > 1)} to it still lead to the old document",)
        if count
        else ()
    )


def lock_directories(directories: Iterable[Path]) -> list[int]:
    """Open handles that keep other conversions out of these directories until they are closed.

    Errors: `SourceError` when one is at work there.
    """
    handles: list[int] = []
    for directory in sorted(set(directories)):
        try:
            handles.append(os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
            fcntl.flock(handles[-1], fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as err:
            for handle in handles:
                os.close(handle)
            busy = isinstance(err, BlockingIOError)
            reason = "another conversion is at work in it" if busy else err.strerror or str(err)
            raise SourceError(f"{directory}: {reason}") from err
    return handles
