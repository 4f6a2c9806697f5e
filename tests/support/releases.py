"""The QEMU releases that are tested."""

from __future__ import annotations

import os

RELEASES = tuple(os.environ.get("CPUMAP_QEMU_RELEASES", "5.2 7.2 10.0 11.1").split())
"""The QEMU releases under test; `tools/test` narrows them where the distribution cannot give
all, and says so.
"""
