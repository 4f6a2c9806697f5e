"""Where features sit, as a CPU map says."""

from __future__ import annotations

from cpumap.cpu.bits import Bits, qemu_words
from cpumap.cpu.names import PropertyName
from cpumap.libvirt.cpu_map.map import CpuMap


def bits_of(prop: PropertyName, cpu_map: CpuMap) -> tuple[Bits, ...]:
    """Where the feature sits, as the CPU map says; nothing for one that it does not have."""
    feature = cpu_map.features.get(cpu_map.feature_of(prop))
    return feature.bits if feature else ()


def feature_place(name: PropertyName, cpu_map: CpuMap) -> str:
    """The CPUID bits of a feature in QEMU's words, empty for a property that is no feature."""
    bits = bits_of(name, cpu_map)
    return qemu_words(name, bits) if bits else ""
