"""What a CPU asks for and does not get: put down to a host, an option of QEMU, or what is off."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from cpumap.arch.known import arch_of
from cpumap.cpu.bits import Bit, CpuidBits, place
from cpumap.cpu.expansion import Context, CpuModel, Expansion
from cpumap.cpu.host import UNKNOWN_MACHINE, HostCpu
from cpumap.cpu.names import FeatureName, PropertyName
from cpumap.cpu.origin import OPTIONAL, Origin, origin
from cpumap.cpu.request import CpuRequest, FeaturePolicy
from cpumap.hosts.described import DescribedHost
from cpumap.hosts.lack import HOST, NOT_SAID, OPTION, QEMU, Lack, lacks, who_lacks_nameless
from cpumap.libvirt.cpu_map.map import CpuMap
from cpumap.libvirt.cpu_map.places import bits_of
from cpumap.runnable.available import option_effects
from cpumap.sources.platform import Platform
from cpumap.sources.source import Source


def nameless_lack(bit: Bit, expansion: Expansion) -> Lack:
    leaf, subleaf, register, number = bit
    bits = CpuidBits(leaf, subleaf, register, 1 << number)
    who = who_lacks_nameless(expansion.context.accel)
    return Lack(
        PropertyName(""),
        FeatureName(""),
        (bits,),
        who,
        origin("model", expansion.model.name),
        place(bits),
    )


def by_option(found: tuple[Lack, ...], source: Source, machine: str) -> tuple[Lack, ...]:
    """The lacks, those put down to an option of QEMU that would give the feature: kernel-irqchip
    decides over some.
    """
    if not any(lack.who == QEMU or lack.property.startswith("kvm") for lack in found):
        return found
    given = {
        name: effect.option for effect in option_effects(source, machine) for name in effect.gained
    }
    return tuple(
        replace(lack, who=f"option ({given[lack.property]} would give it)")
        if lack.property in given
        else lack
        for lack in found
    )


def lacks_on_host(
    host: DescribedHost,
    missing: Mapping[PropertyName, str],
    origins: Mapping[PropertyName, Origin],
    cpu_map: CpuMap,
) -> tuple[Lack, ...]:
    """The lacks, put down to CPU, kernel, QEMU or an option of that host as far as its
    description lets tell.
    """
    cpu = host.cpu
    found = lacks(missing, origins, cpu.accel or "kvm", cpu.own, cpu_map)
    return tuple(replace(lack, who=f"{_on(lack, cpu)} ({host.name})") for lack in found)


def not_described_on(
    host: DescribedHost,
    names: Iterable[PropertyName],
    origins: Mapping[PropertyName, Origin],
    cpu_map: CpuMap,
) -> tuple[Lack, ...]:
    """The features that the description leaves open, as lacks of nobody that is known."""
    words = dict.fromkeys(names, "")
    found = lacks(words, origins, host.cpu.accel or "kvm", host.cpu.own, cpu_map)
    return tuple(replace(lack, who=f"{NOT_SAID} ({host.name})") for lack in found)


def _on(lack: Lack, cpu: HostCpu) -> str:
    if lack.property in cpu.options:
        return f"option ({cpu.options[lack.property]} would give it)"
    return HOST if cpu.own == UNKNOWN_MACHINE else lack.who


def off_beneath(
    expansion: Expansion, missing: Collection[PropertyName], cpu_map: CpuMap
) -> tuple[Lack, ...]:
    """Features asked for that QEMU leaves out since something that they depend on is off."""
    found = []
    for prop in expansion.asked:
        is_feature = prop.name in expansion.static and prop.origin != OPTIONAL
        if (
            is_feature
            and prop.value is True
            and expansion.realised.get(prop.name) is False
            and prop.name not in missing
        ):
            bits = bits_of(prop.name, cpu_map)
            words = expansion.unmet.get(prop.name, "")
            found.append(
                Lack(prop.name, cpu_map.feature_of(prop.name), bits, OPTION, prop.origin, words)
            )
    return tuple(found)


def taken_along(prop: PropertyName, expansion: Expansion, source: Source) -> bool:
    """Whether, by a recording, a feature that is off takes this one with it: QEMU warns then,
    and `enforce` fails.
    """
    off = (name for name in expansion.static if expansion.realised.get(name) is False)
    return any(prop in source.dependants(name) for name in off)


def forbidden_there(
    request: CpuRequest,
    platform: Platform,
    context: Context,
    host: DescribedHost | None,
) -> tuple[Lack, ...]:
    wanted = [feature for feature in request.features if feature.policy == "forbid"]
    if not wanted:
        return ()
    cpu_map = platform.cpu_map
    if host is None:
        every = CpuModel(arch_of(platform.source.arch).maximum)
        most = platform.source.expand(context.machine, every, "static").props
        there = [
            feature for feature in wanted if most.get(cpu_map.property_of(feature.name)) is True
        ]
    else:
        there = [feature for feature in wanted if host.gives(cpu_map.property_of(feature.name))]
    return tuple(_forbidden_lack(feature, cpu_map) for feature in there)


def _forbidden_lack(feature: FeaturePolicy, cpu_map: CpuMap) -> Lack:
    prop = cpu_map.property_of(feature.name)
    return Lack(prop, feature.name, bits_of(prop, cpu_map), "nobody", origin("policy", "forbid"))
