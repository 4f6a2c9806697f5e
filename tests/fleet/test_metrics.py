"""What `audit` says to Prometheus is in its text format, and says what the audit says."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from cpumap.cli.main import main
from tests.support.documents import RECORDED, small
from tests.support.paths import TREE

SAMPLE = re.compile(
    r'(?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(?P<labels>(?:[a-z_]+="(?:[^"\\\n]|\\[\\"n])*",?)+)\})?'
    r" (?P<value>[0-9]+)"
)
LABEL = re.compile(r'([a-z_]+)="((?:[^"\\]|\\.)*)"')

Sample = tuple[str, frozenset[tuple[str, str]]]


def _read(text: str) -> dict[Sample, int]:
    """The samples, by name and labels; each stands below its own HELP and TYPE, and only once."""
    assert text.endswith("\n")
    found: dict[Sample, int] = {}
    described: list[str] = []
    for line in text.splitlines():
        if line.startswith("# "):
            described = [*described[-1:], " ".join(line.split(" ")[1:3])]
            continue
        sample = SAMPLE.fullmatch(line)
        assert sample, line
        name = sample["name"]
        assert described == [f"HELP {name}", f"TYPE {name}"], line
        key = name, frozenset(LABEL.findall(sample["labels"] or ""))
        assert key not in found, line
        found[key] = int(sample["value"])
    return found


def _of(samples: dict[Sample, int], name: str) -> dict[frozenset[tuple[str, str]], int]:
    return {labels: value for (metric, labels), value in samples.items() if metric == name}


def test_as_the_audit_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lock = tmp_path / "lock"
    main(["lock", str(TREE / "data/examples"), "--recorded", "10.0", "-o", str(lock)])
    audit = ["audit", str(lock), "--recorded", "11.1"]
    capsys.readouterr()
    code = main([*audit, "--format", "json"])
    said = json.loads(capsys.readouterr().out)
    textfile = tmp_path / "cpumap.prom"
    assert main([*audit, "--format", "prometheus", "--metrics", str(textfile)]) == code == 1
    text = capsys.readouterr().out
    assert textfile.read_text() == text
    samples = _read(text)
    guests = {
        dict(labels)["guest"]: dict(labels)["state"] for labels in _of(samples, "cpumap_guest")
    }
    told = {guest: entry for entry in said["cpus"] for guest in entry["guests"]}
    assert guests.keys() == told.keys()
    for guest, entry in told.items():
        assert (guests[guest] == "holds") == entry["holds"]
        assert (guests[guest] == "refused") == bool(entry["refused"])
    for labels, number in _of(samples, "cpumap_guests").items():
        assert number == list(guests.values()).count(dict(labels)["state"])
    assert samples["cpumap_audit_holds", frozenset()] == 0


def test_a_name_with_anything_in_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fleet = tmp_path / "fleet"
    fleet.mkdir()
    name = 'a"b\\c {x="1"} 2\nd.xml'
    (fleet / name).write_bytes(small("g", "Haswell", "pc-q35-5.2"))
    lock = tmp_path / "lock"
    assert main(["lock", str(fleet), "-o", str(lock), *RECORDED]) == 0
    capsys.readouterr()
    assert main(["audit", str(lock), *RECORDED, "--format", "prometheus"]) == 0
    [labels] = _of(_read(capsys.readouterr().out), "cpumap_guest")
    escaped = dict(labels)["guest"]
    read = re.sub(r"\\(.)", lambda match: {"n": "\n"}.get(match[1], match[1]), escaped)
    assert read.endswith(name)


def test_guests_that_are_gone_and_new(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fleet = tmp_path / "fleet"
    fleet.mkdir()
    (fleet / "a.xml").write_bytes(small("a", "Haswell", "pc-q35-5.2"))
    lock = tmp_path / "lock"
    assert main(["lock", str(fleet), "-o", str(lock), *RECORDED]) == 0
    (fleet / "a.xml").unlink()
    for name in ("b", "c"):
        (fleet / f"{name}.xml").write_bytes(small(name, "Haswell", "pc-q35-5.2"))
    capsys.readouterr()
    assert main(["audit", str(lock), str(fleet), *RECORDED, "--format", "prometheus"]) == 1
    samples = _read(capsys.readouterr().out)
    assert samples["cpumap_guests_gone", frozenset()] == 1
    assert samples["cpumap_guests_new", frozenset()] == 2
