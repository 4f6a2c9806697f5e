"""A document's own `<cpu>` is made to say another CPU: what says something else of it stays as it
was, byte for byte.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from typing import Any

from cpumap.cpu.frozen import Frozen
from cpumap.cpu.names import FeatureName
from cpumap.cpu.request import Check
from cpumap.libvirt.layout import Span, code_units
from cpumap.libvirt.surroundings import Surroundings, TextEdit, attribute
from cpumap.system.templates import filled
from cpumap.system.xml_document import escaped, first_child

_ATTRIBUTE = re.compile(r"""\s+([^\s=/>]+)\s*=\s*("[^"]*"|'[^']*')""")


_UNREAD = re.compile(r"(<!--.*?-->|<\?.*?\?>)", re.DOTALL)
"""What is no text of its element."""


_OF_OTHER_MODES = ("migratable", "deprecated_features")
"""Attributes of `<cpu>` that libvirt refuses for a named model, or that a feature list answers."""


_LINE_END = re.compile(r"\r?\n|\r")


_Features = tuple[tuple[FeatureName, bool], ...]


class ExplicitElement(Frozen):
    """What a `<cpu>` says of an explicit CPU, as far as libvirt has words for it."""

    check: Check
    model: str
    vendor_id: str | None
    features: _Features
    """Every one, on or off, in the order to be written."""

    @cached_property
    def alone(self) -> str:
        """The element with nothing else in it; lines end with `\\n`."""
        return self.text()

    def text(self, kept: Sequence[str] = ()) -> str:
        """The element as XML; `kept` are further children, as XML."""
        return filled(
            "cpu.xml.j2",
            check=self.check,
            model=self.model,
            vendor_id=self.vendor_id,
            features=dict(self.features),
            kept=kept,
        )


class CpuEditor(Surroundings):
    """Changes the `<cpu>` that a document has.

    Its attributes, `<model>` and `<feature>` elements are edited where they stand; of features in
    another order than the new one, each is put where that has it. `<vendor>`, `<maxphysaddr>` and
    a host's cache are what the explicit CPU says itself, in properties, or what libvirt refuses
    beside a named model.
    """

    def edits(self, cpu: Any, span: Span, new: ExplicitElement) -> list[TextEdit]:
        """The edits that make this element, which stands there, say the new CPU; in no order."""
        self._cpu, self._span = cpu, span
        attributes: dict[str, str | None] = dict.fromkeys(_OF_OTHER_MODES)
        attributes |= {"mode": "custom", "match": "exact", "check": new.check}
        edits = list(self._attributes(cpu, span, attributes))
        edits += self._gone(cpu)
        model = first_child(cpu, "model")
        if model is None:
            edits.append((span.inner_start, span.inner_start, self._within + _model(new)))
        else:
            edits += self._named(model, new)
        edits += self._features(new)
        return self._opened(edits) if span.inner_end is None else edits

    @cached_property
    def _children(self) -> Mapping[Any, Span]:
        return self.layout.children(self._cpu, self._span)

    def _attributes(
        self, element: Any, span: Span, wanted: Mapping[str, str | None]
    ) -> Iterator[TextEdit]:
        """Gives the element these attributes; None: not this one. Others stay."""
        if all(element.get(name) == value for name, value in wanted.items()):
            return
        start, unit = span.start, self.unit
        behind = start + self.size(f"<{span.tag}")
        tag = self.layout.text(start, span.inner_start)
        for found in _ATTRIBUTE.finditer(tag):
            behind = start + unit * found.end()
            name, old = found.groups()
            if name not in wanted or element.get(name) == wanted[name]:
                continue
            value = wanted[name]
            if value is None:
                yield start + unit * found.start(), behind, ""
            else:
                yield start + unit * found.start(2), behind, _quoted(value, old[0])
        added = [name for name, value in wanted.items() if value and element.get(name) is None]
        yield behind, behind, "".join(f" {name}={attribute(str(wanted[name]))}" for name in added)

    def _gone(self, cpu: Any) -> Iterator[TextEdit]:
        for element in cpu.iterchildren("vendor", "maxphysaddr", "cache"):
            if element.tag != "cache" or element.get("mode") == "passthrough":
                yield self._without(element)

    def _features(self, new: ExplicitElement) -> Iterator[TextEdit]:
        """Those that are named stay in place where their order is the new one's."""
        places = {name: place for place, (name, _) in enumerate(new.features)}
        kept: dict[int, Any] = {}
        for element in self._cpu.iterchildren("feature"):
            place = places.get(element.get("name"))
            if place is None:
                yield self._without(element)
            else:
                kept[place] = element
        if list(kept) == sorted(kept):
            yield from self._in_place(kept, new.features)
            return
        yield from (self._without(element) for element in kept.values())
        lines = [
            (place in kept and self._spelled(kept[place], on)) or _feature(name, on)
            for place, (name, on) in enumerate(new.features)
        ]
        yield self._last("".join(self._within + line for line in lines))

    def _in_place(self, kept: Mapping[int, Any], features: _Features) -> Iterator[TextEdit]:
        """The features between those that stay, each group where the line before it ends."""
        done, before = 0, None
        for place, element in kept.items():
            if place > done:
                where = self._line_end(before, element)
                yield where, where, _lines(features[done:place], self._within)
            if element.get("policy", "require") != _policy(features[place][1]):
                policy = {"policy": _policy(features[place][1])}
                yield from self._attributes(element, self._children[element], policy)
            done, before = place + 1, element
        rest = features[done:]
        if before is None:
            yield self._last(_lines(rest, self._within))
        elif rest:
            where = self._line_end(before, before)
            yield where, where, _lines(rest, self._within)

    def _spelled(self, element: Any, on: bool) -> str:
        """The feature as it is written, if it says this and can stand elsewhere."""
        span = self._children[element]
        content = self.document[span.start : span.end]
        same = element.get("policy", "require") == _policy(on)
        written = code_units(content, self.layout.codec) if same else ""
        return written if written.isascii() else ""

    def _named(self, model: Any, new: ExplicitElement) -> Iterator[TextEdit]:
        span = self._children[model]
        attributes = {"fallback": "forbid", "vendor_id": new.vendor_id}
        yield from self._attributes(model, span, attributes)
        if (model.text or "") == new.model:
            return
        name = escaped(new.model)
        if span.inner_end is None:
            yield span.end - self.size("/>"), span.end, f">{name}</{span.tag}>"
            return
        position = span.inner_start
        for number, piece in enumerate(
            _UNREAD.split(code_units(self.document[position : span.inner_end], self.layout.codec))
        ):
            end = position + self.size(piece)
            if number % 2 == 0 and (piece or number == 0):
                yield position, end, "" if number else name
            position = end

    def _without(self, element: Any) -> TextEdit:
        span = self._children[element]
        return span.start - self.size(self.margin(span.start)), span.end, ""

    def _last(self, lines: str) -> TextEdit:
        """The edit that puts these lines behind everything else in the element."""
        span = self._span
        if span.inner_end is None or not lines:
            return span.inner_start, span.inner_start, lines
        behind = self.behind_content(span.inner_end)
        space = self.document[behind : span.inner_end].decode(self.codec)
        if "\n" in space or "\r" in space:
            return behind, behind, lines
        return behind, span.inner_end, lines + self._margin

    def _opened(self, edits: Sequence[TextEdit]) -> list[TextEdit]:
        """The edits of an element that was self-closing."""
        inside = self._span.inner_start
        lines = "".join(text for start, _, text in edits if start == inside)
        outside = [edit for edit in edits if edit[0] < inside]
        slash = self._span.end - self.size("/>")
        return [*outside, (slash, inside, f">{lines}{self._margin}</{self._span.tag}>")]

    def _line_end(self, before: Any | None, element: Any) -> int:
        """Where the line ends of the feature before the element, or of what is before the first.

        A comment that begins in this line belongs to it.
        """
        if before is None:
            before = next(element.itersiblings("*", preceding=True), None)
        offset = self._span.inner_start if before is None else self._children[before].end
        rest = self.layout.text(offset, self._span.inner_end or offset)
        line = _LINE_END.search(rest.partition("<")[0])
        return offset + self.unit * (line.start() if line else 0)

    @property
    def _margin(self) -> str:
        """What stands before the element, if it were first in its line."""
        return self.newline + self.margin(self._span.start).lstrip("\r\n")

    @cached_property
    def _within(self) -> str:
        """What stands before its children."""
        child = next(self._cpu.iterchildren("*"), None)
        margin = "" if child is None else self.margin(self._children[child].start)
        return margin or f"{self._margin}  "


def _model(new: ExplicitElement) -> str:
    vendor = f" vendor_id={attribute(new.vendor_id)}" if new.vendor_id else ""
    return f"<model fallback='forbid'{vendor}>{escaped(new.model)}</model>"


@lru_cache(maxsize=512)  # hundreds of features, the same in many documents of a fleet
def _lines(features: _Features, margin: str) -> str:
    return "".join(margin + _feature(name, on) for name, on in features)


def _feature(name: FeatureName, on: bool) -> str:
    return f"<feature policy='{_policy(on)}' name={attribute(name)}/>"


def _policy(on: bool) -> str:
    return "require" if on else "disable"


def _quoted(value: str, quote: str) -> str:
    """The value as XML between these quotes."""
    inside = attribute(value)[1:-1]
    if quote == '"':
        inside = inside.replace("&apos;", "'").replace('"', "&quot;")
    return f"{quote}{inside}{quote}"
