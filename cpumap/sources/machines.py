"""The machine type that a name means to a source."""

from __future__ import annotations

from cpumap.cpu.expansion import Machine
from cpumap.errors import UnknownName
from cpumap.sources.source import Source


def find_machine(source: Source, wanted: str | None, where: str = "") -> Machine:
    """The machine type of this name or alias; None: the source's default one. Errors:
    `UnknownName`.
    """
    machines = source.machines()
    for machine in machines:
        if wanted == machine.name or (wanted is None and machine.is_default):
            return machine
    for machine in machines:
        if wanted is not None and wanted == machine.alias:
            return machine
    if wanted is None:
        raise UnknownName(f"no machine type given, and {source.label} has no default one", where)
    raise UnknownName(f"{source.label} has no machine type {wanted!r}", where)
