"""CPU maps seen by one libvirt: a `<feature>` that it does not know keeps a domain from
starting.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from cpumap.arch.arch import Arch
from cpumap.cpu.frozen import Frozen
from cpumap.cpu.names import FeatureName
from cpumap.libvirt.cpu_map.entries import Feature, Model, Vendor, Words
from cpumap.libvirt.cpu_map.load import cpu_map_at, load_cpu_map
from cpumap.libvirt.cpu_map.map import CpuMap, Definitions
from cpumap.libvirt.releases import INSTALLED, has_installed, words_of

NEVER_PASSED = frozenset(map(FeatureName, ("cmt", "mbm_total", "mbm_local", "osxsave", "ospke")))
"""Features that libvirt knows of hosts and QEMU has no property for: no guest is given one,
whatever the policy.
"""


def libvirt_map(
    path: Path | str | None = None, arch: str = "x86_64", libvirt: str | None = None
) -> CpuMap:
    """The CPU map whose features may be written as `<feature>`: the one given, else that of the
    libvirt meant.

    Where that libvirt is not installed, it is the shipped map with nothing in it that this libvirt
    does not know: what is left out of `<cpu>` is named beside it. Raises as `load_cpu_map` and
    `words_of`.
    """
    if path is not None:
        return load_cpu_map(path, arch)
    words = words_of(libvirt)
    if has_installed(words):
        return cpu_map_at(INSTALLED, arch)
    shipped = load_cpu_map(None, arch)
    return replace(shipped, definitions=_SeenBy(shipped.definitions, words, known_only=True))


def meant_for(cpu_map: CpuMap, words: Words) -> CpuMap:
    """The map for answers that the libvirt with these words is to understand.

    It has every feature, so that hosts and guests of any origin can be read; models that the
    libvirt does not know are never chosen, and what it has removed from a model is known.
    """
    return replace(
        cpu_map, definitions=_SeenBy(cpu_map.definitions, words, known_only=False), words=words
    )


class _Nothing(Frozen):
    """What a map defines of an architecture that libvirt has no names for."""

    def aliases(self) -> Mapping[FeatureName, tuple[str, ...]]:
        return {}

    def vendors(self) -> Mapping[str, Vendor]:
        return {}

    def features(self) -> Mapping[FeatureName, Feature]:
        return {}

    def models(self) -> Mapping[str, Model]:
        return {}


def map_for(cpu_map: CpuMap, arch: Arch) -> CpuMap:
    """The map for CPUs of this architecture: the one given, or that libvirt passes any name on."""
    if arch.any_feature and not cpu_map.any_name:
        return CpuMap(
            arch.name,
            cpu_map.path,
            _Nothing(),
            cpu_map.words,
            any_name=True,
            only=arch.libvirt_features,
        )
    return cpu_map


class _SeenBy(Frozen):
    """What a map defines, as one libvirt sees it."""

    whole: Definitions
    words: Words
    known_only: bool
    """Whether features that this libvirt does not know are left out."""

    def aliases(self) -> Mapping[FeatureName, tuple[str, ...]]:
        every = self.whole.aliases()
        if not self.known_only:
            return every
        return {name: others for name, others in every.items() if name in self.words.features}

    def vendors(self) -> Mapping[str, Vendor]:
        return self.whole.vendors()

    def features(self) -> Mapping[FeatureName, Feature]:
        return self.whole.features()

    def models(self) -> Mapping[str, Model]:
        return {name: self._model(model) for name, model in self.whole.models().items()}

    def _model(self, model: Model) -> Model:
        known = model.name in self.words.models
        removed = self.words.removed.get(model.name, ())
        return replace(
            model,
            features=model.features - frozenset(removed),
            listed=tuple(name for name in model.listed if name not in removed),
            removed=removed,
            decode_host=model.decode_host and known,
            decode_guest=model.decode_guest and known,
        )
