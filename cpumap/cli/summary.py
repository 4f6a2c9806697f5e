"""What an explicit CPU says beyond what libvirt would pass, in a page instead of 400 properties."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from cpumap.cpu.explicit import ExplicitCpu
from cpumap.cpu.names import Property, PropertyName, Value
from cpumap.cpu.request import CpuRequest
from cpumap.errors import CpumapError
from cpumap.pin.as_libvirt import libvirt_cpu_args
from cpumap.pin.expand import expand
from cpumap.pin.resolve import resolve
from cpumap.qemu.arguments import args_text, property_text
from cpumap.qemu.cpu_option import parse_cpu_option
from cpumap.sources.platform import Platform

NAMED = 8
"""Names shown of a group; of the others only how many there are."""


def summary(cpu: ExplicitCpu, request: CpuRequest, platform: Platform) -> str:
    """The text: what libvirt would pass, what would come out otherwise, and what is named besides,
    grouped by where it comes from.
    """
    context = cpu.context
    lines = [
        f"{cpu.model} on {context.machine}, QEMU {context.qemu}, {context.accel}: "
        f"{len(cpu.properties)} properties named{', enforce' if cpu.enforce else ''}"
    ]
    said: set[PropertyName] = set()
    try:
        words = libvirt_cpu_args(request, platform)
        text = args_text(words)
        passed = parse_cpu_option(text, name="libvirt")
        placed = replace(passed, machine=request.machine, accel=request.accel)
        would_be = resolve(placed, expand(placed, platform, must_realise=False)).values
    except CpumapError as err:
        lines.append(f"what libvirt would pass is not known here: {err}")
    else:
        said = {prop.name for prop in passed.settings}
        lines.append(f"libvirt would pass: {text.rstrip()}")
        lines += _changed(cpu, would_be)
    besides = [prop for prop in cpu.properties if prop.name not in said]
    lines.append(f"named besides, so that no default decides them: {len(besides)}")
    lines += _grouped(besides, cpu.features)
    return "\n".join(lines) + "\n"


def _changed(cpu: ExplicitCpu, would_be: dict[PropertyName, Value]) -> Iterator[str]:
    found = [
        prop
        for prop in cpu.properties
        if prop.name in would_be and would_be[prop.name] != prop.value
    ]
    if not found:
        yield "every property has the value that it would have then on this QEMU"
        return
    yield f"another value than it would have then on this QEMU: {len(found)}"
    for prop in found:
        old, new = property_text(would_be[prop.name]), property_text(prop.value)
        yield f"  {prop.name}: {old} -> {new}  ({prop.origin})"


def _grouped(besides: Iterable[Property], features: frozenset[PropertyName]) -> Iterator[str]:
    groups: dict[str, list[Property]] = {}
    for prop in besides:
        groups.setdefault(str(prop.origin) or "the request", []).append(prop)
    for why, group in sorted(groups.items(), key=lambda one: -len(one[1])):
        yield f"  {why}: {len(group)}"
        bits = [prop for prop in group if prop.name in features]
        yield from _names("on", [prop.name for prop in bits if prop.value is True])
        yield from _names("off", [prop.name for prop in bits if prop.value is False])
        values = [prop for prop in group if prop.name not in features]
        yield from _names("value", [f"{one.name}={property_text(one.value)}" for one in values])


def _names(kind: str, names: list[str]) -> Iterator[str]:
    if names:
        more = f", and {len(names) - NAMED} more" if len(names) > NAMED else ""
        yield f"    {kind}: {len(names)}: {', '.join(names[:NAMED])}{more}"
