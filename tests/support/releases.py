"""The releases of QEMU and libvirt that are tested, and which of them this machine cannot have."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import pytest

QEMUS = Path(os.environ.get("CPUMAP_QEMUS") or Path.home() / ".cache/cpumap-qemus")
LIBVIRTS = Path(os.environ.get("CPUMAP_LIBVIRTS") or Path.home() / ".cache/cpumap-libvirts")

RELEASES = tuple(os.environ.get("CPUMAP_QEMU_RELEASES", "5.2 7.2 10.0 11.1").split())
"""The QEMU releases under test; `tools/test` narrows them where the distribution cannot give
all, and says so.
"""

OTHER_QEMUS = (
    "10.0.2",
    "8.2-ubuntu",
    *(f"aarch64-{release}" for release in ("5.2", "7.2", "10.0", "11.1")),
    *(f"s390x-{release}" for release in ("5.2", "7.2", "10.0", "11.1")),
    *(f"ppc64-{release}" for release in ("5.2", "7.2", "10.0", "11.1")),
    *(f"riscv64-{release}" for release in ("5.2", "7.2", "10.0", "11.1")),
    *(f"loongarch64-{release}" for release in ("7.2", "10.0", "11.1")),
)
"""The QEMUs beside those: another one of a release, a distribution's, other architectures'."""

LIBVIRT_RELEASES = ("9.0", "11.3", "12.8")

ABSENT = frozenset(os.environ.get("CPUMAP_ABSENT", "").split())
"""What the distribution cannot give, `qemu-s390x-7.2` or `libvirt-12.8`; `tools/test` says so.

Tests with the marker `needs` of such a thing are left out.
"""


def needing(kind: Literal["qemu", "libvirt"], names: Sequence[str]) -> list[pytest.ParameterSet]:
    """The names as parameters of a test or fixture, each with the marker of what it needs."""
    return [pytest.param(name, marks=pytest.mark.needs(f"{kind}-{name}")) for name in names]
