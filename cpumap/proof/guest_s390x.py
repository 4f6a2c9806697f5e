"""What an s390x guest reads of its CPU: QEMU started with a guest that stores it and stops."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from cpumap.errors import SourceError
from cpumap.qemu.qmp import Session
from cpumap.system.data import data_path

_RESULT, _SIZE = 0x20000, 0x5000  # RESULT of tools/probe/s390x.S, and where its last page ends


_DONE_AT, _DONE = 0x3F8, 0x7E


_POLL = 0.05  # seconds


QUERIES = (
    "KM", "KMC", "KIMD", "KLMD", "KMAC", "PRNO", "KMCTR", "KMF", "KMO", "PCC", "PCKMO", "KMA",
    "KDSA",
)  # fmt: skip
"""The instructions whose query function is asked, as the probe stores them."""


FIELDS: Mapping[str, tuple[int, int]] = {
    "STFLE": (0x0, 256),
    "STIDP": (0x100, 8),
    "STFL": (0x108, 4),
    **{name: (0x200 + 16 * number, 16) for number, name in enumerate(QUERIES)},
    "PTFF": (0x300, 16),
    "STSI 1.1.1": (0x1000, 4096),
    "STSI 1.2.1": (0x2000, 4096),
    "STSI 1.2.2": (0x3000, 4096),
    "STSI 2.2.2": (0x4000, 4096),
}
"""What is read → where it lies in the result, and its bytes (z/Architecture Principles of
Operation; STSI 3.2.2 is left out, since it says which guest it is, not which CPU).
"""


@dataclass(frozen=True, slots=True)
class FieldDifference:
    """A field that two guests read differently, and its bits, the leftmost being 0 as there."""

    field: str
    bits: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.field} bit{'s' if len(self.bits) > 1 else ''} {_ranges(self.bits)}"


def probe_s390x(
    binary: str, machine: str, arguments: Sequence[str], timeout: float = 120.0
) -> Mapping[str, bytes]:
    """What the guest read, by field. Errors: `SourceError` when QEMU does not start the CPU, or the
    guest does not end within the time, in seconds.
    """
    kernel = ["-kernel", str(data_path("s390x", "probe.elf")), "-no-shutdown"]
    words = ["-machine", f"{machine},accel=tcg", *arguments, *kernel]
    with Session.start(binary, words) as session, TemporaryDirectory() as directory:
        session.execute("cont")
        memory = Path(directory) / "memory"
        deadline = time.monotonic() + timeout
        while _read(session, memory)[_DONE_AT + 7] != _DONE:
            if time.monotonic() > deadline:
                raise SourceError(f"{binary}: the probe guest did not end within {timeout:.0f} s")
            time.sleep(_POLL)
        result = _read(session, memory)
    return {name: result[at : at + size] for name, (at, size) in FIELDS.items()}


def _read(session: Session, file: Path) -> bytes:
    session.execute("pmemsave", val=_RESULT, size=_SIZE, filename=str(file))
    return file.read_bytes()


def field_differences(
    before: Mapping[str, bytes], after: Mapping[str, bytes]
) -> Iterator[FieldDifference]:
    """What two guests read differently."""
    for name in FIELDS:
        bits = tuple(_bits(before[name], after[name]))
        if bits:
            yield FieldDifference(name, bits)


def _bits(one: bytes, other: bytes) -> Iterator[int]:
    for number, (a, b) in enumerate(zip(one, other, strict=True)):
        for bit in range(8):
            if (a ^ b) >> (7 - bit) & 1:
                yield 8 * number + bit


def _ranges(bits: Sequence[int]) -> str:
    shown = [str(bit) for bit in bits[:8]]
    return ", ".join([*shown, *(["…"] if len(bits) > len(shown) else [])])
