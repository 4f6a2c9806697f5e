"""The models that a CPU map's files define, their inheritance resolved."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cpumap.cpu.names import FeatureName
from cpumap.errors import UnknownNameError
from cpumap.libvirt.cpu_map.definitions import number_in, yes_in
from cpumap.libvirt.cpu_map.entries import Model, Signature
from cpumap.libvirt.cpu_map.files import MapFile, children, named
from cpumap.system.xml_document import Document

Written = Mapping[str, tuple[Document, Any]]
"""Models by name, as elements of the document they stand in."""


@dataclass(frozen=True, slots=True)
class MapNames:
    """What a model may name: the features and vendors of its map."""

    path: Path
    features: Collection[FeatureName]
    vendors: Collection[str]


def read_models(files: Iterable[MapFile], known: MapNames) -> dict[str, Model]:
    """Every model in the map's files, inheritance resolved."""
    written: dict[str, tuple[Document, Any]] = {}
    for file in files:
        if b"<model" not in file.content:
            continue
        document, top = file.parsed
        for element in children(top, "model"):
            name = named(element, document)
            if name in written:
                raise document.error(element, f"CPU model {name!r} is defined twice")
            written[name] = document, element
    models: dict[str, Model] = {}
    for name in written:
        _resolve(name, written, models, known, ())
    return {name: models[name] for name in written}


def _resolve(
    name: str,
    written: Written,
    models: dict[str, Model],
    known: MapNames,
    descendants: tuple[str, ...],
) -> Model:
    """The model of this name, put into `models` with all that it inherits from."""
    if name in models:
        return models[name]
    document, element = written[name]
    if name in descendants:
        raise document.error(
            element, f"CPU model inherits from itself: {' → '.join([*descendants, name])}"
        )
    base = Model("", frozenset(), ())
    inherits = element.find("model")
    if inherits is not None:
        ancestor = named(inherits, document)
        if ancestor not in written:
            raise document.error(
                inherits, f"CPU model {name!r} inherits from {ancestor!r}, which is not in the map"
            )
        base = _resolve(ancestor, written, models, known, (*descendants, name))
    models[name] = _model(element, document, base, known)
    return models[name]


def _model(element: Any, document: Document, base: Model, known: MapNames) -> Model:
    listed = dict.fromkeys(base.listed)
    # What its model gained and lost, libvirt does not tell of one that inherits from that model.
    added: set[FeatureName] = set()
    removed: dict[FeatureName, None] = {}
    for name, feature in _model_features(element, document, known):
        if yes_in(feature, "removed", document):
            listed.pop(name, None)
            removed[name] = None
        elif yes_in(feature, "added", document):
            added.add(name)
        else:
            listed[name] = None
    decode = element.find("decode")
    return Model(
        name=named(element, document),
        features=frozenset(listed),
        listed=tuple(listed),
        vendor=_model_vendor(element, document, known) or base.vendor,
        signatures=tuple(_signature(own, document) for own in element.iterfind("signature"))
        or base.signatures,
        decode_host=decode is None or yes_in(decode, "host", document),
        decode_guest=decode is None or yes_in(decode, "guest", document),
        added=frozenset(added - listed.keys()),
        removed=tuple(removed),
        base=base.name or None,
        where=document.where(element),
    )


def _model_features(
    element: Any, document: Document, known: MapNames
) -> Iterator[tuple[FeatureName, Any]]:
    seen = set()
    for feature in element.iterfind("feature"):
        name = FeatureName(named(feature, document))
        if name not in known.features:
            raise UnknownNameError(
                f"CPU feature {name!r} is not in the CPU map {known.path}",
                document.where(feature),
            )
        if name in seen:
            raise document.error(
                feature, f"CPU model {element.get('name')!r} lists feature {name!r} twice"
            )
        seen.add(name)
        yield name, feature


def _model_vendor(element: Any, document: Document, known: MapNames) -> str | None:
    vendor = element.find("vendor")
    if vendor is None:
        return None
    name = named(vendor, document)
    if name not in known.vendors:
        raise UnknownNameError(
            f"CPU vendor {name!r} is not in the CPU map {known.path}", document.where(vendor)
        )
    return name


def _signature(element: Any, document: Document) -> Signature:
    stepping = element.get("stepping")
    return Signature(
        number_in(element, "family", document),
        number_in(element, "model", document),
        None if stepping is None else _steppings(stepping, element, document),
    )


def _steppings(text: str, element: Any, document: Document) -> frozenset[int]:
    """The numbers of a list such as `0-4,7`."""
    steppings: set[int] = set()
    for part in text.split(","):
        first, _, last = part.strip().partition("-")
        last = last or first
        if not (first.isdecimal() and last.isdecimal() and int(last) <= 0xF):
            raise document.error(element, f"stepping {text!r} is no list of numbers from 0 to 15")
        steppings.update(range(int(first), int(last) + 1))
    return frozenset(steppings)
