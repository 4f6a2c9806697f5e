"""What this machine's CPU and kernel have."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from cpumap.arch.x86.cpuid import features_of
from cpumap.arch.x86.own_cpu import own_data
from cpumap.cpu.host import ThisMachine
from cpumap.cpu.names import FeatureName
from cpumap.errors import InputError, SourceError
from cpumap.hosts.cpuinfo import read_cpuinfo
from cpumap.libvirt.cpu_map.map import CpuMap


def this_machine(cpu_map: CpuMap) -> ThisMachine:
    """This machine's features: the CPU's from CPUID and MSRs (else /proc/cpuinfo), the kernel's
    from KVM.
    """
    from cpumap.arch.x86.kvm import supported_cpuid

    kernel = None
    with suppress(SourceError):  # no KVM: what the kernel would support stays unknown
        kernel = features_of(supported_cpuid(), cpu_map.feature_bits)
    try:
        data, unread = own_data()
        return ThisMachine(features_of(data, cpu_map.feature_bits), kernel, msrs=not unread)
    except SourceError:
        return ThisMachine(_from_cpuinfo(cpu_map), kernel, partial=True)


def _from_cpuinfo(cpu_map: CpuMap) -> frozenset[FeatureName] | None:
    try:
        return read_cpuinfo(Path("/proc/cpuinfo").read_text(), cpu_map).features
    except (OSError, InputError):
        return None
