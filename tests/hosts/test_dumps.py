"""Hosts as people have them: /proc/cpuinfo, and CPUID dumps as InstLatx64 and `cpuid -r` write
them. Each input was written for the test, from what manuals say of these CPUs.
"""

from __future__ import annotations

import pytest

from cpumap.cpu.names import PropertyName
from cpumap.cpu.request import CpuRequest
from cpumap.errors import CpuidError
from cpumap.hosts.described import DescribedHost, read_described
from cpumap.libvirt.cpu_map.load import load_cpu_map
from cpumap.runnable.check import check
from cpumap.runnable.checked import Checked
from cpumap.sources.platform import Platform
from cpumap.sources.recorded import RecordedSource
from cpumap.sources.recordings import find_recording

CPU_MAP = load_cpu_map()
KVM = RecordedSource(find_recording("7.2", "kvm"))

NEHALEM = """------[ Logical CPU #0 ]------
CPUID 00000000: 0000000B-756E6547-6C65746E-49656E69 [Genu ntel ineI]
CPUID 00000001: 000106A5-00100800-009CE3BD-BFEBFBFF
CPUID 00000004: 1C004121-01C0003F-0000003F-00000000 [SL 00]
CPUID 00000004: 1C004122-00C0003F-0000007F-00000000 [SL 01]
CPUID 80000000: 80000008-00000000-00000000-00000000
CPUID 80000001: 00000000-00000000-00000001-{edx}
MSR 0000017A: 0000-0000-0000-0000
------[ Logical CPU #1 ]------
CPUID 00000000: 0000000B-756E6547-6C65746E-49656E69
CPUID 00000001: 000106A5-02100800-00000000-00000000
"""

CPUINFO = """processor\t: 0
vendor_id\t: GenuineIntel
cpu family\t: 6
model\t\t: 85
model name\t: Intel(R) Xeon(R) Gold 6130
stepping\t: 4
flags\t\t: fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush dts \
acpi mmx fxsr sse sse2 ss ht tm pbe syscall nx pdpe1gb rdtscp lm constant_tsc nonstop_tsc pni \
pclmulqdq vmx est tm2 ssse3 fma cx16 pcid sse4_1 sse4_2 x2apic movbe popcnt tsc_deadline_timer \
aes xsave avx f16c rdrand lahf_lm abm 3dnowprefetch fsgsbase tsc_adjust bmi1 avx2 smep bmi2 erms \
invpcid arat xsaveopt

"""


def _host(text: str) -> DescribedHost:
    return read_described(text, CPU_MAP, name="dump.txt")


@pytest.mark.parametrize("edx", ["28100800", "28100000"])
def test_a_dump_of_a_32_bit_program_is_of_the_same_cpu(edx: str) -> None:
    """Intel's CPUs show SYSCALL (bit 11) in 64-bit mode only."""
    cpu = _host(NEHALEM.format(edx=edx)).cpu
    assert (cpu.model, cpu.vendor) == ("Nehalem", "Intel")
    assert cpu.identity is not None
    assert (cpu.identity.family, cpu.identity.model, cpu.identity.stepping) == (6, 26, 5)


def test_the_same_of_cpuid_r() -> None:
    text = (
        "CPU 0:\n"
        "   0x00000000 0x00: eax=0x0000000b ebx=0x756e6547 ecx=0x6c65746e edx=0x49656e69\n"
        "   0x00000001 0x00: eax=0x000106a5 ebx=0x00100800 ecx=0x009ce3bd edx=0xbfebfbff\n"
        "   0x80000001 0x00: eax=0x00000000 ebx=0x00000000 ecx=0x00000001 edx=0x28100000\n"
    )
    assert _host(text).cpu.model == "Nehalem"


def test_a_cpu_without_64_bits_stays_without_syscall() -> None:
    """No Intel CPU without 64-bit mode has it."""
    host = _host(NEHALEM.format(edx="00100000"))
    assert not host.gives(PropertyName("syscall"))


def _checked(model: str, host: DescribedHost) -> Checked:
    request = CpuRequest(machine="pc-q35-7.2", mode="custom", model=model)
    return check(request, Platform(KVM, CPU_MAP), host=host)


def test_what_linux_shows_is_there_and_nothing_is_known_to_lack() -> None:
    host = _host(CPUINFO)
    assert (host.cpu.vendor, host.cpu.model) == ("Intel", "Haswell-noTSX")
    assert _checked("Haswell-noTSX", host).runnable
    found = _checked("Skylake-Server", host)
    assert not found.stopped
    assert not found.runnable
    assert "avx512f" in {lack.feature for lack in found.undescribed}
    assert not host.gives(PropertyName("est")), "which no guest is given"


def test_a_dump_without_its_first_leaves_is_refused() -> None:
    with pytest.raises(CpuidError, match="no leaves 0 and 1"):
        _host("CPUID 00000001: 000106A5-00100800-009CE3BD-BFEBFBFF\n")
