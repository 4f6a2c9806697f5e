"""An audit as metrics, in the text format that Prometheus' node exporter collects.

Source: Prometheus' documentation, "Exposition formats".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from cpumap import __version__
from cpumap.fleet.audit import State
from cpumap.fleet.calls import Findings

STATES: tuple[State, ...] = ("holds", "drifts", "unknown", "refused")


class _Sample(NamedTuple):
    labels: Mapping[str, str]
    value: int


def metrics(found: Findings) -> str:
    """The whole text, each metric with its help and its type."""
    families = (*_of_guests(found), *_of_the_audit(found))
    return "".join(line for family in families for line in family)


def _of_guests(found: Findings) -> Iterator[Iterator[str]]:
    states = Counter[State]()
    each = []
    for entry in found.audited:
        state = entry.state
        states[state] += len(entry.case.guests)
        each += [_Sample({"guest": guest, "state": state}, 1) for guest in entry.case.guests]
    yield _family(
        "cpumap_guests",
        "Guests with a locked CPU, by what became of it.",
        [_Sample({"state": state}, states[state]) for state in STATES],
    )
    yield _family("cpumap_guest", "What became of the locked CPU of each guest.", each)
    differences = [
        _Sample({"guest": guest, "gravity": grave}, number)
        for entry in found.audited
        for guest in entry.case.guests
        for grave, number in sorted(Counter(drift.gravity for drift in entry.drifts).items())
    ]
    yield _family(
        "cpumap_guest_differences",
        "Properties of a guest's CPU that are not as locked, by gravity.",
        differences,
    )


def _of_the_audit(found: Findings) -> Iterator[Iterator[str]]:
    counts = (
        ("gone", "Guests that were locked and are not there.", len(found.gone)),
        ("new", "Guests that are there and were not locked.", len(found.new)),
        ("not_locked", "Guests whose CPU could not be locked.", len(found.lock.refused)),
    )
    for name, about, number in counts:
        yield _family(f"cpumap_guests_{name}", about, [_Sample({}, number)])
    blocked = [
        _Sample({"host": host}, sum(len(found.guests(key)) for key in entries if entries[key]))
        for host, entries in found.blocked.items()
    ]
    yield _family(
        "cpumap_host_guests_blocked", "Guests that cannot run on a described host.", blocked
    )
    yield _family(
        "cpumap_audit_holds",
        "Whether every guest is there, no other is, and each keeps its CPU.",
        [_Sample({}, int(found.holds))],
    )
    sources = [_Sample({"source": name, "version": __version__}, 1) for name in found.sources]
    yield _family("cpumap_audit_source", "What the answers of the audit are from.", sources)


def _family(name: str, about: str, samples: Iterable[_Sample]) -> Iterator[str]:
    samples = list(samples)
    if not samples:
        return
    yield f"# HELP {name} {about}\n# TYPE {name} gauge\n"
    for labels, value in samples:
        text = ",".join(f'{label}="{_escaped(words)}"' for label, words in labels.items())
        yield f"{name}{f'{{{text}}}' if text else ''} {value}\n"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
