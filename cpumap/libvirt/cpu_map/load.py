"""A CPU map, loaded from its files: the shipped one, or any other."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from cpumap.cpu.frozen import Frozen
from cpumap.cpu.names import FeatureName
from cpumap.libvirt.cpu_map.entries import Feature, Model, Vendor
from cpumap.libvirt.cpu_map.files import MapFile, feature_elements, map_files, named, spellings
from cpumap.libvirt.cpu_map.map import CpuMap
from cpumap.system.data import data_path


class FileDefinitions(Frozen):
    """What the files of a map define, each file parsed once, when it is first needed."""

    path: Path
    files: tuple[MapFile, ...]
    names: tuple[FeatureName, ...]

    def vendors(self) -> Mapping[str, Vendor]:
        """Every vendor in the files."""
        from cpumap.libvirt.cpu_map.definitions import read_vendors

        return read_vendors(self.files)

    def features(self) -> Mapping[FeatureName, Feature]:
        """Every feature in the files."""
        from cpumap.libvirt.cpu_map.definitions import read_features

        return read_features(self.files)

    def models(self) -> Mapping[str, Model]:
        """Every model in the files."""
        from cpumap.libvirt.cpu_map.models import Known, read_models

        known = Known(self.path, frozenset(self.names), self.vendors().keys())
        return read_models(self.files, known)


def load_cpu_map(path: Path | str | None = None, arch: str = "x86_64") -> CpuMap:
    """The CPU map of a directory with an index.xml, or of one XML file; None: the shipped map.

    Nothing but the names of features is read yet. Raises `CpuMapError` for a map that cannot be
    read, `UnknownName` for an architecture it does not have.
    """
    place = Path(path) if path is not None else shipped_cpu_map()
    files = map_files(place, arch)
    aliases = {
        FeatureName(named(element, document)): tuple(
            name for name, source in spellings(element) if source == "qemu"
        )
        for document, element in feature_elements(files)
    }
    return CpuMap(arch, place, aliases, FileDefinitions(place, files, tuple(aliases)))


def shipped_cpu_map() -> Path:
    """The directory of the CPU map that comes with cpumap."""
    return data_path("cpu_map")
