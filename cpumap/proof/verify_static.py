"""The proof of a CPU that is a base model and features: expanded again, and looked at by a guest
where one can be started.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from cpumap.arch.arch import Judge
from cpumap.arch.known import arch_of
from cpumap.cpu.expansion import CpuModel, Expansion
from cpumap.cpu.explicit import ExplicitCpu
from cpumap.cpu.names import PropertyName
from cpumap.errors import SourceError
from cpumap.move.predict import Prediction
from cpumap.move.static import hold_static
from cpumap.pin.static import base_features
from cpumap.proof.guest_s390x import field_differences, probe_s390x
from cpumap.proof.verify import JudgedPlace, Judgement, Verification
from cpumap.qemu.arguments import cpu_arguments
from cpumap.sources.platform import Platform
from cpumap.sources.source import Source

_AGAIN: Judge = "expanded again"
_SEEN: Judge = "seen by a guest"


def verify_static(
    cpu: ExplicitCpu,
    expansion: Expansion,
    platform: Platform,
    places: Iterable[tuple[Source, str]],
) -> Verification:
    """The judgements in each place, a QEMU and one of its machine types.

    A guest is asked where the source's own QEMU starts the CPU that was asked for. Errors:
    `SourceError` when it fails otherwise, `UnknownNameError` for a machine type.
    """
    where = expansion.context
    original = _original(cpu, expansion, platform.source)
    judged = []
    for target, machine in places:
        moved, prediction = hold_static(cpu, Platform(target, platform.given_map, machine))
        judgements = [_expanded_again(prediction)]
        if original is not None:
            judgements.append(_seen(moved, original, target))
        place = moved.context
        judged.append(
            JudgedPlace(
                place.qemu, place.machine, place.accel, moved, prediction, tuple(judgements)
            )
        )
    return Verification(where.qemu, where.machine, where.accel, tuple(judged))


def _expanded_again(prediction: Prediction) -> Judgement:
    """`hold_static` has expanded it there."""
    if prediction.refused:
        return Judgement(_AGAIN, "refused", reason="; ".join(prediction.refused))
    return Judgement(_AGAIN, "holds")


def _original(cpu: ExplicitCpu, expansion: Expansion, source: Source) -> Mapping[str, bytes] | None:
    """What a guest reads of the CPU as it was asked for, less what was left out; None where the
    accelerator lacks something of it.
    """
    arch = arch_of(expansion.context.arch)
    groups = arch.groups
    left = groups.on(expansion.full) - groups.changed(_base(cpu, expansion), cpu.values)
    lacking = groups.singles(map(PropertyName, expansion.unavailable)) - left
    if lacking or source.accel != "tcg":
        return None
    props = {**expansion.model.props, **dict.fromkeys(sorted(groups.named(left)), False)}
    model = CpuModel(expansion.definition.name, props)
    return _look(source, expansion.context.machine, model)


def _base(cpu: ExplicitCpu, expansion: Expansion) -> frozenset[PropertyName]:
    return base_features(expansion, arch_of(cpu.context.arch).groups)


def _seen(cpu: ExplicitCpu, original: Mapping[str, bytes], target: Source) -> Judgement:
    try:
        there = _look(target, cpu.context.machine, CpuModel(cpu.model, cpu.values))
    except SourceError as err:
        return Judgement(_SEEN, "refused", reason=str(err))
    found = [str(difference) for difference in field_differences(original, there)]
    return Judgement(_SEEN, "differs" if found else "holds", reason="; ".join(found))


def _look(source: Source, machine: str, model: CpuModel) -> Mapping[str, bytes]:
    typename = arch_of(source.arch).typename(model.name)
    return probe_s390x(source.binary, machine, cpu_arguments(model.name, typename, model.props))
