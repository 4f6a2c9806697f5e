"""A feature that cannot be given: where its bits are, and who does not have it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cpumap.cpu import Accel, FeatureName, PropertyName
from cpumap.cpu_map import CpuMap
from cpumap.cpu_map_entries import Bits, MsrBits
from cpumap.cpuid import features_of, read_cpuinfo
from cpumap.cpuid_own import own_data
from cpumap.errors import InputError, SourceError, UnknownName

CPU = "host CPU"
KERNEL = "kernel (KVM)"
QEMU = "QEMU"
TCG = "QEMU (tcg)"
HOST = "host"
UNTOLD = f"{CPU}, {KERNEL} or {QEMU}"
OPTION = "option (what it depends on is off)"

_SOFTWARE = ("kvm", "hv-")
"""How the properties begin that no CPU has: the kernel or QEMU makes them."""

_WITH_SUBLEAVES = frozenset({0x7, 0xD, 0xF, 0x10, 0x12, 0x14, 0x19, 0x1D, 0x1E, 0x23, 0x24})
"""CPUID leaves that heed ECX and hold features."""


@dataclass(frozen=True, slots=True)
class Lack:
    """One feature that is asked for and cannot be given."""

    property: PropertyName
    """Empty, and so is `feature`, for a bit that has no name: an XSAVE component, for one."""
    feature: FeatureName
    bits: tuple[Bits, ...]
    """Where it sits; empty for what is no CPUID or MSR bit the CPU map knows."""
    who: str
    """Who does not have it, as far as can be told: `host CPU`, `kernel (KVM)`, `QEMU`, `option`, …"""
    origin: str
    """What asked for it: `model EPYC-v1`, `policy require`, …"""
    words: str = ""
    """QEMU's own words for the bit, where a QEMU was asked."""


@dataclass(frozen=True, slots=True)
class ThisMachine:
    """What this machine's CPU and kernel have of a CPU map's features; None: nobody here may know."""

    cpu: frozenset[FeatureName] | None
    kernel: frozenset[FeatureName] | None
    partial: bool = False
    """Whether `cpu` is only what Linux shows in /proc/cpuinfo, which leaves features out."""
    msrs: bool = False
    """Whether `cpu` has what model-specific registers say as well, which only root may read."""


UNKNOWN_MACHINE = ThisMachine(None, None)


def this_machine(cpu_map: CpuMap) -> ThisMachine:
    """This machine's features: the CPU's from CPUID and MSRs (else /proc/cpuinfo), the kernel's from KVM."""
    from cpumap.kvm import supported_cpuid

    kernel = None
    with suppress(SourceError):  # no KVM: what the kernel would support stays unknown
        kernel = features_of(supported_cpuid(), cpu_map)
    try:
        data, unread = own_data()
        return ThisMachine(features_of(data, cpu_map), kernel, msrs=not unread)
    except SourceError:
        return ThisMachine(_from_cpuinfo(cpu_map), kernel, partial=True)


def _from_cpuinfo(cpu_map: CpuMap) -> frozenset[FeatureName] | None:
    try:
        return read_cpuinfo(Path("/proc/cpuinfo").read_text(), cpu_map).features
    except (OSError, InputError):
        return None


def who_lacks(prop: PropertyName, bits: Iterable[Bits], accel: Accel, machine: ThisMachine, cpu_map: CpuMap) -> str:
    """Who does not have the feature, of CPU, kernel and QEMU; several, where that cannot be told apart."""
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
    """Who does not give a bit that no feature is called by: CPU and kernel were asked for features only."""
    return TCG if accel == "tcg" else UNTOLD


def bits_of(prop: PropertyName, cpu_map: CpuMap) -> tuple[Bits, ...]:
    """Where the feature sits, as the CPU map says; nothing for one that it does not have."""
    feature = cpu_map.features.get(cpu_map.feature_of(prop))
    return feature.bits if feature else ()


def place(bits: Bits) -> str:
    """A place in words, as QEMU 11.1 writes it: `CPUID[eax=07h,ecx=00h].EBX [bit 5]`, `MSR(10Ah) [bit 0]`."""
    numbers = ", ".join(str(number) for number in bit_numbers(bits.mask))
    if isinstance(bits, MsrBits):
        return f"MSR({bits.index:X}h) [bit {numbers}]"
    subleaf = f",ecx={bits.subleaf:02X}h" if bits.subleaf or bits.leaf in _WITH_SUBLEAVES else ""
    return f"CPUID[eax={bits.leaf:02X}h{subleaf}].{bits.register.upper()} [bit {numbers}]"


def qemu_words(prop: PropertyName, bits: Iterable[Bits]) -> str:
    """The feature and its place as QEMU 11.1 names it in a warning: `CPUID[eax=07h,ecx=00h].EBX.avx2 [bit 5]`."""
    return " and ".join(place(own).replace(" [", f".{prop} [", 1) for own in bits) or prop


def bit_numbers(mask: int) -> Iterator[int]:
    """The numbers of the bits set, lowest first."""
    return (number for number in range(mask.bit_length()) if mask >> number & 1)


def bits_json(bits: Bits) -> dict[str, Any]:
    """A place as JSON; numbers are numbers."""
    numbers = list(bit_numbers(bits.mask))
    if isinstance(bits, MsrBits):
        return {"msr": bits.index, "bits": numbers}
    return {"leaf": bits.leaf, "subleaf": bits.subleaf, "register": bits.register, "bits": numbers}


def feature_place(name: PropertyName, cpu_map: CpuMap) -> str:
    """The CPUID bits of a feature in QEMU's words, empty for a property that is no feature."""
    try:
        bits = bits_of(name, cpu_map)
    except UnknownName:
        return ""
    return qemu_words(name, bits) if bits else ""


def lack_json(lack: Lack) -> dict[str, Any]:
    """A lack as JSON: both spellings, the bits, who lacks it, what asked for it, QEMU's words."""
    return {
        "feature": lack.feature,
        "property": lack.property,
        "bits": [bits_json(bits) for bits in lack.bits],
        "lacking": lack.who,
        "origin": lack.origin,
        "words": lack.words,
    }


def lack_text(lack: Lack) -> list[str]:
    """A lack as columns: feature, who, place, why."""
    where = lack.words or " and ".join(place(bits) for bits in lack.bits) or "-"
    return [lack.feature or "(no name)", lack.who, where, lack.origin]


def lacks(
    lacking: Mapping[PropertyName, str],
    origins: Mapping[PropertyName, str],
    accel: Accel,
    machine: ThisMachine,
    cpu_map: CpuMap,
) -> tuple[Lack, ...]:
    """A `Lack` for each property (with QEMU's words), sorted by feature."""
    found = []
    for prop, words in lacking.items():
        bits = bits_of(prop, cpu_map)
        who = who_lacks(prop, bits, accel, machine, cpu_map)
        found.append(Lack(prop, cpu_map.feature_of(prop), bits, who, origins.get(prop, ""), words))
    return tuple(sorted(found, key=lambda lack: lack.feature))
