"""A document is parsed once, and a file of a CPU map at most once, whatever is made of it.

Counted where lxml parses, and where files are opened.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lxml import etree

import cpumap
from cpumap.cli.main import main
from tests.support.paths import TREE

DOCUMENT = TREE / "data/examples/web-server.xml"
HOST = "<cpu><arch>x86_64</arch><model>Haswell</model><vendor>Intel</vendor></cpu>"


class Counted:
    """How often each content was parsed, and each file opened."""

    def __init__(self) -> None:
        self.parsed: Counter[bytes] = Counter()
        self.opened: Counter[str] = Counter()
        self.on = True

    def hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.on and event == "open":
            self.opened[str(arguments[0])] += 1


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counted]:
    """The counts of this test: `etree.fromstring` is lxml's, and counts what it is given."""
    counts = Counted()
    original = etree.fromstring

    def fromstring(text: Any, *rest: Any, **more: Any) -> Any:
        counts.parsed[text if isinstance(text, bytes) else text.encode()] += 1
        return original(text, *rest, **more)

    monkeypatch.setattr(etree, "fromstring", fromstring)
    sys.addaudithook(counts.hear)
    yield counts
    counts.on = False


def _is_read_once(counts: Counted, content: bytes) -> None:
    assert counts.parsed[content] == 1
    twice = {text[:60]: count for text, count in counts.parsed.items() if count > 1}
    assert not twice, "parsed more than once"
    maps = {path: count for path, count in counts.opened.items() if "cpu_map" in path}
    assert all(count == 1 for count in maps.values()), maps


COMMANDS: dict[str, list[str]] = {
    **{
        f"translate --format {form}": ["translate", "FILE", "--format", form, "--recorded", "7.2"]
        for form in ("args", "xml", "cpu-xml", "readconfig", "json")
    },
    "translate --pin custom": ["translate", "FILE", "--pin", "custom", "--format", "xml"],
    "translate --pin none": ["translate", "FILE", "--pin", "none"],
    "translate --host": ["translate", "FILE", "--host", "HOST", "--format", "xml"],
    "translate --target-qemu": [
        *("translate", "FILE", "--recorded", "7.2", "--format", "xml"),
        *("--target-qemu", "10.0", "--allow-drift"),
    ],
    "translate --cpu-map": ["translate", "FILE", "--cpu-map", "MAP", "--format", "xml"],
    "check": ["check", "FILE", "--recorded", "7.2", "--accel", "tcg"],
    "check --host": ["check", "FILE", "--recorded", "7.2", "--host", "HOST"],
    "update": ["update", "HOST", "FILE"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_reads_everything_once(
    command: str, counted: Counted, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    host = tmp_path / "host.xml"
    host.write_text(HOST)
    places = {
        "FILE": str(DOCUMENT),
        "HOST": str(host),
        "MAP": str(TREE / "data/cpu_map"),
        "OUT": str(tmp_path / "out"),
    }
    content = DOCUMENT.read_bytes()
    counted.opened.clear()
    assert main([places.get(word, word) for word in COMMANDS[command]]) in (0, 1)
    _is_read_once(counted, content)
    assert counted.opened[str(DOCUMENT)] == 1


@pytest.mark.parametrize("form", ["args", "xml", "cpu-xml", "readconfig", "json"])
def test_the_library_reads_everything_once(form: Any, counted: Counted) -> None:
    assert cpumap.translate(DOCUMENT, format=form, recorded="7.2")
    _is_read_once(counted, DOCUMENT.read_bytes())
