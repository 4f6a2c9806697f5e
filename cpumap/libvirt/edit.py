"""A `<cpu>` is put back into its document, and every other byte stays as it was."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from functools import lru_cache
from itertools import chain, count, pairwise

from cpumap.errors import DomainError
from cpumap.libvirt.layout import ANCHORS, QEMU_NAMESPACE, Layout, Span, read_layout
from cpumap.qemu.cpu_option import is_cpu_argument

MACHINE = re.compile(r"""\smachine\s*=\s*(["'])(.*?)\1""", re.DOTALL)


Edit = tuple[int, int, bytes]
"""The bytes from one offset to another become these."""


def replace_cpu(
    document: bytes,
    cpu_element: str | None,
    extra_args: Sequence[str] = (),
    *,
    name: str = "<stdin>",
    machine: str | None = None,
    layout: Layout | None = None,
) -> bytes:
    """The document with this `<cpu>` and these QEMU arguments; `cpu_edits` says how, and what
    stays.

    `layout` spares reading the document again.
    """
    layout = layout or read_layout(document, name)
    return edited(
        document,
        cpu_edits(document, cpu_element, extra_args, layout=layout, name=name, machine=machine),
    )


def edited(document: bytes, edits: Iterable[Edit]) -> bytes:
    """The document after these edits, which are in order."""
    pieces: list[bytes] = []
    done = 0
    for start, end, new in edits:
        pieces += [document[done:start], new]
        done = end
    return b"".join([*pieces, document[done:]])


def cpu_edits(
    document: bytes,
    cpu_element: str | None,
    extra_args: Sequence[str],
    *,
    layout: Layout,
    name: str,
    machine: str | None = None,
) -> list[Edit]:
    """What puts this `<cpu>` (None: its own) into the document, and these QEMU arguments in its
    `<qemu:commandline>`.

    The first line of `cpu_element` is not indented; it takes the document's indentation, line ends
    and encoding. `-cpu`, and `-global` arguments for CPU typenames, that the document had are
    replaced by `extra_args`; the user's other arguments and environment stay. `machine` is a new
    machine type for `<type machine=>`.
    `DomainError` when the document has no place for it.
    """
    editor = _Editor(document, layout, name)
    edits = [*([editor.cpu(cpu_element)] if cpu_element else []), *editor.commandline(extra_args)]
    edits += [editor.machine(machine)] if machine else []
    in_order = sorted(edits, key=lambda edit: edit[:2])
    return [(start, end, _encoded(text, layout.codec)) for start, end, text in in_order]


def attribute(value: str) -> str:
    """The value as a quoted XML attribute value."""
    for character, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("'", "&apos;")):
        value = value.replace(character, entity)
    return "'" + re.sub(r"[\t\n\r]", lambda match: f"&#{ord(match[0])};", value) + "'"


@lru_cache(maxsize=512)  # hundreds of arguments, the same in many documents of a fleet
def _arguments(values: tuple[str, ...], margin: str, tag: str) -> str:
    step = "  " if margin else ""
    return "".join(f"{margin}{step}<{tag} value={attribute(value)}/>" for value in values)


@lru_cache(maxsize=512)  # the same in many documents of a fleet, as well
def _indented(element: str, margin: str) -> str:
    return margin.join(element.strip().split("\n"))  # other line breaks may stand in a value


def _free_prefix(taken: Collection[str]) -> str:
    """A prefix for libvirt's QEMU namespace that the document has for no other."""
    prefixes = chain(("qemu", "libvirt-qemu"), (f"qemu{number}" for number in count(1)))
    return next(prefix for prefix in prefixes if prefix not in taken)


_TextEdit = tuple[int, int, str]


@lru_cache(maxsize=512)  # kept for as many documents as there are, the same is kept once
def _encoded(text: str, codec: str) -> bytes:
    return text.encode(codec, "xmlcharrefreplace")


class _Editor:
    def __init__(self, document: bytes, layout: Layout, name: str) -> None:
        self.document = document
        self.layout = layout
        self.name = name
        self.codec = "latin-1" if layout.codec == "ascii" else layout.codec
        self.unit = layout.unit
        has_returns = b"\r" in document and "\r\n".encode(self.codec) in document
        self.newline = "\r\n" if has_returns else "\n"

    def cpu(self, element: str) -> _TextEdit:
        """The edit that replaces the `<cpu>`, or puts one where libvirt writes it."""
        layout = self.layout
        old = layout.root if layout.element.tag == "cpu" else layout.child("cpu")
        if old is not None:
            return old.start, old.end, self.indented(element, self.margin(old.start))
        anchor = next((span for tag in ANCHORS if (span := layout.child(tag)) is not None), None)
        if anchor is None:
            raise DomainError("no place for a <cpu> in this <domain>", f"{self.name}:1")
        margin = self.margin(anchor.start)
        return anchor.end, anchor.end, margin + self.indented(element, margin)

    def machine(self, machine: str) -> _TextEdit:
        """The edit that puts another machine type into `<type machine=>`."""
        span = self.layout.child("os/type")
        tag = (
            "" if span is None else self.document[span.start : span.inner_start].decode(self.codec)
        )
        match = MACHINE.search(tag)
        if span is None or match is None:
            raise DomainError("no <type machine=> to change", f"{self.name}:1")
        start, end = (span.start + self.unit * offset for offset in match.span(2))
        return start, end, attribute(machine)[1:-1]

    def commandline(self, extra_args: Sequence[str]) -> list[_TextEdit]:
        """The edits that take our former arguments away and put the new ones in."""
        former = self.former()
        if not extra_args and not former:
            return []
        element = self.layout.commandline
        old = None if element is None else self.layout.span(element)
        if old is None or old.inner_end is None:
            return self.new_commandline(old, extra_args)
        if (
            not extra_args
            and len(former) == sum(1 for _ in self.layout.arguments)
            and not self.layout.environment
        ):
            return [(old.start - self.size(self.margin(old.start)), old.end, "")]
        edits = [(span.start - self.size(self.margin(span.start)), span.end, "") for span in former]
        behind = self.behind_content(old.inner_end)
        return [*edits, (behind, behind, self.arguments(extra_args, self.margin(old.start)))]

    def former(self) -> list[Span]:
        """The `-cpu` arguments, and the `-global` ones for CPU typenames, each with its value."""
        former: list[Span] = []
        for (option, text), (value, setting) in pairwise(self.layout.arguments):
            if is_cpu_argument(text, setting):
                former += [option, value]
        return former

    def new_commandline(self, old: Span | None, extra_args: Sequence[str]) -> list[_TextEdit]:
        """A `<qemu:commandline>` opened where it is self-closing, or put at the end of the
        domain.
        """
        if old is not None:
            margin = self.margin(old.start)
            inside = self.arguments(extra_args, margin)
            return [(old.end - self.size("/>"), old.end, f">{inside}{margin}</{old.tag}>")]
        if self.layout.element.tag == "cpu" or self.layout.root.inner_end is None:
            raise DomainError("QEMU arguments need a <domain> to stand in", f"{self.name}:1")
        edits: list[_TextEdit] = []
        prefix = self.layout.qemu_prefix
        if prefix is None:
            prefix = _free_prefix(self.layout.prefixes)
            behind_tag = self.layout.root.start + len("<domain") * self.unit
            edits.append((behind_tag, behind_tag, f" xmlns:{prefix}='{QEMU_NAMESPACE}'"))
        first = self.layout.first_child()
        margin = self.margin(first) if first is not None else ""
        end = self.behind_content(self.layout.root.inner_end)
        inside = self.arguments(extra_args, margin, prefix)
        return [
            *edits,
            (end, end, f"{margin}<{prefix}:commandline>{inside}{margin}</{prefix}:commandline>"),
        ]

    def arguments(self, extra_args: Sequence[str], margin: str, prefix: str | None = None) -> str:
        """The `<qemu:arg>` elements, under the margin of what they stand in."""
        prefix = prefix or self.layout.qemu_prefix
        return _arguments(tuple(extra_args), margin, f"{prefix}:arg" if prefix else "arg")

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

    def indented(self, element: str, margin: str) -> str:
        """The element's lines under the indentation of the margin, with the document's line
        ends.
        """
        return _indented(element, self.newline + margin.lstrip("\r\n"))

    def size(self, text: str) -> int:
        return len(text) * self.unit
