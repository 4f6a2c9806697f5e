"""In which QEMUs a fact of `data/x86_64/drift.json` is true: known for those that were measured,
taken to be so between two of them that agree, and else unknown.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from cpumap.cpu.bits import Where
from cpumap.cpu.build import Build
from cpumap.cpu.machine_type import Release, release
from cpumap.move.side import Side, stored_facts

Entry = Mapping[str, Any]
"""One dated fact."""


Read = Callable[[Side, Mapping[str, bool]], Mapping[Where, int]]
"""What a guest reads of a CPU where these facts are true of its QEMU."""


def possible(entry: Entry, build: Build) -> tuple[bool, ...]:
    """Whether the fact is true of this QEMU; both answers where nobody knows."""
    told = entry.get("builds", {}).get(build.name)
    if told is not None:
        return (bool(told),)
    if not is_within(build):
        return (False, True)
    return _by_date(entry, release(build.version))


def _by_date(entry: Entry, wanted: Release) -> tuple[bool, ...]:
    if wanted <= release(entry["without"]):
        return (False,)
    if wanted < release(entry["with"]):
        return (False, True)
    if "gone" not in entry or wanted <= release(entry["still"]):
        return (True,)
    return (False,) if release(entry["gone"]) <= wanted else (False, True)


def is_within(build: Build) -> bool:
    """Whether anything is known of this QEMU: it was measured, or releases on both sides of it.

    What a distribution changes, it alone knows: nothing is taken from upstream's neighbours.
    """
    facts = stored_facts("drift.json")
    if build.vendor:
        return build.name in facts["measured_builds"]
    measured = [release(version) for version in facts["measured"]]
    return min(measured) <= release(build.version) <= max(measured)


def interpolated(build: Build, measured: Iterable[str] | None = None) -> tuple[str, str] | None:
    """The two measured releases between which this one is; None where itself was measured, or where
    it is not between any.
    """
    known = sorted(map(release, measured or stored_facts("drift.json")["measured"]))
    wanted = release(build.version)
    older = [found for found in known if found < wanted]
    newer = [found for found in known if found > wanted]
    if build.vendor or wanted in known or not older or not newer:
        return None
    return str(older[-1]), str(newer[0])


def crossed(entry: Entry, before: Side, after: Side) -> bool | None:
    """Whether the fact is true of one of the two and not of the other; None where nobody knows."""
    answers = {
        here != there
        for here in possible(entry, before.build)
        for there in possible(entry, after.build)
    }
    return answers.pop() if len(answers) == 1 else None


def outcomes(
    entries: Mapping[str, Entry], before: Side, after: Side, read: Read
) -> list[dict[Where, int]]:
    """What may differ when both QEMUs' code is read: one outcome where all is known that matters,
    else one for each possibility.
    """
    of_before, of_after = (_readings(entries, side, read) for side in (before, after))
    found: list[dict[Where, int]] = []
    for here, there in itertools.product(of_before, of_after):
        bits = {w: here.get(w, 0) ^ there.get(w, 0) for w in here.keys() | there.keys()}
        different = {where: xor for where, xor in bits.items() if xor}
        if different not in found:
            found.append(different)
    return found


def _readings(entries: Mapping[str, Entry], side: Side, read: Read) -> list[Mapping[Where, int]]:
    answers = [possible(entry, side.build) for entry in entries.values()]
    return [
        read(side, dict(zip(entries, states, strict=True)))
        for states in itertools.product(*answers)
    ]


def applies(entry: Entry, side: Side) -> bool:
    """Whether the fact is about such a CPU."""
    if entry.get("accel", side.accel) != side.accel:
        return False
    return all(_fits(wanted, side, name) for name, wanted in entry.get("when", {}).items())


def _fits(wanted: Any, side: Side, name: str) -> bool:
    if not isinstance(wanted, dict):
        return side.get(name) in (wanted if isinstance(wanted, list) else [wanted])
    if "not" in wanted:
        return side.get(name) not in wanted["not"]
    return side.number(name) >= int(wanted["min"], 0)


def cause_of(entry: Entry) -> str:
    """The fact in words, with its dates."""
    words = f"{entry['cause']}, in QEMU {entry['with']} and not in {entry['without']}"
    return f"{words} nor in {entry['gone']}" if "gone" in entry else words
