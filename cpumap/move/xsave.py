"""Leaf 0xD: what a guest reads of XSAVE's components and their sizes, which is not the
properties' alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from cpumap.cpu.bits import Where
from cpumap.move.dates import cause_of, crossed, outcomes
from cpumap.move.side import Side, stored_facts

Components = Mapping[int, tuple[int, int]]
"""Component of XSAVE → its size and its offset in bytes, as subleaves of leaf 0xD have them."""


_AVX = 2


_SIZE_SHOWN = ("xsaveopt", "xsavec", "xgetbv1", "xsaves")
"""Without any of these KVM guests have no subleaf 1."""


_SIZE_BY_KERNEL = ("xsavec", "xsaves")


_OF_TCG = ("compacted", "never", "all_shown")
"""The dated facts that make up leaf 0xD under tcg."""


def xsave(
    before: Side, after: Side, of_host: Components | None, unknown: list[str]
) -> Iterator[tuple[Where, int, str]]:
    """Every register of leaf 0xD that differs, by which bits, and why; what cannot be told goes to
    `unknown`.

    `of_host` are the components that the host's KVM gives; None where nobody knows.
    """
    if after.get("xsave") is not True:
        return
    facts = stored_facts("drift.json")["xsave"]
    if after.accel == "kvm":
        yield from _size(before, after, facts, unknown)
        yield from _shown(before, after, facts, of_host, unknown)
    else:
        yield from _by_tcg(before, after, facts, unknown)


def _size(
    before: Side, after: Side, facts: Mapping[str, Any], unknown: list[str]
) -> Iterator[tuple[Where, int, str]]:
    """The size of the compacted form."""
    how = facts["kvm"]["size"]
    known = crossed(how, before, after)
    if known is False or not any(after.get(name) is True for name in _SIZE_SHOWN):
        return
    has = _has(after, facts)
    if known is None:
        unknown.append(cause_of(how))
    elif has - {_AVX} or any(after.get(name) is True for name in _SIZE_BY_KERNEL):
        unknown.append(f"{how['cause']}: measured with AVX, without XSAVEC, MPX, AVX-512 and PKU")
    else:
        yield (0xD, 1, "ebx"), _compacted(has, facts), cause_of(how)


def _shown(
    before: Side,
    after: Side,
    facts: Mapping[str, Any],
    of_host: Components | None,
    unknown: list[str],
) -> Iterator[tuple[Where, int, str]]:
    """Components that the host has and the CPU has not."""
    how = facts["kvm"]["shown"]
    known = crossed(how, before, after)
    if known is False:
        return
    if known is None or of_host is None:
        unknown.append(f"{cause_of(how)}: which the host has")
        return
    for component in of_host.keys() - _has(after, facts):
        size, offset = of_host[component]
        yield (0xD, component, "eax"), size, cause_of(how)
        yield (0xD, component, "ebx"), offset, cause_of(how)


def _by_tcg(
    before: Side, after: Side, facts: Mapping[str, Any], unknown: list[str]
) -> Iterator[tuple[Where, int, str]]:
    how = facts["tcg"]
    entries = {name: how[name] for name in _OF_TCG}
    found = outcomes(entries, before, after, lambda side, true: _tcg_leaf(side, true, facts))
    if len(found) > 1:
        unknown.append(how["cause"])
        return
    yield from ((where, xor, how["cause"]) for where, xor in found[0].items())


def _tcg_leaf(side: Side, true: Mapping[str, bool], facts: Mapping[str, Any]) -> dict[Where, int]:
    known = {int(bit): part for bit, part in facts["components"].items()}
    never = set(facts["tcg"]["never"]["components"]) if true["never"] else set()
    has = _has(side, facts) - never
    user = {bit for bit in has if not known[bit].get("supervisor")}
    leaf: dict[Where, int] = {
        (0xD, 0, "eax"): 3 | sum(1 << bit for bit in user),
        (0xD, 0, "ecx"): max([0x240, *(known[bit]["offset"] + known[bit]["size"] for bit in user)]),
        (0xD, 1, "ebx"): _compacted(has, facts) if true["compacted"] else 0,
    }
    for bit in {*has, *(facts["tcg"]["all_shown"]["components"] if true["all_shown"] else ())}:
        leaf[0xD, bit, "eax"] = 0 if bit in never else known[bit]["size"]
        leaf[0xD, bit, "ebx"] = known[bit]["offset"]
        leaf[0xD, bit, "ecx"] = 1 if known[bit].get("supervisor") else 0
    return leaf


def _has(side: Side, facts: Mapping[str, Any]) -> set[int]:
    parts = facts["components"].items()
    return {
        int(bit) for bit, part in parts if any(side.get(name) is True for name in part["features"])
    }


def _compacted(has: set[int], facts: Mapping[str, Any]) -> int:
    return 0x240 + sum(int(facts["components"][str(bit)]["size"]) for bit in has)
