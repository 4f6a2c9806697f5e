"""Values from outside: what is wrong with them is said with the file and the place in it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cpumap.cli.main import main
from tests.support.paths import TREE

EXAMPLE = str(TREE / "data/examples/emulated.xml")
RECORDING = TREE / "data/x86_64/expansions/7.2.22_x86_64_tcg.json"

Change = Callable[[Any], object]


def _lock(path: Path) -> None:
    assert main(["lock", "--recorded", "7.2", "-o", str(path), EXAMPLE]) == 0


LOCKS: dict[str, Change] = {
    "cpus: expected an object": lambda lock: lock.update(cpus=[]),
    "guests.x.cpu: expected a CPU of the lock": lambda lock: lock["guests"].update(
        x={"from": "x", "cpu": "none"}
    ),
    "guests.x.from: expected text": lambda lock: lock["guests"].update(x={"from": []}),
    "cpus.1.model: expected text": lambda lock: lock["cpus"]["1"].update(model=1),
    "cpus.1: expected an object with 'model'": lambda lock: lock["cpus"]["1"].pop("model"),
    "cpus.1.request.vcpus: expected a whole number": lambda lock: lock["cpus"]["1"][
        "request"
    ].update(vcpus="two"),
    "cpus.1.context.accel: expected 'kvm' or 'tcg'": lambda lock: lock["cpus"]["1"][
        "context"
    ].update(accel="xen"),
    "cpus.1.properties.avx: expected true, false": lambda lock: lock["cpus"]["1"][
        "properties"
    ].update(avx=[1]),
}


@pytest.mark.parametrize(("said", "change"), LOCKS.items(), ids=LOCKS)
def test_what_is_wrong_is_named_with_its_place(
    tmp_path: Path, said: str, change: Change, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "lock.json"
    _lock(path)
    lock = json.loads(path.read_bytes())
    change(lock)
    path.write_text(json.dumps(lock))
    capsys.readouterr()
    assert main(["audit", "--recorded", "7.2", str(path)]) == 2
    assert capsys.readouterr().err.startswith(f"cpumap: {path}: not a lock: {said}")


@pytest.mark.parametrize("chain", [{"base": "base"}, {"base": "max", "max": "base"}])
def test_a_recording_that_goes_in_a_circle_is_refused(
    tmp_path: Path, chain: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    recording = json.loads(RECORDING.read_bytes())
    recording["like"].update(chain)
    path = tmp_path / "recording.json"
    path.write_text(json.dumps(recording))
    assert main(["translate", "--recorded", str(path), EXAMPLE]) == 3
    said = capsys.readouterr().err
    assert said.startswith(f"cpumap: {path}: like.")
    assert "expected a chain of models that are there, and ends" in said


def test_every_shipped_recording_is_one(tmp_path: Path) -> None:
    for recording in sorted((TREE / "data/x86_64/expansions").glob("*.json")):
        path = tmp_path / recording.name
        path.write_bytes(recording.read_bytes())
        assert main(["machines", "--recorded", str(path)]) == 0
