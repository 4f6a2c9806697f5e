"""How CPU features and properties are named, and one property with its value."""

from __future__ import annotations

from typing import Literal, NewType

from cpumap.cpu.frozen import Frozen
from cpumap.cpu.origin import UNSAID, Origin

FeatureName = NewType("FeatureName", str)
"""A CPU feature as libvirt spells it (`pclmuldq`)."""


PropertyName = NewType("PropertyName", str)
"""A CPU property as QEMU's object model spells it (`pclmulqdq`)."""


Value = bool | int | str
"""What a CPU property holds, typed as QMP types it."""


Accel = Literal["kvm", "tcg"]


PER_INSTANCE = frozenset(
    {
        "apic-id", "check", "core-id", "die-id", "enforce", "hotpluggable", "hotplugged", "memory", "module-id",
        "node-id", "realized", "socket-id", "start-powered-off", "thread-id", "tsc-frequency", "type",
        "x-force-features",
    }
)  # fmt: skip
"""Properties of one vCPU in one running machine (or of how it was asked for), not of a CPU
model.
"""


class Property(Frozen):
    """One CPU property, and where its value comes from."""

    name: PropertyName
    value: Value
    origin: Origin = UNSAID
