"""What this machine's own CPU answers: CPUID and model-specific registers, through Linux's
devices.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from cpumap.arch.x86.cpuid import CpuidData, LeafId, Registers
from cpumap.errors import SourceError

_SUBLEAVES = {0x7: 3, 0xD: 2, 0xF: 2, 0x10: 4, 0x12: 2, 0x14: 2, 0x1E: 2, 0x24: 2}
"""Leaves whose subleaves hold features, and how many of them are read."""


FEATURE_MSRS = (0xCF, 0x10A, 0x345, *range(0x480, 0x492))
"""The registers that hold features: core, arch and perf capabilities, VMX."""


_CPUID_DEVICE = Path("/dev/cpu/0/cpuid")


_MSR_DEVICE = _CPUID_DEVICE.with_name("msr")


def own_cpuid(device: Path = _CPUID_DEVICE) -> CpuidData:
    """What a CPU of this machine answers to CPUID, and no MSRs.

    Raises `SourceError` where the kernel has no such device (module cpuid) or this user may not
    read it.
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
    eax, ebx, ecx, edx = struct.unpack("<4I", os.pread(handle, 16, subleaf << 32 | leaf))
    return eax, ebx, ecx, edx


def own_msrs(device: Path = _MSR_DEVICE) -> dict[int, int]:
    """The registers of `FEATURE_MSRS` that a CPU of this machine has.

    Raises `SourceError` where the kernel has no such device (module msr) or this user may not read
    it.
    """
    try:
        with device.open("rb", buffering=0) as stream:
            found = {number: _read_msr(stream.fileno(), number) for number in FEATURE_MSRS}
    except OSError as err:
        raise SourceError(f"cannot read this machine's MSRs: {err}") from err
    return {number: value for number, value in found.items() if value is not None}


def own_data(device: Path = _CPUID_DEVICE) -> tuple[CpuidData, str]:
    """What a CPU of this machine answers to CPUID and RDMSR; and why no MSR could be read, empty
    when they were.

    The MSRs are those of the same CPU as the CPUID device. Errors: as `own_cpuid`.
    """
    data = own_cpuid(device)
    try:
        return replace(data, msrs=own_msrs(device.with_name("msr"))), ""
    except SourceError as err:
        return data, str(err)


def _read_msr(handle: int, number: int) -> int | None:
    """The device takes the register's number as the offset, and fails with EIO where reading
    faults.
    """
    try:
        content = os.pread(handle, 8, number)
    except OSError as err:
        if err.errno == errno.EIO:
            return None
        raise
    return int.from_bytes(content, "little") if len(content) == 8 else None
