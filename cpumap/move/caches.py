"""What a guest reads of caches, which no property describes: `data/x86_64/caches.json`, for any
topology.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import cast

from cpumap.cpu.bits import REGISTERS, Register
from cpumap.cpu.machine_type import release
from cpumap.cpu.names import PropertyName
from cpumap.cpu.topology import Topology
from cpumap.move.side import ONE_VCPU, Side, Where, stored_facts, widened

CACHE_LEAVES = (0x2, 0x4, 0x80000000, 0x80000005, 0x80000006, 0x8000001D)
"""Leaves that say which caches there are; AMD's have no vendor in 0x80000000 unless they say it
for themselves.
"""


SHARING_LEAVES = ("4.", "8000001d.")
"""Those of them that say as well how many vCPUs share a cache."""


CacheLeaves = Mapping[str, Sequence[str]]
"""`leaf.subleaf` → four registers, hexadecimal."""


CACHE_PROPERTIES = tuple(
    PropertyName(name)
    for name in (
        "l3-cache", "topoext", "x-amd-topoext-features-only", "x-consistent-cache", "x-l1-cache-per-thread",
        "x-vendor-cpuid-only", "x-vendor-cpuid-only-v2",
    )
)  # fmt: skip
"""The properties that act on these leaves, legacy-cache and vendor apart."""


RECORDED_ON = Topology(dies=2, cores=2, threads=2)
"""What the guests have whose caches are recorded."""


def caches(
    before: Side, after: Side, topology: Topology, unknown: list[str]
) -> Iterator[tuple[Where, int, str]]:
    """Every register about caches that differs, by which bits, and why; what was not recorded
    goes to `unknown`.
    """
    of_before, of_after = _cache_leaves(before), _cache_leaves(after)
    for side, leaves in ((before, of_before), (after, of_after)):
        if leaves is None:
            unknown.append(
                f"QEMU {side.release}: what it says about the caches of {_cache_table(side)} was "
                "not recorded"
            )
    if of_before is None or of_after is None:
        return
    words = [
        _cache_table(one) + _cache_switches(one, other)
        for one, other in ((before, after), (after, before))
    ]
    cause = f"caches: QEMU {before.release} has {words[0]}, QEMU {after.release} {words[1]}"
    counted = stored_facts("drift.json")["topology"]["cause"]
    for where in sorted(
        {(leaf, register) for leaf in of_before.keys() | of_after.keys() for register in REGISTERS}
    ):
        one_vcpu, xor = (
            _cache_register(where, of_before, before, guest)
            ^ _cache_register(where, of_after, after, guest)
            for guest in (ONE_VCPU, topology)
        )
        if xor:
            leaf, subleaf = (int(part, 16) for part in where[0].split("."))
            yield (leaf, subleaf, where[1]), xor, cause if one_vcpu else counted


def _cache_register(
    where: tuple[str, Register], leaves: CacheLeaves, side: Side, topology: Topology
) -> int:
    """What a guest with this topology reads, from what one with `RECORDED_ON` read."""
    leaf, register = where
    value = int(leaves.get(leaf, ("0",) * 4)[REGISTERS.index(register)], 16)
    if register != "eax" or not leaf.startswith(SHARING_LEAVES):
        return value
    return value & 0x3FFF | _shared(value, leaf, side, topology) if value & 0x1F else value & 0x3FFF


def _shared(value: int, leaf: str, side: Side, topology: Topology) -> int:
    """How many vCPUs share the cache, and in leaf 4 how many cores the package has: as counted
    before QEMU 10.0.

    Since then it is the room that APIC IDs have for them.
    """
    counts = release(side.release) < release(stored_facts("drift.json")["topology"]["since"])
    wide = (lambda count: count) if counts else widened
    dies, cores, threads = topology.dies, topology.cores, topology.threads
    of_die = (
        cores * threads if counts and leaf == "8000001d.3" else widened(cores) * widened(threads)
    )
    sharing = {0: 1, 1: wide(threads), 3: of_die, 7: widened(dies) * of_die}[value >> 14 & 0xFFF]
    in_package = cores if counts else widened(cores) * widened(dies)
    return sharing - 1 << 14 | (in_package - 1 << 26 if leaf.startswith("4.") else 0)


def _cache_table(side: Side) -> str:
    vendor = side.get("vendor") or "AuthenticAMD"
    return f"{'legacy' if side.get('legacy-cache') is not False else side.model} {vendor}"


def _cache_switches(side: Side, other: Side) -> str:
    """The properties that act on caches and are on here, and off there."""
    alone = [
        name for name in CACHE_PROPERTIES if side.get(name) is True and other.get(name) is False
    ]
    return f" with {', '.join(alone)}" if alone else ""


def _cache_leaves(side: Side) -> CacheLeaves | None:
    facts = stored_facts("caches.json")
    on = " ".join(sorted(name for name in CACHE_PROPERTIES if side.get(name) is True))
    index = facts["releases"].get(side.release, {}).get(_cache_table(side), {}).get(on)
    return None if index is None else cast(CacheLeaves, facts["leaves"][index])
