"""Bits of CPUID registers and MSRs, and how a place is written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Literal

from cpumap.cpu.frozen import Frozen
from cpumap.cpu.names import PropertyName

Register = Literal["eax", "ebx", "ecx", "edx"]


Bit = tuple[int, int, Register, int]
"""One bit that CPUID answers: leaf, subleaf, register (`ebx`), number."""


_WITH_SUBLEAVES = frozenset({0x7, 0xD, 0xF, 0x10, 0x12, 0x14, 0x19, 0x1D, 0x1E, 0x23, 0x24})
"""CPUID leaves that heed ECX and hold features."""


def place(bits: Bits) -> str:
    """A place in words, as QEMU 11.1 writes it: `CPUID[eax=07h,ecx=00h].EBX [bit 5]`, `MSR(10Ah)
    [bit 0]`.
    """
    numbers = ", ".join(str(number) for number in bit_numbers(bits.mask))
    if isinstance(bits, MsrBits):
        return f"MSR({bits.index:X}h) [bit {numbers}]"
    subleaf = f",ecx={bits.subleaf:02X}h" if bits.subleaf or bits.leaf in _WITH_SUBLEAVES else ""
    return f"CPUID[eax={bits.leaf:02X}h{subleaf}].{bits.register.upper()} [bit {numbers}]"


def qemu_words(prop: PropertyName, bits: Iterable[Bits]) -> str:
    """The feature and its place as QEMU 11.1 names it in a warning:
    `CPUID[eax=07h,ecx=00h].EBX.avx2 [bit 5]`.
    """
    return " and ".join(place(own).replace(" [", f".{prop} [", 1) for own in bits) or prop


def bit_numbers(mask: int) -> Iterator[int]:
    """The numbers of the bits set, lowest first."""
    return (number for number in range(mask.bit_length()) if mask >> number & 1)


def bits_json(bits: Bits) -> dict[str, Any]:
    """A place as JSON; numbers are numbers."""
    numbers = list(bit_numbers(bits.mask))
    if isinstance(bits, MsrBits):
        return {"msr": bits.index, "bits": numbers}
    return {"leaf": bits.leaf, "subleaf": bits.subleaf, "register": bits.register, "bits": numbers}


REGISTERS: tuple[Register, ...] = ("eax", "ebx", "ecx", "edx")


class CpuidBits(Frozen):
    """Bits of one CPUID register; `mask` is 32 bits wide."""

    leaf: int
    subleaf: int
    register: Register
    mask: int


class MsrBits(Frozen):
    """Bits of one model-specific register; `mask` is 64 bits wide (edx:eax)."""

    index: int
    mask: int


Bits = CpuidBits | MsrBits
