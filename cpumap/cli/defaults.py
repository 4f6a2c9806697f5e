"""The files that say what an option is where the command line does not: a user's own, and the
system's.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cpumap.cli.parsing import Parser
from cpumap.cli.words import did_you_mean
from cpumap.errors import InputError
from cpumap.system.files import read_regular
from cpumap.system.trust import reason_not_to_be_told

VARIABLE = "CPUMAP_CONFIG"
"""The environment variable that names one file instead of both; empty: none."""


SYSTEM = Path("/etc/cpumap/config.toml")


LIMIT = 1024 * 1024
"""Bytes."""


SHARED = (
    "accel", "cpu-map", "jobs", "libvirt", "machine", "no-cache", "qemu", "quiet", "recorded",
    "verbose",
)  # fmt: skip
"""Options that may stand above the tables: they are so for every command that has them."""


OUTRIGHT = ("baseline", "compare", "decode", "explain", "update")
"""Commands to which naming a QEMU asks another question: theirs stand in their own table."""


SOURCES = ("accel", "machine", "qemu", "recorded")


_INSTEAD = {"--libvirt": "CPUMAP_LIBVIRT"}
"""Environment variables, which come before a file."""


def places() -> list[Path]:
    """The files, the one that counts more last."""
    named = os.environ.get(VARIABLE)
    if named is not None:
        return [Path(named)] if named else []
    home = os.environ.get("XDG_CONFIG_HOME") or f"{os.environ.get('HOME', '')}/.config"
    own = Path(home, "cpumap", "config.toml")
    return [SYSTEM, own] if own.is_absolute() else [SYSTEM]


def default_words(parser: Parser, words: Sequence[str]) -> list[str]:
    """What the files say of this command's options, as the words of a command line; of options
    that stand among `words`, or that these exclude, nothing. Errors: `InputError`.
    """
    settings: dict[str, tuple[Any, Path]] = {}
    for place in places():
        if os.path.lexists(place):
            settings.update(_settings(place, parser))
    named = set(parser.named(words)) | {word for word in words if word in ("-q", "-v")}
    found = []
    for key, (value, place) in settings.items():
        option = f"--{key}"
        instead = os.environ.get(_INSTEAD.get(option, ""))
        if not instead and named.isdisjoint(parser.rivals(option)):
            found += _as_words(parser, option, value, place)
    return found


def _settings(place: Path, parser: Parser) -> Iterator[tuple[str, tuple[Any, Path]]]:
    """What this file says of the command's options."""
    stored = _read(place)
    own = stored.get(parser.command, {})
    if not isinstance(own, dict):
        raise InputError(f"[{parser.command}] is a table", str(place))
    options = parser.options()
    for key, value in stored.items():
        if isinstance(value, dict):
            continue
        if key not in SHARED:
            meant = did_you_mean(key, SHARED)
            raise InputError(f"no setting {key} for every command{meant}", str(place))
        asks_otherwise = parser.command in OUTRIGHT and key in SOURCES
        if f"--{key}" in options and not asks_otherwise:
            yield key, (value, place)
    for key, value in own.items():
        if f"--{key}" not in options or key == "help":
            names = [name.removeprefix("--") for name in options]
            meant = did_you_mean(key, names)
            raise InputError(f"{parser.command} has no option {key}{meant}", str(place))
        yield key, (value, place)


def _read(place: Path) -> Mapping[str, Any]:
    import tomllib

    try:
        if reason := reason_not_to_be_told(place):
            raise InputError(f"is not obeyed: {reason}", str(place))
        return tomllib.loads(read_regular(place, LIMIT).decode())
    except (OSError, ValueError, RecursionError) as err:
        raise InputError(f"cannot be read: {err}", str(place)) from err


def _as_words(parser: Parser, option: str, value: Any, place: Path) -> list[str]:
    action = parser.options()[option]
    if action.nargs == 0:
        if not isinstance(value, bool):
            raise InputError(f"{option[2:]} is true or false", str(place))
        return [option] if value else []
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise InputError(f"{option[2:]} is a word or a number", str(place))
    if action.choices and value not in action.choices:
        raise InputError(
            f"{option[2:]} is {' or '.join(map(str, action.choices))}, not {value!r}", str(place)
        )
    return [f"{option}={value}"]
