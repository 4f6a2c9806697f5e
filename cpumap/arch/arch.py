"""What one architecture is to cpumap: everything that its callers would have to know of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Literal

from cpumap.arch.groups import Groups
from cpumap.cpu.expansion import ExpansionType
from cpumap.cpu.frozen import Frozen
from cpumap.cpu.machine_type import machine_type, release
from cpumap.cpu.names import Accel, FeatureName, Property, PropertyName, Value
from cpumap.cpu.request import CpuRequest
from cpumap.cpu.topology import Topology
from cpumap.errors import ArchitectureError, ResolveError

Judge = Literal["expanded again", "realised", "seen by a guest", "device tree"]
"""Who is asked whether an explicit CPU holds."""


JUDGES: tuple[Judge, ...] = ("expanded again", "realised", "seen by a guest")


Place = Literal["-cpu", "-global", "-machine"]
"""The option of QEMU's command line in which a property is named."""


Properties = Mapping[PropertyName, Value]


def _nothing_refused(_name: PropertyName, _value: Value, _realised: Properties) -> bool:
    return False


def _nothing_raised(
    _values: Properties, _kind: Topology, _release: tuple[int, ...], /
) -> Properties:
    return {}


def _nothing_said(
    _name: PropertyName, _value: Value, _now: Properties, _release: tuple[int, ...], /
) -> str:
    return ""


def _nothing_realised(
    _now: Properties, _given: Properties, _release: tuple[int, ...], /
) -> Properties:
    return {}


def _all_seen(_name: PropertyName, _values: Properties, _topology: Topology, /) -> bool:
    return False


def _no_words(request: CpuRequest) -> Iterable[Property]:
    """Nothing; `<cache>` and `<maxphysaddr>` are refused, since libvirt has them for x86 only."""
    for element, said in (("cache", request.cache), ("maxphysaddr", request.maxphysaddr)):
        if said is not None:
            raise ResolveError(f"{request.where}: <{element}> means nothing to a CPU of this kind")
    return ()


class Levels(Frozen):
    """Properties that QEMU raises for features that are on: x86's highest CPUID leaves."""

    names: tuple[PropertyName, ...]
    automatic: PropertyName
    """Whether QEMU raises them for every feature, or for a few only."""
    of_features_alone: frozenset[PropertyName]
    """Those for which no model sets a floor of its own."""
    floors: Mapping[str, Mapping[PropertyName, int]] = MappingProxyType({})
    """Model, less its version → what its levels are without the features that raise them; where it
    is not there, they are what the model has with its features.
    """


class ThreadFeature(Frozen):
    """A feature that QEMU turns on where a package has several threads, even if it is named off."""

    name: FeatureName
    prop: PropertyName
    since: str
    """The first release that does; those before it keep the feature out of what they report."""
    unless_vendor: frozenset[str] = frozenset()
    """The vendors whose CPUs are left alone."""


class Arch(Frozen):
    """One architecture that QEMU has CPU models for."""

    name: str
    """As libvirt calls guests of it: `i686`."""
    target: str
    """As its own QEMU calls itself (query-target): `i386`."""
    cpu_type: str
    """The type that all its CPU models inherit from: `x86_64-cpu`, `arm-cpu`."""
    families: tuple[str, ...]
    """Machine type families with versions, the one that others are compared with first."""
    default_model: str | None
    """The CPU of a guest that names none, where the machine type does not say."""
    host_passthrough: Mapping[Accel, str]
    """The model for host-passthrough, by accelerator: `host`."""
    maximum: str = "max"
    """The model for mode='maximum'."""
    bare: str | None = None
    """The model that has nothing by itself; None where QEMU has none."""
    expansions: frozenset[ExpansionType] = frozenset()
    """The kinds of query-cpu-model-expansion that QEMU answers."""
    explicit: Literal["realised", "static"] = "realised"
    """What an explicit CPU consists of: the properties of the realised CPU, on its model; or its
    static expansion, the model that QEMU names in it included.
    """
    named: re.Pattern[str] | None = None
    """Names of the properties that an explicit CPU consists of; None: every one."""
    of_machine: re.Pattern[str] | None = None
    """Names of the properties of QEMU's machine that are part of the CPU; None: none is."""
    same_as: Mapping[PropertyName, tuple[Value, Value]] = MappingProxyType({})
    """Properties with a value that old machine types alone have, and nobody can name → that value,
    and the one that means the same elsewhere.
    """
    compared: bool = True
    """Whether two CPUs can be compared here, and what a host can enable be told."""
    threads_measured: bool = True
    """Whether it is known what several threads of a core change; tcg has none of ppc64's."""
    any_case: bool = False
    """Whether QEMU reads names of models without regard to case."""
    places: Mapping[PropertyName, Place] | None = None
    """Where a property is named, if not in `-cpu`."""
    judges: tuple[Judge, ...] = JUDGES
    checked: Mapping[PropertyName, Value] | None = None
    """Makes QEMU say what host or accelerator cannot give."""
    unfiltered: Mapping[PropertyName, Value] | None = None
    """Makes tcg leave on what it cannot give."""
    enforce: bool = False
    """Whether QEMU starts with less than was asked for, unless `enforce` is said."""
    vendor: PropertyName | None = None
    """The property that KVM sets to the host's vendor where it is not named."""
    signature: tuple[PropertyName, ...] = ()
    """The properties for family, model and stepping."""
    migratable: PropertyName | None = None
    """The property of host models that leaves out what blocks migration; libvirt passes it."""
    of_host_models: frozenset[PropertyName] = frozenset()
    """Properties that only host models have."""
    own_caches: PropertyName | None = None
    """Off by default only where the model has cache tables of its own, which no property shows."""
    host_caches: PropertyName | None = None
    """On where the caches are those of the host, which no property shows."""
    spellings: Mapping[str, str] | None = None
    """Second names of properties that differ in more than punctuation → the name that counts."""
    per_instance: frozenset[PropertyName] = frozenset()
    """Properties of one vCPU in one running machine, or of how it was asked for."""
    not_named: frozenset[PropertyName] = frozenset()
    """Properties that say what QEMU does while it makes a CPU; what comes of it is named."""
    defaults: Mapping[PropertyName, Value] | None = None
    """What properties become at realize when they are left empty."""
    levels: Levels | None = None
    forgotten: Mapping[PropertyName, str] | None = None
    """Properties that QEMU had once → the first of the releases looked at that has not. A stored
    domain that names one would not start after an upgrade.
    """
    forgotten_unless: Mapping[PropertyName, PropertyName] | None = None
    """Of these: those that must be named all the same where another property is on."""
    with_threads: tuple[ThreadFeature, ...] = ()
    """Features that QEMU turns on by itself where a package has several threads."""
    refused: Callable[[PropertyName, Value, Properties], bool] = _nothing_refused
    """Whether QEMU reads this value out but takes it from nobody; given the realised CPU."""
    raised: Callable[[Properties, Topology, tuple[int, ...]], Properties] = _nothing_raised
    """What QEMU of this release sets by itself, given all values and the kind of topology, unless
    it is named.
    """
    refusal: Callable[[PropertyName, Value, Properties, tuple[int, ...]], str] = _nothing_said
    """Why QEMU of this release refuses a value in a CPU that has these properties; empty where it
    takes it.
    """
    realised: Callable[[Properties, Properties, tuple[int, ...]], Properties] = _nothing_realised
    """What QEMU of this release changes when it makes a CPU with these properties, of which those
    were named.
    """
    unseen: Callable[[PropertyName, Properties, Topology], bool] = _all_seen
    """Whether no guest of this CPU and topology reads what the property does."""
    groups: Groups = Groups()
    """Names that stand for several features."""
    deprecated: frozenset[PropertyName] = frozenset()
    """Features that machines to come will not have; QEMU warns of them."""
    plus_minus: bool = True
    """Whether QEMU takes `+feature` and `-feature`."""
    overruled: Mapping[PropertyName, str] | None = None
    """Properties that machine types up to this release set themselves, whatever `-cpu` says."""
    independent: frozenset[PropertyName] = frozenset()
    """Properties that change no other one."""
    libvirt_features: frozenset[FeatureName] | None = None
    """With `any_feature`: the features that libvirt has words for all the same; None: any."""
    policies: Literal["refused", "dropped"] = "refused"
    """With `any_feature`: what libvirt does to policy optional; where it drops it, match='minimum'
    counts as exact.
    """
    cpuid: bool = True
    """Whether guests read their CPU by CPUID."""
    models_under_kvm: str = ""
    """The first release whose machine types take named models under KVM; empty: every one."""
    any_feature: bool = False
    """Whether libvirt passes any feature and model on by the name it is given, since its CPU map
    has none of this architecture.
    """
    words: Callable[[CpuRequest], Iterable[Property]] = _no_words
    """What a domain says in elements that only this architecture has: `<cache>`."""

    @property
    def host_models(self) -> frozenset[str]:
        """Models that are whatever the host has."""
        return frozenset({*self.host_passthrough.values(), self.maximum})

    @property
    def without_features(self) -> frozenset[str]:
        """Models that inherit nothing; libvirt has no names for them.

        `custom` was proposed to QEMU for what became `base`.
        """
        return frozenset({self.bare, "custom"}) if self.bare else frozenset()

    @property
    def bare_model(self) -> str:
        """The model that has nothing by itself, to measure features on. Errors:
        `ArchitectureError` where QEMU has none.
        """
        if self.bare is None:
            raise ArchitectureError(
                f"QEMU has no {self.name} model without features, on which they could be measured"
            )
        return self.bare

    def typename(self, model: str) -> str:
        """The QOM type of a model: `Haswell-x86_64-cpu`."""
        return f"{model}-{self.cpu_type}"

    def model_of(self, typename: str) -> str:
        """The model of a QOM type: `qemu64` of `qemu64-x86_64-cpu`."""
        return typename.removesuffix(self.cpu_type).removesuffix("-")

    def turned_on(
        self, qemu: str, topology: Topology | None, vendor: Value | None
    ) -> tuple[ThreadFeature, ...]:
        """The features that this QEMU release turns on for a guest of this topology and vendor."""
        if topology is None or topology.package == 1:
            return ()
        here = release(qemu)
        return tuple(
            feature
            for feature in self.with_threads
            if release(feature.since) <= here and vendor not in feature.unless_vendor
        )

    def is_overruled(self, name: PropertyName, machine: str) -> bool:
        """Whether the machine type sets the property itself."""
        last, known = (self.overruled or {}).get(name), machine_type(machine).release
        return last is not None and known is not None and known <= release(last)

    @property
    def of_any_accel(self) -> bool:
        """Whether a named model is the same CPU under every accelerator."""
        return self.explicit == "static"

    def knows(self, name: PropertyName, shown: Properties) -> bool:
        """Whether a CPU that shows these properties takes one of this name; a feature that its
        group stands for is not shown.
        """
        return name in shown or name in self.groups.members or bool(self.groups.group_of(name))

    def place(self, name: PropertyName) -> Place:
        """Where a property is named on QEMU's command line."""
        if self.of_machine is not None and self.of_machine.fullmatch(name):
            return "-machine"
        return (self.places or {}).get(name, "-cpu")
