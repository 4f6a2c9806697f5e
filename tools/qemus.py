"""The QEMUs that tools/fetch-qemus put side by side."""

from __future__ import annotations

import os
import re
from pathlib import Path

BESIDE = ("8.2-ubuntu", "10.0.2")
"""Those that distributions ship beside Debian's releases, by the name that tools/fetch-qemus gives.
"""


def builds() -> dict[str, Path]:
    """Debian's of each release, and those beside them, in the order of their releases."""
    found = releases()
    directory = next(iter(found.values())).parent
    found |= {name: directory / f"qemu-{name}" for name in BESIDE}
    return {name: found[name] for name in sorted(found, key=_order)}


def _order(name: str) -> tuple[list[int], str]:
    numbers, _, vendor = name.partition("-")
    version = [int(part) for part in numbers.split(".")]
    # Debian's X.Y is a later point release than those beside it.
    return version if len(version) > 2 else [*version, 99], vendor


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
