"""A CPU map, and its two functions in which feature and property names cross."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Protocol

from cpumap.cpu.bits import Bits
from cpumap.cpu.frozen import Frozen
from cpumap.cpu.names import FeatureName, PropertyName
from cpumap.errors import UnknownNameError
from cpumap.libvirt.cpu_map.entries import Feature, Model, Vendor, Words

_IRREGULAR = {FeatureName("pclmuldq"): PropertyName("pclmulqdq")}
"""QEMU spells a feature as libvirt does, with `-` for `_`; this one, libvirt keeps an old
misspelling of.
"""


_UNDERSCORED = tuple(FeatureName(name) for name in ("kvm_pv_eoi", "kvm_pv_unhalt"))
"""Features which libvirt writes with `_`, but which not every map lists."""


class Definitions(Protocol):
    """What a map's files define; each kind is read when it is asked for. Raises `CpuMapError`."""

    def aliases(self) -> Mapping[FeatureName, tuple[str, ...]]:
        """Every feature's name, in the map's order, and QEMU's other spellings of it."""

    def vendors(self) -> Mapping[str, Vendor]:
        """Every vendor by libvirt's name."""

    def features(self) -> Mapping[FeatureName, Feature]:
        """Every feature by name, in the map's order."""

    def models(self) -> Mapping[str, Model]:
        """Every model by name, in the map's order."""


class CpuMap(Frozen):
    """Vendors, features and models of one architecture.

    Everything is read when it is first asked for: most work needs the names of features at most.
    What is wrong with it raises `CpuMapError` then.
    """

    arch: str
    path: Path
    definitions: Definitions
    words: Words | None = None
    """What the libvirt that is meant has words for; None: the map is that libvirt's own, or none is
    meant yet.
    """

    any_name: bool = False
    """Whether libvirt knows no names of this architecture's CPUs and passes on any."""
    only: frozenset[FeatureName] | None = None
    """With `any_name`: the features that it passes on, if not any."""

    def has_feature(self, name: FeatureName) -> bool:
        """Whether libvirt has a word for the feature."""
        if self.any_name:
            return self.only is None or name in self.only
        return name in self.aliases

    def has_model(self, name: str) -> bool:
        """Whether libvirt has a word for the model."""
        return self.any_name or name in self.models

    @cached_property
    def aliases(self) -> Mapping[FeatureName, tuple[str, ...]]:
        """Every feature's name, in the map's order, and QEMU's other spellings of it."""
        return self.definitions.aliases()

    @cached_property
    def vendors(self) -> Mapping[str, Vendor]:
        """Every vendor by libvirt's name."""
        return self.definitions.vendors()

    @cached_property
    def features(self) -> Mapping[FeatureName, Feature]:
        """Every feature by name, in the map's order."""
        return self.definitions.features()

    @cached_property
    def models(self) -> Mapping[str, Model]:
        """Every model by name, in the map's order."""
        return self.definitions.models()

    def model(self, name: str, where: str = "") -> Model:
        """The model of this name. Raises `UnknownNameError`; `where` is the place that mentions
        it.
        """
        try:
            return self.models[name]
        except KeyError:
            raise UnknownNameError(
                f"CPU model {name!r} is not in the CPU map {self.path}", where
            ) from None

    def feature(self, name: str, where: str = "") -> Feature:
        """The feature of this name or QEMU spelling. Raises `UnknownNameError`; `where` is the
        place that mentions it.
        """
        feature = self.features.get(self.feature_of(PropertyName(name)))
        if feature is None:
            raise UnknownNameError(f"CPU feature {name!r} is not in the CPU map {self.path}", where)
        return feature

    def property_of(self, feature: FeatureName) -> PropertyName:
        """QEMU's canonical name of a feature. A name that the map lacks crosses by QEMU's rule of
        spelling.

        QEMU's own names have no `_` (feat2prop() in target/i386/cpu.c); other spellings are aliases
        there.
        """
        if self.any_name:
            return PropertyName(feature)
        return _canonical(self._spellings.get(feature, feature))

    def feature_of(self, prop: PropertyName) -> FeatureName:
        """libvirt's name of a property, whichever of QEMU's spellings it has. An unknown name
        crosses unchanged.
        """
        if self.any_name:
            return FeatureName(prop)
        return self._spellings.get(prop, FeatureName(prop))

    @cached_property
    def _spellings(self) -> Mapping[str, FeatureName]:
        """Every spelling that QEMU or libvirt has for a feature → libvirt's; a feature's own
        name comes first.
        """
        spellings: dict[str, FeatureName] = {_canonical(name): name for name in _UNDERSCORED}
        spellings.update(
            (alias, name) for name, aliases in self.aliases.items() for alias in aliases
        )
        spellings.update((_canonical(name), name) for name in self.aliases)
        spellings.update((name, name) for name in self.aliases)
        return spellings

    def ordered(self, features: Iterable[FeatureName]) -> tuple[FeatureName, ...]:
        """The features in the order in which the map lists them."""
        return tuple(sorted(features, key=self._ranks.__getitem__))

    @cached_property
    def _ranks(self) -> Mapping[FeatureName, int]:
        return {name: rank for rank, name in enumerate(self.aliases)}

    def vendor_named(self, string: str) -> Vendor | None:
        """The vendor whose CPUID string this is."""
        return next((vendor for vendor in self.vendors.values() if vendor.string == string), None)

    def migratable(self, features: Iterable[FeatureName]) -> frozenset[FeatureName]:
        """Those of the features which do not keep a guest from being migrated."""
        blocking = self.blocking
        return frozenset(name for name in features if name not in blocking)

    @cached_property
    def feature_bits(self) -> Mapping[FeatureName, tuple[Bits, ...]]:
        """Where each feature sits."""
        return {name: feature.bits for name, feature in self.features.items()}

    @cached_property
    def blocking(self) -> frozenset[FeatureName]:
        """The features with `migratable='no'`."""
        return frozenset(name for name, feature in self.features.items() if not feature.migratable)


def _canonical(feature: FeatureName) -> PropertyName:
    return _IRREGULAR.get(feature) or PropertyName(feature.replace("_", "-"))
