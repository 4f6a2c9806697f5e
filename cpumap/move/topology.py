"""What leaves say of a package's dies, cores and threads, by what is true of a QEMU's code."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from cpumap.cpu.bits import Where
from cpumap.cpu.topology import Topology
from cpumap.move.dates import Entry, cause_of, crossed, outcomes
from cpumap.move.side import ONE_VCPU, Side, stored_facts, widened

INTEL = "GenuineIntel"


ZHAOXIN = ("CentaurHauls", "  Shanghai  ")


VCPU_NUMBER = (0x1F, "edx")
"""Where each vCPU reads its own x2APIC ID."""


_MOST = 255
"""vCPUs in a package that the fields of these leaves can count."""


_TOUCHED: Mapping[str, tuple[tuple[int, str], ...]] = {
    "package": (
        (0x1, "ebx"), (0x1, "edx"), (0xB, "ebx"), (0x80000001, "ecx"), (0x80000008, "ecx"),
    ),
    "package_room": ((0x1, "ebx"),),
    "cmp_legacy": ((0x80000001, "ecx"),),
    "leaf_1f": tuple((0x1F, register) for register in ("eax", "ebx", "ecx", "edx")),
    "core_count": ((0x80000008, "ecx"),),
}  # fmt: skip
"""The registers that each fact is about."""


def by_topology(
    before: Side, after: Side, topology: Topology, unknown: list[str]
) -> Iterator[tuple[Where, int, str]]:
    """Every register about topology that differs, by which bits, and why; what cannot be told
    goes to `unknown`.
    """
    facts: Mapping[str, Entry] = stored_facts("drift.json")["topology"]
    entries = {name: facts[name] for name in _TOUCHED}
    if topology == ONE_VCPU and before.get("x-force-cpuid-0x1f") is not True:
        return
    unknown.extend(_not_measured(facts, before, after, topology))
    found = outcomes(entries, before, after, lambda side, true: _leaves(side, true, topology))
    differing = {where for outcome in found for where in outcome}
    for where in sorted(differing):
        causes = "; ".join(_causes(entries, before, after, where))
        bits = {outcome.get(where, 0) for outcome in found}
        if len(bits) > 1:
            unknown.append(causes)
        else:
            yield where, bits.pop(), causes


def _causes(entries: Mapping[str, Entry], before: Side, after: Side, where: Where) -> Iterator[str]:
    for name, entry in entries.items():
        if (where[0], where[2]) in _TOUCHED[name] and crossed(entry, before, after) is not False:
            yield cause_of(entry)


def _not_measured(
    facts: Mapping[str, Entry], before: Side, after: Side, topology: Topology
) -> Iterator[str]:
    if topology == ONE_VCPU:
        return
    if topology.clusters > 1 and any(
        crossed(entry, before, after) is not False for entry in facts.values()
    ):
        yield f"{facts['package']['cause']}; how with clusters"
    if topology.dies * topology.cores * topology.threads > _MOST:
        yield f"packages of more than {_MOST} vCPUs"
    if not before.get("vendor") and crossed(facts["levels"], before, after) is not False:
        yield cause_of(facts["levels"])


def _leaves(side: Side, true: Mapping[str, bool], topology: Topology) -> dict[Where, int]:
    """The fields that depend on how vCPUs are counted, and nothing else of these registers."""
    of_die = topology.cores * topology.threads
    counted = topology.dies * of_die if true["package"] else of_die
    vendor = side.get("vendor")
    found: dict[Where, int] = {
        (0x1, 0, "ebx"): _logical_processors(vendor, true["package_room"], counted, topology) << 16
    }
    if side.accel == "tcg" and side.get("ht") is not True:
        found[0x1, 0, "edx"] = (counted > 1) << 28
    if side.get("cmp-legacy") is not True and vendor != INTEL:
        gone = true["cmp_legacy"] and vendor in ZHAOXIN
        found[0x80000001, 0, "ecx"] = (counted > 1 and not gone) << 1
    if side.get("cpuid-0xb") is True:
        found[0xB, 1, "ebx"] = counted
    if not (
        true["core_count"]
        and side.get("x-vendor-cpuid-only-v2") is True
        and vendor in (INTEL, *ZHAOXIN)
    ):
        found[0x80000008, 0, "ecx"] = _package(counted, room(topology))
    if true["leaf_1f"] and side.get("x-force-cpuid-0x1f") is True:
        found |= dict(_leaf_1f(topology))
    return found


def room(topology: Topology) -> int:
    """How many vCPUs of a package APIC IDs have room for: a power of two at each level."""
    return widened(topology.dies) * widened(topology.cores) * widened(topology.threads)


def _logical_processors(vendor: object, by_room: bool, counted: int, topology: Topology) -> int:
    """The number of vCPUs in a package as leaf 0x1 has it: none where there is one.

    By room for Intel, Centaur and Shanghai alone; AMD's, Hygon's and unknown CPUs keep counting.
    """
    if by_room and (vendor == INTEL or vendor in ZHAOXIN):
        return min(room(topology), _MOST) if topology.dies * counted > 1 else 0
    return counted if counted > 1 else 0


def _package(count: int, wide: int) -> int:
    """AMD's number of vCPUs in a package and the width of their APIC IDs, as leaf 0x80000008 has
    it; 0 for one.
    """
    return (wide - 1).bit_length() << 12 | count - 1 if count > 1 else 0


def _leaf_1f(topology: Topology) -> Iterator[tuple[Where, int]]:
    """Leaf 0x1F where there are only cores and threads: for each level its shift, its number and
    its type.
    """
    if topology.several_dies:
        return
    threads, cores = topology.threads, topology.cores * topology.threads
    width = (widened(threads) - 1).bit_length()
    levels = (
        (width, threads, 0x100),
        (width + (widened(topology.cores) - 1).bit_length(), cores, 0x201),
        (0, 0, 2),
    )
    for subleaf, (shift, count, kind) in enumerate(levels):
        yield (0x1F, subleaf, "eax"), shift
        yield (0x1F, subleaf, "ebx"), count
        yield (0x1F, subleaf, "ecx"), kind
        yield (0x1F, subleaf, "edx"), widened(topology.sockets) * room(topology) - 1
