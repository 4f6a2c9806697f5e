"""An explicit CPU taken to where it will run, with what will differ there said beforehand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from cpumap.arch.known import arch_of
from cpumap.arch.x86.kvm import supported_cpuid
from cpumap.cpu.build import Build
from cpumap.cpu.expansion import CpuModel, Expansion
from cpumap.cpu.explicit import ExplicitCpu
from cpumap.cpu.names import PropertyName, Value
from cpumap.cpu.request import machine_topology
from cpumap.move.adapt import Adapted, adapt
from cpumap.move.measured import Readings
from cpumap.move.of_machine import hold_of_machine
from cpumap.move.predict import NOTHING, Evidence, Prediction, predict
from cpumap.move.realised import hold_realised
from cpumap.move.static import hold_static
from cpumap.move.xsave import Components
from cpumap.sources.kept_readings import readings_kept
from cpumap.sources.platform import Platform
from cpumap.sources.source import Source


def hold(
    cpu: ExplicitCpu,
    expansion: Expansion,
    source: Source,
    target: Platform,
    *,
    only: frozenset[PropertyName] | None = None,
) -> tuple[ExplicitCpu, Prediction]:
    """The CPU in the target's own names on its machine type (None: the same), and what a guest will
    see differ.

    `cpu` names every property, as `resolve` does. With `only`, those are named, what was asked for,
    and on another QEMU what its model has otherwise. Errors: `UnknownNameError` for a machine type
    the target does not have.
    """
    if arch_of(cpu.context.arch).explicit == "static":
        return hold_static(cpu, target)
    if arch_of(cpu.context.arch).of_machine is not None:
        return hold_of_machine(cpu, target)
    if not arch_of(cpu.context.arch).cpuid:
        return hold_realised(cpu, target)
    moved = adapt(cpu, source, target.source, target.machine)
    prediction = foreseen(cpu, expansion.realised, moved, target, source)
    if only is None:
        return moved.cpu, prediction
    kept = only | {prop.name for prop in expansion.asked}
    if not target.source.build().is_same(source.build()):
        kept |= _unlike(moved.cpu, target.source)
    named = tuple(prop for prop in moved.cpu.properties if prop.name in kept)
    return replace(moved.cpu, properties=named, whole=False), prediction


def foreseen(
    cpu: ExplicitCpu,
    realised: Mapping[PropertyName, Value],
    moved: Adapted,
    target: Platform,
    source: Source | None = None,
) -> Prediction:
    """What a guest will see differ when this CPU, which has these realised properties, is the
    moved one there. `source` is where it is now, if that can be asked.
    """
    if cpu.context.whose.is_same(moved.cpu.context.whose):
        return NOTHING
    there = replace(target, machine=moved.cpu.context.machine)
    if arch_of(cpu.context.arch).explicit == "static":
        return hold_static(cpu, there)[1]
    if arch_of(cpu.context.arch).of_machine is not None:
        return hold_of_machine(cpu, there)[1]
    if not arch_of(cpu.context.arch).cpuid:
        return hold_realised(cpu, there)[1]
    return predict(
        cpu,
        realised,
        moved,
        target.cpu_map,
        machine_topology(cpu.request),
        Evidence(
            _xsave_components(target.source),
            _readings((cpu.context.whose, source), (moved.cpu.context.whose, target.source)),
        ),
    )


def _readings(
    before: tuple[Build, Source | None], after: tuple[Build, Source | None]
) -> tuple[Readings, Readings] | None:
    """What guests read on both QEMUs; None where not both were measured."""
    here, there = _readings_of(*before), _readings_of(*after)
    return (here, there) if here and there else None


def _readings_of(build: Build, source: Source | None) -> Readings:
    if source is not None and (own := source.readings()):
        return own
    return readings_kept(build)


def _xsave_components(target: Source) -> Components | None:
    """The XSAVE components that KVM gives where the target runs; None where that is not here."""
    if target.accel != "kvm" or not target.starts_guests:
        return None
    leaves = supported_cpuid().cpuid
    return {
        sub: regs[:2] for (leaf, sub), regs in leaves.items() if leaf == 0xD and sub > 1 and regs[0]
    }


def _unlike(cpu: ExplicitCpu, target: Source) -> frozenset[PropertyName]:
    """What the target's own model would have otherwise."""
    model = target.expand(cpu.context.machine, CpuModel(cpu.model), "full").props
    return frozenset(prop.name for prop in cpu.properties if model.get(prop.name) != prop.value)
