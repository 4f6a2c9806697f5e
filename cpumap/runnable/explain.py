"""What a feature is, where it sits, which models have it since when, and what taking it away
costs.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cpumap.cpu.bits import bits_json
from cpumap.cpu.names import Accel, FeatureName, PropertyName
from cpumap.errors import UnknownName
from cpumap.libvirt.cpu_map.entries import Alias, Feature
from cpumap.libvirt.cpu_map.map import CpuMap
from cpumap.sources.recorded import RecordedSource, recordings
from cpumap.system.data import data_path

_MESSAGE = re.compile(
    r"(?P<kind>missing|extra|forbidden|required) "
    r"features?:\s*(?P<names>[\w.-]+(?:\s*,\s*[\w.-]+)*)",
    re.IGNORECASE,
)
"""libvirt: "… missing features: a,b,extra features: c", "Host CPU does not provide required
features: a, b".
"""


_MACHINES = ("pc-i440fx-", "pc-q35-")
"""The versioned machine types; i440fx goes back further, and shows the same CPUs as q35 of its
release.
"""


@dataclass(frozen=True, slots=True)
class Held:
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
    kind: str = ""
    """What libvirt's message says of it: missing, extra, forbidden; empty where it was only
    named.
    """
    meaning: str = ""
    manual: str = ""
    former: tuple[str, ...] = ()
    releases: tuple[str, ...] = ()
    """The recorded QEMUs that know it."""
    unknown_to: tuple[str, ...] = ()
    """The recorded QEMUs that do not."""
    held: tuple[Held, ...] = ()
    dependants: tuple[PropertyName, ...] = ()
    """Features that QEMU switches off with it."""
    needs: tuple[PropertyName, ...] = ()
    """Features without which QEMU switches it off."""
    map_models: tuple[str, ...] = ()
    """Models of the CPU map that have it."""
    blocks_migration: bool = False

    def to_json(self) -> dict[str, Any]:
        """JSON-ready values."""
        return {
            "feature": self.feature.name,
            "property": self.property,
            "asked-as": self.asked_as,
            "kind": self.kind,
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
        }


def asked_features(text: str) -> dict[str, str]:
    """Every feature named in the text → what libvirt's message says of it, empty for a plain
    list.
    """
    found = {
        name.strip(): {"required": "missing"}.get(kind, kind)
        for kind, names in (
            (match["kind"].lower(), match["names"]) for match in _MESSAGE.finditer(_split(text))
        )
        for name in names.split(",")
    }
    return found or {name: "" for name in re.split(r"[\s,]+", text) if name}


def _split(text: str) -> str:
    """The message with its second list apart from the first, to which libvirt joins it with a
    comma.
    """
    return re.sub(r",\s*(?=(?:missing|extra) features:)", "; ", text)


def explain(
    names: Mapping[str, str], cpu_map: CpuMap, accel: Accel = "kvm"
) -> tuple[Explained, ...]:
    """Each feature named, explained; models and machine types are those of the shipped recordings.

    Errors: `UnknownName` for a name that no feature has.
    """
    sources = _recorded(accel)
    facts = _facts()
    return tuple(_explained(name, kind, cpu_map, sources, facts) for name, kind in names.items())


def _recorded(accel: Accel) -> tuple[RecordedSource, ...]:
    """The recordings under this accelerator, oldest QEMU first."""
    return tuple(RecordedSource(path) for path in recordings() if path.stem.endswith(f"_{accel}"))


def _facts() -> Mapping[str, Any]:
    return tomllib.loads(data_path("features.toml").read_text(encoding="utf-8"))


def _explained(
    name: str,
    kind: str,
    cpu_map: CpuMap,
    sources: Sequence[RecordedSource],
    facts: Mapping[str, Any],
) -> Explained:
    feature = find_feature(name, cpu_map, facts["former"])
    prop = cpu_map.property_of(feature.name)
    manual = next(
        (manual for manual, known in facts["meaning"].items() if feature.name in known), None
    )
    newest = sources[-1:] or ()
    knowing = [source for source in sources if source.knows(prop)]
    return Explained(
        feature=feature,
        property=prop,
        asked_as=name,
        kind=kind,
        meaning=facts["meaning"][manual][feature.name] if manual else "",
        manual=facts["manuals"][manual] if manual else "",
        former=tuple(old for old, new in facts["former"].items() if new == feature.name),
        releases=tuple(source.version for source in knowing),
        unknown_to=tuple(source.version for source in sources if source not in knowing),
        held=tuple(_held(source, prop) for source in knowing),
        dependants=tuple(name for source in newest for name in source.dependants(prop)),
        needs=tuple(name for source in newest for name in _needed(source, prop, cpu_map)),
        map_models=tuple(
            model.name for model in cpu_map.models.values() if feature.name in model.features
        ),
        blocks_migration=not feature.migratable,
    )


def find_feature(name: str, cpu_map: CpuMap, former: Mapping[str, str]) -> Feature:
    """The feature of this name, whichever spelling: libvirt's, QEMU's, Linux's or a former one.
    Or `UnknownName`.
    """
    wanted = FeatureName(former.get(name, name))
    by_alias = {
        alias.name: feature.name
        for feature in cpu_map.features.values()
        for alias in feature.aliases
    }
    candidates: Iterable[str] = (wanted, by_alias.get(wanted, wanted), wanted.replace("_", "-"))
    for candidate in candidates:
        feature = cpu_map.features.get(cpu_map.feature_of(PropertyName(candidate)))
        if feature is not None:
            return feature
    return _of_qemu(wanted, cpu_map)


def _of_qemu(name: FeatureName, cpu_map: CpuMap) -> Feature:
    """A feature that no CPU map has, but a recorded QEMU (kvmclock, hv-time and the like)."""
    for prop in map(PropertyName, (name.replace("_", "-"), cpu_map.property_of(name))):
        if any(RecordedSource(path).knows(prop) for path in recordings()):
            return Feature(cpu_map.feature_of(prop), aliases=(Alias(prop, "qemu"),))
    raise UnknownName(
        f"no CPU feature is called {name!r}, neither in the CPU map {cpu_map.path} nor in a "
        "recorded QEMU"
    )


def _needed(source: RecordedSource, prop: PropertyName, cpu_map: CpuMap) -> list[PropertyName]:
    names = [cpu_map.property_of(name) for name in cpu_map.features]
    return [name for name in names if name != prop and prop in source.dependants(name)]


def _held(source: RecordedSource, prop: PropertyName) -> Held:
    """The models by machine type: the versioned machine types in order of their release."""
    machines = _by_release(source)
    everywhere, since, until = [], {}, {}
    same = {name: table for table, names in source.tables().items() for name in names}
    for model, tables in source.models_with(prop).items():
        has = [same[machine] in tables for machine in machines]
        if all(has):
            everywhere.append(model)
        elif has[-1]:
            since[model] = machines[len(has) - has[::-1].index(False)]
        elif any(has):
            until[model] = machines[len(has) - 1 - has[::-1].index(True)]
    return Held(source.version, tuple(everywhere), since, until)


def _by_release(source: RecordedSource) -> list[str]:
    """The versioned machine types, one for each release, oldest first."""
    found: dict[tuple[int, ...], str] = {}
    for family in _MACHINES:
        for names in source.tables().values():
            for name in names:
                numbers = name.removeprefix(family)
                if name.startswith(family) and re.fullmatch(r"[0-9.]+", numbers):
                    found.setdefault(tuple(int(part) for part in numbers.split(".")), name)
    return [found[numbers] for numbers in sorted(found)]
