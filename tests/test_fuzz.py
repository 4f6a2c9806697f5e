"""A few hundred mutated inputs of every kind, by tools/fuzz.py."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.support.paths import TREE

INPUTS = 150
KINDS = 11


@pytest.mark.parametrize("seed", [11, 12])
def test_mutated_inputs(seed: int) -> None:
    command = [sys.executable, "tools/fuzz.py", "--seed", str(seed), "--number", str(INPUTS)]
    env = {**os.environ, "PYTHONPATH": str(TREE)}
    done = subprocess.run(
        command, cwd=TREE, capture_output=True, text=True, env=env, timeout=600, check=False
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr
    told = done.stderr.splitlines()[-1]
    assert told.startswith(f"{INPUTS} inputs in ")
    assert told.partition("; ")[2].count(",") == KINDS - 1
