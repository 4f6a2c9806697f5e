"""Where a CPU will run: held there, or refused with every bit that would differ."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cpumap.arch.known import arch_of, target_of
from cpumap.cpu.bits import bits_words, register_words
from cpumap.cpu.expansion import Expansion
from cpumap.cpu.explicit import ExplicitCpu
from cpumap.cpu.names import PropertyName
from cpumap.errors import DriftError
from cpumap.move.hold import hold
from cpumap.move.predict import Prediction
from cpumap.pin.compact import changing_properties
from cpumap.sources.choose import started
from cpumap.sources.open_recording import open_recording
from cpumap.sources.platform import Platform
from cpumap.sources.recordings import find_recording, shipped
from cpumap.sources.source import Source


@dataclass(frozen=True, slots=True)
class Target:
    """What the user said of the place, and of a CPU that cannot stay the same there."""

    qemu: str | None = None
    """A binary, or a recorded release; None: where answers come from."""
    machine: str | None = None
    """None: the machine type that the CPU has."""
    compact: bool = False
    """Whether to name only what some machine type or release changes."""
    allow_drift: bool = False


def placed(
    cpu: ExplicitCpu,
    expansion: Expansion,
    platform: Platform,
    target: Target,
    place: Source | None = None,
) -> tuple[ExplicitCpu, tuple[str, ...]]:
    """The CPU as it must be named where it will run, and what is to be said of it: what will differ
    there although that is allowed, and what this rests on.

    `place` is the target's QEMU, open (None: the source). Errors: `DriftError`, `UnknownNameError`
    for a machine type.
    """
    source = platform.source
    place = place or source
    only = _changing(cpu, source, place) if target.compact else None
    moved, prediction = hold(
        cpu, expansion, source, Platform(place, platform.cpu_map, target.machine), only=only
    )
    lines = tuple(drift_lines(prediction))
    if lines and not target.allow_drift:
        raise DriftError("\n  ".join([_verdict(moved, prediction), *lines]))
    return moved, (*(f"will differ: {line}" for line in lines), *prediction.notes)


def _verdict(moved: ExplicitCpu, prediction: Prediction) -> str:
    """What is known beforehand: that the CPU changes, or not whether it does."""
    where = f"QEMU {moved.context.qemu}, {moved.context.machine}"
    if prediction.differences or prediction.refused:
        return f"this CPU cannot stay the same in {where} (--allow-drift writes it all the same):"
    return (
        f"whether this CPU stays the same in {where} is not known (`verify --target-qemu` measures "
        "it there, --allow-drift writes it all the same):"
    )


def opened(qemu: str, source: Source, *, cache: bool = True) -> Source:
    """The source for a target's QEMU, with the accelerator of the `source` and for its
    architecture. The caller closes it. Errors: `UnknownNameError`, `SourceError`.
    """
    if Path(qemu).is_file() and not qemu.endswith(".json"):
        return started(qemu, source.accel, cache=cache)
    target = target_of(arch_of(source.arch).name)
    return open_recording(find_recording(qemu, source.accel, target), source.accel)


def drift_lines(prediction: Prediction) -> Iterator[str]:
    """What will differ, bit by bit, and what cannot be told."""
    for found in prediction.differences:
        where = (found.leaf, found.subleaf, found.register)
        what = (
            f"{register_words(where)} may differ"
            if found.undefined
            else bits_words(where, found.xor)
        )
        yield f"{what}: {found.cause}"
    yield from prediction.refused
    yield from (
        f"not known beforehand: {reason} (`verify --target-qemu` measures it)"
        for reason in prediction.unknown
    )


def _changing(cpu: ExplicitCpu, source: Source, place: Source) -> frozenset[PropertyName]:
    """What changes within the two QEMUs, and in any that is recorded."""
    known = [
        open_recording(found.path, source.accel) for found in shipped(source.accel, source.arch)
    ]
    return changing_properties(cpu, [source, place, *known])
