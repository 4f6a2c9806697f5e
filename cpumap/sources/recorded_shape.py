"""Whether a recording that somebody gives is one: every part of its type, nothing in a circle."""

from __future__ import annotations

from typing import Any

from cpumap.cpu.expansion import Definition, Machine
from cpumap.system.made import read
from cpumap.system.shape import Shaped

_LAYERS = ("full", "realised", "definition", "hidden")


def require_recording(stored: Shaped) -> None:
    """Raises the error of `stored` where it is none, with the place in it."""
    for name in ("qemu", "arch"):
        _ = stored.key(name).text
    stored.key("accel").among(("kvm", "tcg"))
    _ = stored.key("static").texts
    for name in ("spellings", "lacking"):
        for entry in stored.key(name).members():
            _ = entry.text
    for entry in stored.key("machines").members():
        _machine(entry)
    like = _like(stored.key("like"))
    _effects(stored.key("effects"))
    for name in _LAYERS:
        _layer(stored.key(name), like, _DEFINED if name == "definition" else _PROPERTIES)


def require_static(stored: Shaped) -> None:
    """The same for a recording of static expansions."""
    for name in ("qemu", "arch"):
        _ = stored.key(name).text
    stored.key("accel").among(("kvm", "tcg"))
    for name in ("features", "lacking"):
        _ = stored.key(name).texts
    for entry in stored.key("machines").members():
        _machine(entry)
    bases = _like(stored.key("like_base"))
    like = _like(stored.key("like"))
    for name in ("bases", "possible"):
        _layer(stored.key(name), bases, _PROPERTIES)
    _layer(stored.key("static"), like, _PROPERTIES)
    _layer(stored.key("definition"), like, _DEFINED)


def require_realised(stored: Shaped) -> None:
    """The same for a recording of realised CPUs."""
    for name in ("qemu", "arch"):
        _ = stored.key(name).text
    stored.key("accel").among(("kvm", "tcg"))
    _ = stored.key("types").texts
    for entry in stored.key("machines").members():
        _machine(entry)
    _layer(stored.key("realised"), _like(stored.key("like")), _PROPERTIES)


_MACHINE = {"alias": str | None, "default_cpu": str | None, "deprecated": bool, "is_default": bool}


_DEFINED = dict.fromkeys(("migration_safe", "static", "deprecated"), bool) | {
    "typename": str,
    "alias_of": str | None,
    "unavailable": tuple[str, ...],
}


_PROPERTIES: dict[str, Any] = {}
"""Of any name: scalars."""


def _machine(entry: Shaped) -> None:
    kinds = {**_MACHINE, "cpu_max": int, "table": str | None}
    for name, value in entry.items():
        if name not in kinds:
            raise value.error(f"no {name!r} in a {Machine.__name__}")
        read(kinds[name], value)
    _ = entry.key("table")


def _like(like: Shaped) -> dict[str, str | None]:
    """Model → the model it is described by, which ends somewhere."""
    found = {name: read(str | None, entry) for name, entry in like.items()}
    for name in found:
        seen, at = {name}, found[name]
        while at is not None:
            if at not in found or at in seen:
                raise like.at(name, found[name]).error("a chain of models that are there, and ends")
            seen.add(at)
            at = found[at]
    return found


def _effects(effects: Shaped) -> None:
    for name in ("on", "off", "always"):
        for effect in effects.key(name).members():
            _ = effect.values
    _ = effects.key("never").texts


def _layer(layer: Shaped, like: dict[str, str | None], kinds: dict[str, Any]) -> None:
    _models(layer.key("models"), like, kinds)
    for table in layer.key("tables").members():
        for part, change in table.items():
            if part == "models":
                _models(change, like, kinds)
            elif part == "all":
                _facts(change, kinds)
            else:
                raise change.error("nothing here")


def _models(models: Shaped, like: dict[str, str | None], kinds: dict[str, Any]) -> None:
    for name, facts in models.items():
        if name not in like:
            raise facts.error("a model that is there")
        _facts(facts, kinds)


def _facts(facts: Shaped, kinds: dict[str, Any]) -> None:
    for name, value in facts.items():
        if value.value is None:
            continue  # takes a fact away
        if not kinds:
            _ = value.scalar
        elif name in kinds:
            read(kinds[name], value)
        else:
            raise value.error(f"no {name!r} in a {Definition.__name__}")
