"""CPUID data in every form that they come in, to features and back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpumap.cpu_map import load_cpu_map
from cpumap.cpuid import (
    CpuidData,
    Identity,
    data_of,
    features_of,
    identity,
    read_cpuid,
    read_cpuinfo,
    vendor_string,
    with_identity,
)
from cpumap.errors import CpuidError

MAP = load_cpu_map()

RAW = """CPU 0:
   0x00000000 0x00: eax=0x0000000d ebx=0x756e6547 ecx=0x6c65746e edx=0x49656e69
   0x00000001 0x00: eax=0x000306c3 ebx=0x00000000 ecx=0x00000003 edx=0x00000011
   0x00000007 0x00: eax=0x00000000 ebx=0x00000020 ecx=0x00000000 edx=0x20000000
CPU 1:
   0x00000001 0x00: eax=0x00000000 ebx=0x00000000 ecx=0x00000000 edx=0x00000000
"""

CPUDATA = """<cpudata arch='x86'>
  <cpuid eax_in='0x00000000' ecx_in='0x00' eax='0x0000000d' ebx='0x756e6547' ecx='0x6c65746e' edx='0x49656e69'/>
  <cpuid eax_in='0x00000001' ecx_in='0x00' eax='0x000306c3' ebx='0' ecx='0x00000003' edx='0x00000011'/>
  <cpuid eax_in='0x00000007' ecx_in='0x00' eax='0' ebx='0x00000020' ecx='0' edx='0x20000000'/>
  <msr index='0x10a' edx='0x00000000' eax='0x00000001'/>
</cpudata>"""


@pytest.mark.parametrize(("text", "more"), [(RAW, set()), (CPUDATA, {"rdctl-no"})], ids=["cpuid -r", "cpudata"])
def test_both_formats_say_the_same(text: str, more: set[str]) -> None:
    data = read_cpuid(text)
    assert vendor_string(data) == "GenuineIntel"
    assert identity(data) == Identity(6, 60, 3)
    assert {str(name) for name in features_of(data, MAP)} == {
        "pni", "pclmuldq", "fpu", "tsc", "avx2", "arch-capabilities", *more
    }  # fmt: skip


@pytest.mark.parametrize(
    ("eax", "numbers"),
    [
        (0x000306C3, Identity(6, 60, 3)),
        (0x00A00F11, Identity(25, 1, 1)),
        (0x00000543, Identity(5, 4, 3)),
        (0x00100F23, Identity(16, 2, 3)),
    ],
)
def test_extended_family_and_model(eax: int, numbers: Identity) -> None:
    assert identity(CpuidData({(1, 0): (eax, 0, 0, 0)})) == numbers
    assert with_identity(CpuidData({}), "AuthenticAMD", numbers).cpuid[1, 0][0] == eax


@given(st.sets(st.sampled_from(sorted(MAP.features))))
def test_features_come_back_from_their_bits(features: set[str]) -> None:
    assert features_of(data_of(map(MAP_NAMES.__getitem__, features), MAP), MAP) == features


MAP_NAMES = {str(name): name for name in MAP.features}


def test_the_vendor_comes_back() -> None:
    data = with_identity(data_of([MAP_NAMES["avx2"]], MAP), "AuthenticAMD", Identity(25, 1, 1))
    assert (vendor_string(data), identity(data)) == ("AuthenticAMD", Identity(25, 1, 1))
    assert features_of(data, MAP) == {"avx2"}


CPUINFO = """processor\t: 0
vendor_id\t: AuthenticAMD
cpu family\t: 25
model\t\t: 1
stepping\t: 1
flags\t\t: fpu pclmulqdq sse4_1 tsc_deadline_timer cr8_legacy sha_ni constant_tsc nonstop_tsc rep_good

processor\t: 1
flags\t\t: avx
"""


def test_linux_flags() -> None:
    info = read_cpuinfo(CPUINFO, MAP)
    assert info.vendor == "AuthenticAMD"
    assert info.identity == Identity(25, 1, 1)
    assert {str(name) for name in info.features} == {
        "fpu", "pclmuldq", "sse4.1", "tsc-deadline", "cr8legacy", "sha-ni", "invtsc"
    }  # fmt: skip
    assert info.unknown == ("constant_tsc", "nonstop_tsc", "rep_good")


BAD = [
    ("", "in: no CPUID data"),
    ("CPU 0:\n", "in: no CPUID data"),
    ("CPU 0:\nhello", "in:2: neither <cpudata> nor a line of `cpuid -r`: 'hello'"),
    ("0x0 0x0: eax=0x1 ebx=0x1 ecx=0x1", "in:1: neither"),
    ("<cpudata/>", "in:1: CPUID data in XML begin with <cpudata arch='x86'>"),
    ("<cpudata arch='arm'/>", "in:1: CPUID data in XML begin"),
    ("<cpudata arch='x86'/>", "in:1: no <cpuid>"),
    ("<cpudata arch='x86'>\n<cpuid eax='1'/></cpudata>", "in:2: missing required attribute 'eax_in'"),
    ("<cpudata arch='x86'>\n<cpuid eax_in='x'/></cpudata>", "in:2: invalid value for attribute 'eax_in'"),
    ("<cpudata arch='x86'>\n<cpuid eax_in='1'/>\n<cpuid eax_in='1'/></cpudata>", "in:3: CPUID leaf 0x1, subleaf 0"),
    ("<cpudata", "in:1: not well-formed XML"),
]


@pytest.mark.parametrize(("text", "message"), BAD)
def test_bad_data(text: str, message: str) -> None:
    with pytest.raises(CpuidError) as raised:
        read_cpuid(text, name="in")
    assert str(raised.value).startswith(message)


def test_what_is_no_cpuinfo() -> None:
    with pytest.raises(CpuidError, match="not the /proc/cpuinfo of an x86 machine"):
        read_cpuinfo("processor: 0\nFeatures: fp asimd", MAP)


@pytest.mark.live
def test_this_machine_is_one_machine() -> None:
    """The kernel's CPUID device, the cpuid program and the kernel's own flags speak of the same CPU."""
    import subprocess
    from pathlib import Path

    from cpumap.cpuid import own_cpuid

    printed = read_cpuid(subprocess.run(["cpuid", "-r"], check=True, capture_output=True, timeout=30).stdout)
    own = own_cpuid()
    assert features_of(own, MAP) == features_of(printed, MAP)
    info = read_cpuinfo(Path("/proc/cpuinfo").read_text(), MAP)
    assert (info.vendor, info.identity) == (vendor_string(own), identity(own))
    assert info.features <= features_of(own, MAP)
