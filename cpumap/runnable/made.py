"""A host's own CPU, as its QEMU makes it: every property of `-cpu host` or `-cpu max`, realised."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from cpumap.arch.arch import Arch, Properties
from cpumap.arch.known import arch_of
from cpumap.cpu.expansion import CpuModel, Realised
from cpumap.cpu.host import MadeCpu
from cpumap.cpu.names import PropertyName
from cpumap.errors import SourceError
from cpumap.pin.resolve import canonical_names
from cpumap.sources.source import Source

_MIGRATABLE = PropertyName("migratable")


def made_cpus(
    source: Source, machine: str, fatal: Collection[frozenset[PropertyName]]
) -> tuple[MadeCpu, ...]:
    """The host's own CPU under this machine type, migratable and not; nothing from a source that
    makes no CPUs or knows no host.

    `fatal` are what is switched off in turn where QEMU does not start otherwise.
    """
    arch = arch_of(source.arch)
    if not source.makes_cpus or not source.own_host or arch.bare is None:
        return ()
    static = source.expand(machine, CpuModel(arch.bare), "static").props
    bare = _named(source.realise(machine, CpuModel(arch.bare)).properties, static, arch)
    model = arch.host_passthrough[source.accel]
    found = []
    for migratable in (True, False):
        made = _first(source, machine, CpuModel(model, {_MIGRATABLE: migratable}), fatal)
        if made is not None:
            realised, without = made
            properties = _named(realised.properties, static, arch)
            found.append(MadeCpu(model, migratable, properties, bare, without))
    return tuple(found)


def _first(
    source: Source, machine: str, model: CpuModel, fatal: Collection[frozenset[PropertyName]]
) -> tuple[Realised, tuple[PropertyName, ...]] | None:
    """The CPU with as little as possible switched off; None where QEMU starts with none."""
    for without in fatal:
        props = {**model.props, **dict.fromkeys(sorted(without), False)}
        try:
            return source.realise(machine, CpuModel(model.name, props)), tuple(sorted(without))
        except SourceError:
            continue
    return None


def _named(properties: Properties, static: Collection[PropertyName], arch: Arch) -> Properties:
    """Of the properties of a realised CPU, those that another can be given: one name for each."""
    canonical = canonical_names(properties, static, arch)
    return {
        name: value
        for name, value in sorted(properties.items())
        if name in canonical
        and name not in arch.per_instance | arch.not_named
        and not arch.refused(name, value, properties)
    }


def made_json(made: tuple[MadeCpu, ...]) -> dict[str, Any] | None:
    """The CPUs as JSON, which `cpumap.hosts.saved` reads; None for none."""
    if not made:
        return None
    return {"base": dict(made[0].bare), "cpus": list(_entries(made))}


def _entries(made: tuple[MadeCpu, ...]) -> Iterator[dict[str, Any]]:
    for one in made:
        yield {
            "model": one.model,
            "migratable": one.migratable,
            "without": list(one.without),
            "properties": dict(one.properties),
        }
