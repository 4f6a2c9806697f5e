"""Which recorded QEMU is the first that has a CPU model."""

from __future__ import annotations

from cpumap.cpu.names import Accel
from cpumap.sources.recorded import RecordedSource
from cpumap.sources.recordings import upstream
from cpumap.sources.source import Source


def first_with(model: str, accel: Accel, arch: str) -> str | None:
    """The release of the oldest recorded QEMU that has the model; None where none has it.

    Every machine type of a QEMU has the same models, so that one of them is looked at.
    """
    for recording in upstream(accel, arch):
        source = RecordedSource(recording.path)
        machine = next(iter(source.tables()))
        if any(definition.name == model for definition in source.definitions(machine)):
            return source.version
    return None


def too_new(model: str, source: Source) -> str:
    """That the source's QEMU has no such model, and which recorded one is the first to have it;
    empty where no recorded QEMU has it.
    """
    first = first_with(model, source.accel, source.arch)
    if first is None:
        return ""
    return f"{source.label} has no {model}: QEMU {first} is the first recorded that has it"
