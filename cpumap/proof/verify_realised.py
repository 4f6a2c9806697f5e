"""The proof of a CPU of which a few properties are named: realised again, and its ID registers read
by a guest.
"""

from __future__ import annotations

from collections.abc import Iterable

from cpumap.arch.arch import Judge
from cpumap.arch.known import arch_of
from cpumap.cpu.expansion import CpuModel, Expansion
from cpumap.cpu.explicit import ExplicitCpu
from cpumap.cpu.names import PropertyName
from cpumap.errors import InputError, SourceError
from cpumap.move.predict import Prediction
from cpumap.move.realised import hold_realised
from cpumap.proof.guest_aarch64 import probe_aarch64, register_differences
from cpumap.proof.verify import JudgedPlace, Judgement, Verification
from cpumap.qemu.arguments import cpu_arguments
from cpumap.sources.platform import Platform
from cpumap.sources.source import Source

_64_BIT = PropertyName("aarch64")
"""On in every CPU that runs 64-bit code."""


_REALISED: Judge = "realised"
_SEEN: Judge = "seen by a guest"


def verify_realised(
    cpu: ExplicitCpu,
    expansion: Expansion,
    platform: Platform,
    places: Iterable[tuple[Source, str]],
) -> Verification:
    """The judgements in each place, a QEMU and one of its machine types. Errors: `SourceError` when
    the source itself does not start this CPU, `UnknownNameError` for a machine type.
    """
    where = expansion.context
    if expansion.realised.get(_64_BIT) is not True:
        raise InputError(f"{cpu.model} is a 32-bit CPU: the probe guest runs on none")
    asked = CpuModel(expansion.definition.name, expansion.model.props)
    original = _look(platform.source, where.machine, asked)
    judged = []
    for target, machine in places:
        moved, prediction = hold_realised(cpu, Platform(target, platform.given_map, machine))
        place = moved.context
        judgements = (_realised(prediction), _seen(moved, original, target))
        judged.append(
            JudgedPlace(place.qemu, place.machine, place.accel, moved, prediction, judgements)
        )
    return Verification(where.qemu, where.machine, where.accel, tuple(judged))


def _realised(prediction: Prediction) -> Judgement:
    """`hold_realised` has had it made there."""
    if prediction.refused:
        return Judgement(_REALISED, "differs", reason="; ".join(prediction.refused))
    return Judgement(_REALISED, "holds")


def _seen(cpu: ExplicitCpu, original: dict[str, int | None], target: Source) -> Judgement:
    try:
        there = _look(target, cpu.context.machine, CpuModel(cpu.model, cpu.values))
    except SourceError as err:
        return Judgement(_SEEN, "refused", reason=str(err))
    found = list(register_differences(original, there))
    return Judgement(_SEEN, "differs" if found else "holds", reason="; ".join(found))


def _look(source: Source, machine: str, model: CpuModel) -> dict[str, int | None]:
    typename = arch_of(source.arch).typename(model.name)
    words = cpu_arguments(model.name, typename, model.props)
    return dict(probe_aarch64(source.binary, machine, words))
