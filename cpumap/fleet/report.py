"""Reports for the person who must decide: one HTML file, without network, from
templates/report.html.j2.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cpumap.arch.known import PER_INSTANCE, arch_of
from cpumap.cpu.bits import CpuidBits, bit_numbers, qemu_words
from cpumap.cpu.expansion import CpuModel, Definition
from cpumap.cpu.machine_type import of_family
from cpumap.cpu.names import Accel, PropertyName, Value
from cpumap.errors import CpumapError
from cpumap.fleet.audit import Audited, Drift
from cpumap.fleet.convert import Answers
from cpumap.fleet.gravity import WORDS
from cpumap.fleet.lock import Lock, LockedCpu, depends_on_defaults, locked_cpu
from cpumap.fleet.plan import Fate
from cpumap.fleet.planned import Plan
from cpumap.fleet.report_facts import (
    ADVICE,
    HeadLines,
    audit_facts,
    convert_facts,
    diff_facts,
    plan_facts,
    releases_in,
)
from cpumap.fleet.run import Converted
from cpumap.libvirt.cpu_map.map import CpuMap
from cpumap.libvirt.cpu_map.places import bits_of, feature_place
from cpumap.move.predict import PredictedDifference
from cpumap.pin.expand import shown
from cpumap.proof.diff import CpuDifference
from cpumap.proof.difference import GuestDifference, PropertyDifference
from cpumap.qemu.arguments import property_text
from cpumap.sources.recorded import RecordedSource
from cpumap.sources.recordings import upstream

MODELS_DRAWN = 40
"""Rows of the drift map: the models that most guests have."""


@dataclass
class ConvertReport:
    """Collects what a conversion made of each document."""

    answers: Answers
    planned: bool = False
    """Whether nothing is written."""
    guests: list[dict[str, Any]] = field(default_factory=list)

    def add(self, group: Iterable[Converted]) -> None:
        """Takes these outcomes up."""
        for item in group:
            outcome = item.outcome
            entry = {
                "name": outcome.name,
                "status": outcome.status,
                "reason": outcome.reason,
                "cpu": outcome.answer,
            }
            self.guests.append(
                {key: value for key, value in entry.items() if value not in (None, "")}
            )

    def html(self) -> str:
        """The report."""
        cpus = {str(number): locked_cpu(cpu) for number, cpu in self.answers.cpus.items()}
        defaults = sum(1 for guest in self.guests if guest["status"] == "converted")
        return _Report(
            "convert",
            self.guests,
            cpus,
            self.answers.cpu_map,
            facts=convert_facts(cpus, self.answers.labels),
            defaults=defaults,
            planned=self.planned,
        ).html()


def audit_report(
    lock: Lock,
    audited: Sequence[Audited],
    blocked: Mapping[str, Mapping[str, Sequence[str]]],
    sources: Sequence[str],
    answers: Answers,
) -> str:
    """The report on what has drifted since a fleet was locked."""
    drifts = {
        str(number): list(_audited_rows(entry, answers.cpu_map))
        for number, entry in enumerate(audited)
    }
    found = [
        _audited_guest(guest, entry, number, len(rows))
        for entry, (number, rows) in zip(audited, drifts.items(), strict=True)
        for guest in entry.case.guests
    ]
    guests = sorted(found, key=lambda guest: str(guest["name"]))
    defaults = sum(1 for key in lock.guests.values() if depends_on_defaults(lock.cpus[key]))
    hosts = {
        host: {key: list(missing) for key, missing in entries.items()}
        for host, entries in blocked.items()
    }
    return _Report(
        "audit",
        guests,
        lock.cpus,
        answers.cpu_map,
        facts=audit_facts(lock.cpus, sources, hosts),
        defaults=defaults,
        drifts=drifts,
        hosts=hosts,
    ).html()


def diff_report(differences: Sequence[CpuDifference], cpu_map: CpuMap) -> str:
    """The report on the differences between pairs of CPUs."""
    guests: list[dict[str, Any]] = []
    drifts: dict[str, list[dict[str, Any]]] = {}
    for number, difference in enumerate(differences):
        rows = [_property_row(prop, cpu_map) for prop in difference.properties]
        rows += [row for bit in difference.bits or () for row in _bit_rows(bit)]
        drifts[str(number)] = rows
        name, status = f"{difference.a} → {difference.b}", "same" if difference.same else "differs"
        guests.append(
            {
                "name": name,
                "status": status,
                "cpu": str(number),
                "rows": str(number),
                "drifts": len(rows),
            }
        )
    return _Report("diff", guests, {}, cpu_map, facts=diff_facts(), drifts=drifts).html()


def plan_report(found: Plan, cpu_map: CpuMap) -> str:
    """The report on what an upgrade does to a fleet."""
    guests: list[dict[str, Any]] = []
    rows: dict[str, list[dict[str, Any]]] = {}
    for number, group in enumerate(found.groups):
        rows[str(number)] = list(_plan_rows(group.fate, cpu_map))
        fate = group.fate
        place = fate.after or fate.before
        shared = {
            "status": fate.status,
            "rows": str(number),
            "reason": fate.stopped or fate.unjudged,
            "do": fate.advice + (f" ({fate.why})" if fate.why else ""),
            "model": fate.model,
            "machine": place.machine if place else "",
        }
        count = len(rows[str(number)])
        guests += [{"name": guest, **shared, "drifts": count} for guest in group.guests]
    fates = [group.fate for group in found.groups]
    facts = plan_facts([one.before for one in fates], [one.after for one in fates], found.sources)
    return _Report("plan", guests, {}, cpu_map, facts=facts, drifts=rows).html()


def _plan_rows(fate: Fate, cpu_map: CpuMap) -> Iterator[dict[str, Any]]:
    said = {"migrates there": fate.no_way_there, "migrates back": fate.no_way_back}
    for name, text in said.items():
        if text:
            yield {**_plain_row(name, "", "", text), **_place(PropertyName(""), cpu_map)}
    for change in fate.changes:
        name = PropertyName(change.what)
        cause = f"{change.cause} ({WORDS[change.gravity]})"
        row = _plain_row(change.what, _text(change.before), _text(change.after), cause)
        yield {**row, **_place(name, cpu_map)}


def _plain_row(name: str, before: str, after: str, cause: str) -> dict[str, Any]:
    return {"name": name, "before": before, "after": after, "cause": cause}


def _property_row(prop: PropertyDifference, cpu_map: CpuMap) -> dict[str, Any]:
    values = {
        "name": prop.name,
        "before": _text(prop.a),
        "after": _text(prop.b),
        "cause": prop.cause,
    }
    return {**values, **_place(prop.name, cpu_map)}


def _bit_rows(found: GuestDifference) -> Iterable[dict[str, Any]]:
    """A row for each bit that two guests read differently."""
    for bit in found.bits:
        before, after = (
            _text(None if value is None else value >> bit & 1) for value in (found.a, found.b)
        )
        row = _bit_row(found, bit, f"{', '.join(found.names) or 'unnamed'} (seen by a guest)")
        yield {**row, "before": before, "after": after}


def _bit_row(found: GuestDifference | PredictedDifference, bit: int, name: str) -> dict[str, Any]:
    place = {
        "leaf": f"{found.leaf:#x}",
        "subleaf": found.subleaf,
        "register": found.register,
        "bit": bit,
    }
    return {"name": name, "before": "", "after": "", "cause": found.cause, **place}


def _audited_guest(name: str, entry: Audited, rows: str, count: int) -> dict[str, Any]:
    reason = "; ".join([entry.refused] if entry.refused else entry.prediction.unknown)
    return {
        "name": name,
        "status": entry.state,
        "reason": reason,
        "cpu": entry.case.key,
        "rows": rows,
        "drifts": count,
    }


def _audited_rows(entry: Audited, cpu_map: CpuMap) -> Iterator[dict[str, Any]]:
    """A row for each property, and for each bit that a guest reads, or is expected to read,
    otherwise.
    """
    yield from (_drift_row(drift, cpu_map) for drift in entry.drifts)
    if entry.seen is None:
        for found in entry.prediction.differences:
            yield from (_bit_row(found, bit, "predicted") for bit in bit_numbers(found.xor))
    for seen in entry.seen or ():
        yield from _bit_rows(seen)


def _drift_row(drift: Drift, cpu_map: CpuMap) -> dict[str, Any]:
    return {
        "name": drift.name,
        "before": _text(drift.locked),
        "after": _text(drift.now),
        "cause": drift.cause,
        **_place(drift.name, cpu_map),
    }


def _place(name: PropertyName, cpu_map: CpuMap) -> dict[str, Any]:
    """Leaf, subleaf, register and bit of a feature that is one bit; else where it is, in words."""
    where = bits_of(name, cpu_map)
    if where and isinstance(where[0], CpuidBits) and where[0].mask.bit_count() == 1:
        first = where[0]
        return {
            "leaf": f"{first.leaf:#x}",
            "subleaf": first.subleaf,
            "register": first.register,
            "bit": first.mask.bit_length() - 1,
        }
    return {"place": qemu_words(name, where)} if where else {}


def _text(value: Value | None) -> str:
    return "–" if value is None else property_text(value)  # noqa: RUF001 (an en dash: there is no value)


@dataclass(frozen=True, slots=True)
class _Report:
    """What a report shows."""

    command: str
    guests: Sequence[Mapping[str, Any]]
    cpus: Mapping[str, LockedCpu]
    cpu_map: CpuMap
    facts: HeadLines = field(default_factory=list)
    defaults: int | None = None
    """Guests whose CPU depends on defaults; None: nobody counted."""
    drifts: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    hosts: Mapping[str, Mapping[str, Sequence[str]]] = field(default_factory=dict)
    planned: bool = False
    """Whether a conversion was tried, and nothing written."""

    def html(self) -> str:
        """The report as one HTML file."""
        from cpumap.system.templates import filled

        data = {
            "command": self.command,
            "facts": self.facts,
            "advice": ADVICE,
            "totals": Counter(str(guest["status"]) for guest in self.guests),
            "defaults": self.defaults,
            "guests": self.guests,
            "cpus": {key: _cpu_sheet(cpu, self.cpu_map) for key, cpu in self.cpus.items()},
            "drifts": self.drifts,
            "hosts": self.hosts,
            "maps": drift_maps(self.guests, self.cpus),
            "asked": releases_in(self.facts),
            "planned": self.planned,
        }
        text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
        return filled("report.html.j2", command=self.command, data=text.replace("<", "\\u003c"))


def _cpu_sheet(cpu: LockedCpu, cpu_map: CpuMap) -> dict[str, Any]:
    context = cpu.context
    return {
        "model": cpu.request.model or cpu.model,
        "version": cpu.model,
        "machine": context.machine,
        "qemu": context.qemu,
        "accel": context.accel,
        "defaults": depends_on_defaults(cpu),
        "properties": [
            [p.name, _text(p.value), str(p.origin), feature_place(p.name, cpu_map)]
            for p in cpu.properties
        ],
    }


def drift_maps(
    guests: Iterable[Mapping[str, Any]], cpus: Mapping[str, LockedCpu]
) -> list[dict[str, Any]]:
    """For each accelerator, the fleet's models over machine types and QEMU releases: equal
    numbers are equal CPUs.
    """
    found = []
    for accel in ("kvm", "tcg"):
        models: Counter[str] = Counter()
        for guest in guests:
            cpu = cpus.get(str(guest.get("cpu")))
            if cpu is not None and cpu.context.accel == accel:
                models[cpu.request.model or cpu.model] += 1
        sources = [RecordedSource(found.path) for found in upstream(accel)]
        if models and sources:
            found.append(_drift_map(accel, models, sources))
    return found


def _drift_map(
    accel: Accel, models: Counter[str], sources: Sequence[RecordedSource]
) -> dict[str, Any]:
    columns = [
        (source, machine, others) for source in sources for machine, others in _machines(source)
    ]
    rows = []
    for model, count in models.most_common(MODELS_DRAWN):
        rows.append({"model": model, "guests": count, "kinds": _kinds(model, columns)})
    heads = [
        {"qemu": source.version, "machine": machine, "same": others}
        for source, machine, others in columns
    ]
    return {"accel": accel, "columns": heads, "rows": rows}


def _machines(source: RecordedSource) -> list[tuple[str, list[str]]]:
    """One machine type for each distinct table of CPUs of the architecture's first family, oldest
    first, with those like it.
    """
    family = arch_of(source.arch).families[0]
    ordered = [machine.name for machine in of_family(source.machines(), family)]
    found: dict[str, list[str]] = {}
    for machines in source.tables().values():
        alike = sorted((name for name in machines if name in ordered), key=ordered.index)
        if alike:
            found[alike[-1]] = alike
    return sorted(found.items(), key=lambda entry: ordered.index(entry[0]))


def _kinds(
    model: str, columns: Sequence[tuple[RecordedSource, str, Sequence[str]]]
) -> list[int | None]:
    """A number for each column, the same where the CPU is the same in all that every one of the
    QEMUs knows.
    """
    expansions = [_expansion(source, machine, model) for source, machine, _ in columns]
    known = [set(expansion) for expansion in expansions if expansion]
    shared = set.intersection(*known) - PER_INSTANCE if known else set()
    numbers: dict[frozenset[tuple[str, Value]], int] = {}
    kinds: list[int | None] = []
    for expansion in expansions:
        key = frozenset((name, value) for name, value in expansion.items() if name in shared)
        kinds.append(numbers.setdefault(key, len(numbers)) if expansion else None)
    return kinds


def _expansion(source: RecordedSource, machine: str, model: str) -> Mapping[PropertyName, Value]:
    """The model there; nothing where this QEMU does not have it."""
    definitions: dict[str, Definition] = {
        definition.name: definition for definition in source.definitions(machine)
    }
    if model not in definitions:
        return {}
    target = definitions[model].alias_of or f"{model}-v1"
    try:
        return shown(source, machine, CpuModel(target if target in definitions else model))
    except CpumapError:
        return {}
