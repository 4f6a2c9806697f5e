"""Which properties must be named at all: those that some machine type or release changes. From evidence."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from cpumap.cpu import PER_INSTANCE, CpuModel, Machine, PropertyName, Value
from cpumap.errors import UnknownName
from cpumap.sources import Source


def changing_properties(model: str, sources: Iterable[Source]) -> frozenset[PropertyName]:
    """The properties of a model that differ between any two machine types of these QEMUs, for `Choices.only`.

    Under each machine type they are those of QMP's full expansion. A source that does not have the model says nothing;
    a property that only some sources have is one that a release changes.
    """
    seen: dict[PropertyName, set[str]] = {}
    answers = [answer for source in sources for answer in _answers(source, model)]
    for name in {name for answer in answers for name in answer}:
        seen[name] = {_typed(answer.get(name)) for answer in answers}
    return frozenset(name for name, values in seen.items() if len(values) > 1) - PER_INSTANCE


def _typed(value: Value | None) -> str:
    """Set apart what Python takes for the same: on and 1."""
    return repr(value)


def _answers(source: Source, model: str) -> Iterator[Mapping[PropertyName, Value]]:
    for machine in _machines(source):
        try:
            yield source.expand(machine, CpuModel(model), "full")
        except UnknownName:
            continue  # a machine type without this model, or that cannot be started


def _machines(source: Source) -> list[str]:
    """One machine type of each kind where the source knows which are alike, else every versioned one."""
    alike: Mapping[str, list[str]] | None = getattr(source, "tables", lambda: None)()
    return list(alike) if alike is not None else [m.name for m in source.machines() if _versioned(m)]


def _versioned(machine: Machine) -> bool:
    return machine.name.startswith(("pc-q35-", "pc-i440fx-"))
