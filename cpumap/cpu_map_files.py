"""The files of a CPU map in libvirt's format: a directory with index.xml, or one cpu_map.xml."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from cpumap.cpu import FeatureName
from cpumap.cpu_map import SECTIONS, CpuMap, MapFile
from cpumap.errors import CpuMapError, InputError, UnknownName
from cpumap.xml_document import Document, read_input

_PLACES = (b"<cpuid", b"<msr", b"<alias")
"""What stands inside the definition of a feature only."""


def read_cpu_map(path: Path, arch: str) -> CpuMap:
    """The CPU map at `path`, of which nothing but names is read. Errors as `cpumap.cpu_map.load_cpu_map` has them."""
    index = path / "index.xml" if path.is_dir() else path
    file = MapFile(index, _content(index), section=True)
    document, section = definitions(file, arch)
    files = [file, *(_included(include, document, index.parent) for include in section.iter("include"))]
    aliases = {
        FeatureName(named(element, document)): tuple(name for name, source in spellings(element) if source == "qemu")
        for document, element in feature_elements(files, arch)
    }
    return CpuMap(arch, path, aliases, tuple(files))


def definitions(file: MapFile, arch: str) -> tuple[Document, Any]:
    """The parsed file, and the element whose children are its definitions."""
    document = Document.parse(file.content, str(file.path), CpuMapError)
    if document.root.tag != "cpus":
        raise document.error(document.root, f"a CPU map begins with <cpus>, not <{document.root.tag}>")
    if not file.section:
        return document, document.root
    name = SECTIONS.get(arch, arch)
    for section in document.root.iterchildren("arch"):
        if section.get("name") == name:
            return document, section
    raise UnknownName(f"the CPU map has no section for architecture {arch}", str(file.path))


def children(top: Any, tag: str) -> Iterator[Any]:
    """The definitions of one kind directly below `top`, or gathered in a `<group>`."""
    for child in top.iterchildren(tag, "group"):
        if child.tag == tag:
            yield child
        else:
            yield from children(child, tag)


def feature_elements(files: Iterable[MapFile], arch: str) -> Iterator[tuple[Document, Any]]:
    """Every `<feature>` that defines a feature."""
    for file in files:
        # A model's file names features too, but is no place to look for their definitions.
        if not file.section and b"<model" in file.content and not any(tag in file.content for tag in _PLACES):
            continue
        document, top = definitions(file, arch)
        for element in children(top, "feature"):
            yield document, element


def named(element: Any, document: Document, attribute: str = "name") -> str:
    """An attribute that must be there and say something."""
    value: str | None = element.get(attribute)
    if not value:
        raise document.error(element, f"<{element.tag}> without {attribute}=")
    return value


def spellings(feature: Any) -> Iterator[tuple[str, str]]:
    """The other names of a feature, each with who uses it."""
    for alias in feature.iterchildren("alias"):
        yield alias.get("name", ""), alias.get("source", "qemu")


def _included(include: Any, document: Document, directory: Path) -> MapFile:
    path = directory / named(include, document, "filename")
    try:
        return MapFile(path, _content(path))
    except CpuMapError as err:
        raise document.error(include, f"cannot include {err}") from err


def _content(path: Path) -> bytes:
    try:
        return read_input(path)
    except InputError as err:
        raise CpuMapError(str(err)) from err
