"""CPUID and MSR data ⇄ features: bits set in words, vendor and signature, and what /proc/cpuinfo
says of them.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field

from cpumap.cpu.bits import REGISTERS, Bits, MsrBits
from cpumap.cpu.host import Identity
from cpumap.cpu.names import FeatureName

LeafId = tuple[int, int]
"""A CPUID leaf and subleaf."""


Registers = tuple[int, int, int, int]
"""EAX, EBX, ECX, EDX."""


@dataclass(frozen=True, slots=True)
class CpuidData:
    """What CPUID, and some model-specific registers, answer on one CPU."""

    cpuid: Mapping[LeafId, Registers]
    msrs: Mapping[int, int] = field(default_factory=dict)
    """64 bits each; one that is not there could not be read, or faults."""


def vendor_string(data: CpuidData) -> str:
    """The 12 characters of CPUID leaf 0, empty when the data lack it."""
    _, ebx, ecx, edx = data.cpuid.get((0, 0), (0, 0, 0, 0))
    return struct.pack("<3I", ebx, edx, ecx).rstrip(b"\0").decode("latin-1")


def identity(data: CpuidData) -> Identity:
    """Family, model and stepping; the extended fields count as Intel's and AMD's manuals say
    (CPUID, leaf 1).
    """
    eax = data.cpuid.get((1, 0), (0, 0, 0, 0))[0]
    family = eax >> 8 & 0xF
    model = eax >> 4 & 0xF
    if family in (6, 0xF):
        model |= (eax >> 16 & 0xF) << 4
    if family == 0xF:
        family += eax >> 20 & 0xFF
    return Identity(family, model, eax & 0xF)


def features_of(
    data: CpuidData, bits: Mapping[FeatureName, tuple[Bits, ...]]
) -> frozenset[FeatureName]:
    """The features whose bits are all set in the data; `bits` says where each of them sits."""
    return frozenset(
        name
        for name, places in bits.items()
        if places and all(_word(data, place) & place.mask == place.mask for place in places)
    )


def _word(data: CpuidData, bits: Bits) -> int:
    if isinstance(bits, MsrBits):
        return data.msrs.get(bits.index, 0)
    return data.cpuid.get((bits.leaf, bits.subleaf), (0, 0, 0, 0))[REGISTERS.index(bits.register)]
