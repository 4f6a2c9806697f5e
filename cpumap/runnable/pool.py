"""The CPU that every host of a pool can run, proven for each, and what each host costs the rest."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from cpumap.arch.known import arch_of
from cpumap.cpu.expansion import Context, CpuModel
from cpumap.cpu.frozen import Frozen
from cpumap.cpu.names import FeatureName, PropertyName
from cpumap.cpu.request import CpuRequest, FeaturePolicy
from cpumap.hosts.described import DescribedHost
from cpumap.hosts.giving import EMULATED
from cpumap.libvirt.cpu_map.map import CpuMap
from cpumap.libvirt.rules.decode import Usable
from cpumap.pin.expand import expand
from cpumap.runnable.compare import runnable_on_all
from cpumap.runnable.on_host import NOT_ON_HOSTS
from cpumap.sources.platform import Platform

_WANTING = {PropertyName("vmx"): "vmx-"}
"""Features, and how those begin that make them worth having: capabilities show no `vmx-*`."""

_ADDED = EMULATED - {PropertyName("arch-capabilities"), PropertyName("hypervisor")}
"""Of what KVM emulates anywhere: not what QEMU turns on by itself, nor an empty register."""


class Member(Frozen):
    """One host of a pool."""

    name: str
    gives_up: tuple[FeatureName, ...]
    """What guests could be given there, and are not."""
    costs: tuple[FeatureName, ...]
    """What all the other hosts could give without this one."""

    def to_json(self) -> dict[str, Any]:
        """JSON-ready values."""
        return {"name": self.name, "gives-up": list(self.gives_up), "costs": list(self.costs)}


class Pool(Frozen):
    """A CPU, and the hosts that it was proven to run on by their descriptions."""

    cpu: CpuRequest
    context: Context
    members: tuple[Member, ...]
    disabled: tuple[str, ...]
    """Features of the model that not every host gives."""

    @property
    def dearest(self) -> Member | None:
        """The host without which the others could give the most more; None where no single one
        keeps anything from them.
        """
        most = max(self.members, key=lambda member: len(member.costs), default=None)
        return most if most is not None and most.costs else None

    def to_json(self) -> dict[str, Any]:
        """JSON-ready values, beside those of the CPU."""
        dearest = self.dearest
        return {
            "context": self.context.as_json(),
            "disabled": list(self.disabled),
            "hosts": [member.to_json() for member in self.members],
            "costs-most": None if dearest is None else dearest.name,
        }


def proven_pool(platform: Platform, hosts: Sequence[DescribedHost], cpu: CpuRequest) -> Pool:
    """The CPU less what no guest or not every host is given, with what that costs.

    `cpu` is what the hosts have in common by the CPU map. Errors: as
    `cpumap.runnable.compare.runnable_on_all`.
    """
    source, cpu_map = platform.source, platform.cpu_map
    machine = platform.machine_for(cpu).name
    bare = CpuModel(arch_of(source.arch).bare_model)
    features = frozenset(source.expand(machine, bare, "static").props)
    given = [_given(host, features) for host in hosts]
    kinds = _unlike(hosts)
    proven = frozenset.intersection(*given) - _half_described(kinds, platform, machine)
    wanted = _with_emulated(_only(cpu, proven, cpu_map), proven, platform)
    cpu, disabled = runnable_on_all(platform, kinds, wanted)
    realised = expand(cpu, platform).realised
    on = frozenset(name for name, value in realised.items() if value is True)
    members = tuple(
        Member(host.name, _names(own - on, cpu_map), _names(cost, cpu_map))
        for host, own, cost in zip(hosts, given, _costs(given), strict=True)
    )
    context = Context(source.version, arch_of(source.arch).name, machine, source.accel)
    return Pool(cpu, context, members, disabled)


def _given(host: DescribedHost, features: Collection[PropertyName]) -> frozenset[PropertyName]:
    """The features of a CPU that guests are given there."""
    return frozenset(
        name for name in host.properties if name in features and not name.startswith(NOT_ON_HOSTS)
    )


def _only(cpu: CpuRequest, common: Collection[PropertyName], cpu_map: CpuMap) -> CpuRequest:
    """The CPU without the additions that some host gives no guest (`est`), or QEMU has no word
    for.
    """
    kept = (
        feature
        for feature in cpu.features
        if feature.policy != "require" or cpu_map.property_of(feature.name) in common
    )
    return replace(cpu, features=tuple(kept))


def _half_described(
    hosts: Sequence[DescribedHost], platform: Platform, machine: str
) -> frozenset[PropertyName]:
    """Features that are worth nothing without others, of which some host's description says
    nothing.
    """
    bare = CpuModel(arch_of(platform.source.arch).bare_model)
    static = platform.source.expand(machine, bare, "static").props
    left_open = [name for name in static if any(host.leaves_open(name) for host in hosts)]
    return frozenset(
        name for name, begin in _WANTING.items() if any(n.startswith(begin) for n in left_open)
    )


def _with_emulated(
    cpu: CpuRequest, proven: Collection[PropertyName], platform: Platform
) -> CpuRequest:
    """The CPU with what KVM emulates on all of these hosts, whatever their own CPUs have."""
    realised, cpu_map = expand(cpu, platform).realised, platform.cpu_map
    lacking = sorted(name for name in _ADDED & frozenset(proven) if realised.get(name) is False)
    named = {feature.name for feature in cpu.features}
    names = [cpu_map.feature_of(name) for name in lacking]
    added = (FeaturePolicy(n, "require") for n in names if n in cpu_map.features and n not in named)
    return replace(cpu, features=(*cpu.features, *added))


def _unlike(hosts: Sequence[DescribedHost]) -> list[DescribedHost]:
    """One of each kind of host: those of one generation are asked once."""
    found: dict[object, DescribedHost] = {}
    for host in hosts:
        of_qemu = (host.cpu.machine, host.cpu.accel, host.by_qemu, host.cpu.made)
        kind = (host.properties, host.undescribed, host.cpu.vendor, host.cpu.arch, str(of_qemu))
        found.setdefault(kind, host)
    return list(found.values())


def _costs(given: Sequence[frozenset[PropertyName]]) -> list[frozenset[PropertyName]]:
    """For each host, what all the others have and it has not."""
    counts: dict[PropertyName, int] = {}
    for own in given:
        for name in own:
            counts[name] = counts.get(name, 0) + 1
    of_all_but_one = frozenset(name for name, count in counts.items() if count == len(given) - 1)
    return [of_all_but_one - own for own in given]


def _names(properties: Collection[PropertyName], cpu_map: CpuMap) -> tuple[FeatureName, ...]:
    return tuple(sorted(cpu_map.feature_of(name) for name in properties))


def models_of(platform: Platform, usable: Usable | None) -> Usable:
    """The models that the platform's QEMU has: of those `usable`, if these are known, with what
    blocks them.
    """
    known = platform.cpu_map.models if usable is None else usable
    machine = platform.machine_for(CpuRequest()).name
    there = {definition.name for definition in platform.source.definitions(machine)}
    return {name: () if usable is None else usable[name] for name in known if name in there}
