"""What a guest reads of caches, which no property describes: `data/x86_64/caches.json`, for any
topology.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import cast

from cpumap.cpu.bits import REGISTERS, Register, Where, read_leaf
from cpumap.cpu.names import PropertyName
from cpumap.cpu.topology import Topology
from cpumap.move.dates import Entry, cause_of, crossed, interpolated, outcomes
from cpumap.move.side import ONE_VCPU, Side, stored_facts, widened

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
        "l3-cache", "topoext", "x-amd-topoext-features-only", "x-consistent-cache",
        "x-l1-cache-per-thread", "x-vendor-cpuid-only", "x-vendor-cpuid-only-v2",
    )
)  # fmt: skip
"""The properties that act on these leaves, legacy-cache and vendor apart."""


_MOST_CORES = 63
"""Cores in a package, less one, that leaf 4 has bits for."""


RECORDED_ON = Topology(dies=2, cores=2, threads=2)
"""What the guests have whose caches are recorded."""


def caches(
    before: Side, after: Side, topology: Topology, unknown: list[str]
) -> Iterator[tuple[Where, int, str]]:
    """Every register about caches that differs, by which bits, and why; what was not recorded
    goes to `unknown`.
    """
    if before.build.has_code_of(after.build) and _told(before) == _told(after):
        return
    of_before, of_after = _cache_leaves(before), _cache_leaves(after)
    for side, leaves in ((before, of_before), (after, of_after)):
        if leaves is None:
            unknown.append(
                f"{side.label}: what it says about the caches of {cache_table(side)} was not "
                f"recorded"
            )
    if of_before is None or of_after is None:
        return
    words = [
        cache_table(one) + _cache_switches(one, other)
        for one, other in ((before, after), (after, before))
    ]
    cause = f"caches: {before.label} has {words[0]}, {after.label} {words[1]}"
    found = _registers(before, of_before, after, of_after, ONE_VCPU)
    alone = found[0] if len(found) == 1 else {}
    counted = "; ".join(_counting(before, after))
    found = _registers(before, of_before, after, of_after, topology)
    for where in sorted({where for outcome in found for where in outcome}):
        bits = {outcome.get(where, 0) for outcome in found}
        if len(bits) > 1:
            unknown.append(counted)
        else:
            yield where, bits.pop(), cause if where in alone else counted


def _told(side: Side) -> tuple[str, str]:
    return cache_table(side), caches_on(side)


def _registers(
    before: Side, of_before: CacheLeaves, after: Side, of_after: CacheLeaves, topology: Topology
) -> list[dict[Where, int]]:
    """What differs, for each possible way that the two QEMUs count vCPUs."""
    leaves = {id(before): of_before, id(after): of_after}
    places = {(leaf, register) for of in leaves.values() for leaf in of for register in REGISTERS}

    def read(side: Side, true: Mapping[str, bool]) -> dict[Where, int]:
        known = leaves[id(side)]
        return {_where(place): _cache_register(place, known, true, topology) for place in places}

    return outcomes(_counting_facts(), before, after, read)


def _where(place: tuple[str, Register]) -> Where:
    return *read_leaf(place[0]), place[1]


def _counting_facts() -> dict[str, Entry]:
    """The facts about how leaves count the vCPUs that share a cache."""
    facts = stored_facts("drift.json")["topology"]
    return {name: facts[name] for name in ("package", "cache_room")}


def _counting(before: Side, after: Side) -> Iterator[str]:
    for entry in _counting_facts().values():
        if crossed(entry, before, after) is not False:
            yield cause_of(entry)


def _cache_register(
    where: tuple[str, Register], leaves: CacheLeaves, true: Mapping[str, bool], topology: Topology
) -> int:
    """What a guest with this topology reads, from what one with `RECORDED_ON` read."""
    leaf, register = where
    value = int(leaves.get(leaf, ("0",) * 4)[REGISTERS.index(register)], 16)
    if register != "eax" or not leaf.startswith(SHARING_LEAVES):
        return value
    if not value & 0x1F:
        return value & 0x3FFF
    return value & 0x3FFF | _shared(value, leaf, true, topology)


def _shared(value: int, leaf: str, true: Mapping[str, bool], topology: Topology) -> int:
    """How many vCPUs share the cache, and in leaf 4 how many cores the package has: counted, or
    the room that APIC IDs have for them.
    """
    by_room = true["cache_room"]
    dies, cores, threads = topology.dies, topology.cores, topology.threads
    of_die = widened(cores) * widened(threads)
    if not by_room and leaf == "8000001d.3":
        of_die = cores * threads
    of_core = widened(threads) if by_room else threads
    sharing = {0: 1, 1: of_core, 3: of_die, 7: widened(dies) * of_die}[value >> 14 & 0xFFF]
    shared = sharing - 1 << 14
    if not leaf.startswith("4."):
        return shared
    if by_room:
        return shared | min(widened(cores) * widened(dies) - 1, _MOST_CORES) << 26
    counted = cores * dies if true["package"] else cores
    return shared | (counted - 1 & _MOST_CORES) << 26


def cache_table(side: Side) -> str:
    vendor = side.get("vendor") or "AuthenticAMD"
    return f"{'legacy' if side.get('legacy-cache') is not False else side.model} {vendor}"


def _cache_switches(side: Side, other: Side) -> str:
    """The properties that act on caches and are on here, and off there."""
    alone = [
        name for name in CACHE_PROPERTIES if side.get(name) is True and other.get(name) is False
    ]
    return f" with {', '.join(alone)}" if alone else ""


def caches_on(side: Side) -> str:
    return " ".join(sorted(name for name in CACHE_PROPERTIES if side.get(name) is True))


def _cache_leaves(side: Side) -> CacheLeaves | None:
    """What was recorded of these caches; between two releases what both say, if they agree."""
    facts = stored_facts("caches.json")
    name = facts["same_as"].get(side.build.name, side.build.name)
    if name in facts["releases"]:
        return _recorded(name, side)
    measured = [known for known in facts["releases"] if "-" not in known]
    around = interpolated(side.build, measured)
    if around is None:
        return None
    older, newer = (_recorded(release, side) for release in around)
    agree = (
        older is not None and newer is not None and _unshared(older, side) == _unshared(newer, side)
    )
    return newer if agree else None


def _recorded(name: str, side: Side) -> CacheLeaves | None:
    facts = stored_facts("caches.json")
    index = facts["releases"][name].get(cache_table(side), {}).get(caches_on(side))
    return None if index is None else cast(CacheLeaves, facts["leaves"][index])


def _unshared(leaves: CacheLeaves, side: Side) -> dict[tuple[str, Register], int]:
    """The registers that a guest sees, without how vCPUs are counted in them: other facts tell."""
    found: dict[tuple[str, Register], int] = {}
    for leaf, values in leaves.items():
        if not side.shows(int(leaf.partition(".")[0], 16)):
            continue
        for register, text in zip(REGISTERS, values, strict=True):
            shared = register == "eax" and leaf.startswith(SHARING_LEAVES)
            found[leaf, register] = int(text, 16) & (0x3FFF if shared else 0xFFFFFFFF)
    return found
