"""CPU maps: libvirt's cpu_map.xml format, and the two functions in which feature and property names cross."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from cpumap.cpu import FeatureName, PropertyName
from cpumap.errors import UnknownName

Register = Literal["eax", "ebx", "ecx", "edx"]
REGISTERS: tuple[Register, ...] = ("eax", "ebx", "ecx", "edx")

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

_IRREGULAR = {FeatureName("pclmuldq"): PropertyName("pclmulqdq")}
"""QEMU spells a feature as libvirt does, with `-` for `_`; this one, libvirt keeps an old misspelling of."""

_UNDERSCORED = tuple(FeatureName(name) for name in ("kvm_pv_eoi", "kvm_pv_unhalt"))
"""Features which libvirt writes with `_`, but which not every map lists."""


@dataclass(frozen=True, slots=True)
class CpuidBits:
    """Bits of one CPUID register; `mask` is 32 bits wide."""

    leaf: int
    subleaf: int
    register: Register
    mask: int


@dataclass(frozen=True, slots=True)
class MsrBits:
    """Bits of one model-specific register; `mask` is 64 bits wide (edx:eax)."""

    index: int
    mask: int


Bits = CpuidBits | MsrBits


@dataclass(frozen=True, slots=True)
class Alias:
    """Another spelling of a feature, and who uses it: `qemu` or `linux`."""

    name: str
    source: str


@dataclass(frozen=True, slots=True)
class Feature:
    """One `<feature>` of a map."""

    name: FeatureName
    bits: tuple[Bits, ...] = ()
    """Where it sits; more than one entry means that all of them are needed."""
    aliases: tuple[Alias, ...] = ()
    migratable: bool = True
    where: str = ""


@dataclass(frozen=True, slots=True)
class Vendor:
    """One `<vendor>`: libvirt's name and the 12 characters that CPUID leaf 0 spells."""

    name: str
    string: str


@dataclass(frozen=True, slots=True)
class Signature:
    """A family, model and (None: any) set of steppings that a CPU model stands for."""

    family: int
    model: int
    steppings: frozenset[int] | None = None

    def fits(self, family: int, model: int, stepping: int) -> bool:
        """Whether a CPU with these numbers is meant."""
        known = self.steppings is None or stepping in self.steppings
        return (self.family, self.model) == (family, model) and known


@dataclass(frozen=True, slots=True)
class Model:
    """One `<model>`, what it inherits included."""

    name: str
    features: frozenset[FeatureName]
    listed: tuple[FeatureName, ...]
    """The same features in the order written, those of the model it inherits from first."""
    vendor: str | None = None
    signatures: tuple[Signature, ...] = ()
    decode_host: bool = True
    """Whether a host CPU may be described as this model."""
    decode_guest: bool = True
    added: frozenset[FeatureName] = frozenset()
    """Of `features`: those which the model did not have when it was first published."""
    removed: frozenset[FeatureName] = frozenset()
    """Features which it had once and has no more; none of them is in `features`."""
    base: str | None = None
    where: str = ""


@dataclass(frozen=True)
class CpuMap:
    """Vendors, features and models of one architecture. Model files are read when `models` is first asked for."""

    arch: str
    path: Path
    vendors: Mapping[str, Vendor]
    features: Mapping[FeatureName, Feature]
    unread: tuple[Path, ...] = ()
    """Files of the map which hold models, in the map's order."""

    @cached_property
    def models(self) -> Mapping[str, Model]:
        """Every model by name, in the map's order. Raises `CpuMapError` for what the model files have wrong."""
        from cpumap.cpu_map_xml import read_models

        return read_models(self)

    def model(self, name: str, where: str = "") -> Model:
        """The model of this name. Raises `UnknownName`; `where` is the place that mentions it."""
        try:
            return self.models[name]
        except KeyError:
            raise UnknownName(f"CPU model {name!r} is not in the CPU map {self.path}", where) from None

    def feature(self, name: str, where: str = "") -> Feature:
        """The feature of this name or QEMU spelling. Raises `UnknownName`; `where` is the place that mentions it."""
        feature = self.features.get(self.feature_of(PropertyName(name)))
        if feature is None:
            raise UnknownName(f"CPU feature {name!r} is not in the CPU map {self.path}", where)
        return feature

    def property_of(self, feature: FeatureName) -> PropertyName:
        """QEMU's canonical name of a feature. A name that the map lacks crosses by QEMU's rule of spelling.

        QEMU's own names have no `_` (feat2prop() in target/i386/cpu.c); other spellings are aliases there.
        """
        return _canonical(self._spellings.get(feature, feature))

    def feature_of(self, prop: PropertyName) -> FeatureName:
        """libvirt's name of a property, whichever of QEMU's spellings it has. An unknown name crosses unchanged."""
        return self._spellings.get(prop, FeatureName(prop))

    @cached_property
    def _spellings(self) -> Mapping[str, FeatureName]:
        """Every spelling that QEMU or libvirt has for a feature → libvirt's; a feature's own name comes first."""
        spellings: dict[str, FeatureName] = {str(_canonical(name)): name for name in _UNDERSCORED}
        for feature in self.features.values():
            spellings.update((alias.name, feature.name) for alias in feature.aliases if alias.source == "qemu")
        spellings.update((_canonical(name), name) for name in self.features)
        spellings.update((name, name) for name in self.features)
        return spellings

    def vendor_named(self, string: str) -> Vendor | None:
        """The vendor whose CPUID string this is."""
        return next((vendor for vendor in self.vendors.values() if vendor.string == string), None)

    def migratable(self, features: Iterable[FeatureName]) -> frozenset[FeatureName]:
        """Those of the features which do not keep a guest from being migrated."""
        blocking = self.blocking
        return frozenset(name for name in features if name not in blocking)

    @cached_property
    def blocking(self) -> frozenset[FeatureName]:
        """The features with `migratable='no'`."""
        return frozenset(name for name, feature in self.features.items() if not feature.migratable)


def _canonical(feature: FeatureName) -> PropertyName:
    return _IRREGULAR.get(feature) or PropertyName(feature.replace("_", "-"))


def load_cpu_map(path: Path | str | None = None, arch: str = "x86_64") -> CpuMap:
    """The CPU map of a directory with an index.xml, or of one XML file; None: the map shipped with cpumap.

    Raises `CpuMapError` for a map that cannot be read, `UnknownName` for an architecture it does not have.
    """
    from cpumap.cpu_map_xml import read_cpu_map

    return read_cpu_map(Path(path) if path is not None else shipped_cpu_map(), arch)


def shipped_cpu_map() -> Path:
    """The directory of the CPU map that comes with cpumap."""
    from cpumap.data import data_path

    return data_path("cpu_map")
