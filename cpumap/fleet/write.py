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
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

from cpumap.errors import InputError, SourceError, understood
from cpumap.fleet.convert import Outcome, failure, source_failure
from cpumap.fleet.inputs import Input, stamp_of
from cpumap.fleet.journal import Journal, digest
from cpumap.fleet.prepared import Prepared, TargetFile, back_up, links, make_last, prepare
from cpumap.fleet.run import Converted
from cpumap.system.files import Folder
from cpumap.system.interrupts import uninterrupted

SYNCED_AT_ONCE = 16
"""File systems make many files last together when many are asked for together."""


@dataclass(frozen=True, slots=True)
class Destination:
    """Where new documents go: over the old ones, behind their links if they are that, or below a
    directory; old ones are kept below `backup`.
    """

    output: Path | None = None
    backup: Path | None = None

    def target(self, source: Input) -> str:
        """The file that a new document becomes, or a link to it."""
        if self.output is not None:
            return f"{self.output}/{source.place}"
        if source.path is None:
            raise InputError(
                "a document in an archive cannot be replaced: --output-dir takes it", source.name
            )
        return source.path


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
        self._threads = ThreadPoolExecutor(SYNCED_AT_ONCE)
        self._taken: dict[int, int] = {}
        """The places that this run has given away, and to which documents; hashes, since there may
        be millions.
        """

    def close(self) -> None:
        """No more is written."""
        self._threads.shutdown()

    def done_before(self, source: Input) -> Outcome | None:
        """What an interrupted run made of this document, if it did and nobody has changed it
        since.
        """
        entry = self.journal.done.get(source.place)
        if entry is None:
            return None
        try:
            content = Path(self.destination.target(source)).read_bytes()
        except OSError:
            return None
        _, expected, status, notes = entry
        return (
            Outcome(0, source.name, status, notes=tuple(notes))
            if digest(content) == expected
            else None
        )

    def write(self, group: Sequence[Converted]) -> list[Outcome]:
        """The outcomes of a group once they are on disk."""
        outcomes = [item.outcome for item in group]
        prepared: dict[int, Prepared] = {}
        with ExitStack() as stack:
            folders = _Folders(stack)
            try:
                with uninterrupted():
                    for number, item in enumerate(group):
                        if self._writes(item.outcome):
                            outcomes[number] = self._try_prepare(number, item, folders, prepared)
                self._on_step("written")
                durable = self._durable(group, prepared, outcomes)
                self._on_step("journaled")
                for number, ready in durable.items():
                    outcomes[number] = self._put(ready)
                    self._on_step("renamed")
                for folder in {ready.place.folder for ready in durable.values()}:
                    _sync(folder)
            finally:
                with uninterrupted():
                    for ready in prepared.values():
                        ready.close()
        return outcomes

    def _writes(self, outcome: Outcome) -> bool:
        """Whether there is anything to write; below another directory, what is explicit already
        as well.
        """
        explicit = outcome.status == "explicit" and self.destination.output is not None
        return explicit or outcome.content is not None

    def _durable(
        self,
        group: Sequence[Converted],
        prepared: Mapping[int, Prepared],
        outcomes: list[Outcome],
    ) -> dict[int, Prepared]:
        """Those of the prepared documents that are on disk, and in the journal; the outcomes of
        others say why not.
        """
        failed = self._synced(prepared)
        self._on_step("durable")
        durable = {number: ready for number, ready in prepared.items() if number not in failed}
        try:
            self.journal.intend(
                [_intent(group[number], ready) for number, ready in durable.items()]
            )
        except OSError as err:
            failed |= dict.fromkeys(durable, err)
            durable = {}
        for number, error in failed.items():
            outcomes[number] = self._unwritten(outcomes[number], error)
        return durable

    def _synced(self, prepared: Mapping[int, Prepared]) -> dict[int, OSError]:
        """Makes the prepared documents last; why not, for each that cannot.

        Each thread has its share, not one document after the other: to hand one over costs more
        than to write it.
        """
        numbers = list(prepared)
        shares = [numbers[first::SYNCED_AT_ONCE] for first in range(SYNCED_AT_ONCE)]
        shares = [share for share in shares if share]
        documents = [[prepared[number] for number in share] for share in shares]
        errors = chain.from_iterable(self._threads.map(make_last, documents))
        asked = zip(chain.from_iterable(shares), errors, strict=True)
        return {number: error for number, error in asked if error is not None}

    def _try_prepare(
        self, number: int, item: Converted, folders: _Folders, prepared: dict[int, Prepared]
    ) -> Outcome:
        """The outcome of the document, which is put among the `prepared` if there is anything to
        do.
        """
        outcome = item.outcome
        try:
            ready = self._prepare(item, folders)
        except OSError as err:
            return self._unwritten(outcome, err)
        except Exception as err:  # one document's failure never is another's
            return failure(outcome.number, outcome.name, understood(err))
        if isinstance(ready, Outcome):
            return ready
        prepared[number] = ready
        return ready.outcome

    def _prepare(self, item: Converted, folders: _Folders) -> Prepared | Outcome:
        """The new document beside its place; the outcome where that has it already. Errors:
        `InputError`, `SourceError`, `OSError`.
        """
        source, outcome = item.source, item.outcome
        content = item.old if outcome.content is None else outcome.content
        if self.destination.output is not None:
            target = self.destination.target(source)
            place = folders.place(target, make_in=self.destination.output)
            if self._is_taken(place, item):
                return _once(outcome)
            if place.status is not None and Path(place.path).read_bytes() == content:
                return outcome
            like = (
                None if item.status is None or source.path is None else (source.path, item.status)
            )
            return prepare(outcome, content, place, place.stamp, like)
        place = folders.behind_link(self.destination.target(source))
        if self._is_taken(place, item):
            return _once(outcome)
        _refuse_read_only(place, outcome)
        if self.destination.backup is not None:
            back_up(self.destination.backup / source.place, place, item.old)
        notes = links(place)
        if notes:
            outcome = replace(outcome, notes=(*outcome.notes, *notes))
        return prepare(outcome, content, place, _expected(item.status))

    def _is_taken(self, place: TargetFile, item: Converted) -> bool:
        """Whether this run has put the same document there: a file named twice, a link to it.

        Errors: `InputError` where it has put another one there.
        """
        document = hash(item.old)
        number = hash(place.path)
        if number not in self._taken:
            self._taken[number] = document
            return False
        if self._taken[number] != document:
            raise InputError(f"another document of this run has its place, {place.path}")
        return True

    def _put(self, ready: Prepared) -> Outcome:
        outcome = ready.outcome
        try:
            ready.put()
        except SourceError as err:
            return failure(outcome.number, outcome.name, err)
        except OSError as err:
            return self._unwritten(outcome, err)
        return outcome

    def _unwritten(self, outcome: Outcome, err: OSError) -> Outcome:
        self.complete = False
        return source_failure(outcome.number, outcome.name, err)


def _expected(status: os.stat_result | None) -> tuple[int, ...] | None:
    """The stamp of a file that was read; of one with several names without its time of change,
    which is another one as soon as one of them is another file's.
    """
    if status is None:
        return None
    return stamp_of(status) if status.st_nlink == 1 else stamp_of(status)[:-1]


def _once(outcome: Outcome) -> Outcome:
    reason = "the same document as another one of this run, in the same place"
    return Outcome(outcome.number, outcome.name, "skipped", reason, guest=outcome.guest)


class _Folders:
    """The directories that a group is put into, each opened once."""

    def __init__(self, stack: ExitStack) -> None:
        """The stack closes them."""
        self._stack = stack
        self._open: dict[str, Folder] = {}

    def place(self, path: str, *, make_in: Path | None = None) -> TargetFile:
        """The place that the path names; its directory is made if it is not there, where one is
        named that it must not lead out of. Errors: `OSError`, `SourceError`.
        """
        directory, name = os.path.split(path)
        folder = self._open.get(directory)
        if folder is None:
            if make_in is not None:
                if not Path(directory).resolve().is_relative_to(make_in.resolve()):
                    raise SourceError(f"{path}: a link leads out of {make_in}")
                Path(directory).mkdir(parents=True, exist_ok=True)
            folder = self._open[directory] = Folder(os.path.realpath(directory))
            self._stack.callback(folder.close)
        return TargetFile(folder, name, folder.status(name))

    def behind_link(self, path: str) -> TargetFile:
        """The place that the path names, or that it links to. Errors: `OSError`."""
        place = self.place(path)
        if place.folder.is_link(place.name):
            return self.place(os.path.realpath(path))
        return place


def _intent(item: Converted, ready: Prepared) -> list[Any]:
    outcome = ready.outcome
    content = item.old if outcome.content is None else outcome.content
    return [item.source.place, digest(content), outcome.status, outcome.notes]


def _refuse_read_only(place: TargetFile, outcome: Outcome) -> None:
    status = place.status
    if status is None or (status.st_mode & 0o222 and os.access(place.path, os.W_OK)):
        return
    raise SourceError(f"{outcome.name}: read-only, left alone")


def _sync(folder: Folder) -> None:
    try:
        folder.sync()
    except OSError as err:
        raise SourceError(f"{folder.path}: {err.strerror}") from err


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
