"""One QEMU's base models and features, asked for once and written down as differences."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cpumap.cpu.expansion import CpuModel, Definition, Machine
from cpumap.cpu.machine_type import machine_type, oldest_first
from cpumap.cpu.names import PropertyName
from cpumap.errors import SourceError
from cpumap.sources.layers import ByModel, Facts, difference, factorise
from cpumap.sources.live import QemuSource
from cpumap.sources.record import Progress
from cpumap.sources.recorded_static import EVERY, SCHEMA, STANDS_ON, RecordedStatic


@dataclass
class _Answers:
    """Everything one QEMU said, by machine type."""

    refused: dict[str, str] = field(default_factory=dict)
    """Machine type → why QEMU would not start it."""
    static: dict[str, dict[str, CpuModel]] = field(default_factory=dict)
    full: dict[str, dict[str, CpuModel]] = field(default_factory=dict)
    definitions: dict[str, tuple[Definition, ...]] = field(default_factory=dict)


def record_static(source: QemuSource, progress: Progress = lambda *_: None) -> Facts:
    """The recording of this QEMU's static expansions, checked to give back every answer.

    Errors: `SourceError` when QEMU fails, or when the recording would not be lossless.
    """
    machines = _newest_first(source.machines())
    answers = _ask(source, machines, progress)
    stored = _stored(source, machines, answers, progress)
    stored["definition"] = _definitions(source, stored, answers)
    _check_lossless(source, stored, answers)
    return stored


def _newest_first(machines: Iterable[Machine]) -> list[Machine]:
    ordered = oldest_first(machines)[::-1]
    return sorted(ordered, key=lambda machine: machine_type(machine.name).release is None)


def _ask(source: QemuSource, machines: Iterable[Machine], progress: Progress) -> _Answers:
    answers, listed = _Answers(), list(machines)
    for count, machine in enumerate(listed, 1):
        progress("machine types", count, len(listed))
        try:
            definitions = source.definitions(machine.name)
        except SourceError as err:
            answers.refused[machine.name] = str(err).removeprefix(f"{source.binary}: ")
            continue
        models = [CpuModel(definition.name) for definition in definitions]
        names = [model.name for model in models]
        answers.definitions[machine.name] = definitions
        static = source.expand_many(machine.name, models, "static")
        full = source.expand_many(machine.name, models, "full")
        answers.static[machine.name] = dict(zip(names, static, strict=True))
        answers.full[machine.name] = dict(zip(names, full, strict=True))
    return answers


def _stored(
    source: QemuSource, machines: Iterable[Machine], answers: _Answers, progress: Progress
) -> Facts:
    groups = source.kind.groups
    newest = next(iter(answers.full))
    bases = sorted({answer.name for answer in answers.static[newest].values()})
    shown = {base: answers.full[newest][base] for base in bases}
    own: ByModel = {
        base: dict.fromkeys(sorted(groups.named(groups.on(full.props))), True)
        for base, full in shown.items()
    }
    features = sorted({name for answer in shown.values() for name in answer.props})
    possible = _possible(source, newest, bases, features, progress)
    like_base = nearest_models(possible)
    facts = {
        machine: {model: _static_facts(model, answer) for model, answer in found.items()}
        for machine, found in answers.static.items()
    }
    like = nearest_models(facts[newest])
    tables = same_tables(facts)
    return {
        "schema": SCHEMA,
        "qemu": source.version,
        "package": source.build().package,
        "arch": source.arch,
        "accel": source.accel,
        "machines": {m.name: machine_facts(m, tables) for m in machines},
        "refused": answers.refused,
        "features": features,
        "lacking": _lacking(source, answers.definitions[newest]),
        "like_base": like_base,
        "bases": factorise({EVERY: own}, {"like": like_base}),
        "possible": factorise({EVERY: possible}, {"like": like_base}),
        "like": like,
        "static": factorise({t: facts[t] for t in dict.fromkeys(tables.values())}, {"like": like}),
    }


def _static_facts(model: str, answer: CpuModel) -> Facts:
    stands_on = {} if answer.name == model else {STANDS_ON: answer.name}
    return {**stands_on, **{str(name): value for name, value in sorted(answer.props.items())}}


def _possible(
    source: QemuSource, machine: str, bases: list[str], features: list[PropertyName],
    progress: Progress,
) -> ByModel:  # fmt: skip
    """Base model → what a CPU on it can be given, by QEMU's names."""
    groups = source.kind.groups
    found: ByModel = {}
    for count, base in enumerate(bases, 1):
        progress("base models", count, len(bases))
        taken = _taken(source, machine, base, features)
        rest = groups.singles(features) - groups.singles(taken)
        parts = sorted(name for name in rest if groups.group_of(name))
        taken += _taken(source, machine, base, parts)
        found[base] = dict.fromkeys(sorted(groups.named(groups.singles(taken))), True)
    return found


def _taken(
    source: QemuSource, machine: str, base: str, names: Sequence[PropertyName]
) -> list[PropertyName]:
    """Those of the names that QEMU takes, each on its own, on top of the base model."""
    asked = (CpuModel(base, {name: True}) for name in names)
    answers = source.try_many(machine, asked, "static")
    return [name for name, answer in zip(names, answers, strict=True) if answer is not None]


def _lacking(source: QemuSource, definitions: Iterable[Definition]) -> list[PropertyName]:
    """What the accelerator cannot give of any model."""
    named = {PropertyName(name) for entry in definitions for name in entry.unavailable}
    return sorted(source.kind.groups.named(source.kind.groups.singles(named)))


def nearest_models(models: Mapping[str, Facts]) -> dict[str, str | None]:
    """Model → the one before it, by what there is to say of them, that it differs least from."""
    found: dict[str, str | None] = {}
    for name in sorted(models, key=lambda model: (len(models[model]), model)):
        costs = {other: len(difference(models[other], models[name])) for other in found}
        best = min(costs, key=costs.__getitem__, default=None)
        found[name] = best if best is not None and costs[best] < len(models[name]) else None
    return found


def same_tables(facts: Mapping[str, ByModel]) -> dict[str, str]:
    """Machine type → the first machine type that shows exactly the same CPUs."""
    seen: dict[str, str] = {}
    return {
        machine: seen.setdefault(json.dumps(found, sort_keys=True), machine)
        for machine, found in facts.items()
    }


def machine_facts(machine: Machine, tables: Mapping[str, str]) -> Facts:
    facts: Facts = {"table": tables.get(machine.name), "cpu_max": machine.cpu_max}
    facts |= {"alias": machine.alias} if machine.alias else {}
    facts |= {"default_cpu": machine.default_cpu} if machine.default_cpu else {}
    return facts | {name: True for name in ("deprecated", "is_default") if getattr(machine, name)}


def _definition_facts(entry: Definition) -> dict[str, Any]:
    return {
        "typename": entry.typename,
        "alias_of": entry.alias_of,
        "migration_safe": entry.migration_safe,
        "static": entry.static,
        "deprecated": entry.deprecated,
        "unavailable": sorted(entry.unavailable),
    }


def _definitions(source: QemuSource, stored: Facts, answers: _Answers) -> Facts:
    """What must be said of each definition, the rest being derived when the recording is read."""
    tables = dict.fromkeys(m["table"] for m in stored["machines"].values() if m["table"])
    nothing: Facts = {"models": {}, "tables": {}}
    plain = RecordedStatic({**stored, "definition": nothing}, Path(source.binary))
    found: dict[str, ByModel] = {}
    for table in tables:
        known = {entry.name: _definition_facts(entry) for entry in plain.definitions(table)}
        found[table] = {
            entry.name: difference(known[entry.name], _definition_facts(entry))
            for entry in answers.definitions[table]
        }
    return factorise(found, stored)


def _check_lossless(source: QemuSource, stored: Facts, answers: _Answers) -> None:
    """Errors: `SourceError` naming the first answer that the recording does not give back."""
    recorded = RecordedStatic(stored, Path(source.binary))
    for machine, definitions in answers.definitions.items():
        again = {entry.name: _definition_facts(entry) for entry in recorded.definitions(machine)}
        for entry in definitions:
            name = entry.name
            _must_be(again[name], _definition_facts(entry), f"the definition of {name}", machine)
            model = CpuModel(name)
            again_static = recorded.expand(machine, model, "static")
            again_full = recorded.expand(machine, model, "full")
            _must_be(again_static, answers.static[machine][name], f"{name}, static", machine)
            _must_be(again_full, answers.full[machine][name], f"{name}, full", machine)


def _must_be(again: object, answer: object, what: str, machine: str) -> None:
    if again != answer:
        raise SourceError(f"recording is not lossless: {what} under {machine} is another one")
