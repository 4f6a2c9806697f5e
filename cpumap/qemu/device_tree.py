"""The device tree that QEMU hands its guest, read from its flattened form."""

from __future__ import annotations

import struct

from cpumap.errors import SourceError

_MAGIC = 0xD00DFEED


_BEGIN, _END, _PROPERTY, _NOTHING = 1, 2, 3, 4
"""Tokens of the structure block (Devicetree Specification 0.4, section 5.4)."""


def read_device_tree(blob: bytes) -> dict[str, bytes]:
    """Path and name of each property, `/cpus/PowerPC,POWER9@0:reg` → its value. Errors:
    `SourceError` where this is no flattened device tree.
    """
    try:
        magic, _, structure, strings = struct.unpack_from(">4I", blob)
        if magic != _MAGIC:
            raise ValueError("no device tree")
        return _properties(blob, structure, strings)
    except (struct.error, ValueError, IndexError) as err:
        raise SourceError(f"QEMU's device tree cannot be read: {err}") from err


def _properties(blob: bytes, position: int, strings: int) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    path: list[str] = []
    while True:
        (token,) = struct.unpack_from(">I", blob, position)
        position += 4
        if token == _BEGIN:
            name = _text(blob, position)
            path.append(name)
            position = _aligned(position + len(name) + 1)
        elif token == _END:
            path.pop()
        elif token == _PROPERTY:
            length, offset = struct.unpack_from(">2I", blob, position)
            position += 8
            name = f"{'/'.join(path)}:{_text(blob, strings + offset)}"
            found[name] = blob[position : position + length]
            position = _aligned(position + length)
        elif token != _NOTHING:
            return found


def _text(blob: bytes, position: int) -> str:
    return blob[position : blob.index(b"\0", position)].decode("latin-1")


def _aligned(position: int) -> int:
    return (position + 3) & ~3
