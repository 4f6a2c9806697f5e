"""CPUID dumps in the text format of InstLatx64, which AIDA64 writes: most public ones have it."""

from __future__ import annotations

import re

from cpumap.arch.x86.cpuid import CpuidData, LeafId, Registers
from cpumap.errors import CpuidError

_HEX = "[0-9a-fA-F]"


_CPUID = re.compile(
    rf"\s*CPUID ({_HEX}{{8}}): ({_HEX}{{8}})-({_HEX}{{8}})-({_HEX}{{8}})-({_HEX}{{8}})"
    rf"(?:.*\[SL ({_HEX}{{2}})\])?"
)


_MSR = re.compile(rf"\s*MSR ({_HEX}{{8}}): ({_HEX}{{4}})-({_HEX}{{4}})-({_HEX}{{4}})-({_HEX}{{4}})")


_LOOKS_LIKE = re.compile(rf"^\s*CPUID {_HEX}{{8}}: {_HEX}{{8}}-", re.MULTILINE)


_ENOUGH = frozenset({(0, 0), (1, 0)})


def is_instlat(text: str) -> bool:
    """Whether a line is one of this format; everything else between such lines is for people."""
    return _LOOKS_LIKE.search(text) is not None


def read_instlat(text: str, *, name: str = "<stdin>") -> CpuidData:
    """The data of the first CPU in the dump. A leaf that is repeated without a subleaf (`[SL 01]`)
    counts its subleaves up. Raises `CpuidError`.
    """
    cpuid: dict[LeafId, Registers] = {}
    msrs: dict[int, int] = {}
    for line in text.splitlines():
        if found := _CPUID.match(line):
            leaf = int(found[1], 16)
            if leaf == 0 and cpuid:
                break  # the next CPU
            eax, ebx, ecx, edx = (int(found[place], 16) for place in (2, 3, 4, 5))
            cpuid[leaf, _subleaf(cpuid, leaf, found[6])] = (eax, ebx, ecx, edx)
        elif found := _MSR.match(line):
            number, *parts = (int(part, 16) for part in found.groups())
            msrs.setdefault(number, int("".join(f"{part:04x}" for part in parts), 16))
    if not cpuid.keys() >= _ENOUGH:
        raise CpuidError("this CPUID dump has no leaves 0 and 1", name)
    return CpuidData(cpuid, msrs)


def _subleaf(cpuid: dict[LeafId, Registers], leaf: int, said: str | None) -> int:
    if said is not None:
        return int(said, 16)
    return sum(1 for known, _ in cpuid if known == leaf)
