"""What an aarch64 guest reads of its CPU: QEMU started with a guest that writes its ID registers
and switches itself off.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from cpumap.errors import SourceError
from cpumap.qemu.qmp import Session
from cpumap.system.data import data_path

_POLL = 0.05  # seconds


_LINE = re.compile(r"([0-9a-f]{3}) ([0-9a-f]{16}|-)")


_NAMES: Mapping[int, str] = {
    0x00: "MIDR_EL1",
    0x05: "MPIDR_EL1",
    0x10: "ID_PFR0_EL1",
    0x11: "ID_PFR1_EL1",
    0x12: "ID_DFR0_EL1",
    0x40: "ID_AA64PFR0_EL1",
    0x41: "ID_AA64PFR1_EL1",
    0x44: "ID_AA64ZFR0_EL1",
    0x45: "ID_AA64SMFR0_EL1",
    0x50: "ID_AA64DFR0_EL1",
    0x51: "ID_AA64DFR1_EL1",
    0x60: "ID_AA64ISAR0_EL1",
    0x61: "ID_AA64ISAR1_EL1",
    0x62: "ID_AA64ISAR2_EL1",
    0x70: "ID_AA64MMFR0_EL1",
    0x71: "ID_AA64MMFR1_EL1",
    0x72: "ID_AA64MMFR2_EL1",
    0x101: "CTR_EL0",
    0x107: "DCZID_EL0",
    0x111: "CLIDR_EL1",
    0x114: "GMID_EL1",
    0x117: "AIDR_EL1",
    0x120: "CNTFRQ_EL0",
    0x130: "PMCR_EL0",
    0x131: "PMCEID0_EL0",
    0x132: "PMCEID1_EL0",
}
"""Registers by the numbers that tools/probe/aarch64.S gives them (Arm Architecture Reference
Manual); others are called by their encoding.
"""

_CACHES, _LENGTHS = 0x200, 0x300


def probe_aarch64(
    binary: str, machine: str, arguments: Sequence[str], timeout: float = 120.0
) -> Mapping[str, int | None]:
    """What the guest read, by register; None where reading traps. Errors: `SourceError` when QEMU
    does not start the CPU, or the guest does not end within the time, in seconds.
    """
    with TemporaryDirectory() as directory:
        written = Path(directory) / "serial"
        words = [
            *("-machine", f"{machine},accel=tcg", *arguments),
            *("-chardev", f"file,id=told,path={written}", "-serial", "chardev:told"),
            *("-kernel", str(data_path("aarch64", "probe.elf")), "-no-shutdown"),
        ]
        with Session.start(binary, words) as session:
            session.execute("cont")
            deadline = time.monotonic() + timeout
            while session.execute("query-status")["running"]:
                if time.monotonic() > deadline:
                    raise SourceError(
                        f"{binary}: the probe guest did not end within {timeout:.0f} s"
                    )
                time.sleep(_POLL)
        found = dict(_readings(written.read_text()))
    if not found:
        raise SourceError(f"{binary}: the probe guest wrote nothing")
    return found


def _readings(text: str) -> Iterator[tuple[str, int | None]]:
    for line in text.splitlines():
        match = _LINE.fullmatch(line)
        if match:
            yield _register(int(match[1], 16)), None if match[2] == "-" else int(match[2], 16)


def _register(number: int) -> str:
    """What the probe's number stands for."""
    if number in _NAMES:
        return _NAMES[number]
    if number >= _LENGTHS:
        return f"SVE vector length at ZCR_EL1.LEN={number - _LENGTHS}"
    if number >= _CACHES:
        return f"CCSIDR_EL1 of cache {number - _CACHES}"
    return f"S3_0_C0_C{number >> 4}_{number & 0xF}"


def register_differences(
    before: Mapping[str, int | None], after: Mapping[str, int | None]
) -> Iterator[str]:
    """What two guests read differently, in words."""
    for name in {**before, **after}:
        one, other = before.get(name), after.get(name)
        if one != other:
            yield f"{name} {_value(one)} -> {_value(other)}"


def _value(value: int | None) -> str:
    return "traps" if value is None else f"{value:#x}"
