"""Differences between two CPUs as values: of properties, and of the bits that guests read, each
with its cause.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from cpumap.arch.known import PER_INSTANCE
from cpumap.cpu.bits import BitPlace, CpuidBits, MsrBits, Register, bit_numbers
from cpumap.cpu.names import PropertyName, Value
from cpumap.libvirt.cpu_map.map import CpuMap
from cpumap.move.predict import PredictedDifference
from cpumap.proof.guest import BitDifference, GuestCpu, differences

UNPREDICTED = "not predicted: no cause is known"


REALIZE = "follows from the others when the CPU is realised"


MEANINGS = {
    (0x0, "eax"): "highest basic leaf",
    (0x0, "ebx"): "vendor",
    (0x0, "ecx"): "vendor",
    (0x0, "edx"): "vendor",
    (0x1, "eax"): "family, model and stepping",
    (0x1, "ebx"): "brand, CLFLUSH size, number of logical processors",
    (0x2, None): "caches and TLBs",
    (0x4, None): "caches",
    (0x5, None): "MONITOR/MWAIT",
    (0x6, None): "thermal and power management",
    (0x7, "eax"): "highest subleaf",
    (0xA, None): "performance counters",
    (0xB, None): "topology",
    (0xD, None): "XSAVE components and sizes",
    (0x14, None): "processor trace",
    (0x15, None): "TSC frequency",
    (0x16, None): "processor frequencies",
    (0x18, None): "TLBs",
    (0x1D, None): "AMX tiles",
    (0x1E, None): "AMX multiplication",
    (0x1F, None): "topology",
    (0x24, None): "AVX10",
    (0x40000000, None): "hypervisor's name and highest leaf",
    (0x40000001, None): "hypervisor's features",
    (0x40000010, None): "TSC and bus frequency",
    (0x80000000, "eax"): "highest extended leaf",
    (0x80000000, None): "vendor",
    (0x80000001, "eax"): "family, model and stepping",
    (0x80000002, None): "model-id",
    (0x80000003, None): "model-id",
    (0x80000004, None): "model-id",
    (0x80000005, None): "L1 caches and TLBs",
    (0x80000006, None): "L2 and L3 caches and TLBs",
    (0x80000008, "eax"): "address bits",
    (0x80000008, "ecx"): "number of cores",
    (0x8000000A, "eax"): "SVM revision",
    (0x8000001D, None): "caches",
    (0x8000001E, None): "topology",
}
"""What a register says where its bits are not features (Intel SDM vol. 2A, AMD APM vol. 3
appendix E).
"""


@dataclass(frozen=True, slots=True)
class PropertyDifference:
    """A property that has another value, or that one side does not have (None)."""

    name: PropertyName
    a: Value | None
    b: Value | None
    cause: str = ""


@dataclass(frozen=True, slots=True)
class GuestDifference:
    """A register that two guests read differently; `bits` are the numbers of the bits."""

    leaf: int
    subleaf: int
    register: Register | Literal["msr"]
    bits: tuple[int, ...]
    names: tuple[str, ...]
    """The features that these bits are, or what the register is about."""
    a: int | None
    b: int | None
    cause: str
    predicted: bool
    vcpu: int | None = None


def property_differences(
    a: Mapping[PropertyName, Value], b: Mapping[PropertyName, Value], cause: str = ""
) -> tuple[PropertyDifference, ...]:
    """Every property of the CPU, those of an instance apart, in which the two differ."""
    names = sorted((a.keys() | b.keys()) - PER_INSTANCE)
    return tuple(
        PropertyDifference(n, a.get(n), b.get(n), cause) for n in names if a.get(n) != b.get(n)
    )


def guest_differences(
    a: GuestCpu,
    b: GuestCpu,
    cpu_map: CpuMap,
    predicted: Iterable[PredictedDifference] = (),
    cause: str = UNPREDICTED,
) -> tuple[GuestDifference, ...]:
    """Every register in which two guests differ; `cause` is that of what was not predicted."""
    said: dict[tuple[int, int, str], PredictedDifference] = {
        (p.leaf, p.subleaf, p.register): p for p in predicted
    }
    names = bit_names(cpu_map)
    return tuple(_described(found, said, names, cause) for found in differences(a, b))


def caused_differences(
    a: GuestCpu,
    b: GuestCpu,
    cpu_map: CpuMap,
    causes: Mapping[PropertyName, str],
    predicted: Iterable[PredictedDifference] = (),
) -> tuple[GuestDifference, ...]:
    """Every register in which two guests differ, put down to the properties that differ and the
    causes of those.
    """
    rest = (
        "; ".join(dict.fromkeys(cause for cause in causes.values() if cause != REALIZE))
        or "QEMU's code"
    )
    by_feature = {
        str(cpu_map.feature_of(name)): f"{name}: {cause}" for name, cause in causes.items()
    }
    found = guest_differences(a, b, cpu_map, predicted, rest)
    return tuple(
        _caused(bit, [by_feature[name] for name in bit.names if name in by_feature])
        for bit in found
    )


def _caused(bit: GuestDifference, causes: Sequence[str]) -> GuestDifference:
    return replace(bit, cause="; ".join(causes)) if causes else bit


def _described(
    found: BitDifference,
    said: Mapping[tuple[int, int, str], PredictedDifference],
    names: Mapping[BitPlace, str],
    cause: str,
) -> GuestDifference:
    foreseen = said.get((found.leaf, found.subleaf, found.register)) or said.get(
        (found.leaf, 0, found.register)
    )
    exact = foreseen is not None and foreseen.covers(
        found.leaf, found.subleaf, found.register, found.xor
    )
    bits = tuple(bit_numbers(found.xor))
    return GuestDifference(
        leaf=found.leaf,
        subleaf=found.subleaf,
        register=found.register,
        bits=bits,
        names=meanings(found.leaf, found.subleaf, found.register, bits, names),
        a=found.a,
        b=found.b,
        cause=foreseen.cause if foreseen is not None and exact else cause,
        predicted=exact,
        vcpu=found.vcpu,
    )


def meanings(
    leaf: int,
    subleaf: int,
    register: Register | Literal["msr"],
    bits: Sequence[int],
    names: Mapping[BitPlace, str],
) -> tuple[str, ...]:
    """The features that bits are, and what the register is about where they are none."""
    about = MEANINGS.get((leaf, register)) or MEANINGS.get((leaf, None)) or ""
    found = (names.get((leaf, subleaf, register, bit), about) for bit in bits)
    return tuple(dict.fromkeys(name for name in found if name))


def bit_names(cpu_map: CpuMap) -> dict[BitPlace, str]:
    """(leaf or MSR, subleaf, register or `msr`, bit) → the feature that this bit is."""
    return {
        place: feature.name
        for feature in cpu_map.features.values()
        for place in _places(feature.bits)
    }


def _places(entries: Iterable[CpuidBits | MsrBits]) -> Iterator[BitPlace]:
    for entry in entries:
        for bit in bit_numbers(entry.mask):
            if isinstance(entry, MsrBits):
                yield entry.index, 0, "msr", bit
            else:
                yield entry.leaf, entry.subleaf, entry.register, bit
