"""CPUID data become a model and features: the predefined model that describes a CPU best, by
libvirt's rules.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from cpumap.arch.x86.cpuid import CpuidData, features_of, identity, vendor_string
from cpumap.cpu.host import HostCpu, Identity
from cpumap.cpu.names import FeatureName
from cpumap.cpu.request import CpuRequest, FeaturePolicy
from cpumap.errors import ResolveError
from cpumap.libvirt.cpu_map.entries import Model
from cpumap.libvirt.cpu_map.map import CpuMap
from cpumap.libvirt.releases import lost_features

View = Literal["host", "guest"]


Usable = Mapping[str, Collection[FeatureName]]
"""Models that a hypervisor can run → the features that must be disabled in each, its blockers."""


Models = Usable | Collection[str]
"""Models that may be used, with their blockers or just by name."""


_BROKEN_TSX = frozenset({FeatureName("hle"), FeatureName("rtm")})


@dataclass(frozen=True, slots=True)
class Fit:
    """A model and what a CPU has beyond it, and lacks of it."""

    model: Model
    more: tuple[FeatureName, ...]
    less: tuple[FeatureName, ...]


@dataclass(frozen=True, slots=True)
class KnownCpu:
    """What is known of a CPU that is to be described."""

    features: frozenset[FeatureName]
    vendor: str | None = None
    identity: Identity | None = None


def decode(
    data: CpuidData,
    cpu_map: CpuMap,
    as_: View = "host",
    models: Models | None = None,
) -> HostCpu | CpuRequest:
    """The CPU with these CPUID data: a `HostCpu`, or a `CpuRequest` that a guest can be given.

    Only `models` are used if given, each without its blockers. A host's model never has a feature
    that the host lacks; a guest's may, and the feature is then disabled. Raises `ResolveError` when
    no model fits.
    """
    known = known_from(data, cpu_map)
    if cpu_map.words is not None:
        known = replace(known, features=known.features & cpu_map.words.features)
    fit = best_fit(known, cpu_map, as_, models)
    if as_ == "host":
        return HostCpu("x86_64", fit.model.name, known.vendor, policies(fit), known.identity)
    features = guest_policies(fit, cpu_map)
    return CpuRequest(
        mode="custom", match="exact", model=fit.model.name, vendor=known.vendor, features=features
    )


def host_of(data: CpuidData, cpu_map: CpuMap) -> HostCpu:
    """The host with these CPUID data; without a model where none fits."""
    return host_known(known_from(data, cpu_map), cpu_map)


def host_known(known: KnownCpu, cpu_map: CpuMap) -> HostCpu:
    """The host of which this is known; without a model where none fits."""
    try:
        fit = best_fit(known, cpu_map, "host")
    except ResolveError:
        features = tuple(
            FeaturePolicy(name, "require") for name in cpu_map.features if name in known.features
        )
        return HostCpu("x86_64", None, known.vendor, features, known.identity)
    return HostCpu("x86_64", fit.model.name, known.vendor, policies(fit), known.identity)


def known_from(data: CpuidData, cpu_map: CpuMap) -> KnownCpu:
    """Features, vendor and numbers in the data."""
    vendor = cpu_map.vendor_named(vendor_string(data))
    numbers = identity(data)
    features = features_of(data, cpu_map.feature_bits)
    usable = without_broken_tsx(features, numbers, vendor_string(data))
    return KnownCpu(usable, None if vendor is None else vendor.name, numbers)


def without_broken_tsx(
    features: frozenset[FeatureName], cpu: Identity, vendor: str
) -> frozenset[FeatureName]:
    """The features without TSX on a Haswell, where it does not work (Intel erratum HSD136).

    Microcode may or may not hide it, so it counts as absent.
    """
    broken = cpu.model in (60, 69, 70) or (cpu.model == 63 and cpu.stepping < 4)
    return (
        features - _BROKEN_TSX
        if vendor == "GenuineIntel" and cpu.family == 6 and broken
        else features
    )


def policies(fit: Fit) -> tuple[FeaturePolicy, ...]:
    """The features of a fit as a `<cpu>` lists them."""
    more = (FeaturePolicy(name, "require") for name in fit.more)
    return (*more, *(FeaturePolicy(name, "disable") for name in fit.less))


def guest_policies(fit: Fit, cpu_map: CpuMap) -> tuple[FeaturePolicy, ...]:
    """The features of a fit as a guest's `<cpu>` lists them.

    What was removed from the model is named too: a QEMU may still have it in its model of that
    name.
    """
    listed = policies(fit)
    mentioned = {feature.name for feature in listed}
    lost = (name for name in lost_features(fit.model, cpu_map) if name not in mentioned)
    return (*listed, *(FeaturePolicy(name, "disable") for name in lost))


def best_fit(
    known: KnownCpu,
    cpu_map: CpuMap,
    as_: View,
    models: Models | None = None,
    preferred: Collection[str] = (),
) -> Fit:
    """The model that describes a CPU best, libvirt's choice. Of equals the last in the map wins.

    A single `preferred` model is taken if it fits at all; of several, each is taken in place of one
    that must disable more. Else a model of the CPU's family and model numbers comes first, then the
    one with the lowest score. The blockers of a model are disabled in it. Raises `ResolveError`.
    """
    blockers = models if isinstance(models, Mapping) else {}
    best: _Candidate | None = None
    for model in reversed(list(cpu_map.models.values())):
        if not _eligible(model, known, as_, models):
            continue
        if len(preferred) == 1 and model.name in preferred:
            return _fit(model, known, cpu_map, blockers)
        candidate = _candidate(model, known, as_, blockers)
        if best is None or _better(candidate, best, model.name in preferred):
            best = candidate
    if best is None:
        raise ResolveError("cannot find a CPU model that matches the CPU's features")
    return _fit(best.model, known, cpu_map, blockers)


@dataclass(frozen=True, slots=True)
class _Candidate:
    model: Model
    signed: bool
    """Whether the CPU has family and model numbers of this model's."""
    score: int
    """The length of the feature list, and the penalty: the less, the better."""
    penalty: int
    """What disabling costs beyond the length of the list: 1 for the first feature, 1 + 2 from the
    third, 1 + 2 + 3 from the fifth, and so on. Of equal scores the lower penalty wins.

    libvirt says that it penalises disabled features, but not how much. The formula is what
    libvirt 9.0 and 12.8 do with a CPU map made for it, whose models have 0 to 13 features too
    many and 0 to 90 too few: the choice is the same in each case.
    """


def _eligible(model: Model, known: KnownCpu, as_: View, models: Models | None) -> bool:
    if models is not None and model.name not in models:
        return False
    if model.vendor and known.vendor and model.vendor != known.vendor:
        return False
    if as_ == "host":
        return model.decode_host and model.features <= known.features
    return model.decode_guest


def _fit(model: Model, known: KnownCpu, cpu_map: CpuMap, blockers: Usable) -> Fit:
    more, less = _apart(model, known, blockers)
    return Fit(model, cpu_map.ordered(more), cpu_map.ordered(less))


def _apart(
    model: Model, known: KnownCpu, blockers: Usable
) -> tuple[frozenset[FeatureName], frozenset[FeatureName]]:
    """What the CPU has beyond the model, and lacks of it. What is to be added to the model,
    libvirt never disables.
    """
    more = known.features - model.features
    return more, (model.features - known.features) | (
        frozenset(blockers.get(model.name, ())) - more
    )


def _candidate(model: Model, known: KnownCpu, as_: View, blockers: Usable) -> _Candidate:
    more, lacking = _apart(model, known, blockers)
    less = (
        0
        if as_ == "host"
        else len(lacking) + len(frozenset(model.removed) - known.features - lacking)
    )
    pairs = (less + 1) // 2
    penalty = pairs * (pairs + 1) // 2
    return _Candidate(model, _signed(model, known.identity), len(more) + less + penalty, penalty)


def _better(new: _Candidate, best: _Candidate, preferred: bool) -> bool:
    if new.signed != best.signed:
        return new.signed
    if preferred and new.penalty < best.penalty:
        return True
    return (new.score, new.penalty) < (best.score, best.penalty)


def _signed(model: Model, numbers: Identity | None) -> bool:
    if numbers is None:
        return False
    return any(s.fits(numbers.family, numbers.model, numbers.stepping) for s in model.signatures)
