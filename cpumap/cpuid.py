"""CPUID and MSR data ⇄ features: virsh's `<cpudata>`, `cpuid -r` text, /proc/cpuinfo, and this machine's own."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cpumap.cpu import FeatureName, PropertyName
from cpumap.cpu_map import CpuMap
from cpumap.cpu_map_entries import REGISTERS, Bits, MsrBits
from cpumap.errors import CpuidError, SourceError

if TYPE_CHECKING:
    from cpumap.xml_document import Document

LeafId = tuple[int, int]
"""A CPUID leaf and subleaf."""

Registers = tuple[int, int, int, int]
"""EAX, EBX, ECX, EDX."""

_RAW = re.compile(
    r"\s*(?P<leaf>0x[0-9a-f]{1,8})\s+(?P<subleaf>0x[0-9a-f]{1,8}):"
    r"\s*eax=(0x[0-9a-f]{1,8})\s+ebx=(0x[0-9a-f]{1,8})\s+ecx=(0x[0-9a-f]{1,8})\s+edx=(0x[0-9a-f]{1,8})\s*",
    re.IGNORECASE,
)

_SUBLEAVES = {0x7: 3, 0xD: 2, 0xF: 2, 0x10: 4, 0x12: 2, 0x14: 2, 0x1E: 2, 0x24: 2}
"""Leaves whose subleaves hold features, and how many of them are read."""


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


def read_cpuid(content: bytes | str, *, name: str = "<stdin>") -> CpuidData:
    """The data in a `<cpudata arch='x86'>` document, or in what `cpuid -r` prints (its first CPU).

    Raises `CpuidError` with `file:line`.
    """
    text = content.decode("utf-8", "replace") if isinstance(content, bytes) else content
    if text.lstrip("\ufeff \t\r\n").startswith("<"):
        from cpumap.xml_document import Document

        document = Document.parse(content, name, CpuidError)
        return cpudata(document, document.root)
    return _raw(text, name)


def cpudata(document: Document, element: Any) -> CpuidData:
    """The data in a `<cpudata arch='x86'>` element: virsh's format, which libvirt's own tools write too."""
    if element.tag != "cpudata" or element.get("arch") != "x86":
        raise document.error(element, "CPUID data in XML begin with <cpudata arch='x86'>")
    cpuid: dict[LeafId, Registers] = {}
    for entry in element.iterchildren("cpuid"):
        leaf = document.number(entry, "eax_in", required=True, base=0) or 0
        values = [document.number(entry, register, base=0) or 0 for register in ("ecx_in", *REGISTERS)]
        if (leaf, values[0]) in cpuid:
            raise document.error(entry, f"CPUID leaf 0x{leaf:x}, subleaf {values[0]} is given twice")
        cpuid[leaf, values[0]] = (values[1], values[2], values[3], values[4])
    msrs = {}
    for entry in element.iterchildren("msr"):
        index = document.number(entry, "index", required=True, base=0) or 0
        high, low = (document.number(entry, register, base=0) or 0 for register in ("edx", "eax"))
        msrs[index] = high << 32 | low
    if not cpuid:
        raise document.error(element, "no <cpuid> in <cpudata>")
    return CpuidData(cpuid, msrs)


def _raw(text: str, name: str) -> CpuidData:
    cpuid: dict[LeafId, Registers] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if re.match(r"\s*CPU(\s+\d+)?:\s*$", line):
            if cpuid:
                break  # the next CPU
            continue
        match = _RAW.fullmatch(line)
        if match is None:
            if line.strip():
                raise CpuidError(
                    f"neither <cpudata> nor a line of `cpuid -r`: {line.strip()[:60]!r}", f"{name}:{number}"
                )
            continue
        eax, ebx, ecx, edx = (int(value, 16) for value in match.group(3, 4, 5, 6))
        cpuid[int(match["leaf"], 16), int(match["subleaf"], 16)] = (eax, ebx, ecx, edx)
    if not cpuid:
        raise CpuidError("no CPUID data", name)
    return CpuidData(cpuid)


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


def own_cpuid(device: Path = Path("/dev/cpu/0/cpuid")) -> CpuidData:
    """What the first CPU of this machine answers to CPUID; MSRs are not read.

    Raises `SourceError` where the kernel has no such device (module cpuid) or this user may not read it.
    """
    try:
        with device.open("rb", buffering=0) as stream:
            cpuid = dict(_leaves(stream.fileno()))
    except OSError as err:
        raise SourceError(f"cannot read this machine's CPUID: {err}") from err
    return CpuidData(cpuid)


def _leaves(handle: int) -> Iterator[tuple[LeafId, Registers]]:
    for first in (0, 0x80000000):
        highest = _ask(handle, first, 0)[0]
        for leaf in range(first, max(first, min(highest, first + 0xFF)) + 1):
            for subleaf in range(_SUBLEAVES.get(leaf, 1)):
                yield (leaf, subleaf), _ask(handle, leaf, subleaf)


def _ask(handle: int, leaf: int, subleaf: int) -> Registers:
    """The device takes ECX in the high half of the offset (Linux: arch/x86/kernel/cpuid.c)."""
    import os

    eax, ebx, ecx, edx = struct.unpack("<4I", os.pread(handle, 16, subleaf << 32 | leaf))
    return eax, ebx, ecx, edx
