"""A CPU that is a base model and features, taken to another QEMU: it is the same there, or QEMU
refuses it.
"""

from __future__ import annotations

from dataclasses import replace

from cpumap.arch.known import arch_of, must_run
from cpumap.cpu.expansion import Context, CpuModel
from cpumap.cpu.explicit import ExplicitCpu
from cpumap.cpu.names import PropertyName
from cpumap.errors import UnknownNameError
from cpumap.move.predict import NOTHING, Prediction
from cpumap.sources.machines import find_machine
from cpumap.sources.platform import Platform

_SHOWN = 5


def hold_static(cpu: ExplicitCpu, target: Platform) -> tuple[ExplicitCpu, Prediction]:
    """The CPU under the target's machine type (None: the same), and why QEMU would refuse it there.

    Base models never change (measured on 5.2 to 11.1); that this one has not is asked again.
    Errors: `UnknownNameError` for a machine type the target does not have.
    """
    source = target.source
    must_run(source.arch, cpu.context.arch, source.label, cpu.request.where)
    place = find_machine(source, target.machine or cpu.context.machine)
    where = Context(source.version, cpu.context.arch, place.name, source.accel, source.build())
    moved = replace(cpu, context=where, came_from=cpu.context)
    try:
        again = source.expand(place.name, CpuModel(cpu.model, cpu.values), "static")
    except UnknownNameError as err:
        return moved, Prediction(refused=(f"QEMU {source.version}: {err}",))
    unlike = _unlike(cpu, again)
    if again.name != cpu.model or unlike:
        changed = ", ".join(sorted(unlike)[:_SHOWN])
        reason = f"{cpu.model} expands to {again.name} there, with other features: {changed}"
        return moved, Prediction(refused=(reason,))
    return moved, NOTHING


def _unlike(cpu: ExplicitCpu, again: CpuModel) -> frozenset[PropertyName]:
    """What is set otherwise there; what the base model has by itself is not shown."""
    groups = arch_of(cpu.context.arch).groups
    ours, theirs = cpu.values, dict(again.props)
    on = groups.on(ours) ^ groups.on(theirs)
    off = groups.singles(n for n, v in ours.items() if v is False) ^ groups.singles(
        n for n, v in theirs.items() if v is False
    )
    return groups.named(on | off)
