"""CPUID and MSR data ⇄ features: bits set in words, vendor and signature, and what /proc/cpuinfo says of them."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from cpumap.cpu import FeatureName, PropertyName
from cpumap.cpu_map import CpuMap
from cpumap.cpu_map_entries import REGISTERS, Bits, MsrBits
from cpumap.errors import CpuidError

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


@dataclass(frozen=True, slots=True)
class Identity:
    """Family, model and stepping, as CPUID leaf 1 gives them, extended fields included."""

    family: int
    model: int
    stepping: int


def vendor_string(data: CpuidData) -> str:
    """The 12 characters of CPUID leaf 0, empty when the data lack it."""
    _, ebx, ecx, edx = data.cpuid.get((0, 0), (0, 0, 0, 0))
    return struct.pack("<3I", ebx, edx, ecx).rstrip(b"\0").decode("latin-1")


def identity(data: CpuidData) -> Identity:
    """Family, model and stepping; the extended fields count as Intel's and AMD's manuals say (CPUID, leaf 1)."""
    eax = data.cpuid.get((1, 0), (0, 0, 0, 0))[0]
    family = eax >> 8 & 0xF
    model = eax >> 4 & 0xF
    if family in (6, 0xF):
        model |= (eax >> 16 & 0xF) << 4
    if family == 0xF:
        family += eax >> 20 & 0xFF
    return Identity(family, model, eax & 0xF)


def features_of(data: CpuidData, cpu_map: CpuMap) -> frozenset[FeatureName]:
    """The map's features whose bits are all set in the data."""
    return frozenset(
        name
        for name, feature in cpu_map.features.items()
        if feature.bits and all(_word(data, bits) & bits.mask == bits.mask for bits in feature.bits)
    )


def _word(data: CpuidData, bits: Bits) -> int:
    if isinstance(bits, MsrBits):
        return data.msrs.get(bits.index, 0)
    return data.cpuid.get((bits.leaf, bits.subleaf), (0, 0, 0, 0))[REGISTERS.index(bits.register)]


def data_of(features: Iterable[FeatureName], cpu_map: CpuMap) -> CpuidData:
    """CPUID and MSR words with the bits of these features, and no other bit. Raises `UnknownName`."""
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
    cpuid = {**data.cpuid, (0, 0): (max((leaf for leaf, _ in data.cpuid if leaf < 1 << 16), default=0), ebx, ecx, edx)}
    if numbers is not None:
        _, *rest = cpuid.get((1, 0), (0, 0, 0, 0))
        cpuid[1, 0] = (_version(numbers), rest[0], rest[1], rest[2])
    return CpuidData(cpuid, data.msrs)


def _version(numbers: Identity) -> int:
    extended = max(numbers.family - 0xF, 0)
    family = min(numbers.family, 0xF)
    return extended << 20 | numbers.model >> 4 << 16 | family << 8 | (numbers.model & 0xF) << 4 | numbers.stepping


@dataclass(frozen=True, slots=True)
class CpuInfo:
    """What Linux says of the first CPU in /proc/cpuinfo: partial, for it hides what the kernel does not use."""

    vendor: str
    identity: Identity
    features: frozenset[FeatureName]
    unknown: tuple[str, ...]
    """Flags that the map has no feature for; many of them are Linux's own and no CPUID bits."""


def read_cpuinfo(text: str, cpu_map: CpuMap, *, name: str = "/proc/cpuinfo") -> CpuInfo:
    """The first CPU of an x86 /proc/cpuinfo. Raises `CpuidError`."""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if colon:
            fields.setdefault(key.strip(), value.strip())
    try:
        numbers = Identity(*(int(fields[key]) for key in ("cpu family", "model", "stepping")))
        flags = fields["flags"].split()
    except (KeyError, ValueError) as err:
        raise CpuidError("not the /proc/cpuinfo of an x86 machine", name) from err
    linux = {alias.name: feature.name for feature in cpu_map.features.values() for alias in feature.aliases}
    known = {flag: _flag_feature(flag, linux, cpu_map) for flag in flags}
    features = {feature for feature in known.values() if feature is not None}
    # The time stamp counter that never changes pace and never stops is what AMD and Intel call invariant.
    if {"constant_tsc", "nonstop_tsc"} <= known.keys() and "invtsc" in cpu_map.features:
        features.add(FeatureName("invtsc"))
    unknown = tuple(flag for flag, feature in known.items() if feature is None)
    return CpuInfo(fields.get("vendor_id", ""), numbers, frozenset(features), unknown)


def _flag_feature(flag: str, linux: Mapping[str, FeatureName], cpu_map: CpuMap) -> FeatureName | None:
    """Linux writes `_` where QEMU has `-`, and has a few names of its own, which maps list as its aliases."""
    candidates = (
        linux.get(flag, FeatureName(flag)),
        *(cpu_map.feature_of(PropertyName(p)) for p in (flag, flag.replace("_", "-"))),
    )
    return next((name for name in candidates if name in cpu_map.features), None)
