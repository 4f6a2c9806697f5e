"""What can be enabled on a host, as the host's CPU, and as JSON: `cpumap.host/1`, which any other
machine reads back.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from cpumap.cpu.host import HostCpu, Identity, ThisMachine
from cpumap.cpu.names import PropertyName, model_version
from cpumap.cpu.request import FeaturePolicy
from cpumap.libvirt.cpu_map.map import CpuMap
from cpumap.runnable.available import Available, Kind, OptionEffect, listed


def available_host(
    found: Available, cpu_map: CpuMap, kind: Kind = "all", *, migratable: bool = False
) -> HostCpu:
    """The host as `cpumap.hosts.read` reads it of the JSON."""
    vendor = cpu_map.vendor_named(found.vendor)
    model = _map_model(found.best.name, cpu_map)
    properties = listed(found, kind, migratable=migratable)
    options = {name: effect.option for effect in found.options for name in sorted(effect.gained)}
    return HostCpu(
        arch=found.context.arch,
        model=model,
        vendor=vendor.name if vendor else None,
        features=tuple(_features(properties, model, cpu_map)),
        identity=Identity(found.family, found.model, found.stepping),
        usable=tuple(name for name in cpu_map.models if found.models.get(name) == ()),
        properties=properties,
        machine=found.context.machine,
        accel=found.context.accel,
        own=found.here,
        options=options,
    )


def available_json(
    found: Available, cpu_map: CpuMap, kind: Kind = "all", *, migratable: bool = False
) -> dict[str, Any]:
    """The host as JSON: what `cpumap.hosts.read` needs of it, then all that QEMU said, in QEMU's
    names.
    """
    host = available_host(found, cpu_map, kind, migratable=migratable)
    properties = listed(found, kind, migratable=migratable)
    context = found.context
    return {
        "arch": context.arch,
        "model": host.model,
        "vendor": host.vendor,
        "signature": [found.family, found.model, found.stepping],
        "features": {feature.name: feature.policy == "require" for feature in host.features},
        "usable-models": list(host.usable or ()),
        "context": context.as_json(),
        "kind": kind,
        "migratable": migratable,
        "vendor-id": found.vendor,
        "phys-bits": found.phys_bits,
        "properties": sorted(properties),
        "emulated": None if found.emulated is None else sorted(found.emulated & properties),
        "blocks-migration": sorted(found.blocking & properties),
        "best": {"model": found.best.name, "props": dict(found.best.props)},
        "unavailable": {name: list(lacking) for name, lacking in found.models.items() if lacking},
        "options": [_option(effect) for effect in found.options],
        "breaches": list(found.breaches),
        "features-of": _features_of(found.here),
    }


def _features_of(machine: ThisMachine) -> dict[str, Any]:
    """What CPU and kernel have by themselves; null where nobody could tell."""
    return {
        "cpu": None if machine.cpu is None else sorted(machine.cpu),
        "kernel": None if machine.kernel is None else sorted(machine.kernel),
        "partial": machine.partial,
        "msrs": machine.msrs,
    }


def _map_model(name: str, cpu_map: CpuMap) -> str | None:
    """The model under the name that the CPU map has for it, without a version if it can be:
    libvirt knows no others.
    """
    candidates = (model_version(name)[0], name)
    return next((candidate for candidate in candidates if candidate in cpu_map.models), None)


def _features(
    properties: Collection[PropertyName], model: str | None, cpu_map: CpuMap
) -> Iterator[FeaturePolicy]:
    """The features that the map knows: on top of the model, and missing from it."""
    names = {cpu_map.feature_of(prop) for prop in properties}
    known = cpu_map.ordered(frozenset(name for name in names if name in cpu_map.features))
    own = cpu_map.models[model].features if model else frozenset()
    missing = cpu_map.ordered(own - names)
    yield from (FeaturePolicy(name, "require") for name in known if name not in own)
    yield from (FeaturePolicy(name, "disable") for name in missing)


def _option(effect: OptionEffect) -> dict[str, Any]:
    return {
        "option": effect.option,
        "gained": sorted(effect.gained),
        "lost": sorted(effect.lost),
        "values": dict(effect.values),
        "refused": effect.refused,
    }
