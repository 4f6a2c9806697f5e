"""Answers of a QEMU whose CPUs are base models and features, recorded earlier."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cpumap.arch.arch import Arch
from cpumap.arch.groups import Groups
from cpumap.arch.known import arch_of
from cpumap.cpu.build import Build, digest_of
from cpumap.cpu.expansion import CpuModel, Definition, ExpansionType, Machine, Realised
from cpumap.cpu.names import Accel, PropertyName, Value
from cpumap.cpu.vendors import vendor_among
from cpumap.errors import SourceError, UnknownNameError
from cpumap.sources.layers import Layer
from cpumap.sources.tabled import TabledSource

SCHEMA = "cpumap.static-expansions/1"


PARTS = frozenset(
    {
        "qemu", "arch", "accel", "machines", "features", "lacking", "like", "like_base",
        "bases", "possible", "definition", "static",
    }
)  # fmt: skip
"""What a recording consists of, beside its schema and what was refused."""


STANDS_ON = ""
"""The name under which a model's facts hold the base model of its static expansion."""


EVERY = "every"
"""The one table of what no machine type changes."""


def derived(model: str, arch: Arch, unavailable: Iterable[str]) -> dict[str, Any]:
    """What a definition says unless the recording says otherwise."""
    return {
        "typename": arch.typename(model),
        "alias_of": None,
        "migration_safe": True,
        "static": model.endswith("-base"),
        "deprecated": False,
        "unavailable": sorted(unavailable),
    }


class Sets:
    """The features of base models and of models, as a recording holds them."""

    def __init__(self, stored: Mapping[str, Any], groups: Groups) -> None:
        self.groups = groups
        self.features = groups.singles(map(PropertyName, stored["features"]))
        self._static = Layer(stored["static"], stored["like"])
        self._bases = Layer(stored["bases"], stored["like_base"])
        self._possible = Layer(stored["possible"], stored["like_base"])

    def base(self, name: str) -> frozenset[PropertyName]:
        """The single features that the base model has."""
        return self._names(self._bases, name)

    def possible(self, base: str) -> frozenset[PropertyName]:
        """The single features that a CPU on this base model can be given."""
        return self._names(self._possible, base)

    def _names(self, layer: Layer, base: str) -> frozenset[PropertyName]:
        return self.groups.singles(map(PropertyName, layer.facts(base, EVERY)))

    def model(self, name: str, table: str) -> tuple[str, frozenset[PropertyName]]:
        """The base model that the model stands on under these machine types, and the single
        features that are on.
        """
        facts = self._static.facts(name, table)
        base = str(facts.pop(STANDS_ON, name))
        props = {PropertyName(feature): value for feature, value in facts.items()}
        return base, self.groups.changed(self.base(base), props)

    def static(self, base: str, on: frozenset[PropertyName]) -> dict[PropertyName, Value]:
        """What a static expansion names: the difference from the base model."""
        own = self.base(base)
        return self.groups.shown(on - own, own - on)

    def full(self, on: frozenset[PropertyName]) -> dict[PropertyName, Value]:
        """Every feature."""
        return self.groups.shown(on, self.features - on)


class RecordedStatic(TabledSource):
    """A `Source` over a recording of static expansions.

    A named model is the same CPU under every accelerator: a recording under tcg answers for KVM
    too, less what only the host can say.
    """

    own_host = False

    def __init__(self, stored: Mapping[str, Any], path: Path, accel: Accel | None = None) -> None:
        if missing := sorted(PARTS - stored.keys()):
            raise SourceError(f"{path}: not a whole recording: it lacks {', '.join(missing)}")
        self._stored = stored
        self.version: str = stored["qemu"]
        self.arch: str = stored["arch"]
        self.kind = arch_of(self.arch)
        self.accel: Accel = accel or stored["accel"]
        self.label = f"recorded QEMU {self.version} for {self.arch}"
        self._sets = Sets(stored, self.kind.groups)
        self._definition = Layer(stored["definition"], stored["like"])
        self._lacking = self.kind.groups.singles(map(PropertyName, stored["lacking"]))
        self._tables: dict[str, str] = {
            name: entry["table"] for name, entry in stored["machines"].items() if entry["table"]
        }

    @property
    def _is_as_recorded(self) -> bool:
        """Whether the accelerator is the recorded one, whose lacks are known."""
        return bool(self.accel == self._stored["accel"])

    def build(self) -> Build:
        """As recorded."""
        stored = self._stored
        types = [self.kind.typename(model) for model in stored["like"]]
        offers = digest_of(stored["machines"], types, ())
        vendor = vendor_among(stored["machines"])
        return Build(self.version, stored.get("package", ""), offers, vendor)

    def machines(self) -> tuple[Machine, ...]:
        """As recorded; under KVM the default CPU is the host's (measured by libvirt's words)."""
        other = {} if self._is_as_recorded else {"default_cpu": self._host_type()}
        return tuple(
            Machine(name, **{key: v for key, v in {**entry, **other}.items() if key != "table"})
            for name, entry in self._stored["machines"].items()
        )

    def _host_type(self) -> str:
        return self.kind.typename(self.kind.host_passthrough[self.accel])

    def definitions(self, machine: str) -> tuple[Definition, ...]:
        table = self._table(machine)
        return tuple(self._define(model, table) for model in sorted(self._stored["like"]))

    def _define(self, model: str, table: str) -> Definition:
        _, on = self._sets.model(model, table)
        lacks = self.kind.groups.named(on & self._lacking) if self._is_as_recorded else ()
        facts = {**derived(model, self.kind, lacks), **self._definition.facts(model, table)}
        if not self._is_as_recorded:
            facts["unavailable"] = ()
        return Definition(name=model, **{**facts, "unavailable": tuple(facts["unavailable"])})

    def expand(self, machine: str, model: CpuModel, kind: ExpansionType) -> CpuModel:
        table = self._table(machine)
        if model.name in self.kind.host_models and not self._is_as_recorded:
            raise UnknownNameError(
                f"{model.name!r} is whatever its host has: {self.label} cannot say what that is"
            )
        if model.name not in self._stored["like"]:
            raise UnknownNameError(f"{self.label} has no CPU model {model.name!r}")
        base, on = self._sets.model(model.name, table)
        self._refuse(base, model.props)
        on = self.kind.groups.changed(on, model.props)
        shown = self._sets.static(base, on) if kind == "static" else self._sets.full(on)
        return CpuModel(base, shown)

    def _refuse(self, base: str, props: Mapping[PropertyName, Value]) -> None:
        """What QEMU would not take: an unknown feature, or one of later models."""
        if clash := self.kind.groups.contradiction(props):
            raise UnknownNameError(f"{self.label}: different values of {clash}")
        possible = self._sets.possible(base)
        for name, value in props.items():
            singles = self.kind.groups.singles([name])
            if not singles <= self._sets.features:
                raise UnknownNameError(f"{self.label} has no CPU property {name!r}")
            if not isinstance(value, bool):
                raise UnknownNameError(
                    f"{self.label}: CPU property {name!r} takes on or off, not {value!r}"
                )
            if value and not singles <= possible:
                raise UnknownNameError(
                    f"Feature '{name}' is not available for CPU model "
                    f"'{base.removesuffix('-base')}', it was introduced with later models."
                )

    def realise(self, machine: str, model: CpuModel, *, unfiltered: bool = True) -> Realised:
        """The full expansion: QEMU makes the CPU that was asked for, or none."""
        shown = self.expand(machine, model, "full").props
        lacks = self.kind.groups.named(self.kind.groups.on(shown) & self._lacking)
        return Realised(shown, {name: name for name in sorted(lacks)})

    def close(self) -> None:
        """Nothing to end."""
