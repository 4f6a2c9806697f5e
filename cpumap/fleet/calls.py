"""What is done to a fleet, each in one call: converted, locked, audited. The command line takes
options and shows what comes of it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from cpumap.errors import SourceError
from cpumap.fleet.audit import Audited, audit_case, cases
from cpumap.fleet.convert import Answers
from cpumap.fleet.inputs import Input, find_documents
from cpumap.fleet.journal import JOURNAL, Journal
from cpumap.fleet.lock import Lock, Locking, read_lock
from cpumap.fleet.run import Converted, convert_all, executor_for
from cpumap.fleet.write import Destination, Writer, lock_directories
from cpumap.system.say import say

Paths = Sequence[str | os.PathLike[str] | Input]
"""Files, directories, archives; `-` is standard input; documents read already."""


@dataclass(frozen=True, slots=True)
class Work:
    """Who reads and splices a fleet's documents."""

    jobs: int = 1
    """Processes."""
    scheduler: str | None = None
    """The address of a Dask cluster to do it on."""
    watch: Callable[[Sequence[Converted]], None] = lambda _: None
    """Called with what has become of documents, as it becomes known."""


ALONE = Work()


@dataclass(frozen=True, slots=True)
class Findings:
    """All that an audit says."""

    lock: Lock
    present: Lock | None
    """The fleet as it is now, where its paths were given."""
    audited: list[Audited]
    sources: list[str]
    """What the answers are from."""
    blocked: Mapping[str, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)
    """Host → CPU entry → the features that keep it from running there, of hosts described."""

    @property
    def holds(self) -> bool:
        """Whether every guest is there, no other is, and each will see what it saw."""
        return not (self.gone or self.new) and all(entry.holds for entry in self.audited)

    @property
    def gone(self) -> list[str]:
        """Guests that were locked and are not there."""
        present = self.present
        if present is None:
            return []
        locked = (*self.lock.guests, *self.lock.refused)
        return sorted(guest for guest in locked if self.lock.same_in(present, guest) is None)

    @property
    def new(self) -> list[str]:
        """Guests that are there and were not locked."""
        present = self.present
        if present is None:
            return []
        locked = (*self.lock.guests, *self.lock.refused)
        known = {self.lock.same_in(present, guest) for guest in locked}
        return sorted({*present.guests, *present.refused} - known)

    def guests(self, key: str) -> list[str]:
        """The guests with this CPU entry."""
        return [guest for guest, entry in self.lock.guests.items() if entry == key]


def convert(
    paths: Paths,
    answers: Answers,
    destination: Destination | None = None,
    *,
    work: Work = ALONE,
    resume: bool = False,
) -> Generator[Converted, None, None]:
    """What becomes of every document, in order, each when it is written; without a destination
    nothing is.

    A document that cannot be converted is an outcome like any other. An interrupted run leaves a
    journal, with which a run of the same arguments and `resume` goes on. Errors: `InputError` for
    paths that do not go together or a journal of another run, `SourceError` when it cannot be
    written, or a worker process dies.
    """
    named = [path if isinstance(path, Input) else os.fspath(path) for path in paths]
    names = [path for path in named if isinstance(path, str)]
    inputs = find_documents(named, sys.stdin.buffer)
    with (
        executor_for(inputs, work.jobs, work.scheduler) as (executor, everything, jobs),
        _writer(names, answers, destination, resume=resume) as writer,
    ):
        before = writer.done_before if writer else lambda _: None
        for group in convert_all(everything, executor, answers, jobs=jobs, before=before):
            done = group if writer is None else _written(writer, group)
            work.watch(done)
            yield from done


def lock(paths: Paths, answers: Answers, *, work: Work = ALONE, guests: bool = False) -> Lock:
    """The CPU of every guest, recorded; with `guests` also what a guest reads of it, which takes a
    live QEMU. Errors: as `convert`.
    """
    return read_fleet(paths, answers, work).lock(guests=guests)


def read_fleet(paths: Paths, answers: Answers, work: Work = ALONE) -> Locking:
    """The CPUs of a fleet, and which guest has which, or why it has none."""
    answers.keep = True
    locking = Locking(answers)
    for item in convert(paths, answers, work=work):
        locking.add([item])
    return locking


def audit(
    locked: Lock | os.PathLike[str] | str,
    answers: Answers,
    paths: Paths = (),
    *,
    work: Work = ALONE,
    machine: str | None = None,
    guests: bool = False,
) -> Findings:
    """What the CPUs of a lock, or of the file that holds one, are now; with `paths`, what the
    guests' definitions ask for now as well.

    `machine` is another machine type for all of them. With `guests`, a guest reads each CPU that
    one has read when it was locked. Errors: `InputError` for what is no lock.
    """
    lock = locked if isinstance(locked, Lock) else read_lock(Path(locked))
    fleet = read_fleet(paths, answers, work) if paths else None
    present = None if fleet is None else fleet.lock()
    files = () if fleet is None else fleet.files
    audited = [
        audit_case(case, lock.cpus[case.key], answers, machine=machine, guests=guests)
        for case in cases(lock, present, files)
    ]
    return Findings(lock, present, audited, answers.labels)


def _written(writer: Writer, group: list[Converted]) -> list[Converted]:
    """The group with its new documents on disk, or the reasons why not."""
    return [
        item if outcome is item.outcome else replace(item, outcome=outcome)
        for item, outcome in zip(group, writer.write(group), strict=True)
    ]


@contextmanager
def _writer(
    paths: Sequence[str], answers: Answers, destination: Destination | None, *, resume: bool
) -> Iterator[Writer | None]:
    """What writes new documents, with its directories locked and a journal open; None where
    nothing is written.
    """
    if destination is None:
        yield None
        return
    directories = _directories(paths, destination)
    for directory in filter(None, (destination.output, destination.backup)):
        _make(directory)
    handles = lock_directories(directories)
    journal = None
    try:
        options = _options(paths, answers, destination)
        journal = Journal(directories[0] / JOURNAL, options, resume=resume)
        with closing(Writer(destination, journal)) as writer:
            yield writer
        if writer.complete:
            journal.remove()
        else:
            say("not everything could be written; with room for it, --resume goes on")
    finally:
        if journal is not None:
            journal.close()
        for handle in handles:
            os.close(handle)


def _make(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise SourceError(f"{directory}: {err.strerror}") from err


def _directories(paths: Iterable[str], destination: Destination) -> list[Path]:
    """Directories in which this run works; the first has its journal."""
    if destination.output is not None:
        return [destination.output.resolve()]
    places = [Path.cwd() if path == "-" else Path(path).resolve() for path in paths]
    first = [destination.backup.resolve()] if destination.backup else []
    return [*first, *(path if path.is_dir() else path.parent for path in places)]


def _options(paths: Sequence[str], answers: Answers, destination: Destination) -> dict[str, object]:
    """What a run that resumes must have been given again."""
    target = answers.target
    return {
        "paths": list(paths),
        "output_dir": None if destination.output is None else str(destination.output),
        "backup_dir": None if destination.backup is None else str(destination.backup),
        "pin": answers.choices.pin,
        "unavailable": answers.choices.unavailable,
        "host": answers.host and answers.host.name,
        "target_qemu": target and target.qemu,
        "compact": bool(target and target.compact),
        "allow_drift": bool(target and target.allow_drift),
        "machine": dict(answers.moves),
        "qemu": answers.wanted.qemu,
        "recorded": answers.wanted.recorded,
        "accel": answers.wanted.accel,
    }
