"""CPUID data made from features, for tests that decode them again."""

from __future__ import annotations

import struct
from collections.abc import Iterable

from cpumap.arch.x86.cpuid import CpuidData, LeafId
from cpumap.cpu.bits import REGISTERS, MsrBits
from cpumap.cpu.host import Identity
from cpumap.cpu.names import FeatureName
from cpumap.libvirt.cpu_map.map import CpuMap


def data_of(features: Iterable[FeatureName], cpu_map: CpuMap) -> CpuidData:
    """CPUID and MSR words with the bits of these features, and no other bit."""
    cpuid: dict[LeafId, list[int]] = {}
    msrs: dict[int, int] = {}
    for name in features:
        for bits in cpu_map.feature(name).bits:
            if isinstance(bits, MsrBits):
                msrs[bits.index] = msrs.get(bits.index, 0) | bits.mask
            else:
                registers = cpuid.setdefault((bits.leaf, bits.subleaf), [0, 0, 0, 0])
                registers[REGISTERS.index(bits.register)] |= bits.mask
    return CpuidData({leaf: (r[0], r[1], r[2], r[3]) for leaf, r in sorted(cpuid.items())}, msrs)


def with_identity(data: CpuidData, vendor: str, numbers: Identity | None = None) -> CpuidData:
    """The data with this vendor string and these numbers in leaves 0 and 1."""
    ebx, edx, ecx = struct.unpack("<3I", vendor.encode("latin-1").ljust(12, b"\0"))
    cpuid = {
        **data.cpuid,
        (0, 0): (max((leaf for leaf, _ in data.cpuid if leaf < 1 << 16), default=0), ebx, ecx, edx),
    }
    if numbers is not None:
        _, *rest = cpuid.get((1, 0), (0, 0, 0, 0))
        cpuid[1, 0] = (_version(numbers), rest[0], rest[1], rest[2])
    return CpuidData(cpuid, data.msrs)


def _version(numbers: Identity) -> int:
    extended = max(numbers.family - 0xF, 0)
    family = min(numbers.family, 0xF)
    return (
        extended << 20
        | numbers.model >> 4 << 16
        | family << 8
        | (numbers.model & 0xF) << 4
        | numbers.stepping
    )
