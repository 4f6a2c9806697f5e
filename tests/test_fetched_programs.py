"""The tools that fetch programs, and the tests that want them, name the same ones."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.support.paths import TREE
from tests.support.releases import LIBVIRT_RELEASES, OTHER_QEMUS

FOUR = {"qemu-5.2", "qemu-7.2", "qemu-10.0", "qemu-11.1"}


@pytest.mark.parametrize(
    ("tool", "variable", "wanted"),
    [
        ("fetch-qemus", "CPUMAP_QEMUS", FOUR | {f"qemu-{name}" for name in OTHER_QEMUS}),
        ("fetch-libvirts", "CPUMAP_LIBVIRTS", {f"libvirt-{name}" for name in LIBVIRT_RELEASES}),
    ],
)
def test_a_tool_fetches_what_the_tests_want(
    tool: str, variable: str, wanted: set[str], tmp_path: Path
) -> None:
    done = subprocess.run(
        [TREE / "tools" / tool, "--missing"],
        env={**os.environ, variable: str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert set(done.stdout.split()) == wanted
    assert done.stderr == ""
