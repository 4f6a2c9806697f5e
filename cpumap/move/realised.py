"""A CPU of which only a few properties can be told, taken to another machine type or QEMU."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from cpumap.arch.known import arch_of, must_run
from cpumap.cpu.expansion import Context, CpuModel, Realised
from cpumap.cpu.explicit import ExplicitCpu
from cpumap.errors import UnknownNameError
from cpumap.move.predict import Prediction
from cpumap.qemu.arguments import property_text
from cpumap.sources.machines import find_machine
from cpumap.sources.platform import Platform


def hold_realised(cpu: ExplicitCpu, target: Platform) -> tuple[ExplicitCpu, Prediction]:
    """The CPU under the target's machine type (None: the same), and what is not the same there.

    The machine type may overrule what is named. Another QEMU changes ID registers that no property
    controls: whether it does is not known. Errors: `UnknownNameError` for a machine type the target
    does not have.
    """
    source = target.source
    must_run(source.arch, cpu.context.arch, source.label, cpu.request.where)
    place = find_machine(source, target.machine or cpu.context.machine)
    where = Context(source.version, cpu.context.arch, place.name, source.accel, source.build())
    moved = replace(cpu, context=where, came_from=cpu.context)
    try:
        there = source.realise(place.name, CpuModel(cpu.model, cpu.values))
    except UnknownNameError as err:
        return moved, Prediction(refused=(f"QEMU {source.version}: {err}",))
    refused = tuple(_overruled(moved, there))
    same = cpu.context.whose.is_same(source.build())
    unknown = () if same else (_of_registers(cpu, source.version),)
    return moved, Prediction(refused=refused, unknown=unknown)


def _overruled(cpu: ExplicitCpu, there: Realised) -> Iterator[str]:
    arch = arch_of(cpu.context.arch)
    for name, value in cpu.values.items():
        now = there.properties.get(name)
        if now != value:
            why = "whatever is named" if arch.is_overruled(name, cpu.context.machine) else "there"
            yield (
                f"{cpu.context.machine} of QEMU {cpu.context.qemu} makes {name} "
                f"{property_text(now) if now is not None else 'unknown'} {why}, not "
                f"{property_text(value)}"
            )


def _of_registers(cpu: ExplicitCpu, version: str) -> str:
    return (
        f"QEMU {version} may show other ID registers of {cpu.model} than "
        f"{cpu.came_from.qemu if cpu.came_from else cpu.context.qemu} does: no property controls "
        "them"
    )
