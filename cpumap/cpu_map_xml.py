"""Reading libvirt's cpu_map format: a directory with index.xml, or one cpu_map.xml."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NoReturn

from lxml import etree

from cpumap.cpu import FeatureName
from cpumap.cpu_map import (
    REGISTERS,
    SECTIONS,
    Alias,
    Bits,
    CpuidBits,
    CpuMap,
    Feature,
    Model,
    MsrBits,
    Signature,
    Vendor,
)
from cpumap.errors import CpuMapError, UnknownName

_MAX_BYTES = 16 << 20
"""libvirt's own maps are below 200 kB altogether."""


def read_cpu_map(path: Path, arch: str) -> CpuMap:
    """The CPU map at `path`, its model files unread. Errors as `cpumap.cpu_map.load_cpu_map` has them."""
    index = path / "index.xml" if path.is_dir() else path
    section = _section(_parse(_bytes(index), index), index, arch)
    vendors: dict[str, Vendor] = {}
    features: dict[FeatureName, Feature] = {}
    unread: list[Path] = [index] if section.find(".//model") is not None else []
    _read_features(section, index, vendors, features)
    for include in section.iter("include"):
        file = index.parent / _attribute(include, "filename", index)
        content = _bytes(file, _where(include, index))
        if b"<model" in content:
            unread.append(file)
        if b"<model" not in content or b"<cpuid" in content or b"<vendor name=" in content:
            _read_features(_parse(content, file), file, vendors, features)
    return CpuMap(arch, path, vendors, features, tuple(unread))


def read_models(cpu_map: CpuMap) -> dict[str, Model]:
    """Every model in the map's files, inheritance resolved."""
    written: dict[str, tuple[etree._Element, Path]] = {}
    for file in cpu_map.unread:
        root = _parse(_bytes(file), file)
        top = _section(root, file, cpu_map.arch) if root.find("arch") is not None else root
        for element in _children(top, "model"):
            name = _attribute(element, "name", file)
            if name in written:
                _refuse(f"CPU model {name!r} is defined twice", element, file)
            written[name] = element, file
    models: dict[str, Model] = {}
    for name in written:
        _resolve(name, written, models, cpu_map, ())
    return {name: models[name] for name in written}


def _resolve(
    name: str,
    written: Mapping[str, tuple[etree._Element, Path]],
    models: dict[str, Model],
    cpu_map: CpuMap,
    descendants: tuple[str, ...],
) -> Model:
    if name in models:
        return models[name]
    element, file = written[name]
    if name in descendants:
        _refuse(f"CPU model {name!r} inherits from itself: {' → '.join([*descendants, name])}", element, file)
    base = None
    inherits = element.find("model")
    if inherits is not None:
        ancestor = _attribute(inherits, "name", file)
        if ancestor not in written:
            _refuse(f"CPU model {name!r} inherits from {ancestor!r}, which the map does not have", inherits, file)
        base = _resolve(ancestor, written, models, cpu_map, (*descendants, name))
    models[name] = _model(element, file, base, cpu_map)
    return models[name]


def _model(element: etree._Element, file: Path, base: Model | None, cpu_map: CpuMap) -> Model:
    base = base or Model("", frozenset(), ())
    listed = dict.fromkeys(base.listed)
    added, removed = set(base.added), set(base.removed)
    for feature in _model_features(element, file, cpu_map):
        name = FeatureName(_attribute(feature, "name", file))
        removed.discard(name)
        if _yes(feature, "removed", file):
            listed.pop(name, None)
            removed.add(name)
            continue
        listed[name] = None
        if _yes(feature, "added", file):
            added.add(name)
    decode = element.find("decode")
    return Model(
        name=_attribute(element, "name", file),
        features=frozenset(listed),
        listed=tuple(listed),
        vendor=_model_vendor(element, file, cpu_map) or base.vendor,
        signatures=tuple(_signature(s, file) for s in element.iterfind("signature")) or base.signatures,
        decode_host=decode is None or _yes(decode, "host", file),
        decode_guest=decode is None or _yes(decode, "guest", file),
        added=frozenset(added & listed.keys()),
        removed=frozenset(removed),
        base=base.name or None,
        where=_where(element, file),
    )


def _model_features(element: etree._Element, file: Path, cpu_map: CpuMap) -> Iterator[etree._Element]:
    seen = set()
    for feature in element.iterfind("feature"):
        name = _attribute(feature, "name", file)
        if name not in cpu_map.features:
            raise UnknownName(f"CPU feature {name!r} is not in the CPU map {cpu_map.path}", _where(feature, file))
        if name in seen:
            _refuse(f"CPU model {element.get('name')!r} lists feature {name!r} twice", feature, file)
        seen.add(name)
        yield feature


def _model_vendor(element: etree._Element, file: Path, cpu_map: CpuMap) -> str | None:
    vendor = element.find("vendor")
    if vendor is None:
        return None
    name = _attribute(vendor, "name", file)
    if name not in cpu_map.vendors:
        raise UnknownName(f"CPU vendor {name!r} is not in the CPU map {cpu_map.path}", _where(vendor, file))
    return name


def _signature(element: etree._Element, file: Path) -> Signature:
    family, model = (_integer(element, name, file) for name in ("family", "model"))
    return Signature(family, model, _steppings(element, file) if element.get("stepping") is not None else None)


def _steppings(element: etree._Element, file: Path) -> frozenset[int]:
    """The numbers of a list such as `0-4,7`."""
    steppings: set[int] = set()
    text = _attribute(element, "stepping", file)
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()) or int(last or first) > 0xF:
            _refuse(f"stepping {text!r} is no list of numbers from 0 to 15", element, file)
        steppings.update(range(int(first), int(last or first) + 1))
    return frozenset(steppings)


def _read_features(
    top: etree._Element, file: Path, vendors: dict[str, Vendor], features: dict[FeatureName, Feature]
) -> None:
    for element in _children(top, "vendor"):
        vendor = Vendor(_attribute(element, "name", file), element.get("string", ""))
        if vendor.name in vendors:
            _refuse(f"CPU vendor {vendor.name!r} is defined twice", element, file)
        vendors[vendor.name] = vendor
    for element in _children(top, "feature"):
        feature = _feature(element, file)
        if feature.name in features:
            before = features[feature.name].where
            _refuse(f"CPU feature {feature.name!r} is defined twice (first at {before})", element, file)
        features[feature.name] = feature


def _feature(element: etree._Element, file: Path) -> Feature:
    return Feature(
        name=FeatureName(_attribute(element, "name", file)),
        bits=tuple(_bits(element, file)),
        aliases=tuple(
            Alias(_attribute(alias, "name", file), alias.get("source", "qemu")) for alias in element.iterfind("alias")
        ),
        migratable=element.get("migratable") is None or _yes(element, "migratable", file),
        where=_where(element, file),
    )


def _bits(feature: etree._Element, file: Path) -> Iterator[Bits]:
    for element in feature.iterfind("cpuid"):
        # Maps before libvirt 3.3 call the leaf `function`, and know no subleaves.
        leaf = _integer(element, "function" if element.get("eax_in") is None else "eax_in", file)
        subleaf = _integer(element, "ecx_in", file) if element.get("ecx_in") is not None else 0
        for register in REGISTERS:
            mask = _integer(element, register, file) if element.get(register) is not None else 0
            if mask:
                yield CpuidBits(leaf, subleaf, register, mask)
    for element in feature.iterfind("msr"):
        index, high, low = (_integer(element, name, file) for name in ("index", "edx", "eax"))
        yield MsrBits(index, high << 32 | low)


def _section(root: etree._Element, file: Path, arch: str) -> etree._Element:
    if root.tag != "cpus":
        _refuse(f"a CPU map begins with <cpus>, not <{root.tag}>", root, file)
    name = SECTIONS.get(arch, arch)
    for section in root.iterfind("arch"):
        if section.get("name") == name:
            return section
    raise UnknownName(f"the CPU map has no section for architecture {arch}", str(file))


def _children(top: etree._Element, tag: str) -> Iterator[etree._Element]:
    """The definitions of one kind directly below `top`, or grouped by `<group>`."""
    for child in top:
        if child.tag == tag:
            yield child
        elif child.tag == "group":
            yield from _children(child, tag)


def _bytes(file: Path, included_at: str = "") -> bytes:
    try:
        with file.open("rb") as stream:
            content = stream.read(_MAX_BYTES + 1)
    except OSError as err:
        raise CpuMapError(f"cannot read {file}: {err.strerror}", included_at) from err
    if len(content) > _MAX_BYTES:
        raise CpuMapError(f"larger than {_MAX_BYTES >> 20} MiB, which no CPU map is", str(file))
    return content


def _parse(content: bytes, file: Path) -> etree._Element:
    parser = etree.XMLParser(resolve_entities=False, no_network=True, remove_comments=True, remove_pis=True)
    try:
        root = etree.fromstring(content, parser)
    except etree.XMLSyntaxError as err:
        raise CpuMapError(f"not XML: {err.msg}", f"{file}:{err.lineno}") from err
    docinfo = root.getroottree().docinfo
    if docinfo is not None and docinfo.internalDTD is not None:
        raise CpuMapError("a CPU map has no DOCTYPE", f"{file}:1")
    return root


def _attribute(element: etree._Element, name: str, file: Path) -> str:
    value = element.get(name)
    if not value:
        _refuse(f"<{element.tag}> without {name}=", element, file)
    return value


def _integer(element: etree._Element, name: str, file: Path) -> int:
    """A number of at most 32 bits, decimal or hexadecimal."""
    text = _attribute(element, name, file)
    try:
        number = int(text, 0)
    except ValueError:
        number = -1
    if not 0 <= number <= 0xFFFFFFFF:
        _refuse(f"{name}={text!r} is no 32-bit number", element, file)
    return number


_SWITCH: Mapping[str | None, bool] = {None: False, "yes": True, "on": True, "no": False, "off": False}


def _yes(element: etree._Element, name: str, file: Path) -> bool:
    value = element.get(name)
    if value not in _SWITCH:
        _refuse(f"{name}={value!r} is neither yes/on nor no/off", element, file)
    return _SWITCH[value]


def _where(element: etree._Element, file: Path) -> str:
    return f"{file}:{element.sourceline}"


def _refuse(message: str, element: etree._Element, file: Path) -> NoReturn:
    raise CpuMapError(message, _where(element, file))
