"""The Python that the README shows does what it says."""

from __future__ import annotations

import re

import pytest

from tests.support.paths import TREE

BLOCKS = re.findall(
    r"^```python\n(.*?)^```$", (TREE / "README.md").read_text(), re.MULTILINE | re.DOTALL
)


def test_every_block_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(TREE)
    names: dict[str, object] = {"xml": (TREE / "data/examples/web-server.xml").read_text()}
    for block in BLOCKS:
        exec(compile(block, "README.md", "exec"), names)
    assert len(BLOCKS) >= 3
    assert "<feature policy='disable' name='avx2'/>" in capsys.readouterr().out
