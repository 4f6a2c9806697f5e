"""The files of a CPU map in libvirt's format: a directory with index.xml, or one cpu_map.xml."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from cpumap.cpu.frozen import Frozen
from cpumap.errors import CpuMapError, InputError, UnknownNameError
from cpumap.system.xml_document import Document, read_input

SECTIONS = {
    "x86_64": "x86",
    "i686": "x86",
    "ppc64": "ppc64",
    "ppc64le": "ppc64",
    "aarch64": "arm",
    "armv7l": "arm",
    "armv6l": "arm",
}
"""Architecture → the `<arch name=>` of a CPU map that describes it."""

_PLACES = (b"<cpuid", b"<msr", b"<alias")
"""What stands inside the definition of a feature only."""


class MapFile(Frozen):
    """One file of a map of one architecture; read and parsed once, when that is first needed."""

    path: Path
    arch: str
    section: bool = False
    """Whether its definitions stand inside an `<arch>`, as in an index.xml or a cpu_map.xml."""
    included_at: str = ""
    """`file:line` of the `<include>` that names it."""

    @cached_property
    def content(self) -> bytes:
        """The bytes of the file. Raises `CpuMapError`."""
        try:
            return read_input(self.path)
        except InputError as err:
            message = f"cannot include {err}" if self.included_at else str(err)
            raise CpuMapError(message, self.included_at) from err

    @cached_property
    def parsed(self) -> tuple[Document, Any]:
        """The document, and the element whose children are its definitions.

        Raises `CpuMapError`, and `UnknownNameError` for an architecture that the map does not have.
        """
        document = Document.parse(self.content, str(self.path), CpuMapError)
        root = document.root
        if root.tag != "cpus":
            raise document.error(root, f"a CPU map begins with <cpus>, not <{root.tag}>")
        if not self.section:
            return document, root
        name = SECTIONS.get(self.arch, self.arch)
        for section in root.iterchildren("arch"):
            if section.get("name") == name:
                return document, section
        message = f"the CPU map has no section for architecture {self.arch}"
        raise UnknownNameError(message, str(self.path))


def map_files(path: Path, arch: str) -> tuple[MapFile, ...]:
    """The files of the map at `path`, its index first, which alone is read. Errors as
    `MapFile.parsed` has them.
    """
    index = path / "index.xml" if path.is_dir() else path
    first = MapFile(index, arch, section=True)
    document, section = first.parsed
    included = [
        MapFile(
            index.parent / named(include, document, "filename"),
            arch,
            included_at=document.where(include),
        )
        for include in section.iter("include")
    ]
    return (first, *included)


def children(top: Any, tag: str) -> Iterator[Any]:
    """The definitions of one kind directly below `top`, or gathered in a `<group>`."""
    for child in top.iterchildren(tag, "group"):
        if child.tag == tag:
            yield child
        else:
            yield from children(child, tag)


def feature_elements(files: Iterable[MapFile]) -> Iterator[tuple[Document, Any]]:
    """Every `<feature>` that defines a feature."""
    for file in files:
        # A model's file names features too, but is no place to look for their definitions.
        if (
            not file.section
            and b"<model" in file.content
            and not any(tag in file.content for tag in _PLACES)
        ):
            continue
        document, top = file.parsed
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
