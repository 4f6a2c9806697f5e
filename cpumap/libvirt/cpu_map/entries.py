"""What a CPU map is made of: vendors, features with their bits, and models."""

from __future__ import annotations

from collections.abc import Mapping

from cpumap.cpu.bits import Bits
from cpumap.cpu.frozen import Frozen
from cpumap.cpu.names import FeatureName


class Alias(Frozen):
    """Another spelling of a feature, and who uses it: `qemu` or `linux`."""

    name: str
    source: str


class Feature(Frozen):
    """One `<feature>` of a map."""

    name: FeatureName
    bits: tuple[Bits, ...] = ()
    """Where it sits; more than one entry means that all of them are needed."""
    aliases: tuple[Alias, ...] = ()
    migratable: bool = True
    where: str = ""


class Vendor(Frozen):
    """One `<vendor>`: libvirt's name and the 12 characters that CPUID leaf 0 spells."""

    name: str
    string: str


class Signature(Frozen):
    """A family, model and (None: any) set of steppings that a CPU model stands for."""

    family: int
    model: int
    steppings: frozenset[int] | None = None

    def fits(self, family: int, model: int, stepping: int) -> bool:
        """Whether a CPU with these numbers is meant."""
        known = self.steppings is None or stepping in self.steppings
        return (self.family, self.model) == (family, model) and known


class Model(Frozen):
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
    """Features which hypervisors have given the model since it was first published; none of them
    is in `features`: libvirt looks at them in full checks only.
    """
    removed: tuple[FeatureName, ...] = ()
    """Features which it had once and has no more, as written; none of them is in `features`."""
    base: str | None = None
    where: str = ""


class Words(Frozen):
    """What one libvirt has words for."""

    release: str
    """`11.3`."""
    features: frozenset[FeatureName]
    """A `<feature>` of any other name keeps a domain from starting."""
    models: frozenset[str]
    removed: Mapping[str, tuple[FeatureName, ...]]
    """Model → what it had once and has no more."""
    disputed: frozenset[str] = frozenset()
    """Models of which nobody knows whether this libvirt has removed something from them."""
