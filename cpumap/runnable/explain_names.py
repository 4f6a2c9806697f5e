"""CPU models and machine types explained: since when, in which QEMU, under which machine types."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from cpumap.runnable.lookup import Known
from cpumap.runnable.messages import NO_ADVICE, Advice
from cpumap.sources.recorded import RecordedSource


@dataclass(frozen=True, slots=True)
class ModelIn:
    """A CPU model in one QEMU."""

    release: str
    aliases: tuple[tuple[str, str], ...]
    """What the name stands for, and the machine types (first and last) under which it does."""
    deprecated: bool


@dataclass(frozen=True, slots=True)
class ExplainedModel:
    """A CPU model."""

    name: str
    has: tuple[ModelIn, ...]
    unknown_to: tuple[str, ...]
    in_map: bool
    advice: Advice = NO_ADVICE

    def to_json(self) -> dict[str, Any]:
        """JSON-ready values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class ExplainedMachine:
    """A machine type."""

    name: str
    has: tuple[str, ...]
    """The recorded QEMUs that have it."""
    unknown_to: tuple[str, ...]
    stands_for: tuple[str, ...] = ()
    """The machine type that it is an alias of, QEMU by QEMU."""
    deprecated_in: tuple[str, ...] = ()
    advice: Advice = NO_ADVICE

    def to_json(self) -> dict[str, Any]:
        """JSON-ready values."""
        return asdict(self)


def explain_model(name: str, advice: Advice, known: Known) -> ExplainedModel | None:
    """The CPU model of this name; None where no recorded QEMU and no CPU map has it."""
    has = [found for source in known.sources for found in _model_in(source, name)]
    in_map = name in known.cpu_map.models
    if not has and not in_map:
        return None
    releases = {found.release for found in has}
    unknown_to = tuple(s.version for s in known.sources if s.version not in releases)
    do = advice.do.replace("{name}", name) or (
        "what it means under one machine type: `cpumap expand`; to keep it whatever changes: "
        "`cpumap translate FILE`"
    )
    advice = Advice(advice.kind, advice.says, do)
    return ExplainedModel(name, tuple(has), unknown_to, in_map, advice)


def _model_in(source: RecordedSource, name: str) -> Iterator[ModelIn]:
    """The model in this QEMU, if it has it: what it stands for under which machine types."""
    spans: list[tuple[str, list[str]]] = []
    deprecated = False
    for machine in source.tables():
        for definition in source.definitions(machine):
            if definition.name == name:
                target = definition.alias_of or name
                if not spans or spans[-1][0] != target:
                    spans.append((target, []))
                spans[-1][1].append(machine)
                deprecated |= definition.deprecated
    if spans:
        aliases = tuple((target, _between(machines)) for target, machines in spans)
        yield ModelIn(source.version, aliases, deprecated)


def _between(machines: list[str]) -> str:
    return machines[0] if len(machines) == 1 else f"{machines[-1]} to {machines[0]}"


def explain_machine(name: str, known: Known) -> ExplainedMachine | None:
    """The machine type of this name or alias; None where no recorded QEMU has it."""
    found = {
        source.version: machine
        for source in known.sources
        for machine in source.machines()
        if name in (machine.name, machine.alias)
    }
    if not found:
        return None
    stands_for = tuple(
        f"{machine.name} in QEMU {version}"
        for version, machine in found.items()
        if machine.name != name
    )
    do = "a guest keeps its CPU when its machine type changes: `cpumap convert PATH --machine NEW`"
    if stands_for:
        do = f"name the versioned type: {name} means another one in each release"
    return ExplainedMachine(
        name,
        tuple(found),
        tuple(s.version for s in known.sources if s.version not in found),
        stands_for,
        tuple(version for version, machine in found.items() if machine.deprecated),
        Advice(do=do),
    )
