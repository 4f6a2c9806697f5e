"""What Linux says of a CPU in /proc/cpuinfo."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from cpumap.cpu.host import Identity
from cpumap.cpu.names import FeatureName, PropertyName
from cpumap.errors import CpuidError
from cpumap.libvirt.cpu_map.map import CpuMap


@dataclass(frozen=True, slots=True)
class CpuInfo:
    """What Linux says of the first CPU in /proc/cpuinfo: partial, for it hides what the kernel
    does not use.
    """

    vendor: str
    identity: Identity
    features: frozenset[FeatureName]
    unknown: tuple[str, ...]
    """Flags that the map has no feature for; many of them are Linux's own and no CPUID bits."""


def is_cpuinfo(text: str) -> bool:
    """Whether it is what Linux says of x86 CPUs."""
    return _FLAGS.search(text) is not None and _VENDOR_ID.search(text) is not None


_FLAGS, _VENDOR_ID = (re.compile(rf"^{key}\s*:", re.MULTILINE) for key in ("flags", "vendor_id"))


def read_cpuinfo(text: str, cpu_map: CpuMap, *, name: str = "/proc/cpuinfo") -> CpuInfo:
    """The first CPU of an x86 /proc/cpuinfo. Raises `CpuidError`."""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if colon:
            fields.setdefault(key.strip(), value.strip())
    try:
        numbers = Identity(*(int(fields[key]) for key in ("cpu family", "model", "stepping")))
        flags = fields["flags"].split()
    except (KeyError, ValueError) as err:
        raise CpuidError("not the /proc/cpuinfo of an x86 machine", name) from err
    linux = {
        alias.name: feature.name
        for feature in cpu_map.features.values()
        for alias in feature.aliases
    }
    known = {flag: _flag_feature(flag, linux, cpu_map) for flag in flags}
    features = {feature for feature in known.values() if feature is not None}
    # The time stamp counter that never changes pace and never stops is what AMD and Intel call
    # invariant.
    if {"constant_tsc", "nonstop_tsc"} <= known.keys() and "invtsc" in cpu_map.features:
        features.add(FeatureName("invtsc"))
    unknown = tuple(flag for flag, feature in known.items() if feature is None)
    return CpuInfo(fields.get("vendor_id", ""), numbers, frozenset(features), unknown)


def _flag_feature(
    flag: str, linux: Mapping[str, FeatureName], cpu_map: CpuMap
) -> FeatureName | None:
    """Linux writes `_` where QEMU has `-`, and has a few names of its own, which maps list as
    its aliases.
    """
    candidates = (
        linux.get(flag, FeatureName(flag)),
        *(cpu_map.feature_of(PropertyName(p)) for p in (flag, flag.replace("_", "-"))),
    )
    return next((name for name in candidates if name in cpu_map.features), None)
