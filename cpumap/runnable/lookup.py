"""Where names of features are looked up: a CPU map, recordings, and the facts about features."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from cpumap.cpu.bits import BitPlace
from cpumap.cpu.names import Accel, FeatureName, PropertyName
from cpumap.libvirt.cpu_map.entries import Alias, Feature
from cpumap.libvirt.cpu_map.map import CpuMap
from cpumap.proof.difference import bit_names
from cpumap.sources.recorded import RecordedSource
from cpumap.sources.recordings import find_recording, upstream
from cpumap.system.data import data_path


@dataclass(frozen=True, slots=True)
class Known:
    """A CPU map, recordings (oldest QEMU first), and `data/features.toml`."""

    cpu_map: CpuMap
    sources: tuple[RecordedSource, ...]
    facts: Mapping[str, Any]

    def feature(self, name: str) -> Feature | None:
        """The feature of this name in any spelling: libvirt's, QEMU's, Linux's or a former one."""
        for candidate in self._spellings(name):
            feature = self.cpu_map.features.get(self.cpu_map.feature_of(PropertyName(candidate)))
            if feature is not None:
                return feature
        return next(filter(None, map(self._of_qemu, self._spellings(name))), None)

    def _spellings(self, name: str) -> Iterator[str]:
        """The name as it is, then what else it is known to stand for; `name[7]` is a Linux flag."""
        plain = name.lower()
        linux = {
            alias.name: feature.name
            for feature in self.cpu_map.features.values()
            for alias in feature.aliases
        }
        for spelled in dict.fromkeys((name, plain)):
            yield spelled
            for table in (self.facts["former"], linux, self.facts["linux"], self.facts["hyperv"]):
                if table.get(spelled):
                    yield table[spelled]
            yield spelled.replace("_", "-")

    def _of_qemu(self, name: str) -> Feature | None:
        """A feature that no CPU map has, but a recorded QEMU (kvmclock, hv-time and the like)."""
        spelled = (name.replace("_", "-"), self.cpu_map.property_of(FeatureName(name)))
        for prop in map(PropertyName, spelled):
            if any(source.knows(prop) for source in self.sources):
                return Feature(self.cpu_map.feature_of(prop), aliases=(Alias(prop, "qemu"),))
        return None

    def is_linux_only(self, name: str) -> bool:
        """Whether it is a flag of /proc/cpuinfo that stands for no feature of a guest's CPU."""
        flags: Mapping[str, str] = self.facts["linux"]
        return flags.get(name) == ""

    def features_at(self, places: Iterable[BitPlace]) -> list[Feature]:
        """The features that sit at one of the places."""
        names = bit_names(self.cpu_map)
        found = dict.fromkeys(names[place] for place in places if place in names)
        return [self.cpu_map.features[FeatureName(name)] for name in found]


def where_to_look(cpu_map: CpuMap, accel: Accel, recorded: str | None = None) -> Known:
    """Where to look: in all shipped recordings, or in the one of this release (or file).

    Errors: `UnknownNameError` for a release that is not recorded, `SourceError`.
    """
    facts = tomllib.loads(data_path("features.toml").read_text(encoding="utf-8"))
    if recorded:
        return Known(cpu_map, (RecordedSource(find_recording(recorded, accel)),), facts)
    paths = [found.path for found in upstream(accel)]
    return Known(cpu_map, tuple(map(RecordedSource, paths)), facts)
