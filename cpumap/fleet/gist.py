"""The gist of a document: its text less what says nothing of a CPU. Where the gist is the same,
so is the change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from cpumap.libvirt.edit import Edit
from cpumap.libvirt.layout import OPAQUE, without_opaque

SILENT = {
    "<metadata": "</metadata>",
    "<devices": "</devices>",
    "<cputune": "</cputune>",
    "<memory ": "</memory>",
    "<currentMemory ": "</currentMemory>",
    "<name>": "</name>",
    "<uuid>": "</uuid>",
    "<title>": "</title>",
    "<description>": "</description>",
    "<nvram": "</nvram>",
    "<vcpu ": "</vcpu>",
}
"""Elements that no CPU depends on; `metadata` first, it may hold the others."""


class _Cut(NamedTuple):
    """Where something was cut out; in the text as it was after the cuts before."""

    start: int
    size: int
    left: int
    """What is left of it."""


@dataclass(frozen=True, slots=True)
class Gist:
    """The text, and what was cut out of the document to get there."""

    text: str
    cuts: Sequence[_Cut]

    def within(self, edits: Iterable[Edit]) -> tuple[Edit, ...] | None:
        """The document's edits, in offsets of the gist; None where those do not tell the place:
        at or in a cut.
        """
        found = []
        for start, end, text in edits:
            for cut in self.cuts:
                behind = cut.start + cut.size
                if (end > cut.start and start < behind) or (
                    not cut.left and {start, end} & {cut.start, behind}
                ):
                    return None
                start, end = (
                    at if at <= cut.start else at - cut.size + cut.left for at in (start, end)
                )
            found.append((start, end, text))
        return tuple(found)

    def outside(self, edits: Iterable[Edit]) -> list[Edit]:
        """Edits in offsets of the gist, in those of its document."""
        return [(self._outside(start), self._outside(end), text) for start, end, text in edits]

    def _outside(self, offset: int) -> int:
        for start, size, left in reversed(self.cuts):
            if offset > start:
                offset += size - left
        return offset


def read_gist(data: bytes) -> Gist | None:
    """The gist of a `<domain>`.

    None where it would take a closer look: elements of one name in more places than one, a panic
    device, a number of vCPUs that is none, a text that is not plain ASCII with plain line ends.
    """
    if b"\r" in data or not data.isascii():
        return None
    blanked = without_opaque(data.decode("ascii"))
    text = blanked.lstrip(f" \t\n{OPAQUE}")
    cuts = [_Cut(0, len(blanked) - len(text), 0)]
    for opening, closing in SILENT.items():
        start = text.find(opening)
        if start < 0:
            continue
        end = text.find(closing, start)
        left = LEFT.get(opening, _nothing)(text[start:end])
        if end < 0 or left is None or text.find(opening, start + 1) >= 0:
            return None
        before, behind = text[:start].rstrip(), text[end + len(closing) :]
        cuts.append(_Cut(len(before), len(text) - len(before) - len(behind), len(left)))
        text = f"{before}{left}{behind}"
    return Gist(text, cuts)


def _leaf(element: str) -> str | None:
    """Nothing, and None where the end is another element's: `<memory mode='strict'/>` has none
    of its own.
    """
    return None if "<" in element[1:] else ""


def _nothing(_: str) -> str:
    return ""


def _emulator(devices: str) -> str | None:
    """The beginning and the `<emulator>`, and None where there is another device that says
    something of the CPU.
    """
    if "<panic" in devices:
        return None
    start = devices.find("<emulator")
    return (
        "<devices" if start < 0 else "<devices" + devices[start : devices.find("</emulator", start)]
    )


def _counted(vcpu: str) -> str | None:
    """Nothing, and None where it is no number: whoever reads that closely must say so."""
    return _leaf(vcpu) if vcpu.rpartition(">")[2].isdecimal() else None


LEFT: dict[str, Callable[[str], str | None]] = {
    "<devices": _emulator,
    "<vcpu ": _counted,
    "<memory ": _leaf,
    "<currentMemory ": _leaf,
}
"""What is left of an element."""
