"""Where things stand in a domain document, in bytes: what a splice must know to leave every
other byte alone.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator, Sequence
from functools import cache, cached_property
from typing import Any

from cpumap.cpu.frozen import Frozen
from cpumap.errors import DomainError
from cpumap.system.xml_document import Document, first_child

QEMU_NAMESPACE = "http://libvirt.org/schemas/domain/qemu/1.0"


WRAPPERS = ("domstatus", "domainsnapshot", "domaincheckpoint")
"""Elements libvirt stores a `<domain>` in: a running guest's status, a snapshot, a checkpoint."""


ANCHORS = ("features", "os", "vcpu", "currentMemory", "memory", "uuid", "name", "devices")
"""Children of `<domain>` behind which a `<cpu>` is put where there was none, the best first."""


_START_TAG = re.compile(r"<[^\s/>]+(?:[^>\"']|\"[^\"]*\"|'[^']*')*?(/?)>")


OPAQUE = "\0"
"""No XML has this character."""


_ENDS = {"<!--": "-->", "<![CDATA[": "]]>", "<?": "?>"}
"""What may hold a `<` that starts no tag; in text and attribute values XML forbids it."""


_DOCTYPE = re.compile(
    r"""<!DOCTYPE
    (?: [^<>\[\]"'] | "[^"]*" | '[^']*'
      | \[ (?: <!--(?s:.*?)--> | <\?(?s:.*?)\?> | "[^"]*" | '[^']*' | [^\]"'] )*+ \]
    )*+ >""",
    re.VERBOSE,
)
"""What it quotes, and its internal subset, may hold what looks like tags."""


_UTF32_STARTS = (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE, b"<\0\0\0", b"\0\0\0<")


class Span(Frozen):
    """An element in the document, in byte offsets."""

    tag: str
    """As written, with its prefix."""
    start: int
    inner_start: int
    """Behind its start tag."""
    inner_end: int | None
    """Where its end tag starts; None when it is self-closing."""
    end: int
    """Behind the element."""


class Layout:
    """The spans of a `<domain>`, or of a `<cpu>` alone, and of what stands in it.

    An element is found by counting: the n-th of its name in the tree is the n-th tag of that name
    in the text.
    """

    def __init__(self, data: bytes, document: Document) -> None:
        """`document` is what `data` was parsed to. `DomainError` when it holds no `<domain>` and
        is no `<cpu>`.
        """
        if data.startswith(_UTF32_STARTS):
            raise DomainError(
                "this XML cannot be edited: its encoding is UTF-32", f"{document.name}:1"
            )
        self.codec = document_codec(data)
        """What new text is encoded in; `ascii` stands for every encoding that contains it."""
        self.unit = 1 if self.codec == "ascii" else 2
        self._text = without_opaque(code_units(data, self.codec))
        self._document = document
        self._starts: dict[str, list[int]] = {}
        self._tags: dict[str, dict[Any, int]] = {}
        self.element = _domain_or_cpu(document)
        if data.startswith(b"<?xml"):
            _refuse_odd_encoding(document, self.codec)

    @cached_property
    def root(self) -> Span:
        """The `<domain>`, or the document's `<cpu>`."""
        if self.element is not self._document.root:
            return self.span(self.element)
        tag = str(self.element.tag)
        match = self._start_tag(next(_tags(self._text, f"<{tag}")))
        if match[1]:
            return self._span(tag, match.start(), match.end(), None, match.end())
        inner_end = self._text.rindex(f"</{tag}")
        return self._span(
            tag, match.start(), match.end(), inner_end, self._text.index(">", inner_end) + 1
        )

    @property
    def cpu(self) -> Any | None:
        """The `<cpu>` element."""
        return self.element if self.element.tag == "cpu" else first_child(self.element, "cpu")

    @cached_property
    def commandlines(self) -> Sequence[Any]:
        """The `<qemu:commandline>` elements; libvirt takes their arguments one behind the other."""
        return list(self.element.iterchildren(f"{{{QEMU_NAMESPACE}}}commandline"))

    @property
    def prefixes(self) -> Sequence[str]:
        """All prefixes declared on `<domain>` or above."""
        return tuple(prefix for prefix in self.element.nsmap if prefix)

    @property
    def qemu_prefix(self) -> str | None:
        """The prefix for libvirt's QEMU namespace: of the last `<qemu:commandline>` itself, else as
        declared on `<domain>`.

        None where that element declares it as the default namespace, and where nothing declares it.
        """
        if self.commandlines:
            prefix = self.commandlines[-1].prefix
            return None if prefix is None else str(prefix)
        return next(
            (p for p, uri in self.element.nsmap.items() if p and uri == QEMU_NAMESPACE), None
        )

    @property
    def arguments(self) -> Iterator[tuple[Span, str]]:
        """Every `<qemu:arg>` with its value, in order."""
        for commandline in self.commandlines:
            for element in commandline.iterchildren(f"{{{QEMU_NAMESPACE}}}arg"):
                yield self.span(element), element.get("value", "")

    @property
    def environment(self) -> bool:
        """Whether `<qemu:commandline>` has other elements than arguments."""
        children = (child for commandline in self.commandlines for child in commandline)
        return any(child.tag != f"{{{QEMU_NAMESPACE}}}arg" for child in children)

    def child(self, path: str) -> Span | None:
        """The first element at this path below the `<domain>`."""
        element = self.element.find(path) if "/" in path else first_child(self.element, path)
        return None if element is None else self.span(element)

    def text(self, start: int, end: int) -> str:
        """What stands there, a character for each unit; comments and the like are `OPAQUE`."""
        return self._text[start // self.unit : end // self.unit]

    def children(self, element: Any, span: Span) -> dict[Any, Span]:
        """Where each child of the element stands, which stands there itself."""
        found = {}
        position = span.inner_start // self.unit
        for child in element.iterchildren("*"):
            found[child] = self._span_at(_written(child), self._text.index("<", position))
            position = found[child].end // self.unit
        return found

    def first_child(self) -> int | None:
        """Where the first element in the `<domain>` starts."""
        return (
            self._text.index("<", self.root.inner_start // self.unit) * self.unit
            if len(self.element)
            else None
        )

    def span(self, element: Any) -> Span:
        """Where this element of the document stands."""
        tag = _written(element)
        starts = self._starts.get(tag)
        if starts is None:
            starts = self._starts[tag] = list(_tags(self._text, f"<{tag}"))
        start = starts[0] if len(starts) == 1 else self._places(tag, element)[element]
        return self._span_at(tag, start)

    def _span_at(self, tag: str, start: int) -> Span:
        """The element that starts there, in characters."""
        match = self._start_tag(start)
        if match[1]:
            return self._span(tag, start, match.end(), None, match.end())
        inner_end, end = self._end(tag, match.end())
        return self._span(tag, start, match.end(), inner_end, end)

    def _span(
        self, tag: str, start: int, inner_start: int, inner_end: int | None, end: int
    ) -> Span:
        unit = self.unit
        return Span(
            tag,
            start * unit,
            inner_start * unit,
            None if inner_end is None else inner_end * unit,
            end * unit,
        )

    def _places(self, tag: str, element: Any) -> dict[Any, int]:
        """Every element written with this tag → where it starts, in characters."""
        if tag not in self._tags:
            elements = self._document.root.iter(f"{{*}}{_local(element)}")
            same = (other for other in elements if other.prefix == element.prefix)
            self._tags[tag] = dict(zip(same, self._starts[tag], strict=True))
        return self._tags[tag]

    def _end(self, tag: str, position: int) -> tuple[int, int]:
        """The end tag that belongs to the start tag which ends at the position: where it starts
        and ends.
        """
        open_ = 1
        for match in _either_tag(tag).finditer(self._text, position):
            if match[1]:
                open_ -= 1
            elif not self._closes_itself(match.start()):
                open_ += 1
            if not open_:
                return match.start(), self._text.index(">", match.start()) + 1
        raise ValueError(f"<{tag}> is not closed: the document is not the one that was parsed")

    def _closes_itself(self, start: int) -> bool:
        return bool(self._start_tag(start)[1])

    def _start_tag(self, start: int) -> re.Match[str]:
        match = _START_TAG.match(self._text, start)
        if match is None:
            raise ValueError(
                f"no start tag at {start}: the document is not the one that was parsed"
            )
        return match


def read_layout(data: bytes, name: str = "<stdin>") -> Layout:
    """The layout of the document; `DomainError` when it is not XML, has entities, or holds no
    `<domain>`.
    """
    return Layout(data, Document.parse(data, name, DomainError))


def document_codec(data: bytes) -> str:
    """`utf-16-le` or `utf-16-be` for a document in UTF-16, else `ascii`."""
    if data.startswith((codecs.BOM_UTF16_LE, b"<\0")):
        return "utf-16-le"
    return "utf-16-be" if data.startswith((codecs.BOM_UTF16_BE, b"\0<")) else "ascii"


def _domain_or_cpu(document: Document) -> Any:
    root = document.root
    if root.tag not in ("domain", "cpu", *WRAPPERS):
        raise DomainError(f"expected <domain> or <cpu>, found <{root.tag}>", f"{document.name}:1")
    element = root if root.tag in ("domain", "cpu") else next(root.iter("domain"), None)
    if element is None:
        raise DomainError("no <domain> and no <cpu>", f"{document.name}:1")
    return element


def _refuse_odd_encoding(document: Document, codec: str) -> None:
    """What is no superset of ASCII, byte by byte, cannot be searched for tags: UTF-7, UTF-32,
    ISO-2022, EBCDIC.
    """
    encoding: str = document.root.getroottree().docinfo.encoding or "utf-8"
    if encoding.lower() == "utf-8" or codec != "ascii":
        return
    try:
        plain = bytes(range(0x20, 0x7F)).decode(encoding) == bytes(range(0x20, 0x7F)).decode()
    except (LookupError, UnicodeError) as err:
        raise DomainError(f"this XML cannot be edited: {err}", f"{document.name}:1") from err
    if not plain or encoding.lower().startswith(("iso-2022", "hz", "utf-7")):
        raise DomainError(
            f"this XML cannot be edited: its encoding is {encoding}", f"{document.name}:1"
        )


def _written(element: Any) -> str:
    """The element's tag with its prefix."""
    return f"{element.prefix}:{_local(element)}" if element.prefix else _local(element)


def _local(element: Any) -> str:
    return str(element.tag).rpartition("}")[2]


def code_units(data: bytes, codec: str) -> str:
    """The bytes as text: one character for each byte, or each 16-bit unit, so that offsets in the
    text are offsets in the document.
    """
    if codec == "ascii":
        return data.decode("latin-1")
    high, low = (data[1::2], data[::2]) if codec == "utf-16-le" else (data[::2], data[1::2])
    return "".join(chr(256 * first + second) for first, second in zip(high, low, strict=True))


@cache
def _either_tag(tag: str) -> re.Pattern[str]:
    return re.compile(rf"<(/?){re.escape(tag)}(?=[\s/>])")


def without_opaque(text: str) -> str:
    """The text with `OPAQUE` for each character of comments, CDATA sections, processing
    instructions and the document type.
    """
    pieces: list[str] = []
    done = 0
    for start, end in _opaque(text):
        pieces += [text[done:start], OPAQUE * (end - start)]
        done = end
    return "".join([*pieces, text[done:]]) if pieces else text


def _opaque(text: str) -> Iterator[tuple[int, int]]:
    """Where each of them starts and ends. `!` and `?` are looked for, since `<` is everywhere;
    each is found once.
    """
    found = {mark: text.find(mark) for mark in "!?"}
    while marks := [at for at in found.values() if at >= 0]:
        start = min(marks) - 1
        position = start + 2
        for opening, closing in _ENDS.items():
            if text.startswith(opening, max(start, 0)):
                position = text.index(closing, start + len(opening)) + len(closing)
                yield start, position
        if doctype := _DOCTYPE.match(text, max(start, 0)):
            position = doctype.end()
            yield start, position
        found = {
            mark: text.find(mark, position) if 0 <= at < position else at
            for mark, at in found.items()
        }


def _tags(text: str, opening: str) -> Iterator[int]:
    """Where tags that begin so start."""
    position = text.find(opening)
    while position >= 0:
        if text[position + len(opening)] in " \t\r\n/>":
            yield position
        position = text.find(opening, position + 1)
