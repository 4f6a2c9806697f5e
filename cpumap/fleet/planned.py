"""A fleet's plan: its documents and locks read, and what becomes of each guest in an upgrade."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from cpumap.cpu.request import CpuRequest
from cpumap.errors import CpumapError, DomainError, InputError, understood
from cpumap.fleet.calls import Paths
from cpumap.fleet.convert import Answers, foreign
from cpumap.fleet.inputs import Input, find_documents, read_whole
from cpumap.fleet.lock import LockedCpu, read_lock
from cpumap.fleet.plan import Fate, Goal, GoalError, Outlook, Planner, unjudged
from cpumap.libvirt.domain import request_of
from cpumap.libvirt.releases import words_of
from cpumap.system.xml_document import Document

OUTLOOKS: tuple[Outlook, ...] = ("does not start", "changes", "not judged", "unchanged")
"""The gravest first."""


@dataclass(frozen=True, slots=True)
class Group:
    """Guests of which the same becomes."""

    guests: tuple[str, ...]
    fate: Fate


@dataclass(frozen=True, slots=True)
class Plan:
    """What becomes of a fleet."""

    groups: tuple[Group, ...]
    """The gravest first."""
    sources: tuple[str, ...] = ()
    """What the answers are from."""

    def count(self, status: Outlook) -> int:
        """How many guests have this status."""
        return sum(len(group.guests) for group in self.groups if group.fate.status == status)

    @property
    def total(self) -> int:
        """How many guests there are."""
        return sum(len(group.guests) for group in self.groups)

    @property
    def host_unknown(self) -> bool:
        """Whether a guest starts only if the host has what its CPU needs, and no host is known."""
        return any(group.fate.on_unknown_host for group in self.groups)

    @property
    def nothing_happens(self) -> bool:
        """Whether there are guests, and each starts and is known to keep its CPU."""
        return 0 < self.total == self.count("unchanged")

    @property
    def summary(self) -> str:
        """One line: `40 guests: 31 unchanged, 5 change, 4 do not start`."""
        unchanged, change = self.count("unchanged"), self.count("changes")
        parts = [f"{unchanged} unchanged", f"{change} change"]
        parts.append(f"{self.count('does not start')} do not start")
        if unjudged := self.count("not judged"):
            parts.append(f"{unjudged} cannot be judged")
        guests = "1 guest" if self.total == 1 else f"{self.total} guests"
        return f"{guests}: {', '.join(parts)}"

    def as_json(self) -> dict[str, Any]:
        """JSON-ready values."""
        counts = {status: self.count(status) for status in OUTLOOKS}
        advice = Counter[str]()
        for group in self.groups:
            advice[group.fate.advice] += len(group.guests)
        return {
            "summary": {"guests": self.total, **counts, "advice": dict(advice)},
            "sources": list(self.sources),
            "host-known": not self.host_unknown,
            "groups": [_group_json(group) for group in self.groups],
        }


def _group_json(group: Group) -> dict[str, Any]:
    fate = group.fate
    return {
        "guests": list(group.guests),
        "status": fate.status,
        "model": fate.model,
        "before": None if fate.before is None else fate.before.as_json(),
        "after": None if fate.after is None else fate.after.as_json(),
        "starts": None if fate.unjudged else not fate.stopped,
        "reason": fate.stopped or fate.unjudged,
        "changes": [asdict(change) for change in fate.changes],
        "unknown": list(fate.unknown),
        "migrates": _way_json(fate, fate.no_way_there),
        "migrates-back": _way_json(fate, fate.no_way_back),
        "advice": fate.advice,
        "how": fate.why,
    }


def _way_json(fate: Fate, reason: str) -> dict[str, Any]:
    """Whether a guest can go live; null where nobody can say."""
    unsaid = bool(fate.unjudged or fate.unknown) and not reason
    return {"possible": None if unsaid else not reason, "reason": reason}


class _Asked(NamedTuple):
    """What a guest is judged by: equal ones have the same fate."""

    request: CpuRequest
    own: bool
    locked: LockedCpu | None


def plan(paths: Paths, answers: Answers, goal: Goal) -> Plan:
    """What becomes of every guest of these documents and locks.

    A document that cannot be read is a guest that cannot be judged. Errors: `InputError` for what
    is no lock, and for a goal that there is not.
    """
    if goal.libvirt:
        words_of(goal.libvirt)  # refuses what is no release
    fates: dict[Any, Fate] = {}
    groups: dict[int, tuple[Fate, list[str]]] = {}
    with closing(Planner(answers, goal)) as planner:
        for guest, asked in _guests(paths):
            fate = asked if isinstance(asked, Fate) else _known(planner, asked, fates)
            groups.setdefault(id(fate), (fate, []))[1].append(guest)
        labels = [*answers.labels, *planner.labels]
    ordered = sorted(groups.values(), key=lambda entry: OUTLOOKS.index(entry[0].status))
    groups_found = tuple(Group(tuple(guests), fate) for fate, guests in ordered)
    return Plan(groups_found, tuple(dict.fromkeys(labels)))


def _known(planner: Planner, asked: _Asked, fates: dict[Any, Fate]) -> Fate:
    key = (asked.request, asked.own, id(asked.locked))
    if key not in fates:
        try:
            fates[key] = planner.fate(asked.request, own=asked.own, locked=asked.locked)
        except GoalError:
            raise
        except Exception as err:  # one guest's failure never is another's
            model = asked.request.model or asked.request.mode or "default"
            fates[key] = unjudged(model, str(understood(err)).removeprefix(": "))
    return fates[key]


def _guests(paths: Paths) -> Iterator[tuple[str, _Asked | Fate]]:
    """Every guest, and what it asks for; or that it cannot be judged, and why."""
    documents: list[str | Input] = []
    for path in paths:
        if isinstance(path, Input) or not _is_lock(os.fspath(path)):
            documents.append(path if isinstance(path, Input) else os.fspath(path))
            continue
        lock = read_lock(Path(path))
        for guest, key in lock.guests.items():
            cpu = lock.cpus[key]
            yield guest, _Asked(cpu.request, False, cpu)
        yield from ((guest, unjudged("", why)) for guest, why in lock.refused.items())
    yield from _stored(find_documents(documents, sys.stdin.buffer))


def _is_lock(path: str) -> bool:
    """Whether the file holds JSON: a domain never begins like that."""
    if not Path(path).is_file():
        return False
    with Path(path).open("rb") as stream:
        return stream.read(64).lstrip().startswith(b"{")


def _stored(inputs: Iterable[Input]) -> Iterator[tuple[str, _Asked | Fate]]:
    for item in inputs:
        if item.skip:
            continue
        try:
            asked = _asked(item)
        except Exception as err:  # as above
            yield item.name, unjudged("", _without_name(understood(err), item.name))
            continue
        if asked is not None:
            yield item.name, asked


def _asked(item: Input) -> _Asked | None:
    """What a document asks for; None where it is none of a guest's."""
    if item.problem:
        raise InputError(item.problem, item.name)
    data = item.data if item.path is None else read_whole(item.path)[0]
    document = Document.parse(data or b"", item.name, DomainError)
    if reason := foreign(document):
        kind = document.root.get("type") if document.root.tag == "domain" else ""
        if kind not in ("kvm", "qemu"):
            return None
        raise InputError(reason, item.name)  # a guest of QEMU's, of an unknown architecture
    request = request_of(document)
    features = tuple(replace(feature, line=0) for feature in request.features)
    return _Asked(replace(request, features=features, where=""), item.path is not None, None)


def _without_name(err: CpumapError, name: str) -> str:
    return str(err).removeprefix(f"{name}: ")


def needing_a_person(groups: Sequence[Group]) -> list[Group]:
    """The groups that somebody must do something about."""
    return [group for group in groups if group.fate.status != "unchanged"]
