"""A host saved as JSON by `cpumap host --format json`, read back on any machine."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from cpumap.cpu.host import UNKNOWN_MACHINE, HostCpu, Identity, MadeCpu, ThisMachine
from cpumap.cpu.names import Accel, FeatureName, PropertyName, Value
from cpumap.cpu.request import FeaturePolicy
from cpumap.errors import InputError

SCHEMA = "cpumap.host/1"


_OWN = ("cpu", "kernel")


_ACCELERATORS = 2
"""A host is described with as many at most."""


def saved_hosts(text: str, name: str) -> Iterator[HostCpu]:
    """Hosts saved as JSON: one, a list, or several after another."""
    decoder = json.JSONDecoder()
    position = 0
    while position < len(text):
        try:
            value, position = decoder.raw_decode(text, position)
        except (json.JSONDecodeError, RecursionError) as err:
            line = err.lineno if isinstance(err, json.JSONDecodeError) else 1
            raise InputError(f"not JSON: {err}", f"{name}:{line}") from err
        position += len(text[position:]) - len(text[position:].lstrip())
        yield from (
            _saved_host(entry, name) for entry in (value if isinstance(value, list) else [value])
        )


def _saved_host(entry: object, name: str) -> HostCpu:
    if not isinstance(entry, Mapping) or entry.get("schema") != SCHEMA:
        raise InputError(f"not a saved host: its schema is not {SCHEMA!r}", name)
    try:
        more = entry.get("also", [])
        if not isinstance(more, list) or len(more) >= _ACCELERATORS:
            raise ValueError("also")
        return _host(entry, name, tuple(_host(other, name) for other in more))
    except (KeyError, TypeError, ValueError, AttributeError) as err:
        raise InputError(f"not a saved host: {type(err).__name__} at {err}", name) from err


def _host(entry: Mapping[str, Any], name: str, also: tuple[HostCpu, ...] = ()) -> HostCpu:
    numbers, usable = entry.get("signature"), entry.get("usable-models")
    said, context = entry.get("properties"), entry.get("context") or {}
    bits = entry.get("phys-bits")
    return HostCpu(
        arch=_text(entry["arch"]),
        model=None if entry["model"] is None else _text(entry["model"]),
        vendor=None if entry["vendor"] is None else _text(entry["vendor"]),
        features=tuple(
            FeaturePolicy(FeatureName(feature), "require" if has else "disable")
            for feature, has in entry["features"].items()
        ),
        identity=None if numbers is None else Identity(*(int(number) for number in numbers)),
        usable=None if usable is None else tuple(_text(model) for model in usable),
        blockers={
            _text(model): tuple(_texts(lacking))
            for model, lacking in entry.get("unavailable", {}).items()
        },
        properties=None if said is None else frozenset(map(PropertyName, _texts(said))),
        machine=_text(context["machine"]) if context else None,
        accel=_accel(context["accel"]) if "accel" in context else None,
        own=_saved_machine(entry.get("features-of")),
        options={
            PropertyName(name): _text(effect["option"])
            for effect in entry.get("options", ())
            for name in _texts(effect["gained"])
        },
        where=name,
        qemu=_text(context["qemu"]) if "qemu" in context else None,
        made=tuple(_made(entry.get("realised"))),
        phys_bits=None if bits is None else _number(bits),
        also=also,
    )


def _made(entry: Any) -> Iterator[MadeCpu]:
    """Descriptions written by older releases have none."""
    if entry is None:
        return
    bare = _values(entry["base"])
    for made in entry["cpus"]:
        if not isinstance(made["migratable"], bool):
            raise ValueError("migratable")
        yield MadeCpu(
            model=_text(made["model"]),
            migratable=made["migratable"],
            properties=_values(made["properties"]),
            bare=bare,
            without=tuple(map(PropertyName, _texts(made["without"]))),
        )


def _values(entry: Any) -> dict[PropertyName, Value]:
    if not isinstance(entry, Mapping):
        raise ValueError("properties")
    found: dict[PropertyName, Value] = {}
    for name, value in entry.items():
        if not isinstance(value, bool | int | str):
            raise ValueError(f"{name}={value!r}")
        found[PropertyName(name)] = value
    return found


def _number(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(repr(value))
    return value


def _saved_machine(entry: Any) -> ThisMachine:
    """Descriptions written by older releases have none."""
    if entry is None:
        return UNKNOWN_MACHINE
    cpu, kernel = (
        None if entry[of] is None else frozenset(map(FeatureName, _texts(entry[of]))) for of in _OWN
    )
    return ThisMachine(cpu, kernel, partial=bool(entry["partial"]), msrs=bool(entry["msrs"]))


def _accel(value: object) -> Accel:
    if value not in ("kvm", "tcg"):
        raise ValueError(repr(value))
    return "kvm" if value == "kvm" else "tcg"


def _texts(value: object) -> list[str]:
    if not isinstance(value, list):
        raise ValueError(repr(value))
    return [_text(entry) for entry in value]


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(repr(value))
    return value
