"""The vendors and the features that a CPU map's files define."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from cpumap.cpu.bits import REGISTERS, Bits, CpuidBits, MsrBits
from cpumap.cpu.names import FeatureName
from cpumap.libvirt.cpu_map.entries import Alias, Feature, Vendor
from cpumap.libvirt.cpu_map.files import MapFile, children, feature_elements, named, spellings
from cpumap.system.xml_document import Document


def read_vendors(files: Iterable[MapFile]) -> dict[str, Vendor]:
    """Every vendor in the map's files."""
    vendors: dict[str, Vendor] = {}
    for file in files:
        if b"string=" not in file.content and not file.section:
            continue
        document, top = file.parsed
        for element in children(top, "vendor"):
            vendor = Vendor(named(element, document), element.get("string", ""))
            if vendor.name in vendors:
                raise document.error(element, f"CPU vendor {vendor.name!r} is defined twice")
            vendors[vendor.name] = vendor
    return vendors


def read_features(files: Iterable[MapFile]) -> dict[FeatureName, Feature]:
    """Every feature in the map's files."""
    features: dict[FeatureName, Feature] = {}
    for document, element in feature_elements(files):
        feature = _feature(element, document)
        if feature.name in features:
            first = features[feature.name].where
            raise document.error(
                element, f"CPU feature {feature.name!r} is defined twice (first at {first})"
            )
        features[feature.name] = feature
    return features


def _feature(element: Any, document: Document) -> Feature:
    return Feature(
        name=FeatureName(named(element, document)),
        bits=tuple(_bits(element, document)),
        aliases=tuple(Alias(name, source) for name, source in spellings(element)),
        migratable=element.get("migratable") is None or yes_in(element, "migratable", document),
        where=document.where(element),
    )


def _bits(feature: Any, document: Document) -> Iterator[Bits]:
    for element in feature.iterchildren("cpuid"):
        # Maps before libvirt 3.3 call the leaf `function`, and know no subleaves.
        leaf = number_in(
            element, "function" if element.get("eax_in") is None else "eax_in", document
        )
        subleaf = number_in(element, "ecx_in", document, default=0)
        for register in REGISTERS:
            if mask := number_in(element, register, document, default=0):
                yield CpuidBits(leaf, subleaf, register, mask)
    for element in feature.iterchildren("msr"):
        high, low = (
            number_in(element, register, document, default=0) for register in ("edx", "eax")
        )
        yield MsrBits(number_in(element, "index", document), high << 32 | low)


def number_in(element: Any, attribute: str, document: Document, default: int | None = None) -> int:
    number = document.number(element, attribute, required=default is None, base=0)
    return number if number is not None else default or 0


_SWITCH: Mapping[str | None, bool] = {
    None: False,
    "yes": True,
    "on": True,
    "no": False,
    "off": False,
}


def yes_in(element: Any, attribute: str, document: Document) -> bool:
    value = element.get(attribute)
    if value not in _SWITCH:
        raise document.error(
            element, f"{attribute}={value!r} in <{element.tag}> is neither yes/on nor no/off"
        )
    return _SWITCH[value]
