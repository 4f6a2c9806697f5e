"""Two QEMUs measured here: what differs between them is told without any shipped fact."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from cpumap.cli.main import main
from tests.support.paths import TREE

pytestmark = pytest.mark.live

PREDICT = """
import json, sys
from cpumap.cpu.expansion import CpuModel
from cpumap.cpu.request import CpuRequest
from cpumap.cpu.topology import Topology
from cpumap.libvirt.cpu_map.load import load_cpu_map
from cpumap.move.hold import hold
from cpumap.pin.expand import default_request, expand
from cpumap.pin.resolve import resolve
from cpumap.sources.platform import Platform
from cpumap.sources.recorded import RecordedSource
from cpumap.sources.recordings import find_recording

cpu_map = load_cpu_map()
here, there = (RecordedSource(find_recording(name, "tcg")) for name in sys.argv[1:3])
known = {d.name for d in here.definitions("pc-q35-7.2")}
found = {}
for model in filter(known.__contains__, sys.argv[3].split()):
    for topology in (Topology(), Topology(cores=3, threads=2), Topology(dies=2, cores=3)):
        asked = CpuRequest(accel="tcg", topology=topology, vcpus=topology.count)
        request = default_request(CpuModel(model), "pc-q35-7.2", asked)
        expansion = expand(request, Platform(here, cpu_map))
        cpu = resolve(request, expansion)
        _, told = hold(cpu, expansion, here, Platform(there, cpu_map))
        bits = [[d.leaf, d.subleaf, d.register, d.xor] for d in told.differences]
        found[f"{model} {topology}"] = [bits, list(told.unknown)]
print(json.dumps(found))
"""

MODELS = (
    "486 athlon core2duo coreduo n270 qemu64 Conroe Nehalem Westmere Haswell Skylake-Client "
    "Skylake-Server Icelake-Server Cooperlake KnightsMill Snowridge Opteron_G5 EPYC-v1 "
    "SapphireRapids max"
)
"""32-bit ones, both vendors, AVX, MPX, AVX-512, PKU, AMX, a cache table of its own."""

LAST_BRANCH_RECORDS = 0x1C
"""What 7.2 leaves in this leaf to chance, as is shipped, looks like a value to who measures it."""


def predictions(
    tree: Path, data: Path, pair: tuple[str, str]
) -> dict[str, tuple[list[list[object]], list[str]]]:
    """What the tree's own code says of each model's move, with the recordings kept in `data`."""
    environment = {**os.environ, "PYTHONPATH": str(tree), "XDG_DATA_HOME": str(data)}
    done = subprocess.run(
        [sys.executable, "-c", PREDICT, *pair, MODELS],
        cwd=tree, env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    found: dict[str, tuple[list[list[object]], list[str]]] = json.loads(done.stdout)
    return found


@pytest.fixture
def without_facts(tmp_path: Path) -> Path:
    """The program with no fact about any QEMU in its drift.json."""
    tree = tmp_path / "tree"
    for name in ("cpumap", "data", "templates"):
        shutil.copytree(TREE / name, tree / name)
    emptied = {"schema": "cpumap.drift/2", "measured": [], "measured_builds": [], "rules": []}
    (tree / "data/x86_64/drift.json").write_text(json.dumps(emptied))
    (tree / "data/x86_64/caches.json").unlink()
    return tree


def test_measured_qemus_need_no_shipped_fact(
    without_facts: Path, qemus: Mapping[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "kept"
    monkeypatch.setenv("XDG_DATA_HOME", str(kept))
    both = ["--qemu", str(qemus["7.2"]), "--qemu", str(qemus["10.0"])]
    assert main(["measure", *both, "--model", "EPYC-v1"]) == 0
    for pair in (("7.2", "10.0"), ("10.0", "7.2")):
        shipped = predictions(TREE, tmp_path / "nothing", pair)
        measured = predictions(without_facts, kept, pair)
        assert len(shipped) >= 50 and shipped.keys() == measured.keys()
        differing = 0
        for what, (bits, unknown) in measured.items():
            assert not unknown, (what, unknown)
            apart = [place for place in bits if place[0] != LAST_BRANCH_RECORDS]
            wanted = [place for place in shipped[what][0] if place[0] != LAST_BRANCH_RECORDS]
            assert apart == wanted, what
            differing += bool(apart)
        assert differing > len(measured) / 4
