"""docs/trust.md: each of its sentences names a test that exists."""

from __future__ import annotations

import ast
import re

from tests.support.paths import TREE

PAGE = TREE / "docs/trust.md"

ROW = re.compile(r"^\| (?P<sentence>.+\.) \| `(?P<file>[\w/]+\.py)::(?P<test>test_\w+)` \|$")


def test_each_sentence_names_a_test_that_exists() -> None:
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("|")]
    claims = [row for row in rows if row not in ("| | test |", "| --- | --- |")]
    assert len(claims) >= 20
    for claim in claims:
        match = ROW.match(claim)
        assert match, f"no sentence with its test: {claim}"
        path = TREE / "tests" / match["file"]
        assert path.is_file(), claim
        assert match["test"] in _tests(path.read_text()), claim


def _tests(code: str) -> set[str]:
    return {node.name for node in ast.walk(ast.parse(code)) if isinstance(node, ast.FunctionDef)}
