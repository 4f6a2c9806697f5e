"""XML from outside, read safely: bounded in size, no entities, no network, and every complaint
with its `file:line`.
"""

from __future__ import annotations

import os
import re
from io import BufferedReader
from os import PathLike
from pathlib import Path
from typing import IO, Any

from lxml import etree

from cpumap.cpu.frozen import Frozen
from cpumap.errors import InputError

SIZE_LIMIT = 16 * 1024 * 1024
"""Bytes. libvirt itself carries at most 4 MiB of XML over its wire (REMOTE_STRING_MAX)."""


LONGEST_NUMBER = 100
"""Digits; 64 bits have 22 at most."""


UINT_MAX = 2**32 - 1


ULLONG_MAX = 2**64 - 1


def read_input(path: str | PathLike[str]) -> bytes:
    """The bytes of the file; `InputError` when it is no readable file or larger than
    `SIZE_LIMIT`.
    """
    try:
        with Path(path).open("rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            if 0 < size <= SIZE_LIMIT:
                data = file.read(size + 1)
                if len(data) == size:
                    return data
                file.seek(0)
            # What has no size, or another one than it said, is read as a stream is.
            return read_bounded(BufferedReader(file), str(path))
    except OSError as err:
        raise InputError(err.strerror or str(err), str(path)) from err


def read_bounded(stream: IO[bytes], name: str) -> bytes:
    """All bytes of the stream; `InputError` when they are more than `SIZE_LIMIT`, or cannot be
    read.
    """
    try:
        data = stream.read(SIZE_LIMIT + 1)
    except OSError as err:
        raise InputError(err.strerror or str(err), name) from err
    if len(data) > SIZE_LIMIT:
        raise InputError(f"too large: the limit is {SIZE_LIMIT // 2**20} MiB", name)
    return data


class Document(Frozen):
    """A parsed XML document: its name for messages, the kind of error it raises, and its root."""

    name: str
    error_class: type[InputError]
    root: Any
    content: bytes = b""
    """What it was parsed from; empty for an element that somebody else has parsed."""

    @classmethod
    def parse(
        cls, data: bytes | str, name: str, error_class: type[InputError] = InputError
    ) -> Document:
        """The document; comments and processing instructions are dropped, entities are refused
        rather than resolved.
        """
        if len(data) > SIZE_LIMIT:
            raise error_class(f"too large: the limit is {SIZE_LIMIT // 2**20} MiB", name)
        parser = etree.XMLParser(
            resolve_entities=False,
            no_network=True,
            load_dtd=False,
            remove_comments=True,
            remove_pis=True,
        )
        try:
            root = etree.fromstring(_for_lxml(data), parser)
        except etree.XMLSyntaxError as err:
            raise error_class(
                f"not well-formed XML: {_first_line(err)}", f"{name}:{err.lineno or 1}"
            ) from err
        except ValueError as err:
            raise error_class(f"not XML: {err}", f"{name}:1") from err
        dtd: Any = root.getroottree().docinfo.internalDTD
        if dtd is not None and dtd.entities():
            raise error_class("XML entities are not accepted", f"{name}:1")
        content = data if isinstance(data, bytes) else data.encode("utf-8", "surrogateescape")
        return cls(name, error_class, root, content)

    def of(self, element: Any) -> Document:
        """The element as a document of its own, which it is without being parsed again."""
        return Document(self.name, self.error_class, element)

    def text(self) -> bytes:
        """The document's bytes: those it was parsed from, or as lxml writes the element."""
        return self.content or etree.tostring(self.root, with_tail=False)

    def where(self, element: Any) -> str:
        """`file:line` of the element."""
        return f"{self.name}:{element.sourceline}"

    def error(self, element: Any, message: str) -> InputError:
        """The error to raise about this element."""
        return self.error_class(message, self.where(element))

    def choice(
        self, element: Any, attribute: str, choices: tuple[Any, ...], required: bool = False
    ) -> Any:
        """The attribute's value, one of `choices`; None when it is absent and not required."""
        value = self._attribute(element, attribute, required)
        if value is not None and value not in choices:
            raise self.error(
                element,
                f"invalid value for attribute '{attribute}' in element '{element.tag}': '{value}'"
                f" (expected {', '.join(choices)})",
            )
        return value

    def switch(self, element: Any, attribute: str, required: bool = False) -> bool | None:
        """What an on/off attribute says."""
        value = self.choice(element, attribute, ("on", "off"), required)
        return None if value is None else value == "on"

    def number(
        self,
        element: Any,
        attribute: str,
        *,
        low: int = 0,
        high: int = UINT_MAX,
        required: bool = False,
        base: int = 10,
    ) -> int | None:
        """The attribute's number; with base 0 also hexadecimal (`0x`) or octal (leading `0`)."""
        value = self._attribute(element, attribute, required)
        if value is None:
            return None
        number = c_integer(value, base)
        if number is None or not low <= number <= high:
            raise self.error(
                element,
                f"invalid value for attribute '{attribute}' in element '{element.tag}': '{value}'"
                f" (expected a number from {low} to {high})",
            )
        return number

    def _attribute(self, element: Any, attribute: str, required: bool) -> str | None:
        value: str | None = element.get(attribute)
        if value is None and required:
            raise self.error(
                element, f"missing required attribute '{attribute}' in element '{element.tag}'"
            )
        return value


def escaped(text: str) -> str:
    """The text as it stands in an element's content. xml.sax.saxutils, which has this too, costs a
    short command more than all the rest of its imports.
    """
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def first_child(element: Any, tag: str) -> Any:
    """The first child with this tag, or None: what `find` gives, three times as fast."""
    return next(element.iterchildren(tag), None)


def c_integer(text: str, base: int = 10) -> int | None:
    """The number as C's strtoul reads it, which passes over white space before it; None when
    more follows it.
    """
    match = re.fullmatch(r"\s*\+?(0[xX][0-9a-fA-F]+|[0-9]+)", text, re.ASCII)
    if match is None:
        return None
    digits = match[1]
    if len(digits) > LONGEST_NUMBER:
        return None  # Python refuses to read more than some thousands, in its own words
    if base == 10:
        return int(digits) if digits.isdecimal() else None
    if digits.isdecimal() and digits.startswith("0"):
        return None if re.search("[89]", digits) else int(digits, 8)
    return int(digits, 0)


def _for_lxml(data: bytes | str) -> bytes:
    """Text has lost its encoding: what its XML declaration claims no longer counts."""
    if isinstance(data, bytes):
        return data
    text = data.lstrip("\ufeff")
    if text.startswith("<?xml"):
        declaration, found, rest = text.partition("?>")
        text = "\n" * declaration.count("\n") + rest if found else text
    return text.encode("utf-8", "surrogateescape")


def _first_line(err: etree.XMLSyntaxError) -> str:
    """The parser's complaint without the line and column that end it: `file:line` says that
    already.
    """
    return (
        re.sub(r", line \d+, column \d+$", "", str(err.msg).splitlines()[0])
        if err.msg
        else "empty document"
    )
