"""A `-cpu` string, alone or on a QEMU command line, becomes a `CpuRequest`."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

from cpumap.arch.known import ARCHES, is_of_machine
from cpumap.cpu.names import Accel, Property, PropertyName, Value
from cpumap.cpu.origin import origin
from cpumap.cpu.request import CpuRequest, Mode
from cpumap.errors import DomainError

MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")


CPU_TYPENAME = re.compile(rf"(?:.+-)?({'|'.join(arch.cpu_type for arch in ARCHES)})")


STRINGS = ("model-id", "vendor", "hv-vendor-id")
"""Properties whose value is text even when it looks like a number."""


BOOLEANS = {
    "on": True,
    "yes": True,
    "true": True,
    "y": True,
    "off": False,
    "no": False,
    "false": False,
    "n": False,
}


SI = {"k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}


MODES: dict[str, Mode] = {"host": "host-passthrough", "max": "maximum"}


def parse_cpu_option(text: str, *, name: str = "<stdin>", line: int = 1) -> CpuRequest:
    """What `Model,+f,-f,f=on` asks for, or a command line with `-cpu`, `-global`, `-machine` and
    `-accel` options.

    As in QEMU, whatever the order written, `-f` beats `+f` beats `f=on|off`, and all beat
    `-global`. A comma cannot be escaped in `-cpu`: QEMU skips the empty piece of `,,`.
    """
    where = f"{name}:{line}"
    options = _options(text.strip(), where)
    model, *pieces = options["-cpu"][0].split(",")
    if not text.strip():
        raise DomainError("empty", where)
    if not MODEL.fullmatch(model):
        raise DomainError(
            f"neither XML nor a -cpu string: '{model[:40]}' is no CPU model name", where
        )
    properties = {
        key: Property(PropertyName(key), value, origin("-global"))
        for _, key, value in cpu_globals(options["-global"], where)
    }
    properties |= {
        key: Property(PropertyName(key), value, origin("-global"))
        for key, value in cpu_machine_options(options["-machine"], where)
    }
    properties |= {
        key: Property(PropertyName(key), value, origin("-cpu"))
        for key, value in _pieces(pieces, where).items()
    }
    mode = MODES.get(model, "custom")
    migratable = properties.pop("migratable", None) if mode != "custom" else None
    machine, accel = _machine(options)
    return CpuRequest(
        accel=accel,
        machine=machine,
        mode=mode,
        model=model if mode == "custom" else None,
        migratable=None if migratable is None else migratable.value is True,
        settings=tuple(properties.values()),
        where=where,
    )


def _options(text: str, where: str) -> dict[str, list[str]]:
    """The values of the options that describe a CPU, in order; text without options is a `-cpu`
    value.
    """
    options: dict[str, list[str]] = {"-cpu": [], "-global": [], "-machine": [], "-accel": []}
    if not text.startswith("-"):
        options["-cpu"].append(text)
        return options
    try:
        words = shlex.split(text)
    except ValueError as err:
        raise DomainError(f"not a command line: {err}", where) from err
    for word, value in zip(words, [*words[1:], ""], strict=True):
        option = "-machine" if option_name(word) == "-M" else option_name(word)
        if option == "-enable-kvm":
            options["-accel"].append("kvm")
        elif option in options:
            options[option].append(value)
    if len(options["-cpu"]) != 1:
        raise DomainError(f"expected one -cpu option, found {len(options['-cpu'])}", where)
    return options


def _pieces(pieces: list[str], where: str) -> dict[str, Value]:
    assigned: dict[str, Value] = {}
    plus: dict[str, Value] = {}
    minus: dict[str, Value] = {}
    for piece in filter(None, pieces):
        if piece[0] in "+-":
            (plus if piece[0] == "+" else minus)[_property_name(piece[1:], where)] = piece[0] == "+"
        else:
            key, equals, value = piece.partition("=")
            key = _property_name(key.replace("_", "-"), where)
            assigned |= [_typed(key, value if equals else "on", where)]
    return assigned | plus | minus


def cpu_globals(values: list[str], where: str) -> Iterator[tuple[str, str, Value]]:
    """Driver, property and value of every `-global` for a CPU; others are none of the CPU's."""
    for text in values:
        driver, key, value = _global_parts(text)
        if CPU_TYPENAME.fullmatch(driver):
            yield driver, *_typed(_property_name(key, where), value, where)


def cpu_machine_options(values: list[str], where: str) -> Iterator[tuple[str, Value]]:
    """Property and value of each option of `-machine` that says something of the CPU."""
    for text in values:
        for piece in text.split(","):
            key, equals, value = piece.partition("=")
            if equals and is_of_machine(key):
                yield key, _sized(value) if key == PAGE_SIZE else _typed(key, value, where)[1]


PAGE_SIZE = "cap-hpt-max-page-size"


_SIZE = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30}


def _sized(text: str) -> Value:
    """Bytes, of a number with or without a binary suffix; what is none stays for QEMU to refuse."""
    match = re.fullmatch(r"([0-9]{1,15})([kmgKMG]?)", text)
    return int(match[1]) * _SIZE[match[2].lower()] if match else text


def _of_cpu_alone(value: str) -> bool:
    return all(is_of_machine(piece.partition("=")[0]) for piece in value.split(","))


def is_cpu_argument(option: str, value: str) -> bool:
    """Whether this option of QEMU's and its value say something of the CPU, and of nothing else."""
    name = option_name(option)
    if name == "-machine":
        return _of_cpu_alone(value)
    return name == "-cpu" or (
        name == "-global" and CPU_TYPENAME.fullmatch(_global_parts(value)[0]) is not None
    )


def option_name(word: str) -> str:
    """An option with one dash: QEMU takes two as well."""
    return word[1:] if word.startswith("--") else word


def _global_parts(text: str) -> tuple[str, str, str]:
    """Driver, property and value: `driver.property=value`, or each by its name."""
    if text.startswith("driver="):
        named = dict(piece.partition("=")[::2] for piece in text.split(",", 2))
        return named.get("driver", ""), named.get("property", ""), named.get("value", "")
    path, _, value = text.partition("=")
    driver, _, key = path.partition(".")
    return driver, key, value


def _property_name(text: str, where: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", text):
        raise DomainError(f"'{text[:40]}' is no CPU property name", where)
    return text


def _typed(key: str, value: str, where: str) -> tuple[str, Value]:
    """The property and its value as QMP types it; QEMU's `tsc-freq` with SI suffix becomes
    `tsc-frequency`.
    """
    if key == "tsc-freq":
        return "tsc-frequency", _frequency(value, where)
    if key in STRINGS:
        return key, value
    if value in BOOLEANS:
        return key, BOOLEANS[value]
    if re.fullmatch(r"-?[0-9]+", value):
        return key, int(value)
    return key, int(value, 16) if re.fullmatch(r"0[xX][0-9a-fA-F]+", value) else value


def _frequency(text: str, where: str) -> int:
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([kmgtKMGT]?)", text)
    if match is None:
        raise DomainError(f"bad numerical value '{text}' for tsc-freq", where)
    return int(float(match[1]) * SI.get(match[2].lower(), 1))


def _machine(options: dict[str, list[str]]) -> tuple[str | None, Accel]:
    machine: str | None = None
    accels = [value.split(",")[0] for value in options["-accel"]]
    for value in options["-machine"]:
        for piece in value.split(","):
            key, equals, text = piece.partition("=")
            if not equals or key == "type":
                machine = text or key
            elif key == "accel":
                accels = text.split(":")
    return machine, "tcg" if accels[:1] == ["tcg"] else "kvm"
