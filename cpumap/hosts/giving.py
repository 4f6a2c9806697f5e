"""What a host gives its guests, as far as a description of its own CPU lets tell."""

from __future__ import annotations

from collections.abc import Iterator

from cpumap.cpu.bits import MsrBits
from cpumap.cpu.host import HostCpu
from cpumap.cpu.names import FeatureName, PropertyName
from cpumap.libvirt.cpu_map.map import CpuMap
from cpumap.libvirt.rules.compare import features_of_cpu


def _names(text: str) -> frozenset[PropertyName]:
    return frozenset(map(PropertyName, text.split()))


EMULATED = _names("apic arat arch-capabilities hypervisor tsc-adjust tsc-deadline x2apic")
"""What KVM gives guests on any host (arch/x86/kvm/cpuid.c): descriptions of the host's own CPU
do not show it.
"""


OF_HOSTS_ALONE = _names(
    "acpi cid dca ds ds-cpl dtes64 est extapic ht ia64 ibs lwp monitor nodeid-msr osxsave ospke"
    " pbe perfctr-nb pn skinit smx tm tm2 wdt xtpr"
)
"""What CPUs have and KVM gives to no guest by itself (arch/x86/kvm/cpuid.c leaves the bits out): a
description of the host's own CPU proves nothing of them.
"""


def own_properties(cpu: HostCpu, cpu_map: CpuMap) -> frozenset[PropertyName]:
    """What guests can be given of a CPU that is described by itself, and what KVM emulates."""
    own = frozenset(cpu_map.property_of(feature) for feature in features_of_cpu(cpu, cpu_map))
    return (own - OF_HOSTS_ALONE) | EMULATED


def not_described(cpu: HostCpu, cpu_map: CpuMap) -> frozenset[PropertyName]:
    """What the description of a host's own CPU leaves open.

    Capabilities and CPUID dumps do not show every register that holds features: where nothing is
    said of one, its features are neither there nor lacking. Linux shows in /proc/cpuinfo what it
    has a use for, and nothing is known to lack.
    """
    if cpu.own.partial:
        return frozenset(map(cpu_map.property_of, cpu_map.features))
    said = features_of_cpu(cpu, cpu_map) | {feature.name for feature in cpu.features}
    registers = dict(_in_registers(cpu_map))
    read = {registers[name] for name in said if name in registers}
    unread = (name for name, register in registers.items() if register not in read)
    return OF_HOSTS_ALONE | {cpu_map.property_of(name) for name in unread}


def _in_registers(cpu_map: CpuMap) -> Iterator[tuple[FeatureName, int]]:
    """The features that are bits of a model-specific register, and its number."""
    for feature in cpu_map.features.values():
        for bits in feature.bits:
            if isinstance(bits, MsrBits):
                yield feature.name, bits.index
