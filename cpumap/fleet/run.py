"""A fleet converted: documents read in batches, handed to an executor, and their outcomes given
back in order.
"""

from __future__ import annotations

import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib import import_module
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from cpumap.errors import SourceError, understood
from cpumap.fleet.convert import (
    Answer,
    Answers,
    Key,
    Outcome,
    Question,
    Stored,
    convert_batch,
    failure,
)
from cpumap.fleet.inputs import Input, read_whole
from cpumap.system.interrupts import uninterrupted

if TYPE_CHECKING:
    from concurrent.futures import ProcessPoolExecutor

BATCH = 128
"""Documents that go to a worker, and to disk, together."""


FIRST_BATCH = 8
"""What nothing is known of yet is read twice; so the first are few, and then ever twice as many."""


FEW = 64
"""Fewer documents than this are converted before a second process has started."""


BATCH_BYTES = 4 * 1024 * 1024


Results = list[Outcome | Question]


P = ParamSpec("P")


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Converted:
    """One input and what became of it."""

    source: Input
    outcome: Outcome
    old: bytes = b""
    """The content that was read."""
    status: os.stat_result | None = None
    """The file's status when it was read."""
    content: bytes | None = None
    """The new content, where it is another one."""


@dataclass
class _Batch:
    """Inputs on their way: those that are decided already, and those that an executor has."""

    sources: list[Input] = field(default_factory=list)
    decided: dict[int, Outcome] = field(default_factory=dict)
    documents: dict[int, Stored] = field(default_factory=dict)
    statuses: dict[int, os.stat_result] = field(default_factory=dict)
    most: int = 0
    """How many inputs it takes."""
    size: int = 0
    """Of the documents, in bytes."""
    future: Future[Results] | None = None

    @property
    def is_full(self) -> bool:
        return len(self.sources) >= self.most or self.size >= BATCH_BYTES


class Inline(Executor):
    """An executor that does everything at once, in this process."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """The future, done already."""
        future: Future[T] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


def convert_all(
    inputs: Iterable[Input],
    executor: Executor,
    answers: Answers,
    *,
    jobs: int = 1,
    before: Callable[[Input], Outcome | None] = lambda _: None,
) -> Iterator[list[Converted]]:
    """The inputs with their outcomes, in order, in groups; memory holds a few groups, however many
    there are.

    `before` may know an input's outcome without converting it. Errors: `SourceError` when a worker
    process dies.
    """
    run = os.urandom(16).hex()
    # One process gains nothing by reading ahead: what it has not learnt yet would be read again.
    ahead = 2 * jobs if jobs > 1 else 0
    waiting: deque[_Batch] = deque()
    for batch in _batches(inputs, before):
        if batch.documents:
            batch.future = executor.submit(convert_batch, run, list(batch.documents.values()))
        waiting.append(batch)
        if len(waiting) > ahead:
            yield _finished(waiting.popleft(), run, executor, answers)
    while waiting:
        yield _finished(waiting.popleft(), run, executor, answers)


def _batches(
    inputs: Iterable[Input], before: Callable[[Input], Outcome | None]
) -> Iterator[_Batch]:
    batch = _Batch(most=min(FIRST_BATCH, BATCH))
    for number, source in enumerate(inputs):
        batch.sources.append(source)
        _read(number, source, batch, before)
        if batch.is_full:
            yield batch
            batch = _Batch(most=min(2 * batch.most, BATCH))
    if batch.sources:
        yield batch


def _read(
    number: int, source: Input, batch: _Batch, before: Callable[[Input], Outcome | None]
) -> None:
    place = len(batch.sources) - 1
    try:
        if source.problem:
            raise SourceError(f"{source.name}: {source.problem}")
        known = (
            Outcome(number, source.name, "skipped", source.skip) if source.skip else before(source)
        )
        if known is not None:
            batch.decided[place] = replace(known, number=number)
            return
        data = source.data
        if source.path is not None:
            data, batch.statuses[place] = read_whole(source.path)
        is_file = source.path is not None
        batch.documents[place] = Stored(number, source.name, data or b"", is_file)
        batch.size += len(data or b"")
    except Exception as err:  # one document's failure never is another's
        batch.decided[place] = failure(number, source.name, understood(err))


def _finished(batch: _Batch, run: str, executor: Executor, answers: Answers) -> list[Converted]:
    by_number = _outcomes(batch, run, executor, answers)
    found = []
    for place, source in enumerate(batch.sources):
        document = batch.documents.get(place)
        outcome = batch.decided[place] if document is None else by_number[document.number]
        old = document.data if document else b""
        found.append(Converted(source, outcome, old, batch.statuses.get(place), outcome.content))
    return found


def _outcomes(batch: _Batch, run: str, executor: Executor, answers: Answers) -> dict[int, Outcome]:
    results = _result(batch.future) if batch.future else []
    questions = {result.number: result for result in results if isinstance(result, Question)}
    if questions:
        told: dict[Key, Answer] = {
            question.key: answers.answer(question) for question in questions.values()
        }
        again = [document for document in batch.documents.values() if document.number in questions]
        results = [*results, *_result(executor.submit(convert_batch, run, again, told))]
    return {result.number: result for result in results if isinstance(result, Outcome)}


def _result(future: Future[Results]) -> Results:
    try:
        return future.result()
    except BrokenExecutor as err:
        raise SourceError("a worker process died; what was done is done, --resume goes on") from err


@contextmanager
def executor_for(
    inputs: Iterable[Input], jobs: int, scheduler: str | None = None
) -> Iterator[tuple[Executor, Iterable[Input], int]]:
    """An executor that fits, the inputs to give it, and how many jobs it does at a time.

    A Dask cluster where a scheduler's address is given, this process for few documents, else
    processes.
    """
    iterator = iter(inputs)
    first = list(islice(iterator, FEW))
    everything = chain(first, iterator)
    if scheduler is not None:
        with _dask(scheduler) as (executor, workers):
            yield executor, everything, workers
        return
    if jobs == 1 or len(first) < FEW:
        yield Inline(), everything, 1
        return
    pool = _pool(jobs)
    try:
        yield pool, everything, jobs
    finally:
        pool.shutdown(
            cancel_futures=True
        )  # whoever interrupts waits for the batches at work, a fraction of a second


@contextmanager
def _dask(address: str) -> Iterator[tuple[Executor, int]]:
    try:
        distributed: Any = import_module("distributed")
    except ImportError as err:
        raise SourceError("--scheduler needs Dask: pip install 'cpumap[cluster]'") from err
    try:
        client = distributed.Client(address, timeout=10)
    except (OSError, ValueError) as err:
        raise SourceError(f"{address}: no Dask scheduler answers: {err}") from err
    with client:
        yield client.get_executor(pure=False), max(1, sum(client.nthreads().values()))


def _pool(jobs: int) -> ProcessPoolExecutor:
    """Processes that Ctrl-C does not stop: it reaches all of a terminal's, and the one that
    writes answers it.
    """
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import forkserver, get_context, resource_tracker

    with uninterrupted():
        resource_tracker.ensure_running()  # which would unblock the signal
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        forkserver.ensure_running()  # the mask is inherited from here on
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        pool = ProcessPoolExecutor(jobs, get_context("forkserver"))
        for _ in range(jobs):
            pool.submit(
                os.getpid
            )  # each starts a process now, and none is started where Ctrl-C could come between
    return pool


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0))
