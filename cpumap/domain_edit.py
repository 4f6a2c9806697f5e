"""A `<cpu>` is put back into its document, and every other byte stays as it was."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

from cpumap.cpu_option import CPU_TYPENAME
from cpumap.domain_layout import ANCHORS, COMMANDLINE, QEMU_NAMESPACE, Layout, Span, read_layout
from cpumap.errors import DomainError

Edit = tuple[int, int, str]
"""The bytes from one offset to another become this text."""


def replace_cpu(
    document: bytes, cpu_element: bytes | None, extra_args: Sequence[str] = (), *, name: str = "<stdin>"
) -> bytes:
    """The document with this `<cpu>` (None: its own), and with these QEMU arguments in its `<qemu:commandline>`.

    `cpu_element` is UTF-8, its first line not indented; it takes the document's indentation, line ends and
    encoding. `-cpu`, and `-global` arguments for CPU typenames, that the document had are replaced by `extra_args`;
    the user's other arguments and environment stay. `DomainError` when the document has no place for it.
    """
    layout = read_layout(document, name)
    editor = _Editor(document, layout, name)
    edits = [*([editor.cpu(cpu_element.decode())] if cpu_element else []), *editor.commandline(extra_args)]
    for start, end, text in sorted(edits, key=lambda edit: edit[:2])[::-1]:
        document = document[:start] + text.encode(layout.codec, "xmlcharrefreplace") + document[end:]
    return document


def attribute(value: str) -> str:
    """The value as a quoted XML attribute value."""
    for character, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("'", "&apos;")):
        value = value.replace(character, entity)
    return "'" + re.sub(r"[\t\n\r]", lambda match: f"&#{ord(match[0])};", value) + "'"


class _Editor:
    def __init__(self, document: bytes, layout: Layout, name: str) -> None:
        self.document = document
        self.layout = layout
        self.name = name
        self.codec = "latin-1" if layout.codec == "ascii" else layout.codec
        self.unit = len(" ".encode(self.codec))
        self.newline = "\r\n" if "\r\n".encode(self.codec) in document else "\n"

    def cpu(self, element: str) -> Edit:
        """The edit that replaces the `<cpu>`, or puts one where libvirt writes it."""
        root, children = self.layout.root, self.layout.children
        old = root if root is not None and root.tag == "cpu" else children.get("cpu")
        if old is not None:
            return old.start, old.end, self.indented(element, self.margin(old.start))
        anchor = next((children[tag] for tag in ANCHORS if tag in children), None)
        if anchor is None:
            raise DomainError("no place for a <cpu> in this <domain>", f"{self.name}:1")
        margin = self.margin(anchor.start)
        return anchor.end, anchor.end, margin + self.indented(element, margin)

    def commandline(self, extra_args: Sequence[str]) -> list[Edit]:
        """The edits that take our former arguments away and put the new ones in."""
        former = self.former()
        if not extra_args and not former:
            return []
        old = self.layout.children.get(COMMANDLINE)
        if old is None or old.inner_end is None:
            return self.new_commandline(old, extra_args)
        if not extra_args and len(former) == len(self.layout.arguments) and not self.layout.environment:
            return [(old.start - self.size(self.margin(old.start)), old.end, "")]
        edits = [(span.start - self.size(self.margin(span.start)), span.end, "") for span in former]
        behind = self.behind_content(old.inner_end)
        return [*edits, (behind, behind, self.arguments(extra_args, self.margin(old.start)))]

    def former(self) -> list[Span]:
        """The `-cpu` arguments, and the `-global` ones for CPU typenames, each with its value."""
        former: list[Span] = []
        arguments = self.layout.arguments
        for (option, text), (value, setting) in pairwise(arguments):
            if text == "-cpu" or (text == "-global" and CPU_TYPENAME.fullmatch(setting.partition(".")[0])):
                former += [option, value]
        return former

    def new_commandline(self, old: Span | None, extra_args: Sequence[str]) -> list[Edit]:
        """A `<qemu:commandline>` opened where it is self-closing, or put at the end of the domain."""
        if old is not None:
            margin = self.margin(old.start)
            inside = self.arguments(extra_args, margin)
            return [(old.end - self.size("/>"), old.end, f">{inside}{margin}</{old.tag}>")]
        root = self.layout.root
        if root is None or root.inner_end is None or root.tag == "cpu":
            raise DomainError("QEMU arguments need a <domain> to stand in", f"{self.name}:1")
        edits: list[Edit] = []
        if self.layout.qemu_prefix is None:
            self.layout.qemu_prefix = "qemu" if "qemu" not in self.layout.prefixes else "libvirt-qemu"
            behind_tag = root.start + self.size("<domain")
            edits.append((behind_tag, behind_tag, f" xmlns:{self.layout.qemu_prefix}='{QEMU_NAMESPACE}'"))
        tag = f"{self.layout.qemu_prefix}:commandline"
        margin = self.margin(next(iter(self.layout.children.values())).start)
        end = self.behind_content(root.inner_end)
        return [*edits, (end, end, f"{margin}<{tag}>{self.arguments(extra_args, margin)}{margin}</{tag}>")]

    def arguments(self, extra_args: Sequence[str], margin: str) -> str:
        step = "  " if margin else ""
        tag = f"{self.layout.qemu_prefix}:arg"
        return "".join(f"{margin}{step}<{tag} value={attribute(argument)}/>" for argument in extra_args)

    def margin(self, offset: int) -> str:
        """The line break and the indentation that stand before the offset; empty when it is not first in its line."""
        before = self.document[max(0, offset - 200 * self.unit) : offset].decode(self.codec, "replace")
        match = re.search(r"(?:\r\n|\n|\r)[ \t]*\Z", before)
        return match[0] if match else ""

    def behind_content(self, offset: int) -> int:
        """The offset before the white space that ends at this one."""
        space = [" ".encode(self.codec), "\t".encode(self.codec), "\r".encode(self.codec), "\n".encode(self.codec)]
        while self.document[offset - self.unit : offset] in space:
            offset -= self.unit
        return offset

    def indented(self, element: str, margin: str) -> str:
        """The element's lines under the indentation of the margin, with the document's line ends."""
        indent = margin.lstrip("\r\n")
        return (self.newline + indent).join(element.strip().splitlines())

    def size(self, text: str) -> int:
        return len(text) * self.unit
