"""The Python that the README and docs/python.md show does what it says."""

from __future__ import annotations

import re

import pytest

from tests.support.paths import TREE

PAGES = ("README.md", "docs/python.md")
BLOCKS = [
    block
    for page in PAGES
    for block in re.findall(r"^```python\n(.*?)^```$", (TREE / page).read_text(), re.M | re.S)
]


def test_every_block_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(TREE)
    names: dict[str, object] = {"xml": (TREE / "data/examples/web-server.xml").read_text()}
    for block in BLOCKS:
        exec(compile(block, "example", "exec"), names)
    assert len(BLOCKS) >= 3
    assert "<feature policy='disable' name='avx2'/>" in capsys.readouterr().out
