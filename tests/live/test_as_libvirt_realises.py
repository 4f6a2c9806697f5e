"""The explicit CPU of random domains is, property by property, the one that libvirt's `-cpu`
gives; `tools/compare_live.py` takes hundreds.
"""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from cpumap.sources.live import QemuSource
from tests.support.live_comparison import TIMEOUT, comparisons

pytestmark = pytest.mark.live

CASES = 3
"""On each QEMU."""


def test_every_property(qemu: Path) -> None:
    with QemuSource(qemu, timeout=TIMEOUT) as source:
        found = list(comparisons(source, Random("2026"), CASES))
    assert {one.document: one.unlike for one in found if one.unlike} == {}
    refused = [one.refused for one in found if one.refused]
    assert len(refused) < CASES, refused
