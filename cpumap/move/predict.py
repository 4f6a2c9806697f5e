"""What a guest will see change when its CPU moves to another QEMU release, said before anything is
started. Pure.

The facts are data: `data/x86_64/drift.json` (what QEMU's code does in one release and not in
another, each with its cause) and
`data/x86_64/caches.json` (what each release says about caches, which no property describes).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from cpumap.cpu.bits import REGISTERS, CpuidBits, Register, Where, read_leaf, read_where
from cpumap.cpu.explicit import ExplicitCpu
from cpumap.cpu.machine_type import release
from cpumap.cpu.names import PropertyName, Value
from cpumap.cpu.topology import Topology
from cpumap.libvirt.cpu_map.map import CpuMap
from cpumap.move.adapt import Adapted
from cpumap.move.caches import caches
from cpumap.move.dates import (
    Entry,
    applies,
    cause_of,
    crossed,
    interpolated,
    is_within,
    possible,
)
from cpumap.move.measured import (
    Readings,
    measured_bits,
    measured_differences,
    undefined_leaves,
)
from cpumap.move.side import AMD, EXTENDED, ONE_VCPU, Side, stored_facts
from cpumap.move.topology import VCPU_NUMBER, by_topology
from cpumap.move.xsave import Components, xsave

MSR_OWNERS = {
    0xCF: "core-capability",
    0x10A: "arch-capabilities",
    **dict.fromkeys(range(0x480, 0x492), "vmx"),
}
"""MSR → the feature without which a guest has no such register. Guests under tcg read none of
them.
"""


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

    undefined: bool = False
    """Whether one of the two QEMUs leaves it to chance what a guest reads: it need not differ."""

    def covers(self, leaf: int, subleaf: int, register: str, xor: int) -> bool:
        """Whether these bits, as a guest reads them otherwise, are what was said."""
        if self.undefined:  # in every subleaf: none of them is written
            return (self.leaf, self.register) == (leaf, register)
        same = (self.leaf, self.subleaf, self.register) == (leaf, subleaf, register)
        return same and (xor == self.xor or (self.by_vcpu and not xor & ~self.xor))


@dataclass(frozen=True, slots=True)
class Prediction:
    """Everything that will differ; `unknown` says what could not be told, and is empty when all
    of it could.
    """

    differences: tuple[PredictedDifference, ...] = ()
    unknown: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    """Why the other QEMU will not start such a CPU."""
    notes: tuple[str, ...] = ()
    """What the rest rests on, and what no 64-bit code sees."""

    @property
    def holds(self) -> bool:
        """Whether the guest will certainly see the same CPU."""
        return not self.differences and not self.unknown and not self.refused


NOTHING = Prediction()


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of the two QEMUs beyond what is shipped."""

    of_host: Components | None = None
    """The XSAVE components that the host's KVM gives, where that is known."""
    readings: tuple[Readings, Readings] | None = None
    """What guests read on either, where both were measured."""


NO_EVIDENCE = Evidence()


def predict(
    cpu: ExplicitCpu,
    realised: Mapping[PropertyName, Value],
    moved: Adapted,
    cpu_map: CpuMap,
    topology: Topology = ONE_VCPU,
    evidence: Evidence = NO_EVIDENCE,
) -> Prediction:
    """What a guest reads differently after the move of this CPU, whose realised properties these
    are.

    Where both QEMUs were measured, their readings count, else what is shipped.
    """
    gone = {prop.name for prop in moved.unnamed}
    shared = {name: value for name, value in realised.items() if name not in gone}
    before = _side(cpu, {**realised, **cpu.values})
    after = _side(moved.cpu, {**shared, **moved.cpu.values})
    unknown = list(_unknown_places(before, after))
    readings = evidence.readings
    if (
        readings is None
        and not (is_within(before.build) and is_within(after.build))
        and not _one_code(before, after)
    ):
        unknown = [*_beyond(before, after), *unknown]
    bits: dict[Where, list[tuple[int, str]]] = {}
    found = [
        *_by_rules(before, after, unknown, readings is not None),
        *_lost_features(moved, before, after.label, cpu_map, unknown),
    ]
    if readings is None or before.accel == "kvm":
        found += xsave(before, after, evidence.of_host, unknown)
    if readings is None:
        found += caches(before, after, topology, unknown)
        found += by_topology(before, after, topology, unknown)
    else:
        found = [(where, xor & ~measured_bits(where, before), why) for where, xor, why in found]
        found += measured_differences(before, after, readings, topology, unknown)
    unknown += [f"{name}: what {after.label} does without being told" for name in moved.guessed]
    for where, xor, cause in found:
        bits.setdefault(where, []).append((xor, cause))
    differences = [*_summed(bits, after), *_undefined(before, after, readings)]
    return Prediction(
        tuple(sorted(differences, key=lambda d: (d.leaf, d.subleaf, d.register))),
        tuple(dict.fromkeys(filter(None, unknown))),
        tuple(_refused(before, after)),
        tuple(_notes(before, after, readings)),
    )


def _rules(effect: str, side: Side) -> Iterator[Entry]:
    """The rules of this kind that are about such a CPU."""
    for rule in stored_facts("drift.json")["rules"]:
        if rule.get("effect", "bits") == effect and applies(rule, side):
            yield rule


def _by_rules(
    before: Side, after: Side, unknown: list[str], measured: bool
) -> Iterator[tuple[Where, int, str]]:
    newer = _newer(before, after)
    for rule in _rules("bits", newer):
        known = crossed(rule, before, after)
        if measured and _is_measured(rule, newer):
            continue
        if known is None:
            unknown.append(cause_of(rule))
        elif known:
            for name, xor in rule["bits"].items():
                yield read_where(name), int(xor, 16), cause_of(rule)
    unknown.extend(
        cause_of(rule)
        for rule in _rules("unknown", newer)
        if crossed(rule, before, after) is not False
    )


def _undefined(
    before: Side, after: Side, readings: tuple[Readings, Readings] | None
) -> Iterator[PredictedDifference]:
    """Places that one of the two QEMUs does not write."""
    for leaf in sorted(undefined_leaves(readings or ())):
        if after.shows(leaf):
            yield from _by_chance(leaf, 0, "measured: a guest reads other words at each start")
    if readings is not None:
        return
    for rule in _rules("undefined", after):
        if not any(True in possible(rule, side.build) for side in (before, after)):
            continue
        leaf, subleaf = read_leaf(rule["place"])
        yield from _by_chance(leaf, subleaf, cause_of(rule))


def _is_measured(rule: Entry, side: Side) -> bool:
    """Whether readings speak of all that the rule is about."""
    return all(
        not int(xor, 16) & ~measured_bits(read_where(name), side)
        for name, xor in rule["bits"].items()
    )


def _by_chance(leaf: int, subleaf: int, cause: str) -> Iterator[PredictedDifference]:
    for register in REGISTERS:
        yield PredictedDifference(leaf, subleaf, register, 0xFFFFFFFF, cause, undefined=True)


def _refused(before: Side, after: Side) -> Iterator[str]:
    """What the older QEMU does not start, where that is the one to go to."""
    if _newer(before, after) is after:
        return
    for rule in _rules("refused by the older", before):
        if crossed(rule, before, after):
            yield f"{after.label} refuses it: {cause_of(rule)}"


def _notes(before: Side, after: Side, readings: tuple[Readings, Readings] | None) -> Iterator[str]:
    for rule in _rules("note", _newer(before, after)):
        if crossed(rule, before, after) is not False:
            yield cause_of(rule)
    if readings is not None or _one_code(before, after):
        return
    for side in (before, after):
        if around := interpolated(side.build):
            yield f"{side.label} was not measured: taken to do what {' and '.join(around)} both do"


def _one_code(before: Side, after: Side) -> bool:
    return before.build.has_code_of(after.build)


def _beyond(before: Side, after: Side) -> Iterator[str]:
    for side in (before, after):
        if not is_within(side.build):
            yield f"{side.label}: what it does beyond CPU properties has not been measured"


def _newer(before: Side, after: Side) -> Side:
    return max(before, after, key=lambda side: release(side.build.version))


def _side(cpu: ExplicitCpu, values: Mapping[PropertyName, Value]) -> Side:
    return Side(cpu.context.whose, cpu.context.accel, cpu.model, values)


def _unknown_places(before: Side, after: Side) -> Iterator[str]:
    if before.accel != after.accel:
        yield f"from {before.accel} to {after.accel}"
    if not before.get("vendor") and before.accel == "kvm":
        yield "under KVM a CPU without a vendor of its own takes the host's"


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
        if not xor or (register != "msr" and not side.shows(leaf, subleaf)):
            continue
        cause = "; ".join(dict.fromkeys(cause for _, cause in parts))
        by_vcpu = (leaf, register) == VCPU_NUMBER
        yield PredictedDifference(leaf, subleaf, register, xor, cause, by_vcpu)
        if leaf == side.number("level") and subleaf == 0 and not by_vcpu:
            for echo in _echoes(side):
                yield PredictedDifference(
                    echo, 0, register, xor, f"a leaf that does not exist repeats 0x{leaf:x}"
                )


def _echoes(side: Side) -> Iterator[int]:
    if side.accel == "kvm" and side.get("vendor") in AMD:
        return
    yield 0x40000100
    if side.number("xlevel") < EXTENDED:
        yield EXTENDED
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
                f"{after} has no feature {prop.name}, and the CPU map does not say which bit "
                "that is"
            )
            continue
        cause = f"{after} has no feature {prop.name}"
        for bits in feature.bits:
            if isinstance(bits, CpuidBits):
                yield (bits.leaf, bits.subleaf, bits.register), bits.mask, cause
            elif before.accel == "kvm" and before.get(MSR_OWNERS.get(bits.index, "")) is True:
                yield (bits.index, 0, "msr"), bits.mask, cause
