"""The CPU that every one of several can provide, by libvirt's rules (virConnectBaselineCPU)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from cpumap.cpu.frozen import Frozen
from cpumap.cpu.host import Cpu
from cpumap.cpu.names import FeatureName
from cpumap.cpu.request import CpuRequest, FeaturePolicy
from cpumap.errors import InputError, ResolveError
from cpumap.libvirt.cpu_map.map import CpuMap
from cpumap.libvirt.rules.compare import features_of_cpu
from cpumap.libvirt.rules.decode import KnownCpu, Models, best_fit, guest_policies
from cpumap.libvirt.words import NEVER_PASSED

NEVER_MIGRATED = frozenset({FeatureName("invtsc")})
"""Features with which QEMU refuses to migrate a guest, unless its domain names a frequency.

A CPU map may mark more (libvirt's has xsaves); those are left out of what is added to a model, but
stay in a model that has them, as with libvirt.
"""


def baseline(
    cpus: Sequence[Cpu],
    cpu_map: CpuMap,
    *,
    features: bool = False,
    migratable: bool = False,
    models: Models | None = None,
) -> CpuRequest:
    """The guest CPU with everything that all of these have in common.

    `features` names every feature of the model; `migratable` leaves out what keeps a guest from
    being migrated;
    `models` are the models that may be used, if not all of the map's, each with what is to be
    disabled of it. Raises `ResolveError` when
    the CPUs have nothing in common, `InputError` for a CPU without a model.
    """
    if not cpus:
        raise InputError("a baseline needs at least one CPU")
    for cpu in cpus:
        if cpu.model is None and not cpu.features:
            raise InputError("a CPU without a model has no baseline", cpu.where)
    vendor, said = _common_vendor(cpus, cpu_map)
    common = frozenset.intersection(*(features_of_cpu(cpu, cpu_map) for cpu in cpus))
    if cpu_map.words is not None:
        common &= cpu_map.words.features
    if not common:
        raise ResolveError("the CPUs are incompatible: they have no feature in common")
    own = {cpu.model for cpu in cpus if cpu.model is not None}
    fit = best_fit(KnownCpu(common, vendor), cpu_map, "guest", models, own)
    listed = tuple(f for f in guest_policies(fit, cpu_map) if f.name not in NEVER_PASSED)
    if migratable:
        listed = _migratable(listed, cpu_map.ordered(fit.model.features & NEVER_MIGRATED), cpu_map)
    cpu = CpuRequest(
        arch=next((cpu.arch for cpu in cpus if cpu.arch), None),
        mode="custom",
        match="exact",
        model=fit.model.name,
        fallback="forbid" if models is not None or own == {fit.model.name} else "allow",
        vendor=vendor if said else None,
        features=listed,
    )
    return expanded(cpu, cpu_map) if features else cpu


class Common(Frozen):
    """What is asked of a baseline, but for the models that may be used."""

    cpus: Sequence[Cpu]
    cpu_map: CpuMap
    features: bool
    migratable: bool

    def cpu(self, models: Models | None) -> CpuRequest:
        """The baseline with one of the models. Raises as `baseline`."""
        return baseline(
            self.cpus,
            self.cpu_map,
            features=self.features,
            migratable=self.migratable,
            models=models,
        )


def _migratable(
    listed: tuple[FeaturePolicy, ...], of_model: tuple[FeatureName, ...], cpu_map: CpuMap
) -> tuple[FeaturePolicy, ...]:
    """The features without those that block migration; what QEMU never migrates of the model is
    disabled.
    """
    named = {feature.name for feature in listed if feature.policy == "disable"}
    kept = (f for f in listed if f.policy != "require" or f.name not in cpu_map.blocking)
    return (*kept, *(FeaturePolicy(name, "disable") for name in of_model if name not in named))


def expanded(cpu: CpuRequest, cpu_map: CpuMap) -> CpuRequest:
    """The same CPU with every feature of its model named, in alphabetical order."""
    if cpu.model is None:
        return cpu
    named = {feature.name: feature for feature in cpu.features}
    for name in cpu_map.model(cpu.model, cpu.where).features:
        named.setdefault(name, FeaturePolicy(name, "require"))
    return replace(cpu, features=tuple(named[name] for name in sorted(named)))


def _common_vendor(cpus: Sequence[Cpu], cpu_map: CpuMap) -> tuple[str | None, bool]:
    """The one vendor of all CPUs or their models, and whether every CPU names it itself."""
    vendor: str | None = None
    for cpu in cpus:
        of_model = cpu_map.model(cpu.model, cpu.where).vendor if cpu.model else None
        if cpu.vendor and of_model and cpu.vendor != of_model:
            raise ResolveError(
                f"CPU vendor {of_model} of model {cpu.model} differs from vendor {cpu.vendor}"
            )
        own = cpu.vendor or of_model
        if own and vendor and own != vendor:
            raise ResolveError(f"CPU vendors do not match: {vendor} and {own}")
        vendor = vendor or own
    return vendor, all(cpu.vendor for cpu in cpus)
