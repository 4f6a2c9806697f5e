"""Proves that what is said of a release between two measured ones is right, or "unknown".

    tools/leave_one_out.py [--every N]

Each QEMU that is here is taken out of the facts, as if nobody had measured it, and moves to and
from it are predicted from what its neighbours do. A guest says whether that was right. Prints a
Markdown table; exits with 1 when a prediction was wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from shutil import copytree
from tempfile import TemporaryDirectory
from typing import Any

import qemus
from matrix_moves import TOPOLOGIES, Bench, Move

from cpumap.cpu.machine_type import release
from cpumap.cpu.topology import Topology

TREE = Path(__file__).resolve().parent.parent
LEFT_OUT = ("7.2", "8.2-ubuntu", "10.0.2", "10.0")
"""Those with a measured release on both sides."""


BUILDS = {
    "7.2": ("7.2.22", "7.2.18"),
    "8.2-ubuntu": ("8.2.2-ubuntu",),
    "10.0.2": ("10.0.2",),
    "10.0": ("10.0.13",),
}
"""As the facts call them, and what is of the same release and says the same."""


def without(facts: dict[str, Any], name: str) -> dict[str, Any]:
    """The dated facts as they would be known had this QEMU not been measured."""
    measured = [version for version in facts["measured"] if version != name]
    builds = [build for build in facts["measured_builds"] if build != name]
    return {
        **{key: _redated(value, name, measured) for key, value in facts.items()},
        "measured": measured,
        "measured_builds": builds,
    }


def _redated(value: Any, name: str, measured: list[str]) -> Any:
    """Each entry's dates, moved away from this QEMU to its neighbours."""
    if isinstance(value, list):
        return [_redated(inner, name, measured) for inner in value]
    if not isinstance(value, dict):
        return value
    found = {key: _redated(inner, name, measured) for key, inner in value.items()}
    if "builds" in found:
        found["builds"] = {build: told for build, told in found["builds"].items() if build != name}
    for key, older in (("without", True), ("with", False), ("still", True), ("gone", False)):
        if found.get(key) == name:
            found[key] = _neighbour(name, measured, older=older)
    return found


def _neighbour(name: str, measured: list[str], *, older: bool) -> str:
    wanted = release(name)
    if older:
        return max((found for found in measured if release(found) < wanted), key=release)
    return min((found for found in measured if release(found) > wanted), key=release)


def moves(bench: Bench, name: str, every: int) -> Iterator[Move]:
    """To and from this QEMU, for a sample of models, with one vCPU and several."""
    for other in bench.binaries:
        if other == name:
            continue
        for here, there in ((name, other), (other, name)):
            common = set(bench.machines(here, "pc-q35")) & set(bench.machines(there, "pc-q35"))
            machine = max(common, key=lambda machine: release(machine.rpartition("-")[2]))
            for model in bench.models(here)[::every]:
                for topology in (Topology(), *TOPOLOGIES) if model != "base" else ():
                    yield Move(here, machine, there, machine, model, topology=topology)


def measure_without(name: str, every: int) -> Counter[str]:
    """How the moves come out in a process whose facts know nothing of this QEMU."""
    with TemporaryDirectory(prefix="cpumap-") as directory:
        tree = Path(directory)
        for part in ("cpumap", "data", "templates", "tools"):
            copytree(TREE / part, tree / part)
        _forget(tree / "data/x86_64", name)
        command = [sys.executable, __file__, "--only", name, "--every", str(every)]
        environment = {**os.environ, "PYTHONPATH": f"{tree}:{tree / 'tools'}"}
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
    return Counter(json.loads(done.stdout))


def _forget(data: Path, name: str) -> None:
    drift, caches = data / "drift.json", data / "caches.json"
    dated, known = json.loads(drift.read_bytes()), json.loads(caches.read_bytes())
    for build in BUILDS[name]:
        dated = without(dated, build)
        known["same_as"].pop(build, None)
        known["releases"].pop(build, None)
    drift.write_text(json.dumps(dated))
    caches.write_text(json.dumps(known))


def _count(name: str, every: int) -> Counter[str]:
    bench = Bench(qemus.builds())
    found: Counter[str] = Counter()
    try:
        for move in moves(bench, name, every):
            result = bench.result(move)
            outcome = "unknown" if result.unknown else result.outcome
            found[outcome] += 1
            if outcome == "NOT PREDICTED":
                print(outcome, move, file=sys.stderr)
    finally:
        bench.close()
    return found


def _row(name: str, counts: Mapping[str, int]) -> str:
    right = counts.get("same", 0) + counts.get("as predicted", 0)
    unknown, wrong = counts.get("unknown", 0), counts.get("NOT PREDICTED", 0)
    whole = right + unknown + wrong + counts.get("refused", 0)
    shares = [f"{part:,} ({100 * part / whole:.1f} %)" for part in (right, unknown, wrong)]
    return f"| {name} | {whole:,} | {' | '.join(shares)} |"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--every", type=int, default=10, metavar="N", help="every Nth model only")
    parser.add_argument("--only", choices=LEFT_OUT, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only:
        print(json.dumps(_count(arguments.only, arguments.every)))
        return 0
    print("| QEMU left out | moves | right | unknown | wrong |\n| --- | --- | --- | --- | --- |")
    wrong = 0
    for name in LEFT_OUT:
        counts = measure_without(name, arguments.every)
        wrong += counts["NOT PREDICTED"]
        print(_row(name, counts), flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
