"""The CPU that every host of a pool has: what each of them can give, and no more."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from cpumap.arch.known import arch_of
from cpumap.cpu.host import UNKNOWN_MACHINE, HostCpu, MadeCpu
from cpumap.cpu.names import FeatureName, PropertyName, Value
from cpumap.cpu.request import FeaturePolicy
from cpumap.errors import InputError
from cpumap.hosts.described import DescribedHost, for_accel
from cpumap.libvirt.cpu_map.map import CpuMap
from cpumap.libvirt.rules.compare import features_of_cpu


def pool(hosts: Sequence[DescribedHost], cpu_map: CpuMap) -> DescribedHost:
    """The host that stands for all: the features that each gives, and the lowest levels and address
    bits.

    What one description leaves open, the pool's does. Family, model and stepping are the lowest
    ones. Errors: `InputError` for hosts of several vendors or architectures, or of none that is
    said.
    """
    name = ", ".join(host.name for host in hosts)
    accel = next((host.cpu.accel for host in hosts if host.cpu.accel), None)
    hosts = [host if accel is None else for_accel(host, accel) for host in hosts]
    _must_agree([(host.name, host.cpu.vendor) for host in hosts], "vendor")
    _must_agree([(host.name, host.cpu.arch) for host in hosts], "architecture")
    if any(host.by_qemu and host.cpu.accel != accel for host in hosts):
        raise InputError("some of these hosts were described with kvm and others with tcg", name)
    oldest = min(hosts, key=_age)
    given = frozenset.intersection(*(host.properties for host in hosts))
    open_ones = {
        name
        for host in hosts
        for name in host.undescribed
        if all(one.gives(name) or one.leaves_open(name) for one in hosts)
    }
    return DescribedHost(
        cpu=_cpu(hosts, oldest.cpu, given, cpu_map, name),
        properties=given,
        by_qemu=all(host.by_qemu for host in hosts),
        name=name,
        undescribed=frozenset(open_ones),
    )


def _must_agree(said: Sequence[tuple[str, str | None]], what: str) -> None:
    values = {value for _, value in said}
    if len(values) > 1 or None in values:
        each = ", ".join(f"{name}: {value or 'not described'}" for name, value in said)
        raise InputError(f"the hosts of a pool must have one {what} ({each})")


def _age(host: DescribedHost) -> tuple[int, int, int]:
    """Family, model and stepping; hosts that do not say them come last."""
    numbers = host.cpu.identity
    if numbers is None:
        return (1 << 16, 0, 0)
    return (numbers.family, numbers.model, numbers.stepping)


def _cpu(
    hosts: Sequence[DescribedHost],
    oldest: HostCpu,
    given: frozenset[PropertyName],
    cpu_map: CpuMap,
    name: str,
) -> HostCpu:
    cpus = [host.cpu for host in hosts]
    features = frozenset.intersection(*(features_of_cpu(cpu, cpu_map) for cpu in cpus))
    usable = [frozenset(cpu.usable) for cpu in cpus if cpu.usable is not None]
    bits = [cpu.phys_bits for cpu in cpus if cpu.phys_bits is not None]
    model = _model(cpus, features, cpu_map)
    same = len({(cpu.machine, cpu.qemu) for cpu in cpus}) == 1
    return HostCpu(
        arch=oldest.arch,
        model=model,
        vendor=oldest.vendor,
        features=tuple(_features(features, model, cpu_map)),
        identity=oldest.identity,
        fallback="forbid" if any(cpu.fallback == "forbid" for cpu in cpus) else "allow",
        usable=tuple(sorted(frozenset.intersection(*usable))) if usable else None,
        properties=given if all(cpu.properties is not None for cpu in cpus) else None,
        machine=oldest.machine if same else f"the machine types of {name}",
        accel=oldest.accel,
        own=UNKNOWN_MACHINE,
        where=name,
        qemu=oldest.qemu if same else "of several releases",
        made=tuple(_made(cpus, oldest)),
        phys_bits=min(bits) if len(bits) == len(cpus) else None,
    )


def _model(
    cpus: Sequence[HostCpu], features: frozenset[FeatureName], cpu_map: CpuMap
) -> str | None:
    """The hosts' model from which the least must be taken away."""
    models = [cpu.model for cpu in cpus if cpu.model in cpu_map.models]
    if not models:
        return None
    return min(models, key=lambda model: len(cpu_map.models[str(model)].features - features))


def _features(
    features: frozenset[FeatureName], model: str | None, cpu_map: CpuMap
) -> Iterable[FeaturePolicy]:
    own = cpu_map.models[model].features if model else frozenset()
    yield from (FeaturePolicy(name, "require") for name in cpu_map.ordered(features - own))
    yield from (FeaturePolicy(name, "disable") for name in cpu_map.ordered(own - features))


def _made(cpus: Sequence[HostCpu], oldest: HostCpu) -> Iterable[MadeCpu]:
    """The hosts' own CPUs as one, migratable and not, where every host says them."""
    for own in oldest.made:
        others = [_of_kind(cpu, own) for cpu in cpus if cpu is not oldest]
        if None in others:
            continue
        made = [own, *(other for other in others if other is not None)]
        names = set.intersection(*(set(one.properties) for one in made))
        yield replace(
            own,
            properties={name: _least(name, made, oldest.arch) for name in sorted(names)},
            without=tuple(sorted({name for one in made for name in one.without})),
        )


def _of_kind(cpu: HostCpu, own: MadeCpu) -> MadeCpu | None:
    for made in cpu.made:
        if (made.model, made.migratable) == (own.model, own.migratable):
            return made
    return None


def _least(name: PropertyName, made: Sequence[MadeCpu], arch: str) -> Value:
    """A feature that each has, the lowest level, the fewest address bits; else what the oldest
    has, which comes first.
    """
    values = [one.properties[name] for one in made]
    if all(isinstance(value, bool) for value in values):
        return all(values)
    levels = arch_of(arch).levels
    lowest = {*(levels.names if levels else ()), "phys-bits", "guest-phys-bits"}
    numbers = [value for value in values if isinstance(value, int)]
    return min(numbers) if name in lowest and len(numbers) == len(values) else values[0]
