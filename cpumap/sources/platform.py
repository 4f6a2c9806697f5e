"""What a guest's CPU is looked at on: a source, the CPU map, a machine type."""

from __future__ import annotations

from cpumap.arch.known import arch_of, must_run
from cpumap.cpu.expansion import Machine
from cpumap.cpu.frozen import Frozen
from cpumap.cpu.request import CpuRequest
from cpumap.libvirt.cpu_map.map import CpuMap
from cpumap.libvirt.words import map_for
from cpumap.sources.machines import find_machine
from cpumap.sources.source import Source


class Platform(Frozen):
    """Who is asked for a CPU, and in which names: every question needs all of it."""

    source: Source
    given_map: CpuMap
    """The CPU map that was named."""
    machine: str | None = None
    """The machine type, whatever the request says; None: the request's own."""

    @property
    def cpu_map(self) -> CpuMap:
        """By which libvirt's names become those of the source's QEMU."""
        return map_for(self.given_map, arch_of(self.source.arch))

    def machine_for(self, request: CpuRequest) -> Machine:
        """The machine type that the request is looked at under. Errors: `UnknownNameError`;
        `ArchitectureError` where the source runs no guests of the request's architecture.
        """
        must_run(self.source.arch, request.arch, self.source.label, request.where)
        return find_machine(self.source, self.machine or request.machine, request.where)
