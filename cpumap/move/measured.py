"""What guests read on two QEMUs of one's own: where both were measured, what differs between their
readings is what will differ, and no shipped fact is needed.

A measured QEMU's readings are kept in its recording: for each aspect of a CPU, and each way that it
can be, what a guest reads there. `proof.measure` takes them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from cpumap.cpu.bits import Where, read_where
from cpumap.cpu.names import PropertyName
from cpumap.cpu.topology import Topology
from cpumap.move.caches import cache_table, caches_on
from cpumap.move.side import Side

Readings = Mapping[str, Mapping[str, Mapping[str, str]]]
"""Aspect → way → register (`4.0.eax`) → what a guest reads, hexadecimal."""


ALL = 0xFFFFFFFF


XSAVE_PARTS = ("amx-tile", "arch-lbr", "avx", "avx512f", "mpx", "pku")


ADDRESS_PARTS = ("la57", "lm", "pae", "pse36")


AVX10_PARTS = ("avx10", "avx10-128", "avx10-256", "avx10-512")


_CACHES = (0x2, 0x4, 0x80000000, 0x80000005, 0x80000006, 0x8000001D)


_OF_TCG = (0xD, 0x12, 0x1C, 0x24)
"""Leaves that under KVM are filled by the kernel, or otherwise."""


_COUNTED = {
    (0x1, "ebx"): 0xFF << 16,
    (0x1, "edx"): 1 << 28,
    (0xB, "ebx"): ALL,
    (0x80000001, "ecx"): 1 << 1,
    (0x80000008, "ecx"): ALL,
}
"""The bits in which vCPUs are counted."""


@dataclass(frozen=True, slots=True)
class Aspect:
    """A part of what a guest reads that depends on few properties."""

    name: str
    way: Callable[[Side, Topology], str | None]
    """How a CPU is in this aspect; None where it does not show."""
    mask: Callable[[Where], int]
    """The bits of a register that it is about."""


def on(side: Side, names: tuple[str, ...]) -> str:
    """Those of the properties that are on, as a way is called."""
    return " ".join(name for name in names if side.get(name) is True) or "none"


def _xsave(side: Side, _: Topology) -> str | None:
    # Under KVM the kernel fills these leaves.
    return on(side, XSAVE_PARTS) if side.accel == "tcg" and side.get("xsave") is True else None


def _avx10(side: Side, _: Topology) -> str | None:
    if side.number("level") < 0x24 or side.accel != "tcg":
        return None
    return f"{on(side, AVX10_PARTS)} {side.number('avx10-version')}"


def topology_way(vendor: object, only_vendor: bool, topology: Topology) -> str:
    """The way of a CPU by whose vCPUs and how many there are."""
    of = topology
    counts = f"{of.sockets},{of.dies},{of.clusters},{of.cores},{of.threads}"
    return f"{vendor} {counts}{' x-vendor-cpuid-only-v2' if only_vendor else ''}"


def _topology(side: Side, topology: Topology) -> str | None:
    vendor = side.get("vendor")
    return topology_way(vendor, side.get("x-vendor-cpuid-only-v2") is True, topology)


def _cache_way(side: Side, _: Topology) -> str | None:
    return f"{cache_table(side)}: {caches_on(side)}"


def _of(*leaves: int) -> Callable[[Where], int]:
    return lambda where: ALL if where[0] in leaves else 0


ASPECTS = (
    Aspect(
        "xsave", _xsave, lambda where: ALL if where[0] == 0xD and where[1:] != (1, "eax") else 0
    ),
    Aspect(
        "address",
        lambda side, _: on(side, ADDRESS_PARTS),
        lambda where: ALL if where == (0x80000008, 0, "eax") else 0,
    ),
    Aspect(
        "sgx",
        lambda side, _: on(side, ("sgx",)) if side.accel == "tcg" else None,
        _of(0x12),
    ),
    Aspect(
        "lbr",
        lambda side, _: "any" if side.accel == "tcg" and side.number("level") >= 0x1C else None,
        _of(0x1C),
    ),
    Aspect(
        "avx10",
        _avx10,
        lambda where: ALL if where[0] == 0x24 else 1 << 19 if where == (7, 1, "edx") else 0,
    ),
    Aspect("topology", _topology, lambda where: _COUNTED.get((where[0], where[2]), 0)),
    Aspect(
        "caches",
        _cache_way,
        lambda where: ALL if where[0] in _CACHES and where != (0x80000000, 0, "eax") else 0,
    ),
)
"""What may differ between two QEMUs whatever the properties are, as far as anybody has seen."""


def is_of_an_aspect(where: Where) -> int:
    """The bits of the register that some aspect is about."""
    bits = 0
    for aspect in ASPECTS:
        bits |= aspect.mask(where)
    return bits


def measured_bits(where: Where, side: Side) -> int:
    """The bits of the register that readings speak of, for a CPU under this accelerator."""
    if where[2] == "msr" or (side.accel == "kvm" and where[0] in _OF_TCG):
        return 0
    return is_of_an_aspect(where)


def measured_differences(
    before: Side,
    after: Side,
    readings: tuple[Readings, Readings],
    topology: Topology,
    unknown: list[str],
) -> Iterator[tuple[Where, int, str]]:
    """Every register in which guests on the two QEMUs read otherwise, by which bits, and why; what
    was not measured of such a CPU goes to `unknown`.
    """
    for aspect in ASPECTS:
        found = [
            _read(aspect, side, of, topology)
            for side, of in zip((before, after), readings, strict=True)
        ]
        for side, read in zip((before, after), found, strict=True):
            if read is None:
                way = aspect.way(side, topology)
                unknown.append(f"{side.label}: {aspect.name} of {way} was not measured")
        here, there = found
        if here is None or there is None:
            continue
        cause = f"measured: {aspect.name}, {before.label} and {after.label}"
        for where in sorted(here.keys() | there.keys()):
            if xor := here.get(where, 0) ^ there.get(where, 0):
                yield where, xor, cause
    unknown.extend(_features(before, after, readings))


def _read(
    aspect: Aspect, side: Side, readings: Readings, topology: Topology
) -> dict[Where, int] | None:
    """What was read of this aspect on one QEMU; None where it was not measured."""
    way = aspect.way(side, topology)
    if way is None:
        return {}
    stored = readings.get(aspect.name, {}).get(way)
    if stored is None:
        return None
    found = {read_where(name): int(text, 16) for name, text in stored.items()}
    if aspect.name == "topology":
        return _shown(found, side)
    if aspect.name == "caches":
        return _shared(found, readings, topology)
    return found


def _shown(found: dict[Where, int], side: Side) -> dict[Where, int]:
    """Without what the CPU's own properties say, however vCPUs are counted."""
    for name, where in (("ht", (0x1, 0, "edx")), ("cmp-legacy", (0x80000001, 0, "ecx"))):
        if side.get(name) is True:
            found = {place: value for place, value in found.items() if place != where}
    if side.get("cpuid-0xb") is not True:
        found = {where: value for where, value in found.items() if where[0] != 0xB}
    return found


def _shared(
    found: dict[Where, int], readings: Readings, topology: Topology
) -> dict[Where, int] | None:
    """The cache registers as a guest with this topology reads them."""
    counted = readings.get("sharing", {}).get(topology_way("caches", False, topology), {})
    for where, value in found.items():
        if not is_shared(where) or not value & 0x1F:
            continue
        bits = counted.get(sharing_name(where, value))
        if bits is None:
            return None
        found[where] = value & 0x3FFF | int(bits, 16)
    return found


def is_shared(where: Where) -> bool:
    """Whether the register says as well how many vCPUs share the cache."""
    return where[0] in (0x4, 0x8000001D) and where[2] == "eax"


def sharing_name(where: Where, value: int) -> str:
    """How a cache is called by who shares it, of a guest with two of everything."""
    level = where[1] if where[0] == 0x8000001D and where[1] == 3 else ""
    return f"{where[0]:x}{f'.{level}' if level else ''} {value >> 14 & 0xFFF:x}"


def _features(before: Side, after: Side, readings: tuple[Readings, Readings]) -> Iterator[str]:
    """Features of the CPU that alone make guests on the two QEMUs read different things."""
    here, there = (of.get("features", {}) for of in readings)
    passed = {leaf for of in readings for leaf in of.get("undefined", {})}
    for name in sorted(here.keys() & there.keys()):
        is_on = after.values.get(PropertyName(name)) is True
        seen = [_without(of[name], passed) for of in (here, there)]
        if is_on and seen[0] != seen[1]:
            yield f"{name}: alone it does not make the same of a CPU in both"


def _without(read: Mapping[str, str], leaves: set[str]) -> dict[str, str]:
    """What was read, leaves left to chance set aside."""
    return {name: text for name, text in read.items() if name.partition(".")[0] not in leaves}


def undefined_leaves(readings: Iterable[Readings]) -> frozenset[int]:
    """The leaves in which guests with one CPU on one QEMU read different things."""
    return frozenset(int(leaf, 16) for of in readings for leaf in of.get("undefined", {}))


def register_name(where: Where) -> str:
    """The name that `read_where` reads."""
    return f"{where[0]:x}.{where[1]:x}.{where[2]}"
