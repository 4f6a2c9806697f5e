"""A fleet's CPUs written down, and what has drifted since: which guest would see which bit change, because of what."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cpumap.adapt import machine_of_release
from cpumap.convert import Answers
from cpumap.convert_run import Converted
from cpumap.cpu import (
    Cache,
    Context,
    CpuModel,
    CpuRequest,
    ExplicitCpu,
    FeaturePolicy,
    MaxPhysAddr,
    Property,
    PropertyName,
    Topology,
    Value,
)
from cpumap.cpu_map import CpuMap
from cpumap.described import DescribedHost
from cpumap.errors import CpumapError, InputError, UnknownName
from cpumap.expansion import expand
from cpumap.lack import bits_of, qemu_words
from cpumap.render import lasting
from cpumap.resolve import Choices, resolve
from cpumap.sources import Source
from cpumap.sources.recorded import RecordedSource, find_recording

SCHEMA = "cpumap.lock/1"


@dataclass(frozen=True, slots=True)
class LockedCpu:
    """A CPU as it was, where, and what asked for it."""

    context: Context
    request: CpuRequest
    model: str
    properties: tuple[Property, ...]

    @property
    def values(self) -> dict[PropertyName, Value]:
        """Property name → value."""
        return {prop.name: prop.value for prop in self.properties}


@dataclass(frozen=True, slots=True)
class Lock:
    """The CPUs of a fleet; guests that share one share its entry."""

    cpus: Mapping[str, LockedCpu]
    guests: Mapping[str, str]
    """Guest (its file) → the entry of its CPU."""


@dataclass(frozen=True, slots=True)
class Drift:
    """A property that is another one now (None: it is not there)."""

    name: PropertyName
    locked: Value | None
    now: Value | None
    cause: str
    place: str
    """The CPUID bits that it is, in QEMU's words; empty where it is none."""


@dataclass(frozen=True, slots=True)
class Audited:
    """What became of one locked CPU; `refused` says why there is no such CPU any more."""

    key: str
    context: Context | None
    drifts: tuple[Drift, ...] = ()
    refused: str = ""

    @property
    def holds(self) -> bool:
        """Whether its guests will see what they saw."""
        return not (self.drifts or self.refused)


@dataclass
class Locking:
    """Collects a fleet's outcomes into a lock."""

    answers: Answers
    guests: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)

    def add(self, group: Iterable[Converted]) -> None:
        """Takes these guests up; those without a CPU that can be said are in `missing`."""
        for item in group:
            if item.outcome.answer in self.answers.cpus:
                self.guests[item.source.name] = str(item.outcome.answer)
            elif item.outcome.status != "skipped":
                self.missing.append(item.source.name)

    def lock(self) -> Lock:
        """All that was taken up."""
        used = set(self.guests.values())
        cpus = {str(number): locked_cpu(cpu) for number, cpu in self.answers.cpus.items() if str(number) in used}
        return Lock(cpus, self.guests)


def locked_cpu(cpu: ExplicitCpu) -> LockedCpu:
    """What a lock keeps of an explicit CPU: what a document says of it, so that converting one is no drift."""
    return LockedCpu(cpu.context, cpu.request, cpu.model, lasting(cpu).properties)


def lock_text(lock: Lock) -> str:
    """The lock as JSON: sorted and indented, so that version control shows what changed."""
    cpus = {key: _cpu_json(cpu) for key, cpu in lock.cpus.items()}
    return json.dumps({"schema": SCHEMA, "cpus": cpus, "guests": dict(sorted(lock.guests.items()))}, indent=1) + "\n"


def _cpu_json(cpu: LockedCpu) -> dict[str, Any]:
    origins: dict[str, list[str]] = {}
    for prop in cpu.properties:
        origins.setdefault(prop.origin, []).append(prop.name)
    return {
        "context": asdict(cpu.context),
        "model": cpu.model,
        "request": {name: value for name, value in asdict(cpu.request).items() if value not in (None, (), [], "")},
        "properties": dict(cpu.values),
        "origins": origins,
    }


def read_lock(path: Path) -> Lock:
    """The lock in a file of `cpumap lock`. Errors: `InputError`."""
    try:
        stored = json.loads(path.read_bytes())
    except OSError as err:
        raise InputError(err.strerror or str(err), str(path)) from err
    except ValueError as err:
        raise InputError(f"not a lock: {err}", str(path)) from err
    if not isinstance(stored, dict) or stored.get("schema") != SCHEMA:
        raise InputError(f"not a lock ({SCHEMA})", str(path))
    try:
        return Lock({key: _cpu_of(entry) for key, entry in stored["cpus"].items()}, stored["guests"])
    except (KeyError, TypeError, AttributeError) as err:
        raise InputError(f"not a lock: {err}", str(path)) from err


def _cpu_of(stored: Mapping[str, Any]) -> LockedCpu:
    origins = {name: origin for origin, names in stored["origins"].items() for name in names}
    properties = tuple(Property(PropertyName(n), v, origins.get(n, "")) for n, v in stored["properties"].items())
    return LockedCpu(Context(**stored["context"]), _request_of(stored["request"]), stored["model"], properties)


def _request_of(stored: Mapping[str, Any]) -> CpuRequest:
    kinds = {"cache": Cache, "maxphysaddr": MaxPhysAddr, "topology": Topology}
    fields: dict[str, Any] = {n: kinds[n](**v) if n in kinds else v for n, v in stored.items()}
    fields["features"] = tuple(FeaturePolicy(**feature) for feature in stored.get("features", ()))
    fields["settings"] = tuple(Property(**setting) for setting in stored.get("settings", ()))
    return CpuRequest(**fields)


def audit(locked: LockedCpu, key: str, answers: Answers, choices: Choices, machine: str | None = None) -> Audited:
    """What the same request is now, on the source that the answers choose, under its machine type or another."""
    try:
        source = answers.source(locked.request)
        expansion = expand(locked.request, source, answers.cpu_map, machine=machine)
        now = lasting(resolve(locked.request, expansion, choices))
    except CpumapError as err:
        return Audited(key, None, refused=str(err).removeprefix(": "))
    causes = _Causes(locked, now, source, answers, asked=machine)
    drifts = []
    before, after = _as_if(locked, now, source)
    for name in sorted(before.keys() | after.keys()):
        if before.get(name) != after.get(name):
            place = feature_place(name, answers.cpu_map)
            drifts.append(Drift(name, before.get(name), after.get(name), causes.of(name), place))
    return Audited(key, now.context, tuple(drifts))


def _as_if(
    locked: LockedCpu, now: ExplicitCpu, source: Source
) -> tuple[dict[PropertyName, Value], dict[PropertyName, Value]]:
    """The values before and after; what one of two releases does not know counts as what it behaves like there.

    A feature unknown to a QEMU is off there. Any other property counts as what the QEMU that knows it gives the model
    on the machine type of the release that does not; where that older or newer QEMU is not recorded, as nothing.
    """
    before, after = locked.values, now.values
    here, there = locked.context, now.context
    if here.qemu == there.qemu:
        return before, after
    _fill(before, after, _of_release(source, here.qemu, now.model))
    _fill(after, before, _of_release(_recorded(here), there.qemu, locked.model))
    return before, after


def _fill(
    lacking: dict[PropertyName, Value], full: Mapping[PropertyName, Value], meant: Mapping[PropertyName, Value]
) -> None:
    for name in full.keys() - lacking.keys():
        if full[name] is False or full[name] == meant.get(name):
            lacking[name] = full[name]


def _of_release(source: Source | None, version: str, model: str) -> Mapping[PropertyName, Value]:
    """The model on the source's machine type for another QEMU release."""
    if source is None:
        return {}
    machine = machine_of_release(source, ".".join(version.split(".")[:2]))
    try:
        return source.realise(machine, CpuModel(model)).properties
    except CpumapError:
        return {}


def _recorded(context: Context) -> Source | None:
    try:
        return RecordedSource(find_recording(context.qemu, context.accel))
    except CpumapError:
        return None


def feature_place(name: PropertyName, cpu_map: CpuMap) -> str:
    """The CPUID bits of a feature in QEMU's words, empty for a property that is no feature."""
    try:
        bits = bits_of(name, cpu_map)
    except UnknownName:
        return ""
    return qemu_words(name, bits) if bits else ""


class _Causes:
    """Why a property is another one: the step from the locked context to the present one at which it changes."""

    def __init__(
        self, locked: LockedCpu, now: ExplicitCpu, source: Source, answers: Answers, asked: str | None
    ) -> None:
        self._now = {prop.name: prop for prop in now.properties}
        self._old = {prop.name: prop for prop in locked.properties}
        self._locked = locked
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
        elif here.accel != there.accel:
            self._rest = f"accelerator: {here.accel} is not {there.accel}"

    def of(self, name: PropertyName) -> str:
        """The cause, in the words that `diff` has for it."""
        now, old = self._now.get(name), self._old.get(name)
        for prop in (now, old):
            if prop is not None and "unavailable here" in prop.origin:
                return f"host: {prop.origin}"
        for cause, values in self._steps:
            if values.get(name, False) == (old.value if old is not None else False):
                return cause
        if now is not None and now.origin.startswith("policy"):
            return now.origin
        return self._rest


def _or_nothing(source: Source, machine: str, locked: LockedCpu, answers: Answers) -> Mapping[PropertyName, Value]:
    try:
        return expand(locked.request, source, answers.cpu_map, machine=machine).realised
    except CpumapError:
        return {}


def _bare(source: Source, machine: str, model: CpuModel) -> Mapping[PropertyName, Value]:
    try:
        return source.expand(machine, model, "full")
    except CpumapError:
        return {}


def blocked_by(locked: LockedCpu, host: DescribedHost, features: frozenset[PropertyName]) -> tuple[PropertyName, ...]:
    """The features of the CPU, of those that are features, that guests on this host cannot be given."""
    on = sorted(prop.name for prop in locked.properties if prop.value is True and prop.name in features)
    return tuple(name for name in on if not host.gives(name))


def feature_names(cpu_map: CpuMap) -> frozenset[PropertyName]:
    """The property names of every feature with bits in the map."""
    return frozenset(cpu_map.property_of(name) for name, feature in cpu_map.features.items() if feature.bits)


def depends_on_defaults(cpu: LockedCpu | ExplicitCpu) -> bool:
    """Whether anything of the CPU is there because a model, a machine type or QEMU has it so."""
    return any(prop.origin.startswith(("model ", "machine type ", "realised")) for prop in cpu.properties)


def guests_of(lock: Lock, keys: Sequence[str]) -> dict[str, list[str]]:
    """CPU entry → the guests that have it, for these entries."""
    found: dict[str, list[str]] = {key: [] for key in keys}
    for guest, key in lock.guests.items():
        if key in found:
            found[key].append(guest)
    return found
