"""The proof: an explicit CPU is expanded again, realised, and looked at by a guest, wherever it
is to run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from cpumap.arch.arch import JUDGES, Judge
from cpumap.arch.known import arch_of
from cpumap.cpu.expansion import CpuModel, Expansion
from cpumap.cpu.explicit import ExplicitCpu
from cpumap.cpu.names import PropertyName, Value
from cpumap.cpu.request import machine_topology
from cpumap.errors import InputError, SourceError
from cpumap.libvirt.cpu_map.map import CpuMap
from cpumap.move.hold import hold
from cpumap.move.predict import PredictedDifference, Prediction
from cpumap.pin.resolve import canonical_names
from cpumap.proof.difference import GuestDifference, PropertyDifference, guest_differences
from cpumap.proof.guest import GuestCpu, probe
from cpumap.qemu.arguments import cpu_arguments, smp_option
from cpumap.sources.platform import Platform
from cpumap.sources.source import Source

Ruling = Literal["holds", "differs", "refused"]


@dataclass(frozen=True, slots=True)
class Judgement:
    """What one judge says of the CPU in one place."""

    judge: Judge
    verdict: Ruling
    properties: tuple[PropertyDifference, ...] = ()
    bits: tuple[GuestDifference, ...] = ()
    missed: tuple[PredictedDifference, ...] = ()
    """Differences that were predicted and that the guest did not see."""
    reason: str = ""
    """Why QEMU refused."""


@dataclass(frozen=True, slots=True)
class JudgedPlace:
    """One QEMU and machine type in which the CPU was judged."""

    qemu: str
    machine: str
    accel: str
    cpu: ExplicitCpu
    prediction: Prediction
    judgements: tuple[Judgement, ...]

    @property
    def holds(self) -> bool:
        return all(judgement.verdict == "holds" for judgement in self.judgements)

    @property
    def as_predicted(self) -> bool:
        """Whether the guest saw what was predicted, no more and no less."""
        seen = [j for j in self.judgements if j.judge == JUDGES[2]]
        exact = all(
            not j.missed and all(bit.predicted for bit in j.bits) and j.verdict != "refused"
            for j in seen
        )
        return exact and not self.prediction.unknown


@dataclass(frozen=True, slots=True)
class Verification:
    """The judgements of one CPU, place by place."""

    qemu: str
    machine: str
    accel: str
    places: tuple[JudgedPlace, ...]

    @property
    def holds(self) -> bool:
        """Whether all judges agree in all places that the CPU is the same."""
        return all(place.holds for place in self.places)

    def as_json(self) -> dict[str, Any]:
        """The report as JSON-ready values."""
        return {
            "holds": self.holds,
            "source": {"qemu": self.qemu, "machine": self.machine, "accel": self.accel},
            "places": [_place_json(place) for place in self.places],
        }


def _place_json(place: JudgedPlace) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "qemu": place.qemu,
        "machine": place.machine,
        "accel": place.accel,
        "holds": place.holds,
    }
    facts["as_predicted"] = place.as_predicted
    facts["predicted"] = asdict(place.prediction)
    facts["judges"] = [asdict(judgement) for judgement in place.judgements]
    return facts


def verify(
    cpu: ExplicitCpu,
    expansion: Expansion,
    platform: Platform,
    places: Iterable[tuple[Source, str]],
    *,
    only: frozenset[PropertyName] | None = None,
) -> Verification:
    """The judgements in each place, a QEMU and one of its machine types. `cpu` names everything, as
    `resolve` does.

    What is proven is that the explicit CPU there is what the request is on the source, not named
    explicitly. Errors:
    `SourceError` when the source itself does not start this CPU, `UnknownNameError` for a machine
    type.
    """
    smp = smp_option(machine_topology(cpu.request))
    original = look(platform.source, expansion.context.machine, _original(cpu, expansion), smp)
    judged = []
    for target, machine in places:
        moved, prediction = hold(
            cpu, expansion, platform.source, Platform(target, platform.cpu_map, machine), only=only
        )
        judgements = (
            _expanded_again(moved, expansion, target),
            _realised(moved, expansion, target),
            _seen(moved, original, target, smp, prediction, platform.cpu_map),
        )
        context = moved.context
        judged.append(
            JudgedPlace(context.qemu, context.machine, context.accel, moved, prediction, judgements)
        )
    where = expansion.context
    return Verification(where.qemu, where.machine, where.accel, tuple(judged))


def _original(cpu: ExplicitCpu, expansion: Expansion) -> CpuModel:
    """What was asked for, as it was asked; under KVM without what the host lacks, which QEMU
    would take away.
    """
    off = {
        name: False
        for name, value in cpu.values.items()
        if value is False and name in expansion.unavailable
    }
    return CpuModel(expansion.definition.name, {**expansion.model.props, **off})


def look(source: Source, machine: str, model: CpuModel, smp: str = "1") -> GuestCpu:
    """The CPU that a guest sees in this QEMU; under tcg nothing is filtered out of it. The
    source starts guests. Errors: `SourceError`.
    """
    arch = arch_of(source.arch)
    if arch.cpuid is False:
        raise InputError(
            f"what guests of {arch.name} read is compared by `verify` alone", source.label
        )
    how = (arch.unfiltered or {}) if source.accel == "tcg" else {}
    arguments = cpu_arguments(model.name, arch.typename(model.name), {**model.props, **how})
    return probe(source.binary, machine, arguments, accel=source.accel, smp=smp, timeout=120)


def _expanded_again(cpu: ExplicitCpu, expansion: Expansion, target: Source) -> Judgement:
    try:
        full = target.expand(cpu.context.machine, CpuModel(cpu.model, cpu.values), "full").props
    except SourceError as err:
        return Judgement(JUDGES[0], "refused", reason=str(err))
    return _judged(JUDGES[0], _property_differences(expansion, full, cpu))


def _realised(cpu: ExplicitCpu, expansion: Expansion, target: Source) -> Judgement:
    try:
        realised = target.realise(cpu.context.machine, CpuModel(cpu.model, cpu.values))
    except SourceError as err:
        return Judgement(JUDGES[1], "refused", reason=str(err))
    found = list(_property_differences(expansion, realised.properties, cpu))
    still = {
        name for name in expansion.unavailable if cpu.values.get(PropertyName(name)) is not False
    }
    for name in sorted(realised.filtered.keys() ^ still):
        lacking = cpu.context if name in realised.filtered else expansion.context
        words = realised.filtered.get(name) or expansion.unavailable[name]
        cause = f"{lacking.accel} of QEMU {lacking.qemu} cannot give it: {words}"
        found.append(
            PropertyDifference(
                PropertyName(name), name not in still, name not in realised.filtered, cause
            )
        )
    return _judged(JUDGES[1], found)


def _judged(judge: Judge, found: Iterable[PropertyDifference]) -> Judgement:
    properties = tuple(found)
    return Judgement(judge, "differs" if properties else "holds", properties)


def _property_differences(
    expansion: Expansion, there: Mapping[PropertyName, Value], cpu: ExplicitCpu
) -> Iterator[PropertyDifference]:
    """Properties that both QEMUs have, and those that only the source has and that were on."""
    wanted = {
        **expansion.realised,
        **{n: False for n, v in cpu.values.items() if v is False and n in expansion.unavailable},
    }
    wanted |= {prop.name: prop.value for prop in cpu.properties if prop.origin.kind == "topology"}
    arch = arch_of(expansion.context.arch)
    passed = arch.per_instance | arch.not_named
    for name in sorted(canonical_names(wanted, expansion.static, arch) - passed):
        here = wanted[name]
        if arch.refused(name, here, expansion.realised) or name not in there:
            if name in expansion.static and here is True and name not in there:
                yield PropertyDifference(
                    name, here, None, f"QEMU {cpu.context.qemu} has no such feature"
                )
        elif there[name] != here and not _same_when_empty(there[name], here, arch.defaults, name):
            yield PropertyDifference(name, here, there[name], _cause(name, cpu))


def _same_when_empty(
    there: Value, here: Value, defaults: Mapping[PropertyName, Value] | None, name: PropertyName
) -> bool:
    """Whether one is what the other becomes at realize."""
    becomes = (defaults or {}).get(name)
    return becomes is not None and {there, here} == {"", becomes}


def _cause(name: PropertyName, cpu: ExplicitCpu) -> str:
    named = {prop.name: prop for prop in cpu.properties}.get(name)
    return str(named.origin) if named else f"not named: as on {cpu.context.machine}"


def _seen(
    cpu: ExplicitCpu,
    original: GuestCpu,
    target: Source,
    smp: str,
    prediction: Prediction,
    cpu_map: CpuMap,
) -> Judgement:
    try:
        guest = look(target, cpu.context.machine, CpuModel(cpu.model, cpu.values), smp)
    except SourceError as err:
        return Judgement(JUDGES[2], "refused", reason=str(err))
    bits = guest_differences(original, guest, cpu_map, prediction.differences)
    seen = {(bit.leaf, bit.subleaf, bit.register) for bit in bits}
    missed = tuple(
        p
        for p in prediction.differences
        if not p.undefined and (p.leaf, p.subleaf, p.register) not in seen
    )
    return Judgement(JUDGES[2], "differs" if bits else "holds", (), bits, missed)
