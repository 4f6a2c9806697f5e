"""A relative CPU made absolute: host-model, match='minimum' and optional features, resolved
against a host.
"""

from __future__ import annotations

from dataclasses import replace

from cpumap.cpu.host import HostCpu
from cpumap.cpu.names import PropertyName
from cpumap.cpu.request import CpuRequest, FeaturePolicy
from cpumap.errors import ResolveError
from cpumap.libvirt.cpu_map.map import CpuMap
from cpumap.libvirt.releases import lost_features
from cpumap.libvirt.rules.compare import feature_named, features_of_cpu


def update(host: HostCpu, request: CpuRequest, cpu_map: CpuMap) -> CpuRequest:
    """What the request means on this host, as libvirt's VIR_DOMAIN_XML_UPDATE_CPU says it.

    host-model and match='minimum' become the host's model and features, with the request's own on
    top; an optional feature becomes required where the host has it, else disabled. host-passthrough
    and maximum stay as they are. Raises `UnknownNameError`, and `ResolveError` when the host cannot
    be described.
    """
    return without_lost(on_host(host, request, cpu_map), cpu_map)


def without_lost(request: CpuRequest, cpu_map: CpuMap) -> CpuRequest:
    """The request with what its model has lost since it was published named as disabled.

    A hypervisor may still have it in its model of that name. Nothing is said of a model that the
    map lacks.
    """
    model = cpu_map.models.get(request.model or "")
    if request.mode != "custom" or model is None:
        return request
    mentioned = {cpu_map.feature_of(PropertyName(f.name)) for f in request.features}
    lost = (
        FeaturePolicy(name, "disable")
        for name in lost_features(model, cpu_map)
        if name not in mentioned
    )
    return replace(request, features=(*request.features, *lost))


def migratable_copy(host: HostCpu, cpu_map: CpuMap) -> HostCpu:
    """The host without what the map says blocks migration, whether it has that or lacks it.

    It is what libvirt makes guests of; their domains ask for `invtsc` themselves.
    """
    kept = (f for f in host.features if f.name not in cpu_map.blocking)
    return replace(host, features=tuple(kept))


def on_host(host: HostCpu, request: CpuRequest, cpu_map: CpuMap) -> CpuRequest:
    """The request with host-model, match='minimum' and optional features resolved. Errors as
    `update`.
    """
    if request.mode in ("host-passthrough", "maximum", None):
        return request
    takes_hosts = request.mode == "host-model" or request.match == "minimum"
    if not takes_hosts and not any(feature.policy == "optional" for feature in request.features):
        return request
    host = migratable_copy(host, cpu_map)
    has = features_of_cpu(host, cpu_map)
    judged = {feature_named(f, request, cpu_map): f for f in request.features}
    own = {name: _judged(feature, name in has) for name, feature in judged.items()}
    if not takes_hosts:
        return replace(request, features=tuple(own.values()))
    if host.model is None:
        raise ResolveError("the host's CPU has no model that a guest's could be made from")
    # Its features come first, in its order: libvirt compares the order too when a guest is
    # restored.
    features = {f.name: f for f in host.features}
    features.update({name: replace(f, name=name) for name, f in own.items()})
    return replace(
        request,
        mode="custom",
        match="exact",
        model=host.model,
        vendor=host.vendor if request.mode == "host-model" else request.vendor,
        features=tuple(features.values()),
    )


def _judged(feature: FeaturePolicy, there: bool) -> FeaturePolicy:
    if feature.policy != "optional":
        return feature
    return replace(feature, policy="require" if there else "disable")
