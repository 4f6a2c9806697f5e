"""An explicit CPU that is a base model and features: what is named when some are left out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from cpumap.arch.groups import Groups
from cpumap.cpu.expansion import Expansion
from cpumap.cpu.names import Property, PropertyName
from cpumap.cpu.origin import Origin, origin

_SHOWN = 3
"""How many of the features that are lacking a note names."""


def static_properties(
    expansion: Expansion, groups: Groups, off: Mapping[PropertyName, Origin]
) -> dict[PropertyName, Property]:
    """What is named on the base model so that the CPU has all its features but those `off`."""
    on = groups.on(expansion.full)
    base = base_features(expansion, groups)
    left = on - groups.singles(off)
    asked = {prop.name: prop.origin for prop in expansion.asked}
    reasons = {single: why for name, why in off.items() for single in groups.singles([name])}
    found = {}
    for name, value in groups.shown(left - base, base - left).items():
        said = asked.get(name) or origin("model", expansion.model.name)
        why = next(
            (reasons[single] for single in groups.singles([name]) if single in reasons), None
        )
        found[name] = Property(name, value, why if why and value is False else said)
    return found


def base_features(expansion: Expansion, groups: Groups) -> frozenset[PropertyName]:
    """The single features of the base model: those of the CPU less what its static expansion adds
    to it.
    """
    undone = {name: not value for name, value in expansion.static.items()}
    return groups.changed(groups.on(expansion.full), undone)


def left_out(
    expansion: Expansion, names: Iterable[PropertyName], *, unavailable: bool
) -> dict[PropertyName, Origin]:
    """The features to be switched off, each with what has it on."""
    asked = {prop.name: prop.origin for prop in expansion.asked}
    model = origin("model", expansion.model.name)
    return {name: replace(asked.get(name, model), unavailable=unavailable) for name in names}


def lacking_note(accel: str, names: Iterable[str], *, keep: bool) -> str:
    """What becomes of a CPU with features that cannot be given."""
    found = sorted(names)
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    listed = f"{', '.join(found[:_SHOWN])}{more}"
    if not keep:
        return f"off, because they cannot be given here: {listed}"
    return (
        f"{accel} cannot give {listed}: QEMU starts no such CPU there (--unavailable off leaves "
        "them out)"
    )
