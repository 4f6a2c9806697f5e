"""A feature that cannot be given: where its bits are, and who does not have it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from cpumap.cpu.bits import Bits, MsrBits, bits_json, place
from cpumap.cpu.host import ThisMachine
from cpumap.cpu.names import Accel, FeatureName, PropertyName
from cpumap.cpu.origin import UNSAID, Origin
from cpumap.libvirt.cpu_map.map import CpuMap
from cpumap.libvirt.cpu_map.places import bits_of

CPU = "host CPU"


KERNEL = "kernel (KVM)"


QEMU = "QEMU"


TCG = "QEMU (tcg)"


HOST = "host"


NOT_SAID = "not described"


UNTOLD = f"{CPU}, {KERNEL} or {QEMU}"


OPTION = "option (what it depends on is off)"


_SOFTWARE = ("kvm", "hv-")
"""How the properties begin that no CPU has: the kernel or QEMU makes them."""


@dataclass(frozen=True, slots=True)
class Lack:
    """One feature that is asked for and cannot be given."""

    property: PropertyName
    """Empty, and so is `feature`, for a bit that has no name: an XSAVE component, for one."""
    feature: FeatureName
    bits: tuple[Bits, ...]
    """Where it sits; empty for what is no CPUID or MSR bit the CPU map knows."""
    who: str
    """Who does not have it, as far as can be told: `host CPU`, `kernel (KVM)`, `QEMU`, `option`,
    …
    """
    origin: Origin
    """What asked for it: `model EPYC-v1`, `policy require`, …"""
    words: str = ""
    """QEMU's own words for the bit, where a QEMU was asked."""


def who_lacks(
    prop: PropertyName, bits: Iterable[Bits], accel: Accel, machine: ThisMachine, cpu_map: CpuMap
) -> str:
    """Who does not have the feature, of CPU, kernel and QEMU; several, where that cannot be told
    apart.
    """
    if accel == "tcg":
        return TCG
    if prop.startswith(_SOFTWARE):
        return KERNEL
    feature = cpu_map.feature_of(prop)
    if machine.kernel is not None and feature in machine.kernel:
        return QEMU
    if machine.cpu is not None and feature in machine.cpu:
        return KERNEL
    unread = machine.partial or (not machine.msrs and any(isinstance(bit, MsrBits) for bit in bits))
    if machine.cpu is None or machine.kernel is None:
        return UNTOLD
    return f"{CPU} or {KERNEL}" if unread else CPU


def who_lacks_nameless(accel: Accel) -> str:
    """Who does not give a bit that no feature is called by: CPU and kernel were asked for
    features only.
    """
    return TCG if accel == "tcg" else UNTOLD


def lack_json(lack: Lack) -> dict[str, Any]:
    """A lack as JSON: both spellings, the bits, who lacks it, what asked for it, QEMU's words."""
    return {
        "feature": lack.feature,
        "property": lack.property,
        "bits": [bits_json(bits) for bits in lack.bits],
        "lacking": lack.who,
        "origin": str(lack.origin),
        "words": lack.words,
    }


def lack_text(lack: Lack) -> list[str]:
    """A lack as columns: feature, who, place, why."""
    where = lack.words or " and ".join(place(bits) for bits in lack.bits) or "-"
    return [lack.feature or "(no name)", lack.who, where, str(lack.origin)]


def lacks(
    lacking: Mapping[PropertyName, str],
    origins: Mapping[PropertyName, Origin],
    accel: Accel,
    machine: ThisMachine,
    cpu_map: CpuMap,
) -> tuple[Lack, ...]:
    """A `Lack` for each property (with QEMU's words), sorted by feature."""
    found = []
    for prop, words in lacking.items():
        bits = bits_of(prop, cpu_map)
        who = who_lacks(prop, bits, accel, machine, cpu_map)
        found.append(
            Lack(prop, cpu_map.feature_of(prop), bits, who, origins.get(prop, UNSAID), words)
        )
    return tuple(sorted(found, key=lambda lack: lack.feature))
