"""One QEMU's models and machine types, asked for once and written down as differences that a
person can read.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from cpumap.arch.arch import Arch
from cpumap.arch.known import arch_of
from cpumap.cpu.expansion import CpuModel, Definition, Machine
from cpumap.cpu.machine_type import machine_type, of_family, oldest_first
from cpumap.cpu.names import PropertyName
from cpumap.errors import SourceError
from cpumap.sources.layers import ByModel, Facts, Layer, difference, factorise, likes, present, same
from cpumap.sources.live import QemuSource
from cpumap.sources.recorded import (
    SCHEMA,
    derived_definition,
    offered_by,
    with_spellings,
)
from cpumap.sources.source import Source

Progress = Callable[[str, int, int], None]
"""Told what is being asked, how much of it is done, and how much there is."""


@dataclass
class _Answers:
    """Everything one QEMU said. Facts of a machine type are kept as differences from the first
    one asked.
    """

    vendors: Mapping[str, str]
    machines: list[Machine] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    """Machine type → why QEMU would not start it."""
    first: ByModel = field(default_factory=dict)
    changes: dict[str, ByModel] = field(default_factory=dict)
    definition: dict[str, ByModel] = field(default_factory=dict)
    static: list[str] = field(default_factory=list)
    on: ByModel = field(default_factory=dict)
    """Feature → what else switching it on in `base` sets."""
    always: ByModel = field(default_factory=dict)
    """Feature → the levels that it raises where full-cpuid-auto-level is off."""
    off: ByModel = field(default_factory=dict)
    """Feature → what else switching it off sets in a `base` that has all features on."""
    never: list[str] = field(default_factory=list)
    """Features that stay off even there."""
    lacking: dict[str, str] = field(default_factory=dict)
    """Feature that the accelerator cannot give → QEMU's words for its bit."""

    def full(self, machine: str) -> ByModel:
        """model → every property, as QEMU said under this machine type."""
        return {
            m: present({**self.first[m], **change}) for m, change in self.changes[machine].items()
        }


def record(source: QemuSource, reference: Source, progress: Progress = lambda *_: None) -> Facts:
    """The recording of this QEMU: its answers, factorised, checked to give every one of them back.

    `reference` is the same QEMU under tcg (or its recording), where nothing depends on this host:
    it gives the vendor of each model, which KVM would take from the host, and what realize adds,
    since KVM cannot make every model on every host. Errors: `SourceError` when QEMU fails, or when
    the recording would not be lossless.
    """
    answers = _Answers(_vendors(reference))
    _ask_machines(source, answers, progress)
    _ask_effects(source, answers)
    stored = _stored(source, answers)
    stored["realised"] = factorise(_realised(reference, stored, progress), stored)
    _check_lossless(source, stored, answers)
    if stored["offers"] != offered_by(stored):
        raise SourceError("recording is not lossless: QEMU offers something that is not in it")
    return stored


def _vendors(reference: Source) -> dict[str, str]:
    arch = arch_of(reference.arch)
    if arch.vendor is None:
        return {}
    machine = _newest_first(reference.machines(), arch)[0].name
    vendors = {}
    for definition in reference.definitions(machine):
        if definition.name != arch.host_passthrough["kvm"]:
            shown = reference.expand(machine, CpuModel(definition.name), "full").props
            vendors[definition.name] = str(shown[arch.vendor])
    return vendors


def _stored(source: QemuSource, answers: _Answers) -> Facts:
    spellings = _spellings(answers, answers.first[source.kind.bare_model])
    stored: Facts = {
        "schema": SCHEMA,
        "qemu": source.version,
        "package": source.build().package,
        "offers": source.build().offers,
        "arch": source.arch,
        "accel": source.accel,
        "machines": {m.name: _machine_facts(m, _tables(answers)) for m in answers.machines},
        "refused": answers.refused,
        "static": answers.static,
        "spellings": spellings,
        "effects": {
            "on": _unspelled(answers.on, spellings),
            "always": _unspelled(answers.always, spellings),
            "off": _unspelled(answers.off, spellings),
            "never": answers.never,
        },
        "lacking": answers.lacking,
    }
    tables = _table_names(stored)
    definition = {t: _underived(source, answers, t) for t in tables}
    stored["like"] = likes(definition[tables[0]], source.kind.bare_model)
    stored["definition"] = factorise(definition, stored)
    stored["hidden"] = factorise({t: _hidden(source, answers, t) for t in tables}, stored)
    stored["full"] = factorise({t: _unspelled(answers.full(t), spellings) for t in tables}, stored)
    return stored


def _ask_machines(source: QemuSource, answers: _Answers, progress: Progress) -> None:
    listed = _newest_first(source.machines(), source.kind)
    for count, machine in enumerate(listed, 1):
        progress("machine types", count, len(listed))
        answers.machines.append(machine)
        try:
            definitions = source.definitions(machine.name)
        except SourceError as err:
            answers.refused[machine.name] = str(err).removeprefix(f"{source.binary}: ")
            continue
        models = [_asked(source, answers, d.name) for d in definitions if _recordable(source, d)]
        full: ByModel = dict(_expanded(source, machine.name, models))
        answers.first = answers.first or full
        answers.static = answers.static or _static_names(source, machine.name, models)
        answers.changes[machine.name] = {
            n: difference(answers.first[n], props) for n, props in full.items()
        }
        answers.definition[machine.name] = {d.name: _definition_facts(d) for d in definitions}


def _expanded(
    source: QemuSource, machine: str, models: Sequence[CpuModel]
) -> Iterable[tuple[str, Facts]]:
    answers = source.expand_many(machine, models, "full")
    return (
        (model.name, {str(n): v for n, v in shown.props.items()})
        for model, shown in zip(models, answers, strict=True)
    )


def _recordable(source: QemuSource, definition: Definition) -> bool:
    return definition.name not in source.kind.host_models or (
        source.accel == "tcg" and definition.name == source.kind.maximum
    )


def _asked(source: QemuSource, answers: _Answers, model: str) -> CpuModel:
    vendor = source.kind.vendor
    if vendor is None or source.accel != "kvm" or not answers.vendors.get(model):
        return CpuModel(model)
    return CpuModel(model, {vendor: answers.vendors[model]})


def _newest_first(machines: Sequence[Machine], arch: Arch) -> list[Machine]:
    """The architecture's first family from the newest release on, then the rest: the first is
    what all are compared with.
    """
    family = arch.families[0]
    own = [m for m in of_family(machines, family) if machine_type(m.name).release]
    rest = [m for m in oldest_first(machines) if m not in own]
    return [*reversed(own), *rest]


def _static_names(source: QemuSource, machine: str, models: Sequence[CpuModel]) -> list[str]:
    shown = source.expand_many(machine, models, "static")
    if any(set(answer.props) != set(shown[0].props) for answer in shown):
        raise SourceError(
            f"{source.label}: static expansions of {machine} do not all show the same properties"
        )
    return sorted(shown[0].props)


def _definition_facts(definition: Definition) -> Facts:
    return {
        "typename": definition.typename,
        "alias_of": definition.alias_of,
        "migration_safe": definition.migration_safe,
        "static": definition.static,
        "deprecated": definition.deprecated,
        "unavailable": sorted(definition.unavailable),
    }


def _underived(source: QemuSource, answers: _Answers, table: str) -> ByModel:
    """What a recording must say of each definition, the rest being derived when it is read."""
    full = answers.full(table)
    found = {}
    for name, facts in answers.definition[table].items():
        kept = dict(facts)
        if source.accel == "kvm" or name not in full:
            del kept["unavailable"]
        derived = derived_definition(name, source.kind, full.get(name, {}), answers.lacking)
        found[name] = {key: value for key, value in kept.items() if value != derived[key]}
    return found


def _ask_effects(source: QemuSource, answers: _Answers) -> None:
    machine = next(iter(answers.changes))
    bare = source.kind.bare_model
    base = answers.first[bare]
    switches = [
        name
        for name, value in sorted(base.items())
        if isinstance(value, bool) and name not in source.kind.per_instance
    ]
    everything = {
        PropertyName(name): True for name in answers.static if isinstance(base[name], bool)
    }

    def asked(below: Mapping[PropertyName, Any], value: bool) -> list[Facts]:
        models = [CpuModel(bare, {**below, PropertyName(name): value}) for name in switches]
        return [facts for _, facts in _expanded(source, machine, models)]

    whole = dict(_expanded(source, machine, [CpuModel(bare, everything)]))[bare]
    alone = asked({}, True)
    answers.on = _others(switches, base, alone)
    levels = source.kind.levels
    if levels and levels.automatic in base:  # gone with the machine types that switch it off
        fixed: dict[PropertyName, Any] = {levels.automatic: False}
        answers.always = _others(
            switches, base | {str(name): value for name, value in fixed.items()}, asked(fixed, True)
        )
    less = _switched_off(_others(switches, whole, asked(everything, False)))
    answers.off = {name: effect for name, effect in less.items() if name in answers.static}
    settable = {name for name, facts in zip(switches, alone, strict=True) if facts[name] is True}
    answers.never = [name for name in everything if whole[name] is False and name not in settable]
    if source.accel == "tcg":
        lacking = source.realise(machine, CpuModel(bare, everything)).filtered
        answers.lacking = dict(sorted(lacking.items()))


def _hidden(source: QemuSource, answers: _Answers, table: str) -> ByModel:
    """Model → features that it has, but that do not show while a feature they depend on is off
    in it.
    """
    full = answers.full(table)
    asked = {model: _asked(source, answers, model) for model in full}
    found = {
        model: _hidden_in(source, answers, table, asked[model], facts)
        for model, facts in full.items()
    }
    return {model: dict.fromkeys(names, True) for model, names in found.items()}


def _hidden_in(
    source: QemuSource, answers: _Answers, table: str, model: CpuModel, before: Facts
) -> list[str]:
    """What shows when all that others depend on is switched on, in the order of dependence."""
    parents = [name for name in answers.off if name in answers.static]
    shown, props = before, dict(model.props)
    switched: set[str] = set()
    while off := [name for name in parents if shown[name] is False and name not in switched]:
        roots = [
            name
            for name in off
            if not any(name in answers.off[other] for other in off if other != name)
        ]
        switched.update(roots or off)
        props |= {PropertyName(name): True for name in switched}
        ((_, shown),) = _expanded(source, table, [CpuModel(model.name, props)])
    came_along = {name for parent in switched for name in answers.on.get(parent, {})}
    return [
        n
        for n in answers.static
        if shown[n] is True and not before[n] and n not in switched | came_along
    ]


def _others(switches: Sequence[str], before: Facts, answers: Sequence[Facts]) -> ByModel:
    """Switch → every other property that it changes."""
    found = {}
    for switch, after in zip(switches, answers, strict=True):
        effect = {
            name: value for name, value in difference(before, after).items() if name != switch
        }
        if effect:
            found[switch] = effect
    return found


def _switched_off(effects: ByModel) -> ByModel:
    """The effects without what comes back once a feature that excludes it is gone."""
    found = {
        name: {n: value for n, value in effect.items() if value is not True}
        for name, effect in effects.items()
    }
    return {name: effect for name, effect in found.items() if effect}


def _spellings(answers: _Answers, base: Facts) -> dict[str, str]:
    """Another spelling → the canonical name, which is the one that static expansions show.

    Either they differ in punctuation alone, or switching either switches the other.
    """
    canonical = {name.replace("_", "-").replace(".", "-"): name for name in answers.static}
    alike = {
        name: canonical[plain]
        for name in base
        if (plain := name.replace("_", "-").replace(".", "-")) in canonical
    }
    together = {
        other: name
        for name in answers.static
        for other in answers.on.get(name, {})
        if answers.on[name][other] is True and name in answers.on.get(other, {})
    }
    return {
        other: name
        for other, name in sorted({**alike, **together}.items())
        if other not in answers.static
    }


def _unspelled(facts: Mapping[str, Facts], spellings: Mapping[str, str]) -> ByModel:
    kept = {
        m: {n: v for n, v in known.items() if n not in spellings}
        for m, known in facts.items()
        if m not in spellings
    }
    return {model: known for model, known in kept.items() if known}


def _tables(answers: _Answers) -> dict[str, str]:
    """Machine type → the first machine type that shows exactly the same CPUs."""
    seen: dict[str, str] = {}
    return {
        machine: seen.setdefault(
            json.dumps([changes, answers.definition[machine]], sort_keys=True), machine
        )
        for machine, changes in answers.changes.items()
    }


def _table_names(stored: Facts) -> list[str]:
    return list(
        dict.fromkeys(facts["table"] for facts in stored["machines"].values() if facts["table"])
    )


def _machine_facts(machine: Machine, tables: Mapping[str, str]) -> Facts:
    facts: Facts = {"table": tables.get(machine.name), "cpu_max": machine.cpu_max}
    facts |= {"alias": machine.alias} if machine.alias else {}
    facts |= {"default_cpu": machine.default_cpu} if machine.default_cpu else {}
    return facts | {name: True for name in ("deprecated", "is_default") if getattr(machine, name)}


def _realised(reference: Source, stored: Facts, progress: Progress) -> dict[str, ByModel]:
    """The properties that realize sets, as they are after it, asked under the newest and the oldest
    machine type.

    Where the two agree they are taken to be the same between them; where they do not, every table
    is asked.
    """
    tables = _table_names(stored)
    arch = arch_of(reference.arch)
    family = of_family(map(Machine, tables), arch.families[-1])
    oldest = family[0].name if family else tables[-1]
    ends = list(dict.fromkeys([tables[0], oldest]))
    models = [
        CpuModel(name)
        for name in stored["like"]
        if name not in arch.host_models or _has(stored, name)
    ]
    after = {table: _realised_under(reference, table, models, progress) for table in ends}
    names = {
        model.name: set[str]().union(*(after[table][model.name][1] for table in ends))
        for model in models
    }
    found = {table: _only(answers, names) for table, answers in after.items()}
    unlike = [
        model for model in models if found[ends[0]][model.name] != found[ends[-1]][model.name]
    ]
    for table in tables:
        if table not in ends:
            more = _realised_under(reference, table, unlike, progress)
            found[table] = {**found[ends[0]], **_only(more, names)}
    return {table: found[table] for table in tables}


def _has(stored: Facts, model: str) -> bool:
    return model in stored["full"]["models"]


def _only(answers: Mapping[str, tuple[Facts, set[str]]], names: Mapping[str, set[str]]) -> ByModel:
    return {
        model: {name: facts[name] for name in sorted(names[model])}
        for model, (facts, _) in answers.items()
    }


def _realised_under(
    reference: Source, table: str, models: Sequence[CpuModel], progress: Progress
) -> dict[str, tuple[Facts, set[str]]]:
    """Model → its properties after realize, and the names of those that realize set."""
    found = {}
    before = [reference.expand(table, model, "full").props for model in models]
    passed = arch_of(reference.arch).per_instance
    with ThreadPoolExecutor(2) as pool:
        realised = pool.map(lambda model: reference.realise(table, model).properties, models)
        for count, (model, full, after) in enumerate(zip(models, before, realised, strict=True), 1):
            progress(f"realised CPUs of {table}", count, len(models))
            facts = {str(name): value for name, value in after.items() if name not in passed}
            found[model.name] = (
                facts,
                {
                    name
                    for name, value in facts.items()
                    if not same(full.get(PropertyName(name)), value)
                },
            )
    return found


def _check_lossless(source: QemuSource, stored: Facts, answers: _Answers) -> None:
    """Errors: `SourceError` naming the first answer that the recording does not give back."""
    full, definition = (
        Layer(stored["full"], stored["like"]),
        Layer(stored["definition"], stored["like"]),
    )
    for machine in answers.changes:
        table = stored["machines"][machine]["table"]
        for model, facts in answers.full(machine).items():
            again = with_spellings(full.facts(model, table), stored["spellings"])
            _must_equal(again, facts, f"the expansion of {model} under {machine}")
        for model, facts in answers.definition[machine].items():
            derived = derived_definition(
                model, source.kind, answers.full(machine).get(model, {}), answers.lacking
            )
            again = {**derived, **definition.facts(model, table)}
            if source.accel == "kvm" or model not in answers.first:
                again["unavailable"] = facts["unavailable"]
            _must_equal(again, facts, f"the definition of {model} under {machine}")


def _must_equal(again: Facts, facts: Facts, what: str) -> None:
    wrong = {
        name for name in again.keys() | facts.keys() if not same(again.get(name), facts.get(name))
    }
    if wrong:
        raise SourceError(f"recording is not lossless: {what} loses {', '.join(sorted(wrong))}")


def recording_text(stored: Facts) -> str:
    """The recording as JSON text: one line for each model, machine type or feature."""
    return _lines(stored, 0) + "\n"


def _lines(value: Any, depth: int) -> str:
    nested = isinstance(value, dict) and any(isinstance(inner, dict) for inner in value.values())
    if depth and not nested:
        return json.dumps(value, ensure_ascii=False)
    margin = " " * (depth + 1)
    inner = ",\n".join(
        f"{margin}{json.dumps(key)}: {_lines(v, depth + 1)}" for key, v in value.items()
    )
    return f"{{\n{inner}\n{' ' * depth}}}"
