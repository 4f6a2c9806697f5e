"""Answers of a QEMU of whose CPUs only the realised properties are recorded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cpumap.arch.known import arch_of
from cpumap.cpu.build import Build, digest_of
from cpumap.cpu.expansion import CpuModel, Definition, ExpansionType, Machine, Realised
from cpumap.cpu.names import Accel, PropertyName, Value
from cpumap.cpu.vendors import vendor_among
from cpumap.errors import SourceError, UnknownNameError
from cpumap.qemu.arguments import property_text
from cpumap.sources.layers import Layer
from cpumap.sources.tabled import TabledSource

SCHEMA = "cpumap.realised/1"


class RecordedRealised(TabledSource):
    """A `Source` over a recording of realised CPUs: models as they are, and single properties that
    change no other.
    """

    own_host = False

    def __init__(self, stored: Mapping[str, Any], path: Path) -> None:
        parts = {"qemu", "arch", "accel", "machines", "types", "like", "realised"}
        if missing := sorted(parts - stored.keys()):
            raise SourceError(f"{path}: not a whole recording: it lacks {', '.join(missing)}")
        self._stored = stored
        self.version: str = stored["qemu"]
        self.arch: str = stored["arch"]
        self.kind = arch_of(self.arch)
        self.accel: Accel = stored["accel"]
        self.label = f"recorded QEMU {self.version} for {self.arch}"
        self._realised = Layer(stored["realised"], stored["like"])
        self._tables: dict[str, str] = {
            name: entry["table"] for name, entry in stored["machines"].items() if entry["table"]
        }

    def build(self) -> Build:
        """As recorded."""
        stored = self._stored
        offers = digest_of(stored["machines"], stored["types"], ())
        vendor = vendor_among(stored["machines"])
        return Build(self.version, stored.get("package", ""), offers, vendor)

    def machines(self) -> tuple[Machine, ...]:
        """As recorded, those of other boards among them."""
        return tuple(
            Machine(name, **{key: value for key, value in entry.items() if key != "table"})
            for name, entry in self._stored["machines"].items()
        )

    def definitions(self, machine: str) -> tuple[Definition, ...]:
        """The models that the machine type starts with."""
        table = self._table(machine)
        return tuple(
            Definition(name, self.kind.typename(name))
            for name in sorted(self._stored["like"])
            if self._realised.facts(name, table)
        )

    def expand(self, machine: str, model: CpuModel, kind: ExpansionType) -> CpuModel:
        raise SourceError(f"{self.label}: no {kind} expansions of {self.arch} CPUs are recorded")

    def realise(self, machine: str, model: CpuModel, *, unfiltered: bool = True) -> Realised:
        table = self._table(machine)
        known = (
            self._realised.facts(model.name, table) if model.name in self._stored["like"] else {}
        )
        if not known:
            raise UnknownNameError(f"{self.label} has no CPU model {model.name!r} on {machine}")
        properties: dict[PropertyName, Value] = {PropertyName(n): v for n, v in known.items()}
        for name, value in model.props.items():
            if name not in properties:
                raise UnknownNameError(f"{self.label} has no CPU property {name!r}")
            if type(value) is not type(properties[name]):
                raise UnknownNameError(f"{self.label}: CPU property {name!r} is not {value!r}")
            if value == properties[name] or self.kind.is_overruled(name, machine):
                continue
            if name not in self.kind.independent:
                raise UnknownNameError(
                    f"{self.label} does not say what else changes with {name}="
                    f"{property_text(value)}: name a --qemu"
                )
            properties[name] = value
        return Realised(properties)

    def close(self) -> None:
        """Nothing to end."""
