"""What QEMU says of CPUs: models, machine types, expansions and realised CPUs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from cpumap.cpu.bits import Bit
from cpumap.cpu.build import Build
from cpumap.cpu.frozen import NONE_YET, Frozen
from cpumap.cpu.names import Accel, Property, PropertyName, Value

ExpansionType = Literal["static", "full"]
"""The kinds of query-cpu-model-expansion."""


class Context(Frozen):
    """Where a CPU is looked at: one QEMU, one machine type, one accelerator."""

    qemu: str
    """QEMU's version, `7.2.22`."""
    arch: str
    machine: str
    """The machine type, aliases resolved: `pc-q35-7.2`."""
    accel: Accel
    build: Build | None = None
    """Which QEMU by more than its version; None where nobody asked."""

    @property
    def whose(self) -> Build:
        """The build, as far as it is known."""
        return self.build or Build(self.qemu)

    def as_json(self) -> dict[str, str]:
        """What people are told of it."""
        return {"qemu": self.qemu, "arch": self.arch, "machine": self.machine, "accel": self.accel}


class CpuModel(Frozen):
    """A model name and properties on top of it, as QMP's CpuModelInfo."""

    name: str
    props: Mapping[PropertyName, Value] = NONE_YET


class Machine(Frozen):
    """One machine type as query-machines describes it."""

    name: str
    alias: str | None = None
    default_cpu: str | None = None
    """The default CPU's typename, `qemu64-x86_64-cpu`."""
    deprecated: bool = False
    is_default: bool = False
    cpu_max: int = 0


class Definition(Frozen):
    """One CPU model as query-cpu-definitions describes it under one machine type."""

    name: str
    typename: str
    alias_of: str | None = None
    migration_safe: bool = False
    static: bool = False
    deprecated: bool = False
    unavailable: tuple[str, ...] = ()
    """QMP's unavailable-features: property names (or `kvm`-like pseudo names) that keep it from
    running here.
    """


class Realised(Frozen):
    """A CPU that QEMU has really made: every readable property, and what was filtered out of it."""

    properties: Mapping[PropertyName, Value]
    filtered: Mapping[str, str] = NONE_YET
    """The features that host or accelerator cannot give: property name → QEMU's own words for
    the bit.
    """
    unmet: Mapping[str, str] = NONE_YET
    """Features asked for and left out, since others that they depend on are off: likewise.
    Recordings know none.
    """
    nameless: tuple[Bit, ...] = ()
    """CPUID bits filtered out that no property is called by: XSAVE components, for one.
    Recordings know none.
    """


class Expansion(Frozen):
    """What a CPU is in one Context: QEMU's answers, unjudged."""

    context: Context
    model: CpuModel
    """What was expanded; the name has its alias resolved (`Haswell` → `Haswell-v1`)."""
    definition: Definition
    """Of the model as it was named, which may be an alias."""
    asked: tuple[Property, ...]
    """What the request sets on top of the model, in QEMU's names, with origins; `model.props`
    holds the values.
    """
    static: Mapping[PropertyName, Value]
    """query-cpu-model-expansion type=static: canonical feature names and the few others QEMU
    counts as the ABI.
    """
    full: Mapping[PropertyName, Value]
    """query-cpu-model-expansion type=full: every property the CPU object can show."""
    realised: Mapping[PropertyName, Value]
    """The same after realize, with nothing filtered: levels, phys-bits and the like as they end
    up.
    """
    static_model: str = ""
    """The model that the properties of `static` stand on, as QEMU says: `base`, `z14.2-base`; empty
    where QEMU has no static expansion.
    """
    unavailable: Mapping[str, str] = NONE_YET
    """Features this CPU asks for that cannot be given in this Context: property name → QEMU's
    words for the bit.
    """
    unmet: Mapping[str, str] = NONE_YET
    """As `Realised.unmet`."""
    fallen: frozenset[PropertyName] = frozenset()
    """Features that QEMU switches off once those which are unavailable are off."""
    nameless: tuple[Bit, ...] = ()
    """As `Realised.nameless`."""
    own_host: bool = True
    """Whether a host that it is to run on has made it: what QEMU takes from its host is known then.
    """
    notes: tuple[str, ...] = ()
    """What a person should know of how it came about: what a host's description leaves open."""
