"""What predictions are made from: a CPU in a QEMU release, and the facts in `data/`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, cast

from cpumap.cpu.build import Build
from cpumap.cpu.names import Accel, PropertyName, Value
from cpumap.cpu.topology import Topology
from cpumap.system.data import data_path

AMD = ("AuthenticAMD", "HygonGenuine")


EXTENDED = 0x80000000
"""Where AMD's leaves begin."""


_FEATURES = 0x7
"""The leaf whose subleaves end at the property level-func7."""


ONE_VCPU = Topology()


@dataclass(frozen=True, slots=True)
class Side:
    """A CPU in one QEMU, with every property that is known of it."""

    build: Build
    accel: Accel
    model: str
    values: Mapping[PropertyName, Value]

    @property
    def label(self) -> str:
        """What to call the QEMU: `QEMU 10.0.13`, `QEMU 8.2.2 of Ubuntu`."""
        whose = f" of {self.build.vendor}" if self.build.vendor else ""
        return f"QEMU {self.build.version}{whose}"

    def get(self, name: str) -> Value | None:
        """The property's value; None where there is none."""
        return self.values.get(PropertyName(name))

    def number(self, name: str) -> int:
        """The property's number; 0 where it has none."""
        value = self.get(name)
        return value if isinstance(value, int) else 0

    def shows(self, leaf: int, subleaf: int = 0) -> bool:
        """Whether a guest sees the leaf, and not what it repeats beyond the highest one."""
        if leaf == _FEATURES and subleaf > self.number("level-func7"):
            return False
        return leaf <= self.number("xlevel" if leaf >= EXTENDED else "level")


def widened(count: int) -> int:
    """The next power of two, which is what APIC IDs have room for."""
    return 1 << (count - 1).bit_length()


@cache
def stored_facts(name: str) -> dict[str, Any]:
    """A file of `data/`, read once."""
    return cast(dict[str, Any], json.loads(data_path("x86_64", name).read_bytes()))
