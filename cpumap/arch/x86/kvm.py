"""What this machine's KVM lets guests have: the kernel's own answer, before any QEMU has an
opinion.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from pathlib import Path

from cpumap.arch.x86.cpuid import CpuidData, LeafId, Registers
from cpumap.errors import SourceError

_GET_SUPPORTED_CPUID = 0xC008AE05


_GET_MSR_FEATURE_INDEX_LIST = 0xC004AE0A


_GET_MSRS = 0xC008AE88


_HEADER = struct.Struct("=II")


_CPUID_ENTRY = struct.Struct("=7I12x")


_MSR_ENTRY = struct.Struct("=IIQ")


_ROOM = 512
"""Entries that there is room for; KVM has about a hundred."""


def supported_cpuid(device: Path = Path("/dev/kvm")) -> CpuidData:
    """What KVM_GET_SUPPORTED_CPUID says, and the registers that hold features (KVM_GET_MSRS of the
    device).

    The kernel's Documentation/virt/kvm/api.rst describes both. Errors: `SourceError` without KVM.
    """
    try:
        handle = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    except OSError as err:
        raise SourceError(f"{device}: {err.strerror}") from err
    try:
        return CpuidData(_cpuid(handle), _msrs(handle))
    except OSError as err:
        raise SourceError(f"{device}: KVM does not say what it supports: {err.strerror}") from err
    finally:
        os.close(handle)


def _cpuid(handle: int) -> dict[LeafId, Registers]:
    answer = bytearray(_HEADER.size + _ROOM * _CPUID_ENTRY.size)
    _HEADER.pack_into(answer, 0, _ROOM, 0)
    fcntl.ioctl(handle, _GET_SUPPORTED_CPUID, answer)
    count, _ = _HEADER.unpack_from(answer)
    found: dict[LeafId, Registers] = {}
    for number in range(count):
        leaf, subleaf, _, *words = _CPUID_ENTRY.unpack_from(
            answer, _HEADER.size + number * _CPUID_ENTRY.size
        )
        found[leaf, subleaf] = (words[0], words[1], words[2], words[3])
    return found


def _msrs(handle: int) -> dict[int, int]:
    listed = bytearray(struct.pack(f"=I{_ROOM}I", _ROOM, *[0] * _ROOM))
    try:
        fcntl.ioctl(handle, _GET_MSR_FEATURE_INDEX_LIST, listed)
    except OSError as err:
        if err.errno in (errno.EINVAL, errno.ENOTTY):  # a kernel before 4.17
            return {}
        raise
    (count,) = struct.unpack_from("=I", listed)
    found = (_msr(handle, index) for index in struct.unpack_from(f"={count}I", listed, 4))
    return {index: value for index, value in found if value is not None}


def _msr(handle: int, index: int) -> tuple[int, int | None]:
    asked = bytearray(_HEADER.pack(1, 0) + _MSR_ENTRY.pack(index, 0, 0))
    count = fcntl.ioctl(handle, _GET_MSRS, asked)
    return index, _MSR_ENTRY.unpack_from(asked, _HEADER.size)[2] if count == 1 else None
