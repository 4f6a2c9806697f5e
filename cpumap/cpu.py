"""The frozen values that flow through cpumap. No I/O, no third-party import."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NewType

FeatureName = NewType("FeatureName", str)
"""A CPU feature as libvirt spells it (`pclmuldq`)."""

PropertyName = NewType("PropertyName", str)
"""A CPU property as QEMU's object model spells it (`pclmulqdq`)."""

Value = bool | int | str
"""What a CPU property holds, typed as QMP types it."""

Accel = Literal["kvm", "tcg"]
Mode = Literal["custom", "host-model", "host-passthrough", "maximum"]
Match = Literal["minimum", "exact", "strict"]
Check = Literal["none", "partial", "full"]
Fallback = Literal["allow", "forbid"]
Policy = Literal["force", "require", "optional", "disable", "forbid"]


PER_INSTANCE = frozenset(
    {
        "apic-id", "check", "core-id", "die-id", "enforce", "hotpluggable", "hotplugged", "memory", "module-id",
        "node-id", "realized", "socket-id", "start-powered-off", "thread-id", "tsc-frequency", "type",
        "x-force-features",
    }
)  # fmt: skip
"""Properties of one vCPU in one running machine (or of how it was asked for), not of a CPU model."""


@dataclass(frozen=True, slots=True)
class Context:
    """Where a CPU is looked at: one QEMU, one machine type, one accelerator."""

    qemu: str
    """QEMU's version, `7.2.22`."""
    arch: str
    machine: str
    """The machine type, aliases resolved: `pc-q35-7.2`."""
    accel: Accel


@dataclass(frozen=True, slots=True)
class FeaturePolicy:
    """One `<feature policy= name=>`."""

    name: FeatureName
    policy: Policy
    line: int = 0
    """Line in the input, 0 when it has none."""


@dataclass(frozen=True, slots=True)
class Cache:
    """`<cache level= mode=>`."""

    mode: Literal["emulate", "passthrough", "disable"]
    level: int | None = None


@dataclass(frozen=True, slots=True)
class MaxPhysAddr:
    """`<maxphysaddr mode= bits= limit=>`; bits and limit in address bits."""

    mode: Literal["emulate", "passthrough"]
    bits: int | None = None
    limit: int | None = None


@dataclass(frozen=True, slots=True)
class Topology:
    """`<topology>`; counts."""

    sockets: int = 1
    dies: int = 1
    cores: int = 1
    threads: int = 1
    clusters: int = 1

    @property
    def kind(self) -> Topology:
        """The smallest topology that makes the same of one vCPU's CPU: more of the same do not change it."""
        several_dies = self.dies * self.clusters > 1
        several_threads = several_dies or self.cores * self.threads > 1
        return Topology(dies=2 if several_dies else 1, cores=2 if several_threads else 1)


@dataclass(frozen=True, slots=True)
class Property:
    """One CPU property, and where its value comes from ("model Haswell-v1", "policy disable", "hyperv", …)."""

    name: PropertyName
    value: Value
    origin: str = ""


@dataclass(frozen=True, slots=True)
class CpuRequest:
    """What was asked for, read from a domain XML, a `<cpu>` element or a `-cpu` string. Nothing in it is decided."""

    arch: str = "x86_64"
    accel: Accel = "kvm"
    machine: str | None = None
    """The machine type as written, which may be an alias (`q35`); None when the input names none."""
    emulator: str | None = None
    mode: Mode | None = None
    """None: no `<cpu>` (or one without mode and model): the machine type's default CPU."""
    model: str | None = None
    match: Match | None = None
    check: Check | None = None
    fallback: Fallback = "allow"
    migratable: bool | None = None
    deprecated_features: bool | None = None
    vendor: str | None = None
    """libvirt's vendor name (`Intel`), from `<vendor>`."""
    vendor_id: str | None = None
    """The 12 characters of `<model vendor_id=>`."""
    features: tuple[FeaturePolicy, ...] = ()
    cache: Cache | None = None
    maxphysaddr: MaxPhysAddr | None = None
    topology: Topology | None = None
    vcpus: int = 1
    """The maximum number of vCPUs (`<vcpu>`)."""
    settings: tuple[Property, ...] = ()
    """What the rest of the domain (hyperv, kvm, pmu, timers, …) or a `-cpu` string sets, in QEMU's names, in order."""
    where: str = ""
    """`file:line` of the CPU definition, for messages."""
    by_libvirt: bool = False
    """Whether it is a `<cpu>`, to which libvirt adds its own when it starts the domain."""


@dataclass(frozen=True, slots=True)
class CpuModel:
    """A model name and properties on top of it, as QMP's CpuModelInfo."""

    name: str
    props: Mapping[PropertyName, Value] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Machine:
    """One machine type as query-machines describes it."""

    name: str
    alias: str | None = None
    default_cpu: str | None = None
    """The default CPU's typename, `qemu64-x86_64-cpu`."""
    deprecated: bool = False
    is_default: bool = False
    cpu_max: int = 0


@dataclass(frozen=True, slots=True)
class Definition:
    """One CPU model as query-cpu-definitions describes it under one machine type."""

    name: str
    typename: str
    alias_of: str | None = None
    migration_safe: bool = False
    static: bool = False
    deprecated: bool = False
    unavailable: tuple[str, ...] = ()
    """QMP's unavailable-features: property names (or `kvm`-like pseudo names) that keep it from running here."""


Register = Literal["eax", "ebx", "ecx", "edx"]

Bit = tuple[int, int, Register, int]
"""One bit that CPUID answers: leaf, subleaf, register (`ebx`), number."""


@dataclass(frozen=True, slots=True)
class Realised:
    """A CPU that QEMU has really made: every readable property, and what was filtered out of it."""

    properties: Mapping[PropertyName, Value]
    filtered: Mapping[str, str] = field(default_factory=dict)
    """The features that host or accelerator cannot give: property name → QEMU's own words for the bit."""
    unmet: Mapping[str, str] = field(default_factory=dict)
    """Features asked for and left out, since others that they depend on are off: likewise. Recordings know none."""
    nameless: tuple[Bit, ...] = ()
    """CPUID bits filtered out that no property is called by: XSAVE components, for one. Recordings know none."""


@dataclass(frozen=True, slots=True)
class Expansion:
    """What a CPU is in one Context: QEMU's answers, unjudged."""

    context: Context
    model: CpuModel
    """What was expanded; the name has its alias resolved (`Haswell` → `Haswell-v1`)."""
    definition: Definition
    """Of the model as it was named, which may be an alias."""
    asked: tuple[Property, ...]
    """What the request sets on top of the model, in QEMU's names, with origins; `model.props` holds the values."""
    static: Mapping[PropertyName, Value]
    """query-cpu-model-expansion type=static: canonical feature names and the few others QEMU counts as the ABI."""
    full: Mapping[PropertyName, Value]
    """query-cpu-model-expansion type=full: every property the CPU object can show."""
    realised: Mapping[PropertyName, Value]
    """The same after realize, with nothing filtered: levels, phys-bits and the like as they end up."""
    unavailable: Mapping[str, str] = field(default_factory=dict)
    """Features this CPU asks for that cannot be given in this Context: property name → QEMU's words for the bit."""
    unmet: Mapping[str, str] = field(default_factory=dict)
    """As `Realised.unmet`."""
    nameless: tuple[Bit, ...] = ()
    """As `Realised.nameless`."""


@dataclass(frozen=True, slots=True)
class ExplicitCpu:
    """A CPU that names everything: the model to start from, and every property with its origin."""

    context: Context
    request: CpuRequest
    model: str
    """The model the properties stand on: a versioned name, or `base`/`custom`."""
    typename: str
    properties: tuple[Property, ...]
    """Sorted by name; no name twice."""
    features: frozenset[PropertyName] = frozenset()
    """Those of the properties that are feature bits (QEMU takes `+f` and `-f` for them, libvirt `<feature>`)."""
    enforce: bool = True
    notes: tuple[str, ...] = ()
    """What a person should know (features off because they were never there, enforce left out, …)."""

    @property
    def values(self) -> dict[PropertyName, Value]:
        """Property name → value, in order."""
        return {prop.name: prop.value for prop in self.properties}
