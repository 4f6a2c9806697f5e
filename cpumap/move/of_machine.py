"""A CPU that consists of a model and options of the machine, taken to another machine type or QEMU:
it is made there, and every option is read again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from cpumap.arch.known import arch_of, must_run
from cpumap.cpu.expansion import Context, CpuModel
from cpumap.cpu.explicit import ExplicitCpu
from cpumap.cpu.names import Property, PropertyName
from cpumap.cpu.origin import origin
from cpumap.errors import SourceError
from cpumap.move.predict import Prediction
from cpumap.sources.machines import find_machine
from cpumap.sources.platform import Platform


def hold_of_machine(cpu: ExplicitCpu, target: Platform) -> tuple[ExplicitCpu, Prediction]:
    """The CPU under the target's machine type (None: the same), and why it would not be the same.

    Within one QEMU the options named hold all that guests read (measured on 7.2 to 11.1 by device
    trees). What another release changes beside them was not measured. Errors: `UnknownNameError`
    for a machine type the target does not have.
    """
    source = target.source
    must_run(source.arch, cpu.context.arch, source.label, cpu.request.where)
    place = find_machine(source, target.machine or cpu.context.machine)
    where = Context(source.version, cpu.context.arch, place.name, source.accel, source.build())
    moved = replace(cpu, context=where, came_from=cpu.context)
    moved = _in_words_of(moved, target)
    refused = tuple(_refused(moved, target, place.name))
    if refused:
        return moved, Prediction(refused=refused)
    if cpu.context.whose.is_same(where.whose):
        return moved, Prediction()
    unknown = (
        f"what QEMU {where.qemu} changes of {cpu.context.arch} CPUs beside the options named was "
        f"not measured from QEMU {cpu.context.qemu} on"
    )
    return moved, Prediction(unknown=(unknown,))


def _in_words_of(cpu: ExplicitCpu, target: Platform) -> ExplicitCpu:
    """The CPU with what the machine type takes of those values that only some of them can name."""
    machine = cpu.context.machine
    own = target.source.realise(machine, CpuModel(cpu.model)).properties
    named = {prop.name: prop for prop in cpu.properties}
    for name, (old, same) in arch_of(cpu.context.arch).same_as.items():
        if own.get(name) == old and cpu.values.get(name) == same:
            del named[name]
        elif name in own and own[name] != old and name not in named:
            named[name] = Property(name, same, origin("as on", machine))
    return replace(cpu, properties=tuple(prop for _, prop in sorted(named.items())))


def _refused(cpu: ExplicitCpu, target: Platform, machine: str) -> Iterator[str]:
    try:
        there = target.source.realise(machine, CpuModel(cpu.model, cpu.values)).properties
    except SourceError as err:
        yield f"QEMU {target.source.version} does not start it on {machine}: {err}"
        return
    for name, value in cpu.values.items():
        if there.get(name) != value:
            yield f"{name} is {there.get(name)} on {machine}, not {value}"
    if cpu.model != (made := arch_of(cpu.context.arch).model_of(str(there[_TYPE]))):
        yield f"{cpu.model} is {made} on {machine}"


_TYPE = PropertyName("type")
