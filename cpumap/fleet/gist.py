"""The gist of a document: its text less what says nothing of a CPU. Where the gist is the same,
so is the change.

Two documents of one gist are the same text with holes. A hole is a whole element that nobody reads
to find out the CPU, or where to write it; what stands before and behind it is in the gist.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from cpumap.libvirt.edit import Edit
from cpumap.system.xml_document import first_child

HOLE = b"\0"
"""Stands at both ends of what is left of a hole. No XML has this character."""


_UTF_8 = rb"[Uu][Tt][Ff]-8"


_HEADER = re.compile(
    rb"""(?:<\?xml\ version=(?:'1\.0'|"1\.0")(?:\ encoding=(?:'%b'|"%b"))?\ ?\?>)?
    (?>\s+|<!--.*?-->)*+(?=<domain[\s>])"""
    % (_UTF_8, _UTF_8),
    re.DOTALL | re.VERBOSE,
)
"""What libvirt writes before a `<domain>`: a declaration, a comment."""


_HEAD = re.compile(rb"\0<domain[^<>]*>(?:\s*\0[^\0]*\0)*")
"""A `<domain>` and the holes that it begins with."""


_OPTIONAL = (b"metadata", b"title", b"description", b"cputune")
"""Elements that some documents have and others have not, and behind which nothing is ever put."""


_COUNT = re.compile(rb"[1-9][0-9]{0,5}")


class _Cut(NamedTuple):
    """Where something was cut out; in the text as it was after the cuts before."""

    start: int
    size: int
    left: int
    """The length of what is left of it."""


@dataclass(frozen=True, slots=True)
class Gist:
    """The text, and what was cut out of the document to get there."""

    text: bytes
    cuts: Sequence[_Cut]

    def within(self, edits: Iterable[Edit]) -> tuple[Edit, ...] | None:
        """The document's edits, in offsets of the gist; None where one reaches into a hole."""
        found = []
        for first, last, text in edits:
            start, end = first, last
            for cut in self.cuts:
                behind = cut.start + cut.size
                if (start < behind and end > cut.start) or (not cut.left and end == behind):
                    return None
                moved = cut.left - cut.size
                start, end = (at if at <= cut.start else at + moved for at in (start, end))
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


def read_gist(data: bytes, domain: Any) -> Gist | None:
    """The gist of a document, whose root, as it was parsed, is this `<domain>`.

    None where it would take a closer look: a document type, comments, CDATA or processing
    instructions in the `<domain>`, another encoding, a text that is not plain ASCII with plain line
    ends. Without those, every `<` starts a tag: XML forbids it in text and in attribute values.
    """
    header = _HEADER.match(data)
    if header is None or b"\r" in data or not data.isascii() or _is_odd(data, header.end()):
        return None
    gist = _Text(HOLE + data[header.end() :], [_Cut(0, header.end(), 1)])
    for name, find in _HOLES:
        hole = find(gist.text, name, domain)
        if hole is not None:
            start, end, said = hole
            gist.cut(start, end, HOLE + name + said + HOLE)
    _forget_optional(gist)
    return Gist(gist.text, gist.cuts)


@dataclass(slots=True)
class _Text:
    """A text in which holes are made."""

    text: bytes
    cuts: list[_Cut]

    def cut(self, start: int, end: int, left: bytes) -> None:
        self.cuts.append(_Cut(start, end - start, len(left)))
        self.text = self.text[:start] + left + self.text[end:]


def _forget_optional(gist: _Text) -> None:
    """Leaves nothing of what some documents have and others have not, where the `<domain>` begins
    with holes alone: farther behind it could be in an element that must not have it.
    """
    head = _HEAD.match(gist.text)
    length = head.end() if head else 0
    for name in _OPTIONAL:
        hole = HOLE + name + HOLE
        start = gist.text.find(hole, 0, length)
        if start >= 0:
            length -= _remove(gist, start, start + len(hole))


def _remove(gist: _Text, start: int, end: int) -> int:
    """Removes the hole with the white space before it, and says how much that was: what is next to
    it then stands where it would without this element, behind the same white space.

    0 where that is not so, or where the element is the last of its parent's.
    """
    text = gist.text
    before = len(text[:start].rstrip())
    space = text[before:start]
    behind = end + len(space)
    next_to_it = text[behind : behind + 2]
    same = text.startswith(space, end) and next_to_it[:1] in (b"<", HOLE) and next_to_it != b"</"
    if not same:
        return 0
    gist.cut(before, end, b"")
    return end - before


def _is_odd(data: bytes, start: int) -> bool:
    """Whether something else than elements stands there. `!` and `?` are rare, `<` is not."""
    exclaims, asks = data.find(b"!", start) >= 0, data.find(b"?", start) >= 0
    return (exclaims and data.find(b"<!", start) >= 0) or (asks and data.find(b"<?", start) >= 0)


_Hole = tuple[int, int, bytes]
"""Where an element starts and ends, and what must be kept of it."""


def _container(text: bytes, name: bytes, _: Any) -> _Hole | None:
    """The first element of this name; None where another of its name is in it."""
    start = text.find(b"<" + name)
    if start < 0:
        return None
    end = text.find(b"</" + name, start)
    behind = end + len(name) + 3
    if text.find(b"<" + name, start + 1, end) >= 0 or end < 0 or text[behind - 1] != _CLOSING:
        return None
    return (start, behind, b"") if text[start + len(name) + 1] in b" >" else None


_CLOSING = ord(">")


def _devices(text: bytes, name: bytes, domain: Any) -> _Hole | None:
    """The `<devices>`; None where a device says something of the CPU. The emulator is kept."""
    start, end = text.find(b"<devices>"), text.rfind(b"</devices>")
    if start < 0 or end < start or text.find(name, start + len(name) + 1, end) >= 0:
        return None
    devices = first_child(domain, "devices")
    if devices is None or first_child(devices, "panic") is not None:
        return None
    emulator = first_child(devices, "emulator")
    said = b"" if emulator is None else b"=" + (emulator.text or "").encode()
    return start, end + len(name) + 3, said


def _leaf(text: bytes, name: bytes, _: Any) -> _Hole | None:
    """The first element of this name; None where more than text is in it, or an odd tag's `>`."""
    start = text.find(b"<" + name)
    if start < 0:
        return None
    end = text.find(b"<", start + 1)
    behind = end + len(name) + 3
    if text[end:behind] != b"</" + name + b">" or text[start + len(name) + 1] not in b" >":
        return None
    opened = text.find(b">", start, end)
    if text[opened - 1] == _SLASH or text.find(b">", opened + 1, end) >= 0:
        return None
    return start, behind, text[opened + 1 : end]


_SLASH = ord("/")


def _silent(text: bytes, name: bytes, domain: Any) -> _Hole | None:
    hole = _leaf(text, name, domain)
    return hole and (hole[0], hole[1], b"")


def _vcpu(text: bytes, name: bytes, domain: Any) -> _Hole | None:
    """The number of vCPUs counts where it must fit a topology. None where it is no number:
    whoever reads that closely must say so.
    """
    hole = _leaf(text, name, domain)
    if hole is None or _COUNT.fullmatch(hole[2]) is None:
        return None
    return hole if b"<topology" in text else (hole[0], hole[1], b"")


_Finder = Callable[[bytes, bytes, Any], _Hole | None]


_HOLES: tuple[tuple[bytes, _Finder], ...] = (
    (b"metadata", _container),  # it may hold the others
    (b"devices", _devices),
    (b"cputune", _container),
    (b"nvram", _container),
    (b"name", _silent),
    (b"uuid", _silent),
    (b"title", _silent),
    (b"description", _silent),
    (b"memory", _silent),
    (b"currentMemory", _silent),
    (b"vcpu", _vcpu),
)
"""Elements that no CPU depends on, or only by what is kept of them."""
