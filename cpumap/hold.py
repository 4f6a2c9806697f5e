"""An explicit CPU taken to where it will run, with what will differ there said beforehand."""

from __future__ import annotations

from dataclasses import replace

from cpumap.adapt import Adapted, adapt
from cpumap.cpu import CpuModel, CpuRequest, Expansion, ExplicitCpu, PropertyName, Topology
from cpumap.cpu_map import CpuMap
from cpumap.predict import Prediction, predict
from cpumap.sources import Source


def hold(
    cpu: ExplicitCpu,
    expansion: Expansion,
    source: Source,
    target: Source,
    cpu_map: CpuMap,
    *,
    machine: str | None = None,
    only: frozenset[PropertyName] | None = None,
) -> tuple[ExplicitCpu, Prediction]:
    """The CPU in the target's own names on its machine type (None: the same), and what a guest will see differ.

    `cpu` names every property, as `resolve` does. With `only`, those are named and what the target's model has
    otherwise. Errors: `UnknownName` for a machine type the target does not have.
    """
    moved = adapt(cpu, source, target, machine)
    prediction = predict(cpu, expansion, moved, cpu_map, machine_topology(cpu.request))
    return (moved.cpu if only is None else _compact(moved, target, only)), prediction


def machine_topology(request: CpuRequest) -> Topology:
    """The topology asked for, or libvirt's default: every vCPU a socket of its own."""
    return request.topology or Topology(sockets=request.vcpus)


def smp_option(topology: Topology) -> str:
    """The value of `-smp`, spelled out: old machine types read a bare number in another way."""
    counts = {"sockets": topology.sockets, "dies": topology.dies, "clusters": topology.clusters}
    counts |= {"cores": topology.cores, "threads": topology.threads}
    total = 1
    for count in counts.values():
        total *= count
    spelled = [f"{name}={count}" for name, count in counts.items() if name != "clusters" or count > 1]
    return ",".join([str(total), *spelled])


def _compact(moved: Adapted, target: Source, only: frozenset[PropertyName]) -> ExplicitCpu:
    cpu = moved.cpu
    model = target.expand(cpu.context.machine, CpuModel(cpu.model), "full")
    kept = (prop for prop in cpu.properties if prop.name in only or model.get(prop.name) != prop.value)
    return replace(cpu, properties=tuple(kept))
