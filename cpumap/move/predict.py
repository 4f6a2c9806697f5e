"""What a guest will see change when its CPU moves to another QEMU release, said before anything is
started. Pure.

The facts are data: `data/x86_64/drift.json` (what QEMU's code does in one release and not in another, each
with its cause) and
`data/x86_64/caches.json` (what each release says about caches, which no property describes).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

from cpumap.cpu.bits import CpuidBits, Register
from cpumap.cpu.explicit import ExplicitCpu
from cpumap.cpu.machine_type import release
from cpumap.cpu.names import PropertyName, Value
from cpumap.cpu.topology import Topology
from cpumap.libvirt.cpu_map.map import CpuMap
from cpumap.move.adapt import Adapted
from cpumap.move.caches import caches
from cpumap.move.side import AMD, ONE_VCPU, Side, Where, crossed, stored_facts
from cpumap.move.topology import VCPU_NUMBER, core_count, counts, topology_leaf
from cpumap.move.xsave import Components, xsave

MSR_OWNERS = {
    0xCF: "core-capability",
    0x10A: "arch-capabilities",
    **dict.fromkeys(range(0x480, 0x492), "vmx"),
}
"""MSR → the feature without which a guest has no such register. Guests under tcg read none of
them.
"""


_EXTENDED = 0x80000000


_CENTAUR = 0xC0000000


@dataclass(frozen=True, slots=True)
class PredictedDifference:
    """Bits of one register that a guest will read differently, and why."""

    leaf: int
    subleaf: int
    register: Register | Literal["msr"]
    xor: int
    cause: str
    by_vcpu: bool = False
    """Whether it is the number of the vCPU that reads: each reads some of these bits otherwise."""

    def covers(self, leaf: int, subleaf: int, register: str, xor: int) -> bool:
        """Whether these bits, as a guest reads them otherwise, are what was said."""
        same = (self.leaf, self.subleaf, self.register) == (leaf, subleaf, register)
        return same and (xor == self.xor or (self.by_vcpu and not xor & ~self.xor))


@dataclass(frozen=True, slots=True)
class Prediction:
    """Everything that will differ; `unknown` says what could not be told, and is empty when all
    of it could.
    """

    differences: tuple[PredictedDifference, ...] = ()
    unknown: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        """Whether the guest will certainly see the same CPU."""
        return not self.differences and not self.unknown


NOTHING = Prediction()


def predict(
    cpu: ExplicitCpu,
    realised: Mapping[PropertyName, Value],
    moved: Adapted,
    cpu_map: CpuMap,
    topology: Topology = ONE_VCPU,
    of_host: Components | None = None,
) -> Prediction:
    """What a guest reads differently after the move of this CPU, whose realised properties these
    are.

    `of_host` are the XSAVE components that the host's KVM gives, where that is known.
    """
    gone = {prop.name for prop in moved.unnamed}
    shared = {name: value for name, value in realised.items() if name not in gone}
    before = _side(cpu, {**realised, **cpu.values})
    after = _side(moved.cpu, {**shared, **moved.cpu.values})
    facts = stored_facts("drift.json")
    if before.release == after.release:
        return NOTHING
    unknown = list(_unknown_places(before, after, facts, topology))
    if not {before.release, after.release} <= set(facts["releases"]):
        return Prediction(unknown=tuple(unknown))
    bits: dict[Where, list[tuple[int, str]]] = {}
    found = [
        *_by_rules(before, after),
        *xsave(before, after, of_host, unknown),
        *caches(before, after, topology, unknown),
        *_by_topology(before, after, topology),
        *_lost_features(moved, before, after.release, cpu_map, unknown),
    ]
    for where, xor, cause in found:
        bits.setdefault(where, []).append((xor, cause))
    return Prediction(tuple(_summed(bits, after)), tuple(dict.fromkeys(unknown)))


def _by_rules(before: Side, after: Side) -> Iterator[tuple[Where, int, str]]:
    newer = _newer(before, after)
    for rule in stored_facts("drift.json")["rules"]:
        here = rule.get("accel", newer.accel) == newer.accel
        if here and crossed(rule["since"], before, after) and _fits(rule["when"], newer):
            yield from (
                (_where(name), int(xor, 16), rule["cause"]) for name, xor in rule["bits"].items()
            )


def _by_topology(before: Side, after: Side, topology: Topology) -> Iterator[tuple[Where, int, str]]:
    facts, newer = stored_facts("drift.json"), _newer(before, after)
    if crossed(facts["topology"]["since"], before, after):
        yield from (
            (where, xor, facts["topology"]["cause"]) for where, xor in counts(before, topology)
        )
    leaf, hidden = facts["topology_leaf"], facts["core_count"]
    if crossed(leaf["since"], before, after) and newer.get("x-force-cpuid-0x1f") is True:
        yield from ((where, xor, leaf["cause"]) for where, xor in topology_leaf(topology))
    if crossed(hidden["since"], before, after) and newer.get("x-vendor-cpuid-only-v2") is True:
        yield from ((where, xor, hidden["cause"]) for where, xor in core_count(newer, topology))


def _newer(before: Side, after: Side) -> Side:
    return max(before, after, key=lambda side: release(side.release))


def _side(cpu: ExplicitCpu, values: Mapping[PropertyName, Value]) -> Side:
    series = str(release(cpu.context.qemu).series)
    return Side(series, cpu.context.accel, cpu.model, values)


def _unknown_places(
    before: Side, after: Side, facts: Mapping[str, Any], topology: Topology
) -> Iterator[str]:
    for side in (before, after):
        if side.release not in facts["releases"]:
            yield f"QEMU {side.release}: what it does beyond CPU properties has not been measured"
    if before.accel != after.accel:
        yield f"from {before.accel} to {after.accel}"
    if topology.clusters > 1 and crossed(facts["topology"]["since"], before, after):
        yield f"{facts['topology']['cause']}; how with clusters"
    if not before.get("vendor") and before.accel == "kvm":
        yield "under KVM a CPU without a vendor of its own takes the host's"
    elif not before.get("vendor") and topology != ONE_VCPU:
        yield "what several vCPUs make of a CPU without a vendor and levels"


def _fits(when: Mapping[str, Any], side: Side) -> bool:
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


def _summed(
    bits: Mapping[Where, list[tuple[int, str]]], side: Side
) -> Iterator[PredictedDifference]:
    """One difference for each register in sight, echoes of the highest leaf in leaves that do
    not exist included.
    """
    for (leaf, subleaf, register), parts in sorted(bits.items()):
        xor = 0
        for part, _ in parts:
            xor ^= part
        if not xor or (register != "msr" and not _in_sight(leaf, side)):
            continue
        cause = "; ".join(dict.fromkeys(cause for _, cause in parts))
        by_vcpu = (leaf, register) == VCPU_NUMBER
        yield PredictedDifference(leaf, subleaf, register, xor, cause, by_vcpu)
        if leaf == side.number("level") and subleaf == 0 and not by_vcpu:
            for echo in _echoes(side):
                yield PredictedDifference(
                    echo, 0, register, xor, f"a leaf that does not exist repeats 0x{leaf:x}"
                )


def _in_sight(leaf: int, side: Side) -> bool:
    if leaf >= _EXTENDED:
        return leaf <= side.number("xlevel")
    return leaf <= side.number("level")


def _echoes(side: Side) -> Iterator[int]:
    if side.accel == "kvm" and side.get("vendor") in AMD:
        return
    yield 0x40000100
    if side.number("xlevel") < _EXTENDED:
        yield _EXTENDED
    if side.number("xlevel2") < _CENTAUR:
        yield _CENTAUR


def _lost_features(
    moved: Adapted, before: Side, after: str, cpu_map: CpuMap, unknown: list[str]
) -> Iterator[tuple[Where, int, str]]:
    """Features that were on, and that the other QEMU has no name for."""
    for prop in moved.unnamed:
        if prop.value is not True or not prop.feature:
            continue
        feature = cpu_map.features.get(cpu_map.feature_of(prop.name))
        if feature is None:
            unknown.append(
                f"QEMU {after} has no feature {prop.name}, and the CPU map does not say which bit "
                "that is"
            )
            continue
        cause = f"QEMU {after} has no feature {prop.name}"
        for bits in feature.bits:
            if isinstance(bits, CpuidBits):
                yield (bits.leaf, bits.subleaf, bits.register), bits.mask, cause
            elif before.accel == "kvm" and before.get(MSR_OWNERS.get(bits.index, "")) is True:
                yield (bits.index, 0, "msr"), bits.mask, cause
