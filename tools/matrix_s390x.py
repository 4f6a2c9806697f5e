#!/usr/bin/env python3
"""Prints the table of s390x for docs/proof.md: what models become under other machine types, and
what their static expansions become there. Asks every QEMU that is named.

    tools/matrix_s390x.py QEMU…
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from cpumap.cpu.expansion import CpuModel
from cpumap.cpu.machine_type import oldest_first
from cpumap.sources.live import QemuSource

_HOST_LIKE = "max"
"""Whatever the accelerator has: nothing is promised of it."""


def main() -> int:
    """Prints one line of the table for each QEMU."""
    print("| QEMU | models by machine types | by name otherwise | pinned, the same |")
    print("| --- | --- | --- | --- |")
    for binary in sys.argv[1:]:
        with QemuSource(binary) as source:
            print("| " + " | ".join(_row(source)) + " |", flush=True)
    return 0


def _row(source: QemuSource) -> Iterator[str]:
    machines = [machine.name for machine in oldest_first(source.machines())]
    newest = machines[-1]
    named = {machine: _static(source, machine, _models(source, machine)) for machine in machines}
    pairs = [(model, machine) for machine in machines for model in named[machine]]
    drifted = sum(named[machine][model] != named[newest][model] for model, machine in pairs)
    held = asked = 0
    for machine in machines:
        for place, cpus in ((newest, named[machine]), (machine, named[newest])):
            again = source.expand_many(place, cpus.values(), "static")
            held += sum(one == other for one, other in zip(again, cpus.values(), strict=True))
            asked += len(cpus)
    yield source.version
    yield f"{len(pairs)}"
    yield f"{drifted}"
    yield f"{held} of {asked}"


def _models(source: QemuSource, machine: str) -> list[str]:
    return [entry.name for entry in source.definitions(machine) if entry.name != _HOST_LIKE]


def _static(source: QemuSource, machine: str, models: list[str]) -> dict[str, CpuModel]:
    found = source.expand_many(machine, map(CpuModel, models), "static")
    return dict(zip(models, found, strict=True))


if __name__ == "__main__":
    sys.exit(main())
