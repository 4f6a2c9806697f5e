"""Comparison and baseline of CPUs that QEMU compares itself: s390x."""

from __future__ import annotations

from collections.abc import Sequence

from cpumap.cpu.expansion import CpuModel
from cpumap.cpu.frozen import Frozen
from cpumap.cpu.host import Cpu
from cpumap.cpu.names import FeatureName, PropertyName
from cpumap.cpu.request import CpuRequest, FeaturePolicy
from cpumap.errors import InputError, ResolveError
from cpumap.libvirt.rules.compare import Verdict
from cpumap.sources.live import QemuSource

_VERDICTS: dict[str, Verdict] = {"identical": "identical", "superset": "superset"}


class ComparedModels(Frozen):
    """What QEMU says of two CPUs."""

    verdict: Verdict
    responsible: tuple[str, ...] = ()
    """The features by which they differ; `type`: the model's generation."""

    @property
    def reason(self) -> str:
        """Why they are incompatible; empty where they are not."""
        if self.verdict != "incompatible":
            return ""
        return f"QEMU's comparison: they differ in {', '.join(self.responsible)}"

    def to_json(self) -> dict[str, object]:
        """JSON-ready values."""
        return {
            "verdict": self.verdict,
            "reason": self.reason,
            "responsible-properties": list(self.responsible),
        }


def compare_static(source: QemuSource, machine: str, host: Cpu, cpu: Cpu) -> ComparedModels:
    """Whether the host's CPU is identical to the guest's, a superset of it or incompatible, by
    query-cpu-model-comparison. Errors: `InputError` for a CPU without a model, `SourceError`.
    """
    answer = source.compare(machine, _model(host), _model(cpu))
    responsible = tuple(sorted(answer["responsible-properties"]))
    return ComparedModels(_VERDICTS.get(answer["result"], "incompatible"), responsible)


def baseline_static(source: QemuSource, machine: str, cpus: Sequence[Cpu]) -> CpuRequest:
    """The CPU that every one of these can provide, by query-cpu-model-baseline. Errors:
    `InputError` for a CPU without a model, `ResolveError` where they have nothing in common.
    """
    first, *rest = map(_model, cpus)
    found = source.expand(machine, first, "static")
    for model in rest:
        found = source.baseline(machine, found, model)
    if not found.name:
        raise ResolveError("the CPUs are incompatible: they have no base model in common")
    features = tuple(
        FeaturePolicy(FeatureName(name), "require" if value else "disable")
        for name, value in sorted(found.props.items())
    )
    return CpuRequest(
        arch=source.kind.name,
        mode="custom",
        match="exact",
        fallback="forbid",
        model=found.name,
        features=features,
    )


def _model(cpu: Cpu) -> CpuModel:
    if cpu.model is None:
        raise InputError("a CPU without a model cannot be compared", cpu.where)
    on = {PropertyName(f.name): f.policy in ("force", "require") for f in cpu.features}
    return CpuModel(cpu.model, on)
