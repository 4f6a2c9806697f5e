"""Processes looked for, and conditions waited for."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path


def running(token: str) -> list[int]:
    """The processes with this word in their command line, zombies apart."""
    found = subprocess.run(
        ["pgrep", "-f", token], capture_output=True, text=True, check=False
    ).stdout.split()
    return [int(number) for number in found if _state(number) not in ("Z", "")]


def _state(number: str) -> str:
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def until(is_so: Callable[[], bool], seconds: float = 60) -> bool:
    """Whether it becomes so; a machine may be busy."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if is_so():
            return True
        time.sleep(0.02)
    return is_so()
