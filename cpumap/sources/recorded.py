"""Answers of one QEMU, recorded earlier: no QEMU needed to ask them again."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, cast

from cpumap.arch.arch import Arch, Levels
from cpumap.arch.known import arch_of
from cpumap.cpu.build import Build, digest_of
from cpumap.cpu.expansion import CpuModel, Definition, ExpansionType, Machine, Realised
from cpumap.cpu.names import Accel, PropertyName, Value
from cpumap.cpu.vendors import vendor_among
from cpumap.errors import SourceError, UnknownNameError
from cpumap.sources.layers import Layer
from cpumap.sources.tabled import TabledSource
from cpumap.system.data import data_path
from cpumap.system.say import detail
from cpumap.system.shape import at_top

SCHEMA = "cpumap.expansions/1"


_VERSION = re.compile(r"-v\d+$")


_PARTS = frozenset(
    {
        "qemu", "arch", "accel", "machines", "static", "spellings", "effects", "lacking", "like",
        "definition", "full", "realised", "hidden",
    }
)  # fmt: skip
"""What a recording consists of, beside its schema and what was refused."""


Recorded = Mapping[str, Any]


def with_spellings(facts: dict[str, Any], spellings: Mapping[str, str]) -> dict[str, Any]:
    """The facts with every other spelling of a feature beside its canonical name."""
    return {**facts, **{other: facts[name] for other, name in spellings.items() if name in facts}}


def derived_definition(
    model: str, arch: Arch, full: Recorded, lacking: Iterable[str]
) -> dict[str, Any]:
    """What a definition says unless the recording says otherwise; unavailable is what the
    accelerator lacks.
    """
    return {
        "typename": arch.typename(model),
        "alias_of": None,
        "migration_safe": True,
        "static": False,
        "deprecated": False,
        "unavailable": sorted(name for name in lacking if full.get(name) is True),
    }


def offered_by(stored: Recorded) -> str:
    """The digest of what the recorded QEMU offers, as a live one's is made."""
    arch = arch_of(stored["arch"])
    first = next(entry["table"] for entry in stored["machines"].values() if entry["table"])
    definitions = Layer(stored["definition"], stored["like"])
    typenames = [
        str(definitions.facts(model, first).get("typename", arch.typename(model)))
        for model in stored["like"]
    ]
    bare = Layer(stored["full"], stored["like"]).facts(arch.bare_model, first)
    return digest_of(stored["machines"], typenames, with_spellings(bare, stored["spellings"]))


class RecordedSource(TabledSource):
    """A `Source` over one file of `data/x86_64/expansions/`, or one that `cpumap record` wrote for
    the user.
    """

    own_host = False

    def __init__(self, path: Path, read: Mapping[str, Any] | None = None) -> None:
        """Over the file, or over what was read of it. Errors: `SourceError`."""
        stored = _whole(read_recording(path) if read is None else read, path)
        detail(f"reads the recording {path}")
        self._stored = stored
        self.version: str = stored["qemu"]
        self.arch: str = stored["arch"]
        self.kind = arch_of(self.arch)
        self._release = tuple(map(int, re.findall(r"\d+", self.version)))
        self.accel: Accel = stored["accel"]
        self.label = f"recorded QEMU {self.version}"
        if vendor := vendor_among(stored["machines"]):
            self.label += f" of {vendor}"
        self._lacking: Mapping[str, str] = stored["lacking"]
        self._full, self._realised, self._definition, self._hidden = (
            Layer(stored[kind], stored["like"])
            for kind in ("full", "realised", "definition", "hidden")
        )
        self._defined: dict[str, tuple[Definition, ...]] = {}
        self._tables: dict[str, str] = {
            name: entry["table"] for name, entry in stored["machines"].items() if entry["table"]
        }

    def build(self) -> Build:
        """As recorded; a recording that does not hold it yet offers what it has answers for."""
        stored = self._stored
        offers = stored.get("offers") or offered_by(stored)
        return Build(
            self.version, stored.get("package", ""), offers, vendor_among(stored["machines"])
        )

    def machines(self) -> tuple[Machine, ...]:
        return tuple(
            Machine(name, **{key: value for key, value in entry.items() if key != "table"})
            for name, entry in self._stored["machines"].items()
        )

    def definitions(self, machine: str) -> tuple[Definition, ...]:
        table = self._table(machine)
        if table not in self._defined:
            self._defined[table] = tuple(
                self._define(model, table) for model in self._stored["like"]
            )
        return self._defined[table]

    def expand(self, machine: str, model: CpuModel, kind: ExpansionType) -> CpuModel:
        if kind not in self.kind.expansions:
            raise SourceError(f"{self.label}: QEMU has no {kind} expansion of {self.arch} CPUs")
        full = self._changed(self._known(self._full, model, machine), model, self._table(machine))
        if kind == "full":
            return CpuModel(model.name, full)
        shown = {name: full[name] for name in self._stored["static"]}
        return CpuModel(self.kind.bare or model.name, shown)

    def realise(self, machine: str, model: CpuModel, *, unfiltered: bool = True) -> Realised:
        if not unfiltered:
            raise SourceError(
                f"{self.label} holds no host, so it cannot say what a host leaves of a CPU"
            )
        after = self._known(self._realised, model, machine)
        given = {name: value for name, value in after.items() if name not in model.props}
        before = {**self.expand(machine, model, "full").props, **given}
        properties = {**before, **self.kind.realised(before, model.props, self._release)}
        filtered = {
            n: words
            for n, words in self._lacking.items()
            if properties.get(PropertyName(n)) is True
        }
        return Realised(properties, filtered)

    def readings(self) -> Mapping[str, Any]:
        """What `measure` kept. Errors: `SourceError` for what it cannot have written."""
        kept = self._stored.get("measured", {})
        try:
            registers = (
                (name, text)
                for ways in kept.values()
                for read in ways.values()
                for name, text in read.items()
            )
            for _, text in registers:
                int(text, 16)
        except (AttributeError, TypeError, ValueError) as err:
            raise SourceError(f"{self.label}: what was measured cannot be read: {err}") from err
        return cast(Mapping[str, Any], kept)

    def models_with(self, prop: PropertyName, *, hidden: bool = False) -> dict[str, frozenset[str]]:
        """Every model that has the feature → the machine types under which it has it on.

        Of machine types that show the same CPUs, one stands for all. With `hidden` also the models
        that have it once the feature that it depends on is on.
        """
        name = self._stored["spellings"].get(prop, prop)
        layers = (self._full, self._hidden) if hidden else (self._full,)
        on = {
            model: frozenset(
                table
                for table in self.tables()
                if any(layer.fact(model, table, name) is True for layer in layers)
            )
            for model in self._stored["like"]
        }
        return {model: tables for model, tables in on.items() if tables}

    def knows(self, prop: PropertyName) -> bool:
        """Whether this QEMU has a feature of this name; those for Windows (`hv-…`) are in no
        static expansion.
        """
        if prop.startswith("hv-"):
            plain = CpuModel(self.kind.bare or next(iter(self._stored["like"])))
            shown = self.expand(next(iter(self._tables)), plain, "full").props
            return isinstance(shown.get(prop), bool)
        return self._stored["spellings"].get(prop, prop) in self._stored["static"]

    def dependants(self, prop: PropertyName) -> tuple[PropertyName, ...]:
        """The features that QEMU switches off with this one."""
        name = self._stored["spellings"].get(prop, prop)
        effect = self._stored["effects"]["off"].get(name, {})
        return tuple(sorted(_switches(effect, ())))

    def close(self) -> None:
        """Nothing to end."""

    def _known(self, layer: Layer, model: CpuModel, machine: str) -> dict[PropertyName, Value]:
        table = self._table(machine)
        if model.name not in self._stored["like"]:
            raise UnknownNameError(f"{self.label} has no CPU model {model.name!r}")
        if model.name in self.kind.host_models and model.name not in self._stored["full"]["models"]:
            raise UnknownNameError(
                f"{model.name!r} is whatever its host has: {self.label} cannot say what that is, "
                "and `cpumap host --format json > HOST.json` there does, for --host HOST.json"
            )
        facts = with_spellings(layer.facts(model.name, table), self._stored["spellings"])
        return {PropertyName(name): value for name, value in facts.items()}

    def _define(self, model: str, table: str) -> Definition:
        full = self._full.facts(model, table) if self._lacking else {}
        facts = {
            **derived_definition(model, self.kind, full, self._lacking),
            **self._definition.facts(model, table),
        }
        return Definition(name=model, **{**facts, "unavailable": tuple(facts["unavailable"])})

    def _floors(
        self, levels: Levels, model: str, full: Mapping[PropertyName, Value]
    ) -> dict[PropertyName, Value]:
        """The levels of this model without the features that raise them."""
        own = {name: int(value) for name, value in full.items() if name in levels.names}
        if full.get(levels.automatic) is False:
            return {**own}
        floors = levels.floors.get(_VERSION.sub("", model), {})
        known = {**floors, **{PropertyName(f"min-{name}"): value for name, value in floors.items()}}
        return {name: min(known.get(name, value), value) for name, value in own.items()}

    def _refuse_values(self, model: CpuModel, now: Mapping[PropertyName, Value]) -> None:
        """What QEMU would not take in a CPU that has these properties."""
        for name, value in model.props.items():
            reason = self.kind.refusal(name, value, now, self._release)
            if reason:
                message = f"{self.label}: value {value!r} of CPU property {name!r} {reason}"
                raise UnknownNameError(message)

    def _refuse_kinds(self, model: CpuModel, full: Mapping[PropertyName, Value]) -> None:
        """What QEMU would not take: an unknown property, or a value that is none of its kind."""
        for name, value in model.props.items():
            if name not in full:
                raise UnknownNameError(f"{self.label} has no CPU property {name!r}")
            if not isinstance(full[name], str) and _kind(full[name]) != _kind(value):
                raise UnknownNameError(
                    f"{self.label}: CPU property {name!r} takes {_kind(full[name])}, not {value!r}"
                )

    def _changed(
        self, full: dict[PropertyName, Value], model: CpuModel, table: str
    ) -> dict[PropertyName, Value]:
        """What the properties asked for on top of a model do to it, dependants and levels
        included.
        """
        if not model.props:
            return full
        self._refuse_kinds(model, full)
        canonical = {
            PropertyName(self._stored["spellings"].get(n, n)): value
            for n, value in model.props.items()
        }
        effects = self._stored["effects"]
        hidden = {PropertyName(name): True for name in self._hidden.facts(model.name, table)}
        changed = {**full, **hidden, **canonical}
        for name, value in canonical.items():
            if value is True:
                changed |= _switches(effects["on"].get(name, {}), canonical)
        for name, effect in effects["off"].items():
            if changed.get(PropertyName(name)) is False:
                changed |= _switches(effect, ())
        changed |= {PropertyName(name): False for name in effects["never"]}
        if self.kind.levels is not None:
            least = self._floors(self.kind.levels, model.name, full)
            changed |= _levels(self.kind.levels, least, changed, effects, canonical)
        self._refuse_values(model, changed)
        again = with_spellings({str(n): v for n, v in changed.items()}, self._stored["spellings"])
        return {PropertyName(name): value for name, value in again.items()}


def _kind(value: Value) -> str:
    return (
        "on or off" if isinstance(value, bool) else "a number" if isinstance(value, int) else "text"
    )


def _switches(effect: Recorded, given: Iterable[str]) -> dict[PropertyName, Value]:
    return {PropertyName(n): v for n, v in effect.items() if isinstance(v, bool) and n not in given}


def _levels(
    levels: Levels,
    full: Mapping[PropertyName, Value],
    changed: Mapping[PropertyName, Value],
    effects: Mapping[str, Mapping[str, Recorded]],
    given: Iterable[str],
) -> dict[PropertyName, Value]:
    """The levels as QEMU raises them for features that are on; a level given outright stays."""
    raised = effects["always"] if changed.get(levels.automatic) is False else effects["on"]
    features = [
        effect for name, effect in raised.items() if changed.get(PropertyName(name)) is True
    ]
    found: dict[PropertyName, Value] = {}
    for level in sorted(levels.names, key=_is_a_result):
        if level not in full or _is_fixed(level, changed, given):
            continue
        if level not in given or not _is_a_result(level):
            floor = _floor(level, levels, full, changed, given)
            found[level] = max([floor, *(effect.get(level, 0) for effect in features)])
    return found


def _is_fixed(
    level: PropertyName, before: Mapping[PropertyName, Value], given: Iterable[str]
) -> bool:
    """Whether the machine type sets the level itself, and not the least that it may be: such a
    level is never raised.
    """
    least = PropertyName(f"min-{level}")
    own = level not in given and least not in given and least in before
    return own and before[level] != before[least]


def _is_a_result(level: str) -> bool:
    """Whether it is a level itself, and not the least that it may be."""
    return not level.startswith("min-")


def _floor(
    level: PropertyName,
    levels: Levels,
    full: Mapping[PropertyName, Value],
    changed: Mapping[PropertyName, Value],
    given: Iterable[str],
) -> int:
    """What the level is without features that raise it: the model's, or the least given."""
    if level in levels.of_features_alone:
        return 0
    least = level if level.startswith("min-") else PropertyName(f"min-{level}")
    return int(changed[least] if least in given else full[level])


def read_recording(path: Path, schemas: Collection[str] = (SCHEMA,)) -> dict[str, Any]:
    """What a recording's file holds, if it is of one of these schemas. Errors: `SourceError`."""
    try:
        stored = json.loads(path.read_bytes())
    except OSError as err:
        raise SourceError(f"{path}: {err.strerror}") from err
    except (ValueError, RecursionError) as err:
        raise SourceError(f"{path}: not a recording: {err}") from err
    if not isinstance(stored, dict) or stored.get("schema") not in schemas:
        known = " or ".join(schemas)
        raise SourceError(f"{path}: not a recording of `cpumap record` ({known})")
    return stored


def _whole(stored: Mapping[str, Any], path: Path) -> Mapping[str, Any]:
    """The recording. Errors: `SourceError` where it is none."""
    if missing := sorted(_PARTS - stored.keys()):
        raise SourceError(f"{path}: not a whole recording: it lacks {', '.join(missing)}")
    if not path.is_relative_to(data_path()):  # what is shipped is ours
        from cpumap.sources.recorded_shape import require_recording

        require_recording(at_top(stored, str(path), SourceError))
    return stored
