"""A `<cpu>` is put back into its document, and every other byte stays as it was."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from functools import lru_cache
from itertools import chain, count, pairwise

from cpumap.errors import DomainError
from cpumap.libvirt.cpu_edit import CpuEditor, ExplicitElement
from cpumap.libvirt.layout import ANCHORS, QEMU_NAMESPACE, Layout, Span, read_layout
from cpumap.libvirt.surroundings import Surroundings, TextEdit, attribute
from cpumap.qemu.cpu_option import is_cpu_argument

MACHINE = re.compile(r"""\smachine\s*=\s*(["'])(.*?)\1""", re.DOTALL)


Edit = tuple[int, int, bytes]
"""The bytes from one offset to another become these."""


def replace_cpu(
    document: bytes,
    new: ExplicitElement | None,
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
        cpu_edits(document, new, extra_args, layout=layout, name=name, machine=machine),
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
    new: ExplicitElement | None,
    extra_args: Sequence[str],
    *,
    layout: Layout,
    name: str,
    machine: str | None = None,
) -> list[Edit]:
    """What makes the document's `<cpu>` say this (None: what it says), and puts these QEMU
    arguments in its `<qemu:commandline>`.

    A new `<cpu>` takes the document's indentation, line ends and encoding. `-cpu`, and `-global`
    arguments for CPU typenames, that the document had are replaced by `extra_args`; the user's
    other arguments and environment stay. `machine` is a new machine type for `<type machine=>`.
    `DomainError` when the document has no place for it.
    """
    editor = _Editor(document, layout, name)
    edits = [*([] if new is None else editor.cpu(new)), *editor.commandline(extra_args)]
    edits += [editor.machine(machine)] if machine else []
    in_order = sorted(edits, key=lambda edit: edit[:2])
    return [(start, end, _encoded(text, layout.codec)) for start, end, text in in_order]


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


@lru_cache(maxsize=512)  # kept for as many documents as there are, the same is kept once
def _encoded(text: str, codec: str) -> bytes:
    return text.encode(codec, "xmlcharrefreplace")


class _Editor(Surroundings):
    def cpu(self, new: ExplicitElement) -> list[TextEdit]:
        """The edits that change the `<cpu>`, or put one where libvirt writes it."""
        layout = self.layout
        old = layout.cpu
        if old is not None:
            place = layout.root if old is layout.element else layout.span(old)
            return CpuEditor(self.document, layout, self.name).edits(old, place, new)
        anchor = next((span for tag in ANCHORS if (span := layout.child(tag)) is not None), None)
        if anchor is None:
            raise DomainError("no place for a <cpu> in this <domain>", f"{self.name}:1")
        margin = self.margin(anchor.start)
        return [(anchor.end, anchor.end, margin + self.indented(new.alone, margin))]

    def machine(self, machine: str) -> TextEdit:
        """The edit that puts another machine type into `<type machine=>`."""
        span = self.layout.child("os/type")
        tag = "" if span is None else self.layout.text(span.start, span.inner_start)
        match = MACHINE.search(tag)
        if span is None or match is None:
            raise DomainError("no <type machine=> to change", f"{self.name}:1")
        start, end = (span.start + self.unit * offset for offset in match.span(2))
        return start, end, attribute(machine)[1:-1]

    def commandline(self, extra_args: Sequence[str]) -> list[TextEdit]:
        """The edits that take our former arguments away and put the new ones in."""
        former = self.former()
        if not extra_args and not former:
            return []
        lines = [self.layout.span(element) for element in self.layout.commandlines]
        if (
            not extra_args
            and len(former) == sum(1 for _ in self.layout.arguments)
            and not self.layout.environment
        ):
            return [self.without(span) for span in lines]
        edits = [self.without(span) for span in former]
        if not extra_args:
            return edits
        last = lines[-1] if lines else None
        if last is None or last.inner_end is None:
            return [*edits, *self.new_commandline(last, extra_args)]
        behind = self.behind_content(last.inner_end)
        return [*edits, (behind, behind, self.arguments(extra_args, self.margin(last.start)))]

    def without(self, span: Span) -> TextEdit:
        """The edit that takes an element away, with the margin before it."""
        return span.start - self.size(self.margin(span.start)), span.end, ""

    def former(self) -> list[Span]:
        """The `-cpu` arguments, and the `-global` ones for CPU typenames, each with its value."""
        former: list[Span] = []
        for (option, text), (value, setting) in pairwise(self.layout.arguments):
            if is_cpu_argument(text, setting):
                former += [option, value]
        return former

    def new_commandline(self, old: Span | None, extra_args: Sequence[str]) -> list[TextEdit]:
        """A `<qemu:commandline>` opened where it is self-closing, or put at the end of the
        domain.
        """
        if old is not None:
            margin = self.margin(old.start)
            inside = self.arguments(extra_args, margin)
            return [(old.end - self.size("/>"), old.end, f">{inside}{margin}</{old.tag}>")]
        if self.layout.element.tag == "cpu" or self.layout.root.inner_end is None:
            raise DomainError("QEMU arguments need a <domain> to stand in", f"{self.name}:1")
        edits: list[TextEdit] = []
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

    def indented(self, element: str, margin: str) -> str:
        """The element's lines under the indentation of the margin, with the document's line
        ends.
        """
        return _indented(element, self.newline + margin.lstrip("\r\n"))
