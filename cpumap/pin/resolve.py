"""Every decision: from what was asked for and what QEMU said, the explicit CPU that holds. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import Literal, get_args

from cpumap.arch.arch import Arch
from cpumap.arch.known import arch_of
from cpumap.cpu.expansion import Expansion
from cpumap.cpu.explicit import ExplicitCpu
from cpumap.cpu.frozen import Frozen
from cpumap.cpu.machine_type import release
from cpumap.cpu.names import Property, PropertyName, Value
from cpumap.cpu.origin import OPTIONAL, REQUIRED, Origin, origin
from cpumap.cpu.request import CpuRequest
from cpumap.errors import ResolveError, one_of
from cpumap.pin.expand import NEWER_TYPE
from cpumap.pin.static import lacking_note, left_out, static_properties

Pin = Literal["model", "custom"]


Unavailable = Literal["keep", "off"]


Deprecated = Literal["keep", "off"]


_OF_DIES, _OF_THREADS = origin("topology", "dies"), origin("topology", "threads")
"""The origins of levels that are not the model's own: QEMU realises one vCPU before it knows of
others.
"""


_LEVEL = PropertyName("level")


class Choices(Frozen):
    """How a user wants an explicit CPU written."""

    pin: Pin = "model"
    unavailable: Unavailable | None = None
    """What to do with features of the model that cannot be given here; None: off under KVM, keep
    under tcg.
    """
    deprecated: Deprecated = "keep"
    """What to do with features that machines to come will not have."""
    only: frozenset[PropertyName] | None = None
    """With a value: name these properties and what was asked for, no others (`--compact`)."""
    base: str | None = None
    """The model without properties; None: the architecture's own, `base`."""


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
    arch = arch_of(expansion.context.arch)
    one_of(choices.pin, get_args(Pin), "pin")
    one_of(choices.unavailable or "off", get_args(Unavailable), "unavailable")
    one_of(choices.deprecated, get_args(Deprecated), "deprecated")
    named = _Named()
    named.notes += expansion.notes
    keep = _keeps_unavailable(expansion, choices)
    if arch.explicit == "static":
        _name_static(request, expansion, choices, named)
    else:
        for name, value in sorted(_worth_naming(expansion).items()):
            named.put(name, value, _origin(name, expansion))
        _judge_host(request, expansion, named)
        _raise(request, expansion, named, arch)
        _judge_unavailable(request, expansion, named, keep)
    model = _standing_on(expansion, choices, named)
    chosen = tuple(_chosen(named, expansion, choices))
    return ExplicitCpu(
        context=expansion.context,
        request=request,
        model=model,
        typename=f"{model}{expansion.definition.typename.removeprefix(expansion.definition.name)}",
        properties=chosen,
        features=frozenset(
            p.name
            for p in chosen
            if isinstance(p.value, bool)
            and (
                p.name in expansion.static
                or arch.explicit == "static"
                or p.name in (arch.libvirt_features or ())
            )
        ),
        enforce=arch.enforce
        and not (
            keep
            and any(prop.name in expansion.unavailable and prop.value is True for prop in chosen)
        ),
        whole=choices.only is None,
        notes=tuple(named.notes),
    )


def _chosen(named: _Named, expansion: Expansion, choices: Choices) -> Iterable[Property]:
    asked = {prop.name for prop in expansion.asked}
    for name, prop in sorted(named.properties.items()):
        if choices.only is None or name in choices.only or name in asked or prop.origin.unavailable:
            yield prop


def _worth_naming(expansion: Expansion) -> dict[PropertyName, Value]:
    """The realised properties less those of an instance, second spellings, and values no setter
    takes.
    """
    arch = arch_of(expansion.context.arch)
    canonical = canonical_names(expansion.realised, expansion.static, arch)
    asked = {prop.name: prop.value for prop in expansion.asked}
    kept = {
        name: value
        for name, value in expansion.realised.items()
        if name in canonical
        and name not in arch.per_instance | arch.not_named
        and (name in asked or arch.named is None or arch.named.fullmatch(name))
        and not arch.refused(name, value, expansion.realised)
    }
    for name, value in (arch.defaults or {}).items():
        if kept.get(name) == value and name not in asked:
            del kept[name]
    return kept | {name: value for name, value in asked.items() if name == "tsc-frequency"}


def canonical_names(
    names: Collection[PropertyName], static: Collection[PropertyName], arch: Arch
) -> frozenset[PropertyName]:
    """One name for each property: the one that QEMU's static expansion shows, else the one
    written with `-`.
    """
    spelled: dict[str, list[PropertyName]] = {}
    for name in names:
        plain = (arch.spellings or {}).get(name, name)
        spelled.setdefault(plain.replace("_", "-").replace(".", "-"), []).append(name)
    return frozenset(
        min(group, key=lambda name: (name not in static, "_" in name, name))
        for group in spelled.values()
    )


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


def _judge_host(request: CpuRequest, expansion: Expansion, named: _Named) -> None:
    """What QEMU takes from its host under KVM, where none has been asked: enlightenments are
    refused, address bits left to it.
    """
    if expansion.context.accel != "kvm" or expansion.own_host:
        return
    asked = {prop.name: prop.value for prop in expansion.asked}
    if asked.get(_HV_PASSTHROUGH) is True:
        raise ResolveError(
            f"{request.where}: {_HV_PASSTHROUGH} turns on whatever its host's KVM has: ask a QEMU"
            " on that host (--qemu), or name the enlightenments instead"
        )
    bits = named.properties.get(_HOST_PHYS_BITS)
    if bits is not None and bits.value is True and _PHYS_BITS in named.properties:
        del named.properties[_PHYS_BITS]
        named.notes.append(f"{_PHYS_BITS} depends on the host, as {_HOST_PHYS_BITS} says")


_HV_PASSTHROUGH, _HOST_PHYS_BITS, _PHYS_BITS = map(
    PropertyName, ("hv-passthrough", "host-phys-bits", "phys-bits")
)


def _raise(request: CpuRequest, expansion: Expansion, named: _Named, arch: Arch) -> None:
    """What QEMU raises by itself for this topology unless it is named: so it is named as raised."""
    if request.topology is None:
        return
    values = {name: prop.value for name, prop in named.properties.items()}
    numbers = release(expansion.context.qemu).numbers
    asked = {prop.name for prop in expansion.asked}
    for name, value in arch.raised(values, request.topology.kind, numbers).items():
        if name not in asked:
            named.put(name, value, _OF_DIES if name == _LEVEL else _OF_THREADS)


def _name_static(
    request: CpuRequest, expansion: Expansion, choices: Choices, named: _Named
) -> None:
    """What a base model needs to be this CPU, less what cannot be given or is not wished for."""
    arch = arch_of(expansion.context.arch)
    lacking = tuple(map(PropertyName, expansion.unavailable))
    required = {
        name
        for prop in expansion.asked
        if prop.value is True and prop.origin == REQUIRED
        for name in arch.groups.named(
            arch.groups.singles([prop.name]) & arch.groups.singles(lacking)
        )
    }
    keep = _keeps_unavailable(expansion, choices)
    if NEWER_TYPE in lacking and not keep:
        raise ResolveError(
            f"{request.where}: {expansion.model.name} is newer than what "
            f"{expansion.context.accel} has here".lstrip(": ")
        )
    if required and not keep:
        names = ", ".join(sorted(required))
        raise ResolveError(f"{request.where}: required but not available here: {names}")
    off = {} if keep else left_out(expansion, lacking, unavailable=True)
    if choices.deprecated == "off":
        off = {**left_out(expansion, arch.deprecated, unavailable=False), **off}
    named.properties.update(static_properties(expansion, arch.groups, off))
    if lacking:
        named.notes.append(lacking_note(expansion.context.accel, lacking, keep=keep))


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
    if lacking and not keep:
        _judge_fallen(expansion, named)
    if lacking and keep:
        named.notes.append(
            f"{expansion.context.accel} cannot give {', '.join(sorted(lacking))}: enforce is left "
            "out, since with it "
            "QEMU would not start this CPU"
        )
    elif lacking:
        named.notes.append(f"off, because they cannot be given here: {', '.join(sorted(lacking))}")


def _judge_fallen(expansion: Expansion, named: _Named) -> None:
    """Off is also what QEMU switches off with the features that cannot be given: it would not be
    there, and a full check of libvirt's would miss it.
    """
    for name in sorted(expansion.fallen & named.properties.keys()):
        named.put(name, False, replace(_origin(name, expansion), unavailable=True))


def _standing_on(expansion: Expansion, choices: Choices, named: _Named) -> str:
    """The model that the named properties stand on. Errors: `ResolveError` where they can stand on
    nothing.
    """
    arch = arch_of(expansion.context.arch)
    if arch.explicit == "static":
        return expansion.static_model
    name = expansion.model.name
    if choices.pin != "custom" and (arch.bare is None or name not in arch.host_models):
        return name
    if kept := _kept_for_caches(expansion, arch, choices.base or arch.bare or ""):
        named.notes.append(kept)
        return name
    bare = choices.base or arch.bare
    if bare is None:
        raise ResolveError(
            f"{expansion.context.arch} has no model without features for {name} to be named on:"
            " name another model, without --pin custom"
        )
    for property_name in arch.of_host_models:
        named.properties.pop(property_name, None)
    return bare


def _kept_for_caches(expansion: Expansion, arch: Arch, bare: str) -> str:
    """Why the model cannot be given up, since no property describes its caches; empty where it
    can.
    """
    name, realised = expansion.model.name, expansion.realised
    if arch.host_caches and realised.get(arch.host_caches) is True:
        return f"the caches are those of the host, which no property describes: {name} is kept"
    own = arch.own_caches and realised.get(arch.own_caches) is False
    if own and name not in arch.host_models:
        return (
            f"{name} has cache tables of its own, which no property describes: it is kept instead "
            f"of {bare}"
        )
    return ""
