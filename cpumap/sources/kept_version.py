"""What a program answers to `--version`."""

from __future__ import annotations

from cpumap.errors import SourceError
from cpumap.system.process import Process

TIME_LIMIT = 30.0
"""Seconds."""


LIMIT = 4096
"""Characters of an answer; QEMU's has some 120."""


def version_told(binary: str) -> str:
    """The program's answer to `--version`, or how it ended without one. Errors: `SourceError`."""
    with Process([binary, "--version"], heard="stdout", timeout=TIME_LIMIT) as process:
        code = process.wait(TIME_LIMIT)
        if code is None:
            raise SourceError(f"{binary} --version has no end in {TIME_LIMIT:.0f} s")
        answer = "\n".join(process.said())
    return f"{code} {answer[:LIMIT]}"
