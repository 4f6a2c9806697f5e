"""The definitions in a CPU map's files: vendors, features with their bits, models with their inheritance resolved."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from cpumap.cpu import FeatureName
from cpumap.cpu_map import CpuMap
from cpumap.cpu_map_entries import REGISTERS, Alias, Bits, CpuidBits, Feature, Model, MsrBits, Signature, Vendor
from cpumap.cpu_map_files import children, definitions, feature_elements, named, spellings
from cpumap.errors import UnknownName
from cpumap.xml_document import Document

Written = Mapping[str, tuple[Document, Any]]
"""Models by name, as elements of the document they stand in."""


def read_vendors(cpu_map: CpuMap) -> dict[str, Vendor]:
    """Every vendor in the map's files."""
    vendors: dict[str, Vendor] = {}
    for file in cpu_map.files:
        if b"string=" not in file.content and not file.section:
            continue
        document, top = definitions(file, cpu_map.arch)
        for element in children(top, "vendor"):
            vendor = Vendor(named(element, document), element.get("string", ""))
            if vendor.name in vendors:
                raise document.error(element, f"CPU vendor {vendor.name!r} is defined twice")
            vendors[vendor.name] = vendor
    return vendors


def read_features(cpu_map: CpuMap) -> dict[FeatureName, Feature]:
    """Every feature in the map's files."""
    features: dict[FeatureName, Feature] = {}
    for document, element in feature_elements(cpu_map.files, cpu_map.arch):
        feature = _feature(element, document)
        if feature.name in features:
            first = features[feature.name].where
            raise document.error(element, f"CPU feature {feature.name!r} is defined twice (first at {first})")
        features[feature.name] = feature
    return features


def read_models(cpu_map: CpuMap) -> dict[str, Model]:
    """Every model in the map's files, inheritance resolved."""
    written: dict[str, tuple[Document, Any]] = {}
    for file in cpu_map.files:
        if b"<model" not in file.content:
            continue
        document, top = definitions(file, cpu_map.arch)
        for element in children(top, "model"):
            name = named(element, document)
            if name in written:
                raise document.error(element, f"CPU model {name!r} is defined twice")
            written[name] = document, element
    models: dict[str, Model] = {}
    for name in written:
        _resolve(name, written, models, cpu_map, ())
    return {name: models[name] for name in written}


def _resolve(
    name: str, written: Written, models: dict[str, Model], cpu_map: CpuMap, descendants: tuple[str, ...]
) -> Model:
    """The model of this name, put into `models` with all that it inherits from."""
    if name in models:
        return models[name]
    document, element = written[name]
    if name in descendants:
        raise document.error(element, f"CPU model inherits from itself: {' → '.join([*descendants, name])}")
    base = Model("", frozenset(), ())
    inherits = element.find("model")
    if inherits is not None:
        ancestor = named(inherits, document)
        if ancestor not in written:
            raise document.error(inherits, f"CPU model {name!r} inherits from {ancestor!r}, which is not in the map")
        base = _resolve(ancestor, written, models, cpu_map, (*descendants, name))
    models[name] = _model(element, document, base, cpu_map)
    return models[name]


def _model(element: Any, document: Document, base: Model, cpu_map: CpuMap) -> Model:
    listed = dict.fromkeys(base.listed)
    added, removed = set(base.added), set(base.removed)
    for name, feature in _model_features(element, document, cpu_map):
        removed.discard(name)
        if _yes(feature, "removed", document):
            listed.pop(name, None)
            removed.add(name)
            continue
        listed[name] = None
        if _yes(feature, "added", document):
            added.add(name)
    decode = element.find("decode")
    return Model(
        name=named(element, document),
        features=frozenset(listed),
        listed=tuple(listed),
        vendor=_model_vendor(element, document, cpu_map) or base.vendor,
        signatures=tuple(_signature(own, document) for own in element.iterfind("signature")) or base.signatures,
        decode_host=decode is None or _yes(decode, "host", document),
        decode_guest=decode is None or _yes(decode, "guest", document),
        added=frozenset(added & listed.keys()),
        removed=frozenset(removed),
        base=base.name or None,
        where=document.where(element),
    )


def _model_features(element: Any, document: Document, cpu_map: CpuMap) -> Iterator[tuple[FeatureName, Any]]:
    seen = set()
    for feature in element.iterfind("feature"):
        name = FeatureName(named(feature, document))
        if name not in cpu_map.aliases:
            raise UnknownName(f"CPU feature {name!r} is not in the CPU map {cpu_map.path}", document.where(feature))
        if name in seen:
            raise document.error(feature, f"CPU model {element.get('name')!r} lists feature {name!r} twice")
        seen.add(name)
        yield name, feature


def _model_vendor(element: Any, document: Document, cpu_map: CpuMap) -> str | None:
    vendor = element.find("vendor")
    if vendor is None:
        return None
    name = named(vendor, document)
    if name not in cpu_map.vendors:
        raise UnknownName(f"CPU vendor {name!r} is not in the CPU map {cpu_map.path}", document.where(vendor))
    return name


def _signature(element: Any, document: Document) -> Signature:
    stepping = element.get("stepping")
    return Signature(
        _number(element, "family", document),
        _number(element, "model", document),
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


def _feature(element: Any, document: Document) -> Feature:
    return Feature(
        name=FeatureName(named(element, document)),
        bits=tuple(_bits(element, document)),
        aliases=tuple(Alias(name, source) for name, source in spellings(element)),
        migratable=element.get("migratable") is None or _yes(element, "migratable", document),
        where=document.where(element),
    )


def _bits(feature: Any, document: Document) -> Iterator[Bits]:
    for element in feature.iterchildren("cpuid"):
        # Maps before libvirt 3.3 call the leaf `function`, and know no subleaves.
        leaf = _number(element, "function" if element.get("eax_in") is None else "eax_in", document)
        subleaf = _number(element, "ecx_in", document, default=0)
        for register in REGISTERS:
            if mask := _number(element, register, document, default=0):
                yield CpuidBits(leaf, subleaf, register, mask)
    for element in feature.iterchildren("msr"):
        high, low = (_number(element, register, document, default=0) for register in ("edx", "eax"))
        yield MsrBits(_number(element, "index", document), high << 32 | low)


def _number(element: Any, attribute: str, document: Document, default: int | None = None) -> int:
    number = document.number(element, attribute, required=default is None, base=0)
    return number if number is not None else default or 0


_SWITCH: Mapping[str | None, bool] = {None: False, "yes": True, "on": True, "no": False, "off": False}


def _yes(element: Any, attribute: str, document: Document) -> bool:
    value = element.get(attribute)
    if value not in _SWITCH:
        raise document.error(element, f"{attribute}={value!r} in <{element.tag}> is neither yes/on nor no/off")
    return _SWITCH[value]
