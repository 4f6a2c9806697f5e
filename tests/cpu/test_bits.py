"""One notation for a bit, whoever prints it."""

from __future__ import annotations

import pytest

from cpumap.cpu.bits import (
    CpuidBits,
    MsrBits,
    Where,
    bits_words,
    leaf_key,
    place,
    read_leaf,
    read_where,
    register_words,
)

WORDS: dict[tuple[Where, int], str] = {
    ((0x7, 0, "ebx"), 1 << 5): "CPUID[eax=07h,ecx=00h].EBX [bit 5]",
    ((0xD, 1, "ebx"), 0x1F): "CPUID[eax=0Dh,ecx=01h].EBX [bit 0-4]",
    ((0x1, 0, "ecx"), 0b1011): "CPUID[eax=01h].ECX [bit 0, 1, 3]",
    ((0x80000008, 0, "eax"), 0xFFFFFFFF): "CPUID[eax=80000008h].EAX [bit 0-31]",
    ((0x4, 3, "edx"), 0b1110001): "CPUID[eax=04h,ecx=03h].EDX [bit 0, 4-6]",
    ((0x10A, 0, "msr"), 1 << 40 | 1): "MSR(10Ah) [bit 0, 40]",
}
"""As QEMU 11.1 writes `CPUID[eax=07h,ecx=00h].EBX.avx2 [bit 5]`; leaf 1 heeds no ECX."""


@pytest.mark.parametrize(("bits", "words"), WORDS.items())
def test_bits_in_words(bits: tuple[Where, int], words: str) -> None:
    (leaf, subleaf, register), mask = bits
    assert bits_words(*bits) == words
    assert words.startswith(f"{register_words(bits[0])} [bit ")
    if register == "msr":
        assert place(MsrBits(leaf, mask)) == words
    else:
        assert place(CpuidBits(leaf, subleaf, register, mask)) == words


def test_how_files_name_leaves_and_registers() -> None:
    assert leaf_key(0x8000001D, 3) == "8000001d.3" and read_leaf("8000001d.3") == (0x8000001D, 3)
    assert read_where("d.1.ebx") == (0xD, 1, "ebx")
    for wrong in ("d.1.efx", "d.ebx", "", "x.y.eax"):
        with pytest.raises(ValueError):
            read_where(wrong)
