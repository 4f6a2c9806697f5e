"""What stands around a place in a document: margins, line ends; and how text is written there."""

from __future__ import annotations

import re

from cpumap.libvirt.layout import Layout

TextEdit = tuple[int, int, str]
"""The bytes from one offset to another become this text."""


def attribute(value: str) -> str:
    """The value as a quoted XML attribute value."""
    for character, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("'", "&apos;")):
        value = value.replace(character, entity)
    return "'" + re.sub(r"[\t\n\r]", lambda match: f"&#{ord(match[0])};", value) + "'"


class Surroundings:
    """A document, and the white space around the places in it."""

    def __init__(self, document: bytes, layout: Layout, name: str) -> None:
        self.document = document
        self.layout = layout
        self.name = name
        self.codec = "latin-1" if layout.codec == "ascii" else layout.codec
        self.unit = layout.unit
        has_returns = b"\r" in document and "\r\n".encode(self.codec) in document
        self.newline = "\r\n" if has_returns else "\n"

    def margin(self, offset: int) -> str:
        """The line break and the indentation that stand before the offset; empty when it is not
        first in its line.
        """
        before = self.document[max(0, offset - 200 * self.unit) : offset].decode(
            self.codec, "replace"
        )
        line_end = len(before.rstrip(" \t"))
        for newline in ("\r\n", "\n", "\r"):
            if before.endswith(newline, 0, line_end):
                return before[line_end - len(newline) :]
        return ""

    def behind_content(self, offset: int) -> int:
        """The offset before the white space that ends at this one."""
        space = [
            " ".encode(self.codec),
            "\t".encode(self.codec),
            "\r".encode(self.codec),
            "\n".encode(self.codec),
        ]
        while self.document[offset - self.unit : offset] in space:
            offset -= self.unit
        return offset

    def size(self, text: str) -> int:
        return len(text) * self.unit
