"""Which properties of an explicit CPU must be named: those that some machine type has otherwise.
From evidence.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from cpumap.arch.known import arch_of
from cpumap.cpu.expansion import CpuModel
from cpumap.cpu.explicit import ExplicitCpu
from cpumap.cpu.machine_type import of_family
from cpumap.cpu.names import PropertyName, Value
from cpumap.errors import UnknownNameError
from cpumap.pin.expand import shown
from cpumap.sources.source import Source


def changing_properties(cpu: ExplicitCpu, sources: Iterable[Source]) -> frozenset[PropertyName]:
    """The properties that the model this CPU stands on has otherwise under some machine type, for
    `Choices.only`.

    What a machine type gives is QMP's full expansion. A source or machine type without the model
    says nothing.
    """
    answers = [answer for source in sources for answer in _answers(source, cpu.model)]
    return frozenset(
        prop.name
        for prop in cpu.properties
        if any(_differs(answer, prop.name, prop.value) for answer in answers)
    )


def _differs(answer: Mapping[PropertyName, Value], name: PropertyName, value: Value) -> bool:
    there = answer.get(name)
    return there != value or isinstance(there, bool) is not isinstance(value, bool)


def _answers(source: Source, model: str) -> Iterator[Mapping[PropertyName, Value]]:
    for machine in _machines(source):
        try:
            yield shown(source, machine, CpuModel(model))
        except UnknownNameError:
            continue


def _machines(source: Source) -> list[str]:
    """One machine type of each kind where the source knows which are alike, else every versioned
    one.
    """
    families = arch_of(source.arch).families
    return list(source.tables()) or [m.name for m in of_family(source.machines(), *families)]
