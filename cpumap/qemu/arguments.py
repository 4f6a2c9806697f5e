"""A CPU as arguments of QEMU's command line."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

from cpumap.cpu.names import PropertyName, Value
from cpumap.cpu.topology import Topology


def smp_option(topology: Topology) -> str:
    """The value of `-smp`, spelled out: old machine types read a bare number in another way."""
    counts = {"sockets": topology.sockets, "dies": topology.dies, "clusters": topology.clusters}
    counts |= {"cores": topology.cores, "threads": topology.threads}
    spelled = [
        f"{name}={count}" for name, count in counts.items() if name != "clusters" or count > 1
    ]
    return ",".join([str(topology.count), *spelled])


def cpu_arguments(
    model: str,
    typename: str,
    properties: Mapping[PropertyName, Value],
    *,
    plus: frozenset[PropertyName] = frozenset(),
    enforce: bool = False,
) -> list[str]:
    """QEMU's arguments for a CPU: `-cpu`, its value, and a `-global` for each value that holds a
    comma.

    QEMU's option parser splits `-cpu` at commas and knows no escape there; `-global` takes the rest
    of the word.
    `plus` are the properties to write `+f` or `-f`.
    """
    inside = [
        _option(name, value, plus) for name, value in properties.items() if not _has_comma(value)
    ]
    arguments = ["-cpu", ",".join([model, *inside, *(["enforce"] if enforce else [])])]
    outside = {name: value for name, value in properties.items() if _has_comma(value)}
    return [*arguments, *global_arguments(typename, outside)]


def global_arguments(typename: str, properties: Mapping[PropertyName, Value]) -> list[str]:
    """QEMU's `-global` arguments that set these properties on every CPU of the type."""
    return [
        word
        for name, value in properties.items()
        for word in ("-global", f"{typename}.{name}={property_text(value)}")
    ]


def machine_arguments(properties: Mapping[PropertyName, Value]) -> list[str]:
    """QEMU's `-machine` argument that sets these options; it adds to a `-machine` before it."""
    options = (f"{name}={property_text(value)}" for name, value in properties.items())
    return ["-machine", ",".join(options)] if properties else []


def args_text(arguments: Sequence[str]) -> str:
    """One line for a shell."""
    return shlex.join(arguments) + "\n"


def _has_comma(value: Value) -> bool:
    return isinstance(value, str) and "," in value


def _option(name: PropertyName, value: Value, plus: frozenset[PropertyName]) -> str:
    if name in plus:
        return f"{'+' if value else '-'}{name}"
    return f"{name}={property_text(value)}"


def property_text(value: Value) -> str:
    """A property's value as QEMU's command line spells it."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value)
