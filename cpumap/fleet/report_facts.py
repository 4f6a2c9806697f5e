"""What stands at the head of a report: when and about what it was made, and what is to be done."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping, Sequence

from cpumap.cpu.expansion import Context
from cpumap.fleet.lock import LockedCpu
from cpumap.libvirt.releases import words_of

HeadLines = list[tuple[str, str]]
"""What each fact is about, and the fact."""


_RELEASE = re.compile(r"\bQEMU (\d+(?:\.\d+)+)")


ADVICE: dict[str, str] = {
    "drifts": "`cpumap convert` writes out the CPU that it had; or leave the guest where that is",
    "unknown": "measure both QEMUs (`cpumap measure`), or start it there once and compare",
    "differs": "name what differs in the definition, if the guest must not see it",
    "refused": "see why; `--allow-drift` writes a CPU that cannot stay the same",
    "host": "`cpumap baseline` names the CPU that every host can give",
    "failed": "mend the document or name the QEMU to ask, and run it again",
}
"""What to do about a guest of this status, where nothing better is known; `host`: one that some
host cannot run.
"""


def audit_facts(
    cpus: Mapping[str, LockedCpu], sources: Sequence[str], hosts: Iterable[str]
) -> HeadLines:
    """When, which QEMUs the lock was made on, which were asked, and of which hosts."""
    return _facts(
        ("Locked on", _places(cpu.context for cpu in cpus.values())),
        ("Compared with", ", ".join(sources)),
        ("libvirt", words_of().release),
        ("Hosts", ", ".join(hosts)),
    )


def convert_facts(cpus: Mapping[str, LockedCpu], sources: Sequence[str]) -> HeadLines:
    """When, and of which QEMUs the CPUs are."""
    return _facts(
        ("CPUs as in", _places(cpu.context for cpu in cpus.values())),
        ("Answers from", ", ".join(sources)),
        ("Written for libvirt", words_of().release),
    )


def plan_facts(
    before: Iterable[Context | None], after: Iterable[Context | None], sources: Sequence[str]
) -> HeadLines:
    """When, from which QEMU to which."""
    return _facts(
        ("From", _places(filter(None, before))),
        ("To", _places(filter(None, after))),
        ("Answers from", ", ".join(sources)),
    )


def diff_facts() -> HeadLines:
    """When."""
    return _facts()


def releases_in(facts: HeadLines) -> list[str]:
    """The QEMU releases that the report is about."""
    return sorted({found for _, fact in facts for found in _RELEASE.findall(fact)})


def _facts(*facts: tuple[str, str]) -> HeadLines:
    when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    return [("Date", when), *(fact for fact in facts if fact[1])]


def _places(contexts: Iterable[Context]) -> str:
    """QEMU releases with their accelerators, each once."""
    found = dict.fromkeys(f"QEMU {one.qemu} ({one.accel})" for one in contexts)
    return ", ".join(found)
