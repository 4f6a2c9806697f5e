"""One feature explained: what it is, where it sits, which models have it, what it costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cpumap.arch.known import arch_of
from cpumap.cpu.bits import bits_json
from cpumap.cpu.expansion import Machine
from cpumap.cpu.machine_type import Release, machine_type, of_family
from cpumap.cpu.names import PropertyName
from cpumap.libvirt.cpu_map.entries import Feature
from cpumap.libvirt.cpu_map.map import CpuMap
from cpumap.runnable.lookup import Known
from cpumap.runnable.messages import NO_ADVICE, Advice
from cpumap.sources.recorded import RecordedSource

NESTING = ("vmx", "svm")
"""Features without which QEMU takes others away that its models have all the same."""


@dataclass(frozen=True, slots=True)
class ModelsWith:
    """The models of one QEMU that have a feature."""

    release: str
    everywhere: tuple[str, ...]
    """Under every machine type."""
    since: Mapping[str, str]
    """Under the machine type of this name and newer ones only."""
    until: Mapping[str, str]
    """Under the machine type of this name and older ones only."""


@dataclass(frozen=True, slots=True)
class Explained:
    """One feature."""

    feature: Feature
    property: PropertyName
    asked_as: str
    advice: Advice = NO_ADVICE
    """What the message that names it says, and what to do."""
    meaning: str = ""
    manual: str = ""
    former: tuple[str, ...] = ()
    releases: tuple[str, ...] = ()
    """The recorded QEMUs that know it."""
    unknown_to: tuple[str, ...] = ()
    """The recorded QEMUs that do not."""
    held: tuple[ModelsWith, ...] = ()
    dependants: tuple[PropertyName, ...] = ()
    """Features that QEMU switches off with it."""
    needs: tuple[PropertyName, ...] = ()
    """Features without which QEMU switches it off."""
    map_models: tuple[str, ...] = ()
    """Models of the CPU map that have it."""
    blocks_migration: bool = False
    nested: str = ""
    """The feature that must be on for any model to have this one: `vmx`, `svm`."""
    requires: tuple[str, ...] = ()
    """Properties that QEMU wants on beside it."""
    story: str = ""
    """What is known to go wrong with it."""

    def to_json(self) -> dict[str, Any]:
        """JSON-ready values."""
        return {
            "feature": self.feature.name,
            "property": self.property,
            "asked-as": self.asked_as,
            "kind": self.advice.kind,
            "says": self.advice.says,
            "do": self.advice.do,
            "meaning": self.meaning,
            "manual": self.manual,
            "bits": [bits_json(bits) for bits in self.feature.bits],
            "aliases": [
                {"name": alias.name, "source": alias.source} for alias in self.feature.aliases
            ],
            "former-names": list(self.former),
            "blocks-migration": self.blocks_migration,
            "qemu": {"known-to": list(self.releases), "unknown-to": list(self.unknown_to)},
            "models": [
                {
                    "qemu": held.release,
                    "always": list(held.everywhere),
                    "since": held.since,
                    "until": held.until,
                }
                for held in self.held
            ],
            "cpu-map-models": list(self.map_models),
            "switches-off": list(self.dependants),
            "switched-off-by": list(self.needs),
            "nested-in": self.nested,
            "requires": list(self.requires),
            "story": self.story,
        }


def explain_feature(feature: Feature, asked_as: str, advice: Advice, known: Known) -> Explained:
    """The feature explained; `advice` comes from the message that names it."""
    cpu_map, sources, facts = known.cpu_map, known.sources, known.facts
    prop = cpu_map.property_of(feature.name)
    manual = next((of for of, has in facts["meaning"].items() if feature.name in has), None)
    newest = sources[-1:]
    knowing = [source for source in sources if source.knows(prop)]
    needs = tuple(name for source in newest for name in _needed(source, prop, cpu_map))
    nested = next((name for name in NESTING if name in needs), "")
    requires = tuple(facts["needs"].get(prop, ()))
    return Explained(
        feature=feature,
        property=prop,
        asked_as=asked_as,
        advice=_with_name(advice, feature, nested, requires),
        meaning=facts["meaning"][manual][feature.name] if manual else "",
        manual=facts["manuals"][manual] if manual else "",
        former=tuple(old for old, new in facts["former"].items() if new == feature.name),
        releases=tuple(source.version for source in knowing),
        unknown_to=tuple(source.version for source in sources if source not in knowing),
        held=tuple(_held(source, prop, bool(nested)) for source in knowing),
        dependants=tuple(name for source in newest for name in source.dependants(prop)),
        needs=needs,
        map_models=tuple(
            model.name for model in cpu_map.models.values() if feature.name in model.features
        ),
        blocks_migration=not feature.migratable,
        nested=nested,
        requires=requires,
        story=facts["story"].get(feature.name, ""),
    )


def _with_name(advice: Advice, feature: Feature, nested: str, requires: tuple[str, ...]) -> Advice:
    """The advice for this feature; a general one where the text only names it."""
    name = feature.name
    if advice.do:
        return Advice(advice.kind, advice.says, advice.do.replace("{name}", name))
    if name.startswith("hv-"):
        beside = f" (beside {', '.join(requires)})" if requires else ""
        return Advice(do=f"switch it on or off in <hyperv> of the domain's <features>{beside}")
    inside = f", with {nested} on" if nested else ""
    return Advice(
        do=f"to fix it either way: <feature policy='require|disable' name='{name}'/>{inside}; "
        "`cpumap check FILE` says whether it can be given here"
    )


def _needed(source: RecordedSource, prop: PropertyName, cpu_map: CpuMap) -> list[PropertyName]:
    names = [cpu_map.property_of(name) for name in cpu_map.features]
    return [name for name in names if name != prop and prop in source.dependants(name)]


def _held(source: RecordedSource, prop: PropertyName, nested: bool) -> ModelsWith:
    """The models by machine type: the versioned machine types in order of their release.

    A nested feature counts as had where the model has it once what it needs is on.
    """
    machines = _by_release(source)
    everywhere, since, until = [], {}, {}
    same = {name: table for table, names in source.tables().items() for name in names}
    for model, tables in source.models_with(prop, hidden=nested).items():
        has = [same[machine] in tables for machine in machines]
        if all(has):
            everywhere.append(model)
        elif has[-1]:
            since[model] = machines[len(has) - has[::-1].index(False)]
        elif any(has):
            until[model] = machines[len(has) - 1 - has[::-1].index(True)]
    return ModelsWith(source.version, tuple(everywhere), since, until)


def _by_release(source: RecordedSource) -> list[str]:
    """The versioned machine types, one for each release, oldest first."""
    started = [Machine(name) for alike in source.tables().values() for name in alike]
    found: dict[Release, str] = {}
    for family in reversed(arch_of(source.arch).families):
        for machine in of_family(started, family):
            of_release = machine_type(machine.name).release
            if of_release:
                found.setdefault(of_release, machine.name)
    return [found[of_release] for of_release in sorted(found)]
