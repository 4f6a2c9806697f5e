"""Where things stand in a domain document, in bytes: what a splice must know to leave every other byte alone."""

from __future__ import annotations

import codecs
from dataclasses import dataclass, field
from typing import NoReturn
from xml.parsers import expat

from cpumap.errors import DomainError

QEMU_NAMESPACE = "http://libvirt.org/schemas/domain/qemu/1.0"
COMMANDLINE = "qemu:commandline"
WRAPPERS = ("domstatus", "domainsnapshot", "domaincheckpoint")
"""Elements libvirt stores a `<domain>` in: a running guest's status, a snapshot, a checkpoint."""

ANCHORS = ("features", "os", "vcpu", "currentMemory", "memory", "uuid", "name", "devices")
"""Children of `<domain>` behind which a `<cpu>` is put where there was none, the best first."""


@dataclass(slots=True)
class Span:
    """An element in the document, in byte offsets."""

    tag: str
    """As written, with its prefix."""
    start: int
    inner_end: int | None = None
    """Where its end tag starts; None when it is self-closing."""
    end: int = 0
    """Behind the element; 0 while it is open."""


@dataclass(slots=True)
class Layout:
    """The spans of a `<domain>`, or of a `<cpu>` alone, and of the children that a splice touches or leans on."""

    codec: str
    """What new text is encoded in; `ascii` stands for every encoding that contains it."""
    root: Span | None = None
    """The `<domain>`, or the document's `<cpu>`."""
    qemu_prefix: str | None = None
    """The prefix for libvirt's QEMU namespace: of `<qemu:commandline>` itself, else as declared on `<domain>`."""
    prefixes: tuple[str, ...] = ()
    """All prefixes declared on `<domain>`."""
    children: dict[str, Span] = field(default_factory=dict)
    """The first `<cpu>`, the first of each of `ANCHORS`, and the `<qemu:commandline>`."""
    arguments: list[tuple[Span, str]] = field(default_factory=list)
    """Every `<qemu:arg>` with its value, in order."""
    environment: bool = False
    """Whether `<qemu:commandline>` has other elements than arguments."""


def read_layout(data: bytes, name: str = "<stdin>") -> Layout:
    """The layout of the document; `DomainError` when it is not XML, has entities, or holds no `<domain>`."""
    reader = _Reader(data, name)
    try:
        reader.parser.Parse(data, True)
    except expat.ExpatError as err:
        raise DomainError(f"not well-formed XML: {expat.ErrorString(err.code)}", f"{name}:{err.lineno}") from err
    except (LookupError, ValueError) as err:  # pyexpat, about the declared encoding
        raise DomainError(f"this XML cannot be edited: {err}", f"{name}:1") from err
    if reader.layout.root is None:
        raise DomainError("no <domain> and no <cpu>", f"{name}:1")
    return reader.layout


def document_codec(data: bytes) -> str:
    """`utf-16-le` or `utf-16-be` for a document in UTF-16, else `ascii`."""
    if data.startswith((codecs.BOM_UTF16_LE, b"<\0")):
        return "utf-16-le"
    return "utf-16-be" if data.startswith((codecs.BOM_UTF16_BE, b"\0<")) else "ascii"


class _Reader:
    """Expat's callbacks. Of the open elements only the domain, one child and one argument are followed."""

    def __init__(self, data: bytes, name: str) -> None:
        self.data = data
        self.name = name
        self.layout = Layout(document_codec(data))
        self.depth = 0
        self.child_depth = 0
        """At which depth children of the domain open; 0 before the domain, -1 behind it."""
        self.open: list[Span] = []
        self.open_depth = -1
        """The depth to which the innermost of `open` closes."""
        self.declared: dict[str, str] = {}
        self.parser = expat.ParserCreate(namespace_separator=" ")
        self.parser.namespace_prefixes = True
        self.parser.ordered_attributes = True
        self.parser.StartElementHandler = self.start
        self.parser.EndElementHandler = self.end
        self.parser.StartNamespaceDeclHandler = self.declare
        self.parser.EntityDeclHandler = self.entity

    def entity(self, *_: object) -> NoReturn:
        raise DomainError("XML entities are not accepted", f"{self.name}:{self.parser.CurrentLineNumber}")

    def declare(self, prefix: str | None, uri: str | None) -> None:
        """Comes before the start of the element that has the declaration."""
        if prefix and uri:
            self.declared[prefix] = uri

    def start(self, name: str, attributes: list[str]) -> None:
        self.depth = depth = self.depth + 1
        if depth > self.child_depth + 1 > 1:
            return
        if not self.child_depth:
            self.start_outside(name)
        elif depth == self.child_depth:
            self.start_child(name)
        elif self.open[-1].tag.endswith(":commandline"):
            self.start_argument(name, attributes)

    def start_outside(self, name: str) -> None:
        if self.depth == 1 and name not in ("domain", "cpu", *WRAPPERS):
            raise DomainError(f"expected <domain> or <cpu>, found <{name}>", f"{self.name}:1")
        if name == "domain" or (name == "cpu" and self.depth == 1):
            self.layout.root = self.push(name)
            self.layout.prefixes = tuple(self.declared)
            self.layout.qemu_prefix = next((p for p, uri in self.declared.items() if uri == QEMU_NAMESPACE), None)
            self.child_depth = self.depth + 1
        self.declared.clear()

    def start_child(self, name: str) -> None:
        uri, _, rest = name.partition(" ")
        if uri == QEMU_NAMESPACE and rest.startswith("commandline "):
            self.layout.qemu_prefix = rest.split()[1]
            self.layout.children[COMMANDLINE] = self.push(f"{self.layout.qemu_prefix}:commandline")
        elif (name == "cpu" or name in ANCHORS) and name not in self.layout.children:
            self.layout.children[name] = self.push(name)

    def start_argument(self, name: str, attributes: list[str]) -> None:
        uri, _, rest = name.partition(" ")
        if uri == QEMU_NAMESPACE and rest.startswith("arg "):
            values = dict(zip(attributes[::2], attributes[1::2], strict=True))
            self.layout.arguments.append((self.push(f"{rest.split()[1]}:arg"), values.get("value", "")))
        else:
            self.layout.environment = True

    def push(self, tag: str) -> Span:
        span = Span(tag, self.parser.CurrentByteIndex)
        self.open.append(span)
        self.open_depth = self.depth - 1
        return span

    def end(self, _: str) -> None:
        self.depth = depth = self.depth - 1
        if depth == self.open_depth:
            self.close(self.open.pop())
            self.open_depth -= 1
            if not self.open:
                self.child_depth = self.open_depth = -1

    def close(self, span: Span) -> None:
        """Expat stands on the end tag, or behind a self-closing tag; no parent has the tag of its child."""
        span.end = self.parser.CurrentByteIndex
        end_tag = f"</{span.tag}".encode(self.layout.codec)
        if self.data.startswith(end_tag, span.end):
            span.inner_end = span.end
            closing = ">".encode(self.layout.codec)
            span.end += len(end_tag)
            while not self.data.startswith(closing, span.end):
                span.end += len(closing)
            span.end += len(closing)
