"""Whether a host can provide a CPU, by libvirt's rules (virConnectCompareCPU), with the reason."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from cpumap.arch.known import runs
from cpumap.cpu.host import Cpu, HostCpu
from cpumap.cpu.names import FeatureName
from cpumap.cpu.request import CpuRequest, FeaturePolicy, PolicyName
from cpumap.libvirt.cpu_map.map import CpuMap

Verdict = Literal["identical", "superset", "incompatible"]


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a comparison found. `superset`: the host can provide the CPU, and has more."""

    verdict: Verdict
    reason: str = ""
    """Why it is incompatible, in libvirt's words."""
    missing: tuple[FeatureName, ...] = ()
    forbidden: tuple[FeatureName, ...] = ()
    extra: tuple[FeatureName, ...] = ()
    """What the host has and the CPU does not name."""

    def to_json(self) -> dict[str, Any]:
        """The comparison as JSON-ready values."""
        return {
            "verdict": self.verdict,
            "reason": self.reason,
            "missing": list(self.missing),
            "forbidden": list(self.forbidden),
            "extra": list(self.extra),
        }


def compare(host: HostCpu, cpu: Cpu, cpu_map: CpuMap) -> Comparison:
    """Whether the host can provide the CPU. Raises `UnknownNameError` for a model or feature that
    the map lacks.
    """
    if not runs(host.arch, cpu.arch):
        return Comparison("incompatible", f"CPU arch {cpu.arch} does not match host arch")
    if cpu.vendor and cpu.vendor != host.vendor:
        return Comparison(
            "incompatible", f"host CPU vendor does not match required CPU vendor {cpu.vendor}"
        )
    has = features_of_cpu(host, cpu_map)
    by_policy = _by_policy(cpu, cpu_map)
    # A forbidden feature that the model has stays required: libvirt finds no host right for such a
    # CPU.
    given_up = by_policy["force"] | by_policy["optional"] | by_policy["disable"]
    required = (by_policy["require"] | _of_model(cpu, cpu_map)) - given_up
    if forbidden := cpu_map.ordered(by_policy["forbid"] & has):
        return Comparison(
            "incompatible",
            f"Host CPU provides forbidden features: {', '.join(forbidden)}",
            forbidden=forbidden,
        )
    if missing := cpu_map.ordered(required - has):
        return Comparison(
            "incompatible",
            f"Host CPU does not provide required features: {', '.join(missing)}",
            missing=missing,
        )
    extra = cpu_map.ordered(
        has - required - by_policy["optional"] - by_policy["disable"] - by_policy["force"]
    )
    if extra and isinstance(cpu, CpuRequest) and cpu.match == "strict":
        words = f"Host CPU does not strictly match guest CPU: Extra features: {', '.join(extra)}"
        return Comparison("incompatible", words, extra=extra)
    return Comparison("superset" if extra else "identical", extra=extra)


def features_of_cpu(cpu: Cpu, cpu_map: CpuMap) -> frozenset[FeatureName]:
    """What a CPU has when it is what it says: its model's features, and those it adds, less those
    it takes away.

    An optional feature adds nothing. Raises `UnknownNameError`.
    """
    by_policy = _by_policy(cpu, cpu_map)
    added = by_policy["force"] | by_policy["require"]
    return (_of_model(cpu, cpu_map) | added) - by_policy["disable"] - by_policy["forbid"]


def feature_named(feature: FeaturePolicy, cpu: Cpu, cpu_map: CpuMap) -> FeatureName:
    """libvirt's name of a feature that a CPU mentions. Raises `UnknownNameError` with the place
    that does.
    """
    file, colon, _ = cpu.where.rpartition(":")
    return cpu_map.feature(
        feature.name, f"{file}:{feature.line}" if colon and feature.line else cpu.where
    ).name


def _of_model(cpu: Cpu, cpu_map: CpuMap) -> frozenset[FeatureName]:
    return frozenset() if cpu.model is None else cpu_map.model(cpu.model, cpu.where).features


def _by_policy(cpu: Cpu, cpu_map: CpuMap) -> dict[PolicyName, frozenset[FeatureName]]:
    sets: dict[PolicyName, set[FeatureName]] = {
        p: set() for p in ("force", "require", "optional", "disable", "forbid")
    }
    for feature in cpu.features:
        sets[feature.policy].add(feature_named(feature, cpu, cpu_map))
    return {policy: frozenset(names) for policy, names in sets.items()}
