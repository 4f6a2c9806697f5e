"""The difference between two CPUs, property by property and bit by bit, and because of what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any

from cpumap.arch.known import arch_of, must_run
from cpumap.cpu.expansion import CpuModel, Expansion
from cpumap.cpu.names import PropertyName, Value
from cpumap.errors import UnknownNameError
from cpumap.libvirt.cpu_map.map import CpuMap
from cpumap.pin.expand import shown
from cpumap.pin.resolve import canonical_names
from cpumap.proof.difference import (
    REALIZE,
    GuestDifference,
    PropertyDifference,
    caused_differences,
    property_differences,
)
from cpumap.proof.verify import look
from cpumap.sources.source import Source


@dataclass(frozen=True, slots=True)
class CpuDifference:
    """How two CPUs differ; `bits` is None where no guest was asked."""

    a: str
    b: str
    properties: tuple[PropertyDifference, ...]
    bits: tuple[GuestDifference, ...] | None = None

    @property
    def same(self) -> bool:
        return not self.properties and not self.bits

    def as_json(self) -> dict[str, Any]:
        """The differences as JSON-ready values."""
        facts: dict[str, Any] = {"a": self.a, "b": self.b, "same": self.same}
        facts["properties"] = [asdict(prop) for prop in self.properties]
        facts["bits"] = None if self.bits is None else [asdict(bit) for bit in self.bits]
        return facts


def diff(
    a: Expansion,
    source_a: Source,
    b: Expansion,
    source_b: Source,
    cpu_map: CpuMap,
    *,
    guests: bool = False,
) -> CpuDifference:
    """The difference between two expanded CPUs and its causes; with `guests`, also what guests see
    on live QEMUs.

    Causes are found by going from one to the other in steps (what was asked, the model's version,
    the machine type, the QEMU, the accelerator) and looking at which step a property changes.
    """
    must_run(source_b.arch, a.context.arch, source_b.label)
    arch = arch_of(a.context.arch)
    steps = _steps(a, source_a, b, source_b)
    names = canonical_names({**a.realised, **b.realised}, {**a.static, **b.static}, arch)
    found = property_differences(_only(a.realised, names), _only(b.realised, names))
    properties = tuple(
        replace(prop, cause=_cause(prop.name, steps)) for prop in found if not _never_on(prop)
    )
    bits = None
    if guests and source_a.starts_guests and source_b.starts_guests:
        bits = _bits(a, source_a, b, source_b, cpu_map, properties)
    return CpuDifference(_label(a, source_a), _label(b, source_b), properties, bits)


Step = tuple[str, Mapping[PropertyName, Value]]
"""Why this differs from the step before, and the full expansion there."""


def _steps(a: Expansion, source_a: Source, b: Expansion, source_b: Source) -> list[Step]:
    """From a to b: another request, model version, machine type, QEMU. Steps that a QEMU cannot
    take are left out.
    """
    here, there = a.context, b.context
    other = b.definition.name if b.definition.name != a.definition.name else b.model.name
    named = CpuModel(b.definition.name, b.model.props)
    steps: list[Step] = [("", a.full)]
    if a.model.props != b.model.props:
        steps += _step(
            "asked for", source_a, here.machine, CpuModel(a.definition.name, b.model.props)
        )
    if a.model.name != b.model.name:
        steps += _step(_model_step(a, b), source_a, here.machine, CpuModel(other, b.model.props))
    if here.machine != there.machine:
        steps += _step(
            f"machine type: {here.machine} is not {there.machine}", source_a, there.machine, named
        )
    elsewhere = here.accel != there.accel or not here.whose.is_same(there.whose)
    return [*steps, (_qemu_step(a, b) if elsewhere else steps[-1][0], b.full)]


def _step(cause: str, source: Source, machine: str, model: CpuModel) -> list[Step]:
    try:
        return [(cause, shown(source, machine, model))]
    except UnknownNameError:
        return []


def _model_step(a: Expansion, b: Expansion) -> str:
    if a.definition.name == b.definition.name:
        return f"alias: {a.definition.name} is {a.model.name} here and {b.model.name} there"
    return f"model: {a.model.name} is not {b.model.name}"


def _qemu_step(a: Expansion, b: Expansion) -> str:
    if a.context.qemu != b.context.qemu:
        return f"QEMU: {a.context.qemu} is not {b.context.qemu}"
    if not a.context.whose.is_same(b.context.whose):
        return f"QEMU: {a.context.whose} is not {b.context.whose}"
    return f"accelerator: {a.context.accel} is not {b.context.accel}"


def _cause(name: PropertyName, steps: Sequence[Step]) -> str:
    causes = [
        cause
        for (_, before), (cause, after) in pairwise(steps)
        if before.get(name) != after.get(name)
    ]
    return "; ".join(causes) or REALIZE


def _never_on(prop: PropertyDifference) -> bool:
    """Whether it is a switch that is off on one side and that the other does not know."""
    return (prop.a is None and prop.b is False) or (prop.a is False and prop.b is None)


def _only(
    values: Mapping[PropertyName, Value], names: frozenset[PropertyName]
) -> dict[PropertyName, Value]:
    return {name: value for name, value in values.items() if name in names}


def _bits(
    a: Expansion,
    source_a: Source,
    b: Expansion,
    source_b: Source,
    cpu_map: CpuMap,
    properties: Sequence[PropertyDifference],
) -> tuple[GuestDifference, ...]:
    guests = [
        look(source, cpu.context.machine, CpuModel(cpu.definition.name, cpu.model.props))
        for cpu, source in ((a, source_a), (b, source_b))
    ]
    return caused_differences(
        guests[0], guests[1], cpu_map, {prop.name: prop.cause for prop in properties}
    )


def _label(cpu: Expansion, source: Source) -> str:
    where = cpu.context
    return f"{cpu.definition.name} on {where.machine}, QEMU {source.version}, {where.accel}"
