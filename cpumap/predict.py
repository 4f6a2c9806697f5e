"""What a guest will see change when its CPU moves to another QEMU release, said before anything is started. Pure.

The facts are data: `data/drift.json` (what QEMU's code does in one release and not in another, each with its cause) and
`data/caches.json` (what each release says about caches, which no property describes).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, cast

from cpumap.adapt import Adapted
from cpumap.cpu import Accel, ExplicitCpu, PropertyName, Topology, Value
from cpumap.cpu_map import CpuMap
from cpumap.cpu_map_entries import REGISTERS, CpuidBits, Register
from cpumap.data import data_path

CACHE_LEAVES = (0x2, 0x4, 0x80000000, 0x80000005, 0x80000006, 0x8000001D)
"""Leaves that say which caches there are; AMD's have no vendor in 0x80000000 unless they say it for themselves."""

SHARING_LEAVES = (0x4, 0x8000001D)
"""Those of them that say as well how many vCPUs share a cache."""

CACHE_PROPERTIES = tuple(
    PropertyName(name)
    for name in (
        "l3-cache", "topoext", "x-amd-topoext-features-only", "x-consistent-cache", "x-vendor-cpuid-only",
        "x-vendor-cpuid-only-v2",
    )
)  # fmt: skip
"""The properties that act on these leaves, legacy-cache and vendor apart."""

_AMD = ("AuthenticAMD", "HygonGenuine")
_CENTAUR = 0xC0000000
ONE_VCPU = Topology()

Where = tuple[int, int, Register]
"""Leaf, subleaf, register."""


@dataclass(frozen=True, slots=True)
class PredictedDifference:
    """Bits of one register that a guest will read differently, and why."""

    leaf: int
    subleaf: int
    register: Register | Literal["msr"]
    xor: int
    cause: str


@dataclass(frozen=True, slots=True)
class Prediction:
    """Everything that will differ; `unknown` says what could not be told, and is empty when all of it could."""

    differences: tuple[PredictedDifference, ...] = ()
    unknown: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        """Whether the guest will certainly see the same CPU."""
        return not self.differences and not self.unknown


NOTHING = Prediction()


@dataclass(frozen=True, slots=True)
class _Side:
    release: str
    accel: Accel
    model: str
    values: Mapping[PropertyName, Value]

    def get(self, name: str) -> Value | None:
        return self.values.get(PropertyName(name))

    def number(self, name: str) -> int:
        value = self.get(name)
        return value if isinstance(value, int) else 0


def predict(
    cpu: ExplicitCpu,
    realised: Mapping[PropertyName, Value],
    moved: Adapted,
    cpu_map: CpuMap,
    topology: Topology = ONE_VCPU,
) -> Prediction:
    """What a guest reads differently after the move of this CPU, whose realised properties these are."""
    gone = {prop.name for prop in moved.unnamed}
    shared = {name: value for name, value in realised.items() if name not in gone}
    before = _side(cpu, {**realised, **cpu.values})
    after = _side(moved.cpu, {**shared, **moved.cpu.values})
    facts = _facts("drift.json")
    if before.release == after.release:
        return NOTHING
    unknown = list(_unknown_places(before, after, facts, topology))
    if not {before.release, after.release} <= set(facts["releases"]):
        return Prediction(unknown=tuple(unknown))
    bits: dict[Where, list[tuple[int, str]]] = {}
    for where, xor, cause in _all(before, after, moved, cpu_map, topology, unknown):
        bits.setdefault(where, []).append((xor, cause))
    return Prediction(tuple(_summed(bits, after)), tuple(dict.fromkeys(unknown)))


def _all(
    before: _Side, after: _Side, moved: Adapted, cpu_map: CpuMap, topology: Topology, unknown: list[str]
) -> Iterator[tuple[Where, int, str]]:
    facts = _facts("drift.json")
    newer = max(before, after, key=lambda side: _numbers(side.release))
    for rule in facts["rules"]:
        here = rule.get("accel", newer.accel) == newer.accel
        if here and _crossed(rule["since"], before, after) and _fits(rule["when"], newer):
            yield from ((_where(name), int(xor, 16), rule["cause"]) for name, xor in rule["bits"].items())
    yield from _xsave(before, after, facts["xsave"])
    yield from _caches(before, after, topology, unknown)
    if _crossed(facts["topology"]["since"], before, after):
        yield from ((where, xor, facts["topology"]["cause"]) for where, xor in _counts(before, topology))
    leaf, hidden = facts["topology_leaf"], facts["core_count"]
    if _crossed(leaf["since"], before, after) and newer.get("x-force-cpuid-0x1f") is True:
        yield from ((where, xor, leaf["cause"]) for where, xor in _topology_leaf(topology))
        if topology.dies * topology.clusters > 1:
            unknown.append(f"{leaf['cause']}: how with dies or clusters")
    if _crossed(hidden["since"], before, after) and newer.get("x-vendor-cpuid-only-v2") is True:
        yield from ((where, xor, hidden["cause"]) for where, xor in _core_count(newer, topology))
    yield from _lost_features(moved, before.release, after.release, cpu_map, unknown)


def _side(cpu: ExplicitCpu, values: Mapping[PropertyName, Value]) -> _Side:
    release = ".".join(cpu.context.qemu.split(".")[:2])
    return _Side(release, cpu.context.accel, cpu.model, values)


def _unknown_places(before: _Side, after: _Side, facts: Mapping[str, Any], topology: Topology) -> Iterator[str]:
    for side in (before, after):
        if side.release not in facts["releases"]:
            yield f"QEMU {side.release}: what it does beyond CPU properties has not been measured"
    if before.accel != after.accel:
        yield f"from {before.accel} to {after.accel}"
    several = topology.dies * topology.clusters > 1 or _widened(topology.threads) != topology.threads
    if several and _crossed(facts["topology"]["since"], before, after):
        yield f"{facts['topology']['cause']}; how with dies, clusters or an odd number of threads"
    for case in facts["unmeasured"]:
        if case["accel"] == after.accel and _fits(case["when"], after):
            yield case["what"]
    if before.accel == "kvm" and not before.get("vendor"):
        yield "under KVM a CPU without a vendor of its own takes the host's"


def _crossed(since: str, before: _Side, after: _Side) -> bool:
    older, newer = sorted((_numbers(before.release), _numbers(after.release)))
    return older < _numbers(since) <= newer


def _numbers(release: str) -> tuple[int, ...]:
    return tuple(int(part) for part in release.split("."))


def _fits(when: Mapping[str, Any], side: _Side) -> bool:
    for name, wanted in when.items():
        value = side.get(name)
        if isinstance(wanted, dict):
            if side.number(name) < int(wanted["min"], 0):
                return False
        elif value not in (wanted if isinstance(wanted, list) else [wanted]):
            return False
    return True


def _where(name: str) -> Where:
    leaf, subleaf, register = name.split(".")
    return int(leaf, 16), int(subleaf, 16), cast(Register, register)


def _summed(bits: Mapping[Where, list[tuple[int, str]]], side: _Side) -> Iterator[PredictedDifference]:
    """One difference for each register in sight, echoes of the highest leaf in leaves that do not exist included."""
    for (leaf, subleaf, register), parts in sorted(bits.items()):
        xor = 0
        for part, _ in parts:
            xor ^= part
        if not xor or not _in_sight(leaf, side):
            continue
        cause = "; ".join(dict.fromkeys(cause for _, cause in parts))
        yield PredictedDifference(leaf, subleaf, register, xor, cause)
        if leaf == side.number("level") and subleaf == 0:
            for echo in _echoes(side):
                yield PredictedDifference(echo, 0, register, xor, f"a leaf that does not exist repeats 0x{leaf:x}")


def _in_sight(leaf: int, side: _Side) -> bool:
    if leaf >= 0x80000000:
        return leaf <= side.number("xlevel")
    return leaf <= side.number("level")


def _echoes(side: _Side) -> Iterator[int]:
    if side.accel == "kvm" and side.get("vendor") in _AMD:
        return
    yield 0x40000100
    if side.number("xlevel2") < _CENTAUR:
        yield _CENTAUR


def _xsave(before: _Side, after: _Side, facts: Mapping[str, Any]) -> Iterator[tuple[Where, int, str]]:
    """Leaf 0xD, which tcg fills from tables of its own."""
    if after.accel != "tcg" or after.get("xsave") is not True:
        return
    of_before, of_after = (_xsave_leaf(side, facts) for side in (before, after))
    for where in of_before.keys() | of_after.keys():
        if xor := of_before.get(where, 0) ^ of_after.get(where, 0):
            yield where, xor, facts["cause"]


def _xsave_leaf(side: _Side, facts: Mapping[str, Any]) -> dict[Where, int]:
    how = facts["releases"][side.release]
    known = {int(bit): part for bit, part in facts["components"].items()}
    has = {bit for bit, part in known.items() if any(side.get(name) is True for name in part["features"])}
    has -= set(how["never"])
    sizes = [known[bit]["offset"] + known[bit]["size"] for bit in has]
    leaf: dict[Where, int] = {
        (0xD, 0, "eax"): 3 | sum(1 << bit for bit in has),
        (0xD, 0, "ecx"): max([0x240, *sizes]),
        (0xD, 1, "ebx"): 0x240 + sum(known[bit]["size"] for bit in has) if how["compacted"] else 0,
    }
    for bit in known if how["all_shown"] else has:
        leaf[0xD, bit, "eax"] = 0 if bit in how["never"] else known[bit]["size"]
        leaf[0xD, bit, "ebx"] = known[bit]["offset"]
    return leaf


def _widened(count: int) -> int:
    """The next power of two, which is what APIC IDs have room for."""
    return 1 << (count - 1).bit_length()


def _counts(side: _Side, topology: Topology) -> Iterator[tuple[Where, int]]:
    """Where one release gives the number of cores, and the other the room that APIC IDs have for them."""
    cores, room = topology.cores, _widened(topology.cores)
    if side.get("vendor") not in _AMD:
        yield (0x1, 0, "ebx"), (cores ^ room) * topology.threads << 16
    for name, registers in (_cache_leaves(side) or {}).items():
        leaf, subleaf = (int(part, 16) for part in name.split("."))
        if leaf == 0x4 and int(registers[0], 16) & 0x1F:
            yield (leaf, subleaf, "eax"), ((cores - 1) ^ (room - 1)) << 26
        elif (leaf, subleaf) == (0x8000001D, 3) and int(registers[0], 16) & 0x1F:
            yield (leaf, subleaf, "eax"), (cores * topology.threads - 1 ^ room * topology.threads - 1) << 14


def _topology_leaf(topology: Topology) -> Iterator[tuple[Where, int]]:
    """Leaf 0x1F where there are only cores and threads: for each level its shift, its number and its type."""
    threads, cores = topology.threads, topology.cores * topology.threads
    width = (_widened(threads) - 1).bit_length()
    levels = ((width, threads, 0x100), (width + (_widened(topology.cores) - 1).bit_length(), cores, 0x201), (0, 0, 2))
    for subleaf, (shift, count, kind) in enumerate(levels):
        yield (0x1F, subleaf, "eax"), shift
        yield (0x1F, subleaf, "ebx"), count
        yield (0x1F, subleaf, "ecx"), kind


def _core_count(side: _Side, topology: Topology) -> Iterator[tuple[Where, int]]:
    """AMD's number of cores, which other vendors' CPUs do not give any more."""
    count = topology.cores * topology.threads
    if side.get("vendor") not in _AMD and count > 1:
        yield (0x80000008, 0, "ecx"), (_widened(topology.cores) * topology.threads - 1).bit_length() << 12 | count - 1


def _caches(before: _Side, after: _Side, topology: Topology, unknown: list[str]) -> Iterator[tuple[Where, int, str]]:
    of_before, of_after = _cache_leaves(before), _cache_leaves(after)
    for side, leaves in ((before, of_before), (after, of_after)):
        if leaves is None:
            unknown.append(
                f"QEMU {side.release}: what it says about the caches of {_cache_table(side)} was not recorded"
            )
    if of_before is None or of_after is None or of_before == of_after:
        return
    words = [_cache_table(one) + _cache_switches(one, other) for one, other in ((before, after), (after, before))]
    cause = f"caches: QEMU {before.release} has {words[0]}, QEMU {after.release} {words[1]}"
    found = list(_cache_differences(of_before, of_after))
    shared = any(leaf in SHARING_LEAVES and _in_sight(leaf, after) for (leaf, _, _), _ in found)
    if shared and topology != ONE_VCPU:
        unknown.append(f"{cause}, and how many vCPUs share them")
    yield from ((where, xor, cause) for where, xor in found)


def _cache_differences(
    of_before: Mapping[str, Sequence[str]], of_after: Mapping[str, Sequence[str]]
) -> Iterator[tuple[Where, int]]:
    for name in of_before.keys() | of_after.keys():
        leaf, subleaf = (int(part, 16) for part in name.split("."))
        a, b = (leaves.get(name, ["0"] * 4) for leaves in (of_before, of_after))
        for register, in_a, in_b in zip(REGISTERS, a, b, strict=True):
            if xor := int(in_a, 16) ^ int(in_b, 16):
                yield (leaf, subleaf, register), xor


def _cache_table(side: _Side) -> str:
    vendor = side.get("vendor") or "AuthenticAMD"
    return f"{'legacy' if side.get('legacy-cache') is not False else side.model} {vendor}"


def _cache_switches(side: _Side, other: _Side) -> str:
    """The properties that act on caches and are on here, and off there."""
    alone = [name for name in CACHE_PROPERTIES if side.get(name) is True and other.get(name) is False]
    return f" with {', '.join(alone)}" if alone else ""


def _cache_leaves(side: _Side) -> Mapping[str, Sequence[str]] | None:
    facts = _facts("caches.json")
    on = " ".join(sorted(name for name in CACHE_PROPERTIES if side.get(name) is True))
    index = facts["releases"].get(side.release, {}).get(_cache_table(side), {}).get(on)
    return None if index is None else cast(Mapping[str, Sequence[str]], facts["leaves"][index])


def _lost_features(
    moved: Adapted, before: str, after: str, cpu_map: CpuMap, unknown: list[str]
) -> Iterator[tuple[Where, int, str]]:
    """Features that were on, and that the other QEMU has no name for."""
    for prop in moved.unnamed:
        if prop.value is not True or not prop.feature:
            continue
        feature = cpu_map.features.get(cpu_map.feature_of(prop.name))
        if feature is None:
            unknown.append(f"QEMU {after} has no feature {prop.name}, and the CPU map does not say which bit that is")
            continue
        for bits in feature.bits:
            if isinstance(bits, CpuidBits):
                yield (bits.leaf, bits.subleaf, bits.register), bits.mask, f"QEMU {after} has no feature {prop.name}"


@cache
def _facts(name: str) -> dict[str, Any]:
    return cast(dict[str, Any], json.loads(data_path(name).read_bytes()))
