"""Ubuntu's QEMU, live: it answers as it was recorded; its own types verified and moved."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from cpumap.cli.main import main
from cpumap.cpu.expansion import CpuModel
from cpumap.proof.measure import Basis
from cpumap.sources.live import QemuSource
from cpumap.sources.recorded import RecordedSource
from cpumap.sources.recordings import find_recording

pytestmark = [pytest.mark.live, pytest.mark.needs("qemu-8.2-ubuntu")]

DOMAIN = """<domain type='qemu'><name>guest</name><memory>1</memory><vcpu>1</vcpu>
  <os><type arch='x86_64' machine='pc-q35-noble-v2'>hvm</type></os>
  <cpu mode='custom'><model>Haswell</model></cpu>
</domain>
"""


@pytest.fixture
def ubuntu(other_qemus: Mapping[str, Path]) -> str:
    """The binary."""
    return str(other_qemus["8.2-ubuntu"])


@pytest.mark.parametrize("machine", ["pc-q35-noble-v2", "pc-i440fx-jammy-hpb", "pc-q35-bionic"])
def test_the_shipped_recording_answers_as_it_does(machine: str, ubuntu: str) -> None:
    recorded = RecordedSource(find_recording("ubuntu", "tcg"))
    with QemuSource(ubuntu) as source:
        assert recorded.build() == source.build()
        models = [CpuModel(d.name) for d in source.definitions(machine) if d.name != "host"]
        for model, live in zip(models, source.expand_many(machine, models, "full"), strict=True):
            assert recorded.expand(machine, model, "full").props == live.props, model


def test_its_own_type_is_verified_and_moved(
    ubuntu: str, qemus: Mapping[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    guest = tmp_path / "guest.xml"
    guest.write_text(DOMAIN)
    here = ["verify", str(guest), "--qemu", ubuntu]
    assert main([*here, "--target-machine", "pc-i440fx-jammy-hpb"]) == 0
    there = ["--target-qemu", str(qemus["10.0"]), "--target-machine", "pc-q35-10.0"]
    capsys.readouterr()
    main([*here, *there, "--format", "json"])
    (place,) = json.loads(capsys.readouterr().out)["places"]
    assert place["as_predicted"], place


def test_what_is_left_to_chance_is_found(ubuntu: str) -> None:
    """Leaf 0x1C: other words at each start."""
    with QemuSource(ubuntu) as source:
        assert Basis(source).undefined(lambda *_: None) == {"1c": {}}
