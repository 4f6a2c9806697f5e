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

    def aliases(self) -> Mapping[FeatureName, tuple[str, ...]]:
        """Every feature's name in the files, and QEMU's other spellings of it."""
        return {
            FeatureName(named(element, document)): tuple(
                [name for name, source in spellings(element) if source == "qemu"]
            )
            for document, element in feature_elements(self.files)
        }

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
        from cpumap.libvirt.cpu_map.models import MapNames, read_models

        known = MapNames(self.path, self.aliases().keys(), self.vendors().keys())
        return read_models(self.files, known)


def load_cpu_map(path: Path | str | None = None, arch: str = "x86_64") -> CpuMap:
    """The CPU map of a directory with an index.xml, or of one XML file; None: the shipped map.

    Of a map that is given, the names of its features are read at once, so that whoever names it
    hears when it is none. Raises `CpuMapError` for a map that cannot be read, `UnknownNameError`
    for an architecture it does not have.
    """
    if path is None:
        return cpu_map_at(shipped_cpu_map(), arch)
    given = cpu_map_at(Path(path), arch)
    given.aliases.keys()  # read now
    return given


def cpu_map_at(place: Path, arch: str = "x86_64") -> CpuMap:
    """The CPU map there, of which nothing but its index is read yet. Raises as `load_cpu_map`."""
    return CpuMap(arch, place, FileDefinitions(place, map_files(place, arch)))


def shipped_cpu_map() -> Path:
    """The directory of the CPU map that comes with cpumap."""
    return data_path("cpu_map")
