"""A guest's CPU on a hypervisor that may not have its model, by libvirt's rules for `fallback`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from cpumap.cpu.host import HostCpu, Identity
from cpumap.cpu.names import FeatureName, PropertyName
from cpumap.cpu.request import CpuRequest
from cpumap.errors import ResolveError
from cpumap.libvirt.cpu_map.entries import Model
from cpumap.libvirt.cpu_map.map import CpuMap
from cpumap.libvirt.rules.compare import feature_named, features_of_cpu
from cpumap.libvirt.rules.decode import (
    KnownCpu,
    Usable,
    best_fit,
    guest_policies,
    without_broken_tsx,
)


def on_hypervisor(request: CpuRequest, cpu_map: CpuMap, models: Usable) -> CpuRequest:
    """The request with a model that the hypervisor has: its own, else the nearest of `models`.

    What the request says of features stays. Raises `ResolveError` where `fallback='forbid'` forbids
    another model, and where none fits; `UnknownNameError`.
    """
    if request.mode != "custom" or request.model is None or request.model in models:
        return request
    if request.fallback == "forbid":
        message = f"CPU model {request.model} is not supported by hypervisor"
        raise ResolveError(f"{request.where}: {message}" if request.where else message)
    own = {feature_named(f, request, cpu_map): f for f in request.features}
    known = _as_its_model(request, cpu_map.model(request.model, request.where), cpu_map)
    fit = best_fit(known, cpu_map, "guest", models, {request.model})
    features = {feature.name: feature for feature in guest_policies(fit, cpu_map)}
    features.update({name: replace(feature, name=name) for name, feature in own.items()})
    return replace(request, model=fit.model.name, features=tuple(features.values()))


def _as_its_model(request: CpuRequest, model: Model, cpu_map: CpuMap) -> KnownCpu:
    """The CPU with the vendor and numbers of its model, whatever it says of them itself."""
    features = features_of_cpu(request, cpu_map)
    if not model.signatures:
        return KnownCpu(features, model.vendor)
    first = model.signatures[0]
    numbers = Identity(first.family, first.model, min(first.steppings or {0}))
    string = cpu_map.vendors[model.vendor].string if model.vendor else ""
    return KnownCpu(without_broken_tsx(features, numbers, string), model.vendor, numbers)


def usable_on(host: HostCpu, cpu_map: CpuMap) -> Usable | None:
    """The models that this host says can be run there, with what blocks each; None: it says none.

    A model that cannot be run for a reason that is not told, or that the map has no name for, is
    left out.
    """
    if host.usable is None:
        return None
    usable: dict[str, tuple[FeatureName, ...]] = dict.fromkeys(host.usable, ())
    for model, names in host.blockers.items():
        blockers = tuple(cpu_map.feature_of(PropertyName(name)) for name in names)
        if blockers and all(name in cpu_map.aliases for name in blockers):
            usable[model] = blockers
    return usable


def usable_on_all(hosts: Iterable[HostCpu], cpu_map: CpuMap) -> Usable | None:
    """The models usable on every host that says which are; None when none is left or none says."""
    said = [usable for host in hosts if (usable := usable_on(host, cpu_map)) is not None]
    if not said:
        return None
    common = set.intersection(*(set(usable) for usable in said))
    return {
        model: tuple(dict.fromkeys(name for usable in said for name in usable[model]))
        for model in sorted(common)
    } or None
