"""Every decision: from what was asked for and what QEMU said, the explicit CPU that holds. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Literal

from cpumap.cpu.expansion import Expansion
from cpumap.cpu.explicit import ExplicitCpu
from cpumap.cpu.frozen import Frozen
from cpumap.cpu.names import PER_INSTANCE, Property, PropertyName, Value
from cpumap.cpu.origin import OPTIONAL, REQUIRED, Origin, origin
from cpumap.cpu.request import CpuRequest
from cpumap.errors import ResolveError

Pin = Literal["model", "custom"]


Unavailable = Literal["keep", "off"]


IRREGULAR_SPELLINGS = {
    "sse3": "pni",
    "pclmuldq": "pclmulqdq",
    "ffxsr": "fxsr-opt",
    "i64": "lm",
    "xd": "nx",
}
"""QEMU's second names of features that do not differ in punctuation alone (aliases in
target/i386/cpu.c).
"""


NOT_NAMED = frozenset({"hv-passthrough"})
"""It says what QEMU does while it makes a CPU; what comes of it is named instead."""


HOST_MODELS = frozenset({"host", "max"})
"""Models that are whatever the host has: a CPU made from them stands on `base`, all of it named."""


ONLY_OF_HOST_MODELS = frozenset({"host-cache-info", "migratable"})
"""Properties that these models have and `base` has not (max_x86_cpu_properties in
target/i386/cpu.c).
"""


_EMPTY_UNLESS_SET = {"vendor": "", "hv-vendor-id": ""}


DEFAULT_HV_VENDOR = "Microsoft Hv"
"""What an empty hv-vendor-id becomes at realize."""


_LBR_FMT_UNSET = 0x3F


_LEAF_OF_DIES = 0x1F


OF_DIES = origin("topology", "dies")
"""The origin of a level that is not the model's own: QEMU realises one vCPU before it knows of
dies.
"""


class Choices(Frozen):
    """How a user wants an explicit CPU written."""

    pin: Pin = "model"
    unavailable: Unavailable | None = None
    """What to do with features of the model that cannot be given here; None: off under KVM, keep
    under tcg.
    """
    only: frozenset[PropertyName] | None = None
    """With a value: name these properties and what was asked for, no others (`--compact`)."""
    base: str = "base"
    """The model without properties: `base`, or `custom` in a QEMU that has it."""


DEFAULT_CHOICES = Choices()


class _Named:
    """The properties named so far, and what a person should know."""

    def __init__(self) -> None:
        self.properties: dict[PropertyName, Property] = {}
        self.notes: list[str] = []

    def put(self, name: PropertyName, value: Value, where: Origin) -> None:
        self.properties[name] = Property(name, value, where)


def resolve(
    request: CpuRequest, expansion: Expansion, choices: Choices = DEFAULT_CHOICES
) -> ExplicitCpu:
    """The CPU of the expansion with everything named that could change under another machine type.

    Errors: `ResolveError` naming the feature and its bit when a required feature cannot be given.
    """
    named = _Named()
    for name, value in sorted(_worth_naming(expansion).items()):
        named.put(name, value, _origin(name, expansion))
    _raise_level(request, named)
    keep = _keeps_unavailable(expansion, choices)
    _judge_unavailable(request, expansion, named, keep)
    model = _standing_on(expansion, choices, named)
    chosen = tuple(_chosen(named, expansion, choices))
    return ExplicitCpu(
        context=expansion.context,
        request=request,
        model=model,
        typename=f"{model}-{_qemu_arch(expansion)}-cpu",
        properties=chosen,
        features=frozenset(
            p.name for p in chosen if p.name in expansion.static and isinstance(p.value, bool)
        ),
        enforce=not (
            keep
            and any(prop.name in expansion.unavailable and prop.value is True for prop in chosen)
        ),
        notes=tuple(named.notes),
    )


def _qemu_arch(expansion: Expansion) -> str:
    return expansion.definition.typename.removesuffix("-cpu").rpartition("-")[2]


def _chosen(named: _Named, expansion: Expansion, choices: Choices) -> Iterable[Property]:
    asked = {prop.name for prop in expansion.asked}
    for name, prop in sorted(named.properties.items()):
        if choices.only is None or name in choices.only or name in asked or prop.origin.unavailable:
            yield prop


def _worth_naming(expansion: Expansion) -> dict[PropertyName, Value]:
    """The realised properties less those of an instance, second spellings, and values no setter
    takes.
    """
    canonical = canonical_names(expansion.realised, expansion.static)
    asked = {prop.name: prop.value for prop in expansion.asked}
    kept = {
        name: value
        for name, value in expansion.realised.items()
        if name in canonical
        and name not in PER_INSTANCE | NOT_NAMED
        and not is_refused(name, value, expansion.realised)
    }
    hyperv = PropertyName("hv-vendor-id")
    if kept.get(hyperv) == DEFAULT_HV_VENDOR and hyperv not in asked:
        del kept[hyperv]
    return kept | {name: value for name, value in asked.items() if name == "tsc-frequency"}


def canonical_names(
    names: Collection[PropertyName], static: Collection[PropertyName]
) -> frozenset[PropertyName]:
    """One name for each property: the one that QEMU's static expansion shows, else the one
    written with `-`.
    """
    spelled: dict[str, list[PropertyName]] = {}
    for name in names:
        plain = IRREGULAR_SPELLINGS.get(name, name)
        spelled.setdefault(plain.replace("_", "-").replace(".", "-"), []).append(name)
    return frozenset(
        min(group, key=lambda name: (name not in static, "_" in name, name))
        for group in spelled.values()
    )


def is_refused(name: PropertyName, value: Value, realised: Mapping[PropertyName, Value]) -> bool:
    """Whether QEMU reads this value out but takes it from nobody (measured on 5.2 to 11.1)."""
    if name == "lbr-fmt":
        return isinstance(value, int) and value > _LBR_FMT_UNSET
    if name == "phys-bits":
        return realised.get(PropertyName("lm")) is False
    return name in _EMPTY_UNLESS_SET and value == _EMPTY_UNLESS_SET[name]


def _origin(name: PropertyName, expansion: Expansion) -> Origin:
    for prop in expansion.asked:
        if prop.name == name:
            as_asked = prop.value == expansion.realised[name]
            return prop.origin if as_asked else replace(prop.origin, depends=True)
    if expansion.realised[name] != expansion.full.get(name):
        return origin("realised")
    if name in expansion.static:
        return origin("model", expansion.model.name)
    return origin("machine type", expansion.context.machine)


def _raise_level(request: CpuRequest, named: _Named) -> None:
    """QEMU raises `level` for leaf 0x1F where a package has several dies, unless `level` is named:
    so name that.

    Not on machine types without automatic levels, and not for other vendors' CPUs where they have
    no leaves of Intel's.
    """
    values = {name: prop.value for name, prop in named.properties.items()}
    level = values.get(PropertyName("level"))
    several = request.topology is not None and request.topology.dies * request.topology.clusters > 1
    automatic = values.get(PropertyName("full-cpuid-auto-level"), True) is True
    intel = values.get(PropertyName("vendor")) == "GenuineIntel"
    if (
        several
        and automatic
        and level is not None
        and (intel or not values.get(PropertyName("x-vendor-cpuid-only")))
    ):
        named.put(PropertyName("level"), max(int(level), _LEAF_OF_DIES), OF_DIES)


def _keeps_unavailable(expansion: Expansion, choices: Choices) -> bool:
    """tcg lacks much of nearly every model; a guest is still described by its model there unless
    told otherwise.
    """
    return (
        choices.unavailable or ("keep" if expansion.context.accel == "tcg" else "off")
    ) == "keep"


def _judge_unavailable(
    request: CpuRequest, expansion: Expansion, named: _Named, keep: bool
) -> None:
    """Required features that cannot be given are refused, optional ones off, those of the model
    as was chosen.
    """
    asked = {prop.name: prop.origin for prop in expansion.asked if prop.value is True}
    lacking = {
        PropertyName(name): words
        for name, words in expansion.unavailable.items()
        if name in named.properties
    }
    required = [words for name, words in lacking.items() if asked.get(name) == REQUIRED]
    if required and not keep:
        raise ResolveError(
            f"{request.where}: required but not available here: {', '.join(required)}"
        )
    for name in lacking:
        if not keep or asked.get(name) == OPTIONAL:
            wished = asked.get(name) or _origin(name, expansion)
            named.put(name, False, replace(wished, unavailable=True))
    if lacking and keep:
        named.notes.append(
            f"{expansion.context.accel} cannot give {', '.join(sorted(lacking))}: enforce is left "
            "out, since with it "
            "QEMU would not start this CPU"
        )
    elif lacking:
        named.notes.append(f"off, because they cannot be given here: {', '.join(sorted(lacking))}")


def _standing_on(expansion: Expansion, choices: Choices, named: _Named) -> str:
    """The model that the named properties stand on."""
    name = expansion.model.name
    own_caches = expansion.realised.get(PropertyName("legacy-cache")) is False
    if choices.pin != "custom" and name not in HOST_MODELS:
        return name
    if expansion.realised.get(PropertyName("host-cache-info")) is True:
        named.notes.append(
            f"the caches are those of the host, which no property describes: {name} is kept"
        )
        return name
    if own_caches and name not in HOST_MODELS:
        named.notes.append(
            f"{name} has cache tables of its own, which no property describes: it is kept instead "
            f"of {choices.base}"
        )
        return name
    for property_name in ONLY_OF_HOST_MODELS:
        named.properties.pop(PropertyName(property_name), None)
    return choices.base
