"""Every JSON answer and file is as its schema in data/schemas says, and each has one."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from cpumap.cli.main import main
from tests.support.paths import TREE

PATHS = sorted((TREE / "data/schemas").glob("*.json"))
SCHEMAS: dict[str, dict[str, Any]] = {
    stored["$id"]: stored for stored in (json.loads(path.read_text()) for path in PATHS)
}

EXAMPLES = TREE / "data/examples"
WEB, OLD, EMULATED, WINDOWS, HOST = (
    str(EXAMPLES / name)
    for name in (
        "web-server.xml",
        "old-amd.xml",
        "emulated.xml",
        "windows.xml",
        "hosts/westmere.xml",
    )
)
NEW, BEFORE, TCG = ("--recorded", "10.0"), ("--recorded", "7.2"), ("--accel", "tcg")
MESSAGE = "host doesn't support requested feature: CPUID.07H:EBX.hle [bit 4]"

ANSWERS: tuple[tuple[str, ...], ...] = (
    ("translate", WEB, *NEW),
    ("translate", EMULATED, *NEW, "--pin", "custom"),
    ("translate", WEB, *NEW, "--pin", "none"),
    ("convert", str(EXAMPLES), *BEFORE, "--dry-run"),
    ("plan", WEB, OLD, *BEFORE, "--to-qemu", "10.0", "--to-machine", "pc-q35-10.0"),
    ("expand", "Haswell", *NEW, *TCG),
    ("expand", "Haswell", *NEW, *TCG, "--type", "static"),
    ("models", *NEW, *TCG),
    ("models", "--recorded", "list"),
    ("machines", *NEW, *TCG),
    ("host", *NEW, *TCG),
    ("check", WEB, *NEW, "--host", HOST),
    ("check", EMULATED, *NEW),
    ("compare", HOST, OLD),
    ("compare", "host", WEB, *BEFORE, *TCG),
    ("compare", "host", WEB, *BEFORE, *TCG, "--machine", "all"),
    ("baseline", HOST, WEB),
    ("baseline", HOST, *BEFORE, "--accel", "kvm", "--machine", "pc-q35-7.2"),
    ("update", HOST, OLD),
    ("decode", str(EXAMPLES / "hosts/nehalem.cpudata")),
    ("explain", MESSAGE),
    ("explain", "md-clear", "vmx-ept", "EPYC", "pc-q35-7.2", "nosuchthing"),
    ("diff", "Haswell@pc-q35-2.4", "Haswell@pc-q35-7.2", *BEFORE, *TCG),
)


def _complaints(document: Any, schema: str) -> list[str]:
    found = Draft202012Validator(SCHEMAS[schema]).iter_errors(document)
    return [f"{list(one.absolute_path)}: {one.message[:200]}" for one in found]


def _answer(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> Any:
    form = () if words[0] == "expand" else ("--format", "json")
    assert main([*words, *form]) in (0, 1, 2)
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("words", ANSWERS, ids=lambda words: " ".join(words)[:70])
def test_an_answer_is_as_its_schema_says(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    answer = _answer(words, capsys)
    assert re.fullmatch(rf"cpumap\.{words[0]}/\d+", answer["schema"])
    assert _complaints(answer, answer["schema"]) == []


def test_locks_and_audits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lock = tmp_path / "fleet.lock"
    main(["lock", WEB, OLD, EMULATED, WINDOWS, *BEFORE, "-o", str(lock)])
    capsys.readouterr()
    stored = json.loads(lock.read_text())
    assert _complaints(stored, stored["schema"]) == []
    words = ("audit", str(lock), "--recorded", "11.1", "--host", HOST)
    audited = _answer(words, capsys)
    assert _complaints(audited, "cpumap.audit/1") == []
    summary = audited["summary"]
    assert summary["guests"] == len(stored["guests"]) == 3
    kinds = [summary[kind] for kind in ("holds", "drifts", "unknown", "refused")]
    assert sum(kinds) == 3 and summary["not-locked"] == 1


@pytest.mark.parametrize(
    "path", sorted((TREE / "data").glob("*/expansions/*.json")), ids=lambda path: path.name
)
def test_recordings(path: Path) -> None:
    stored = json.loads(path.read_text())
    assert _complaints(stored, stored["schema"]) == []


def test_the_journal(tmp_path: Path) -> None:
    from cpumap.fleet.journal import Journal

    journal = Journal(tmp_path / "journal", {"pin": "model"}, resume=False)
    journal.intend([["a.xml", "0" * 64, "converted", ["a note"]]])
    journal.close()
    lines = [json.loads(line) for line in (tmp_path / "journal").read_text().splitlines()]
    assert len(lines) == 2
    assert [_complaints(line, "cpumap.convert-journal/1") for line in lines] == [[], []]


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_a_schema_is_one_and_strict(path: Path) -> None:
    schema = SCHEMAS[f"cpumap.{path.stem[::-1].replace('-', '/', 1)[::-1]}"]
    Draft202012Validator.check_schema(schema)
    assert schema["title"]
    assert _complaints({"schema": schema["$id"], "nonsense": 1}, schema["$id"])


def test_each_schema_that_is_named_has_a_file() -> None:
    code = "".join(path.read_text() for path in (TREE / "cpumap").rglob("*.py"))
    named = set(re.findall(r'"(cpumap\.[a-z-]+/\d)', code))
    named |= {f"cpumap.{name}/1" for name in re.findall(r'json_text\("([a-z]+)"', code)}
    formats = (TREE / "docs/formats.md").read_text()
    # Its place is the schema that came after it; it is still read, and written no more.
    assert named - {"cpumap.lock/1"} <= set(SCHEMAS)
    assert not [schema for schema in SCHEMAS if f"`{schema}`" not in formats]


@pytest.mark.live
def test_what_guests_read(qemu: Path, capsys: pytest.CaptureFixture[str]) -> None:
    listed = _answer(("machines", "--qemu", str(qemu), *TCG), capsys)["machines"]
    numbered = [re.fullmatch(r"pc-q35-(\d+)\.(\d+)", entry["name"]) for entry in listed]
    types = sorted((int(found[1]), int(found[2]), found[0]) for found in numbered if found)
    oldest, newest = f"Haswell@{types[0][2]}", f"Haswell@{types[-1][2]}"
    for words in (
        ("verify", EMULATED, "--qemu", str(qemu), *TCG, "--target-machine", types[-1][2]),
        ("diff", oldest, newest, "--qemu", str(qemu), *TCG, "--guest"),
        ("host", "--qemu", str(qemu), *TCG),
    ):
        answer = _answer(words, capsys)
        assert _complaints(answer, answer["schema"]) == [], words
