"""What has drifted since a fleet was locked: which guest would see which bit change, because of
what.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from cpumap.arch.known import arch_of, target_of
from cpumap.cpu.build import Build
from cpumap.cpu.expansion import Context, CpuModel
from cpumap.cpu.explicit import ExplicitCpu
from cpumap.cpu.names import PropertyName, Value
from cpumap.cpu.origin import Origin
from cpumap.cpu.request import CpuRequest, machine_topology
from cpumap.errors import CpumapError
from cpumap.fleet.convert import Answers, question_key
from cpumap.fleet.gravity import Gravity, gravity
from cpumap.fleet.lock import Lock, LockedCpu, guest_of
from cpumap.libvirt.cpu_map.places import feature_place
from cpumap.move.adapt import Adapted, Unnamed, era_of
from cpumap.move.hold import foreseen
from cpumap.move.predict import NOTHING, Prediction
from cpumap.pin.expand import expand, shown
from cpumap.pin.resolve import resolve
from cpumap.pin.write import lasting
from cpumap.proof.difference import GuestDifference, caused_differences
from cpumap.runnable.check import at_start, unavailable_in
from cpumap.sources.open_recording import open_recording
from cpumap.sources.platform import Platform
from cpumap.sources.recordings import recording_of
from cpumap.sources.source import Source

_MODEL = PropertyName("model")
"""Stands for the base model, where an explicit CPU is that and features."""


EDITED = "definition: edited since it was locked"


State = Literal["holds", "drifts", "unknown", "refused"]


@dataclass(frozen=True, slots=True)
class Drift:
    """A property that is another one now (None: it is not there)."""

    name: PropertyName
    locked: Value | None
    now: Value | None
    cause: str
    place: str
    """The CPUID bits that it is, in QEMU's words; empty where it is none."""
    gravity: Gravity = "guest"

    @property
    def matters(self) -> bool:
        """Whether it is another CPU to a guest."""
        return self.gravity != "property"


@dataclass(frozen=True, slots=True)
class Case:
    """Guests with one locked CPU, and what they ask for now where that is something else."""

    key: str
    """The CPU's entry in the lock."""
    guests: tuple[str, ...]
    edited: CpuRequest | None = None
    refused: str = ""
    """Why their definitions ask for no CPU any more."""
    own: bool = False
    """Whether their definitions, read again, name the emulator. A lock alone has nothing run."""


@dataclass(frozen=True, slots=True)
class Audited:
    """What became of the CPU of some guests."""

    case: Case
    context: Context | None
    drifts: tuple[Drift, ...] = ()
    refused: str = ""
    """Why there is no such CPU any more."""
    prediction: Prediction = NOTHING
    """What another QEMU's code does otherwise, whatever the properties."""
    seen: tuple[GuestDifference, ...] | None = None
    """What a guest reads differently; None where none was asked, then or now."""

    @property
    def state(self) -> State:
        """`unknown` where nothing is known to differ, and not all is known."""
        if self.refused or self.holds:
            return "refused" if self.refused else "holds"
        differs = self.seen or any(drift.matters for drift in self.drifts)
        return "drifts" if differs or self.prediction.differences else "unknown"

    @property
    def holds(self) -> bool:
        """Whether its guests will see what they saw: what a guest has read counts, else what is
        known beforehand.
        """
        if self.refused:
            return False
        if self.seen is not None:
            return not self.seen
        return self.prediction.holds and not any(drift.matters for drift in self.drifts)


def cases(lock: Lock, present: Lock | None = None, files: Collection[str] = ()) -> list[Case]:
    """The lock's guests by CPU; where their definitions were read again, by what they ask for now
    as well.

    `files` are those present whose definitions are files of their own.
    """
    found: dict[object, Case] = {}
    for guest, key in lock.guests.items():
        there = lock.same_in(present, guest) if present else None
        edited = _edited(lock.cpus[key], present, there) if present else None
        reason = present.refused.get(there or "", "") if present else ""
        own = there in files
        of = key, edited and question_key(edited), reason, own
        case = found.get(of, Case(key, (), edited, reason, own))
        found[of] = replace(case, guests=(*case.guests, guest))
    return list(found.values())


def _edited(locked: LockedCpu, present: Lock, guest: str | None) -> CpuRequest | None:
    """What the guest asks for now, where it is not what it asked for."""
    if guest is None or guest not in present.guests:
        return None
    now = present.cpus[present.guests[guest]].request
    return now if question_key(now) != question_key(locked.request) else None


def audit_case(
    case: Case,
    locked: LockedCpu,
    answers: Answers,
    *,
    machine: str | None = None,
    guests: bool = False,
) -> Audited:
    """What a locked CPU is now, on the source that the answers choose, under its machine type or
    another.

    With `guests`, a guest reads it where one has at the time of locking; that takes a live QEMU.
    """
    request = case.edited or locked.request
    try:
        if case.refused:
            return Audited(case, None, refused=case.refused)
        source = answers.source(request, own=case.own)
        expansion = expand(request, Platform(source, answers.cpu_map, machine))
        start = at_start(request, expansion, answers.cpu_map, unavailable_in(expansion))
        if not start.passes:
            return Audited(case, expansion.context, refused=f"libvirt does not start it: {start}")
        cpu = resolve(request, expansion, answers.choices)
        drifts = tuple(drifts_of(case, locked, lasting(cpu), source, answers, machine))
        prediction = prediction_of(locked, cpu, source, answers)
        seen = _seen(locked, cpu, source, answers, prediction, drifts) if guests else None
    except CpumapError as err:
        return Audited(case, None, refused=str(err).removeprefix(": "))
    return Audited(case, cpu.context, drifts, "", prediction, seen)


def drifts_of(
    case: Case,
    locked: LockedCpu,
    now: ExplicitCpu,
    source: Source,
    answers: Answers,
    machine: str | None,
) -> Iterator[Drift]:
    """The properties of a locked CPU that are others now, on this source.

    Where the CPU was locked on a host and no host is known now, the same host is meant.
    """
    causes = _Causes(case, locked, now, source, answers, asked=machine)
    before, after = (_telling(values) for values in _as_if(locked, now, source))
    here = {prop.name: prop.origin for prop in now.properties}
    there = {prop.name: prop.origin for prop in locked.properties}
    topology = machine_topology(now.request)
    if arch_of(now.context.arch).explicit == "static" and locked.model != now.model:
        yield Drift(_MODEL, locked.model, now.model, causes.of(_MODEL), "")
    for name in sorted(before.keys() | after.keys()):
        old, new = before.get(name), after.get(name)
        origins = [found[name] for found in (here, there) if name in found]
        if old == new or (not source.own_host and _of_same_host(there.get(name), here.get(name))):
            continue
        grave = gravity(name, (before, after), now.context.arch, topology, origins)
        place = feature_place(name, answers.cpu_map)
        yield Drift(name, old, new, causes.of(name), place, grave)


def _of_same_host(then: Origin | None, now: Origin | None) -> bool:
    """Whether it was off for want of a host's feature, and nobody says what the host has now."""
    return bool(then and then.unavailable and not (now and now.unavailable))


def _telling(values: Mapping[PropertyName, Value]) -> dict[PropertyName, Value]:
    """The values without the version that Hyper-V would have, where a guest is not shown
    Hyper-V.
    """
    shown = any(name.startswith("hv-") and value is True for name, value in values.items())
    return {n: v for n, v in values.items() if shown or not n.startswith("hv-version-id-")}


def prediction_of(
    locked: LockedCpu, now: ExplicitCpu, source: Source, answers: Answers
) -> Prediction:
    """What another QEMU's code makes of the same properties."""
    gone = locked.values.keys() - now.values.keys()
    unnamed = tuple(Unnamed(name, locked.values[name], None) for name in sorted(gone))
    before = ExplicitCpu(locked.context, locked.request, locked.model, "", locked.properties)
    return foreseen(before, locked.values, Adapted(now, unnamed), Platform(source, answers.cpu_map))


def _seen(
    locked: LockedCpu,
    now: ExplicitCpu,
    source: Source,
    answers: Answers,
    prediction: Prediction,
    drifts: Sequence[Drift],
) -> tuple[GuestDifference, ...] | None:
    if locked.guest is None:
        return None
    causes = {drift.name: drift.cause for drift in drifts}
    return caused_differences(
        locked.guest, guest_of(now, source), answers.cpu_map, causes, prediction.differences
    )


def _as_if(
    locked: LockedCpu, now: ExplicitCpu, source: Source
) -> tuple[dict[PropertyName, Value], dict[PropertyName, Value]]:
    """The values before and after; what one of two releases does not know counts as what it behaves
    like there.

    A feature unknown to a QEMU is off there. Any other property counts as what the QEMU that knows
    it gives the model on the machine type of the release that does not; where that older or newer
    QEMU is not recorded, as nothing.
    """
    before, after = locked.values, now.values
    here, there = locked.context, now.context
    if here.whose.is_same(there.whose):
        return before, after
    _fill(before, after, _of_release(source, here.whose, now.model))
    _fill(after, before, _of_release(_recorded(here), there.whose, locked.model))
    return before, after


def _fill(
    lacking: dict[PropertyName, Value],
    full: Mapping[PropertyName, Value],
    meant: Mapping[PropertyName, Value],
) -> None:
    for name in full.keys() - lacking.keys():
        if full[name] is False or full[name] == meant.get(name):
            lacking[name] = full[name]


def _of_release(source: Source | None, build: Build, model: str) -> Mapping[PropertyName, Value]:
    """The model on the source's machine type for another QEMU's release; nothing where there is
    none.
    """
    machine = source and era_of(source, build)
    if source is None or not machine:
        return {}
    try:
        return source.realise(machine, CpuModel(model)).properties
    except CpumapError:
        return {}


def _recorded(context: Context) -> Source | None:
    path = recording_of(context.whose, context.accel, target_of(context.arch))
    return None if path is None else open_recording(path, context.accel)


class _Causes:
    """Why a property is another one: the step from the locked context to the present one at
    which it changes.
    """

    def __init__(
        self,
        case: Case,
        locked: LockedCpu,
        now: ExplicitCpu,
        source: Source,
        answers: Answers,
        asked: str | None,
    ) -> None:
        self._now = {prop.name: prop for prop in now.properties}
        self._old = {prop.name: prop for prop in locked.properties}
        self._unedited = (
            _or_nothing(source, now.context.machine, locked, answers) if case.edited else None
        )
        self._steps: list[tuple[str, Mapping[PropertyName, Value]]] = []
        here, there = locked.context, now.context
        if here.machine != there.machine:
            unmoved = _or_nothing(source, here.machine, locked, answers)
            written = locked.request.machine
            moved = f"{here.machine} is not {there.machine}"
            if asked is None and written not in (here.machine, None):
                moved = f"{written} is {there.machine}, was {here.machine}"
            self._steps.append((f"machine type: {moved}", unmoved))
        if locked.model != now.model:
            model = CpuModel(locked.model)
            self._steps.append(
                (
                    f"alias: {locked.request.model} is {now.model}, was {locked.model}",
                    _bare(source, there.machine, model),
                )
            )
        self._rest = "QEMU's own default: compat property or build"
        if here.qemu != there.qemu:
            self._rest = f"QEMU: {here.qemu} is not {there.qemu}"
        elif not here.whose.is_same(there.whose):
            self._rest = f"QEMU: {here.whose} is not {there.whose}"
        elif here.accel != there.accel:
            self._rest = f"accelerator: {here.accel} is not {there.accel}"

    def of(self, name: PropertyName) -> str:
        """The cause, in the words that `diff` has for it."""
        now, old = self._now.get(name), self._old.get(name)
        if self._unedited is not None and self._unedited.get(name) != (
            now.value if now is not None else None
        ):
            return EDITED
        for prop in (now, old):
            if prop is not None and prop.origin.unavailable:
                return f"host: {prop.origin}"
        for cause, values in self._steps:
            if values.get(name, False) == (old.value if old is not None else False):
                return cause
        if now is not None and now.origin.kind == "policy":
            return str(now.origin)
        return self._rest


def _or_nothing(
    source: Source, machine: str, locked: LockedCpu, answers: Answers
) -> Mapping[PropertyName, Value]:
    try:
        return expand(locked.request, Platform(source, answers.cpu_map, machine)).realised
    except CpumapError:
        return {}


def _bare(source: Source, machine: str, model: CpuModel) -> Mapping[PropertyName, Value]:
    try:
        return shown(source, machine, model)
    except CpumapError:
        return {}
