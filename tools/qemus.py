"""The QEMUs that tools/fetch-qemus put side by side."""

from __future__ import annotations

import os
import re
from pathlib import Path


def releases() -> dict[str, Path]:
    """Debian's qemu-system-x86_64 of each release `X.Y`, the oldest first.

    Beside them are QEMUs of other architectures and distributions: those are not among these.
    """
    directory = Path(os.environ.get("CPUMAP_QEMUS") or Path.home() / ".cache/cpumap-qemus") / "bin"
    found: dict[tuple[int, int], Path] = {}
    for path in directory.iterdir():
        if name := re.fullmatch(r"qemu-(\d+)\.(\d+)", path.name):
            found[int(name[1]), int(name[2])] = path
    return {f"{major}.{minor}": path for (major, minor), path in sorted(found.items())}
