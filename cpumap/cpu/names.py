"""How CPU features and properties are named, and one property with its value."""

from __future__ import annotations

import re
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


_VERSIONED = re.compile(r"(.+)-v([0-9]{1,9})")


def model_version(model: str) -> tuple[str, int | None]:
    """A model's name without its version, and the version: `Haswell`, 2 of Haswell-v2; None for a
    name without one.
    """
    match = _VERSIONED.fullmatch(model)
    return (match[1], int(match[2])) if match else (model, None)


class Property(Frozen):
    """One CPU property, and where its value comes from."""

    name: PropertyName
    value: Value
    origin: Origin = UNSAID
