"""What an explicit CPU looks like written down: arguments, XML, a -readconfig file, JSON. Decides nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from cpumap.cpu import PropertyName, Value

Style = Literal["plus", "onoff"]


def cpu_arguments(
    model: str,
    typename: str,
    properties: Mapping[PropertyName, Value],
    *,
    style: Style = "onoff",
    enforce: bool = False,
) -> list[str]:
    """QEMU's arguments for a CPU: `-cpu`, its value, and a `-global` for each value that holds a comma.

    QEMU's option parser splits `-cpu` at commas and knows no escape there; `-global` takes the rest of the word.
    """
    inside = [_option(name, value, style) for name, value in properties.items() if not _needs_global(value)]
    arguments = ["-cpu", ",".join([model, *inside, *(["enforce"] if enforce else [])])]
    for name, value in properties.items():
        if _needs_global(value):
            arguments += ["-global", f"{typename}.{name}={value}"]
    return arguments


def _needs_global(value: Value) -> bool:
    return isinstance(value, str) and "," in value


def _option(name: PropertyName, value: Value, style: Style) -> str:
    if isinstance(value, bool) and style == "plus":
        return f"{'+' if value else '-'}{name}"
    return f"{name}={property_text(value)}"


def property_text(value: Value) -> str:
    """A property's value as QEMU's command line spells it."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value)
