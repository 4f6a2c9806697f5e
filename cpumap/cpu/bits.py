"""Bits of CPUID registers and MSRs, and how a place is written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Literal

from cpumap.cpu.frozen import Frozen
from cpumap.cpu.names import PropertyName

Register = Literal["eax", "ebx", "ecx", "edx"]


Where = tuple[int, int, Register | Literal["msr"]]
"""Leaf, subleaf, register; or the number of an MSR, 0, `msr`."""


BitPlace = tuple[int, int, Register | Literal["msr"], int]
"""One bit of a `Where`: its number is the last."""


Bit = tuple[int, int, Register, int]
"""One bit that CPUID answers: leaf, subleaf, register (`ebx`), number."""


_WITH_SUBLEAVES = frozenset({0x7, 0xD, 0xF, 0x10, 0x12, 0x14, 0x19, 0x1D, 0x1E, 0x23, 0x24})
"""CPUID leaves that heed ECX and hold features."""


def place(bits: Bits) -> str:
    """A place in words, as QEMU 11.1 writes it: `CPUID[eax=07h,ecx=00h].EBX [bit 5]`, `MSR(10Ah)
    [bit 0]`.
    """
    if isinstance(bits, MsrBits):
        return bits_words((bits.index, 0, "msr"), bits.mask)
    return bits_words((bits.leaf, bits.subleaf, bits.register), bits.mask)


def bits_words(where: Where, mask: int) -> str:
    """Bits of a register in the words of `place`; runs of three and more are `0-4`."""
    return f"{register_words(where)} [bit {', '.join(_runs(list(bit_numbers(mask))))}]"


def register_words(where: Where) -> str:
    """A register in the words of `place`: `CPUID[eax=0Dh,ecx=01h].EBX`, `MSR(10Ah)`."""
    leaf, subleaf, register = where
    if register == "msr":
        return f"MSR({leaf:X}h)"
    ecx = f",ecx={subleaf:02X}h" if subleaf or leaf in _WITH_SUBLEAVES else ""
    return f"CPUID[eax={leaf:02X}h{ecx}].{register.upper()}"


def _runs(numbers: list[int]) -> Iterator[str]:
    while numbers:
        length = 1
        while length < len(numbers) and numbers[length] == numbers[0] + length:
            length += 1
        length = length if length > 2 else 1
        yield str(numbers[0]) if length == 1 else f"{numbers[0]}-{numbers[length - 1]}"
        numbers = numbers[length:]


def leaf_key(leaf: int, subleaf: int) -> str:
    """How files name a leaf: `80000008.0`, in hexadecimal."""
    return f"{leaf:x}.{subleaf:x}"


def read_leaf(key: str) -> tuple[int, int]:
    """The leaf and subleaf of a `leaf_key`. Errors: `ValueError`."""
    leaf, subleaf = (int(number, 16) for number in key.split("."))
    return leaf, subleaf


def read_where(key: str) -> Where:
    """The register that files name `7.1.ebx`. Errors: `ValueError`."""
    leaf, _, register = key.rpartition(".")
    return *read_leaf(leaf), read_register(register)


def read_register(text: str) -> Register:
    """The register of this name, however it is written. Errors: `ValueError`."""
    for known in REGISTERS:
        if text.lower() == known:
            return known
    raise ValueError(f"{text!r} is no register of CPUID")


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
