"""What can be enabled on a host, as the host's CPU, and as JSON: `cpumap.host/1`, which any other
machine reads back.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

from cpumap.cpu.build import Build
from cpumap.cpu.host import HostCpu, Identity, ThisMachine
from cpumap.cpu.names import PropertyName
from cpumap.cpu.request import FeaturePolicy
from cpumap.errors import ResolveError
from cpumap.libvirt.cpu_map.map import CpuMap
from cpumap.libvirt.rules.decode import KnownCpu, best_fit, policies
from cpumap.libvirt.rules.usable import usable_on
from cpumap.runnable.available import Available, Kind, OptionEffect, listed
from cpumap.runnable.made import made_json


def available_host(
    found: Available, cpu_map: CpuMap, kind: Kind = "all", *, migratable: bool = False
) -> HostCpu:
    """The host as `cpumap.hosts.read` reads it of the JSON."""
    vendor = cpu_map.vendor_named(found.vendor)
    properties = listed(found, kind, migratable=migratable)
    options = {name: effect.option for effect in found.options for name in sorted(effect.gained)}
    host = HostCpu(
        arch=found.context.arch,
        vendor=vendor.name if vendor else None,
        identity=Identity(found.family, found.model, found.stepping),
        usable=tuple(name for name in cpu_map.models if found.models.get(name) == ()),
        blockers={name: lacking for name, lacking in found.models.items() if lacking},
        properties=properties,
        machine=found.context.machine,
        accel=found.context.accel,
        own=found.here,
        options=options,
        qemu=found.context.qemu,
        made=found.made,
        phys_bits=found.phys_bits,
    )
    model, features = _described(host, properties, cpu_map)
    return replace(host, model=model, features=features)


def _described(
    host: HostCpu, properties: Collection[PropertyName], cpu_map: CpuMap
) -> tuple[str | None, tuple[FeaturePolicy, ...]]:
    """The model that stands for the host, libvirt's choice, and what there is beside it.

    That is the model of the CPU's family and model numbers, without what QEMU cannot give of it;
    None where no model fits. Only the features count that the map knows.
    """
    names = {cpu_map.feature_of(prop) for prop in properties}
    known = KnownCpu(frozenset(names & cpu_map.features.keys()), host.vendor, host.identity)
    try:
        fit = best_fit(known, cpu_map, "guest", usable_on(host, cpu_map))
    except ResolveError:
        every = cpu_map.ordered(known.features)
        return None, tuple(FeaturePolicy(name, "require") for name in every)
    return fit.model.name, policies(fit)


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
        "qemu": _build(context.whose),
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
        "realised": made_json(found.made),
    }


def _build(build: Build) -> dict[str, str]:
    """Which QEMU by more than its version."""
    return {
        "version": build.version,
        "package": build.package,
        "offers": build.offers,
        "vendor": build.vendor,
    }


def _features_of(machine: ThisMachine) -> dict[str, Any]:
    """What CPU and kernel have by themselves; null where nobody could tell."""
    return {
        "cpu": None if machine.cpu is None else sorted(machine.cpu),
        "kernel": None if machine.kernel is None else sorted(machine.kernel),
        "partial": machine.partial,
        "msrs": machine.msrs,
    }


def _option(effect: OptionEffect) -> dict[str, Any]:
    return {
        "option": effect.option,
        "gained": sorted(effect.gained),
        "lost": sorted(effect.lost),
        "values": dict(effect.values),
        "refused": effect.refused,
    }
