"""CPUID data in every form that they come in, to features and back."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpumap.arch.x86.cpuid import CpuidData, features_of, identity, vendor_string
from cpumap.arch.x86.cpuid_formats import cpudata_text, read_cpuid
from cpumap.arch.x86.own_cpu import FEATURE_MSRS, own_cpuid, own_data, own_msrs
from cpumap.cli.main import main
from cpumap.cpu.bits import MsrBits
from cpumap.cpu.host import Identity
from cpumap.errors import CpuidError, SourceError
from cpumap.hosts.cpuinfo import read_cpuinfo
from cpumap.libvirt.cpu_map.load import load_cpu_map
from tests.support.cpuid_words import data_of, with_identity
from tests.support.paths import TREE

MAP = load_cpu_map()

RECORDS = TREE / "tests/proof/guests/Nehalem.records"
"""What the probe guest wrote on pc-q35-7.2 of QEMU 7.2 under tcg: -cpu
Nehalem,x-force-features=on.
"""

RAW = """CPU 0:
   0x00000000 0x00: eax=0x0000000d ebx=0x756e6547 ecx=0x6c65746e edx=0x49656e69
   0x00000001 0x00: eax=0x000306c3 ebx=0x00000000 ecx=0x00000003 edx=0x00000011
   0x00000007 0x00: eax=0x00000000 ebx=0x00000020 ecx=0x00000000 edx=0x20000000
CPU 1:
   0x00000001 0x00: eax=0x00000000 ebx=0x00000000 ecx=0x00000000 edx=0x00000000
"""

CPUDATA = """<cpudata arch='x86'>
  <cpuid eax_in='0x00000000' ecx_in='0x00' eax='0x0000000d' ebx='0x756e6547'
         ecx='0x6c65746e' edx='0x49656e69'/>
  <cpuid eax_in='0x00000001' ecx_in='0x00' eax='0x000306c3' ebx='0'
         ecx='0x00000003' edx='0x00000011'/>
  <cpuid eax_in='0x00000007' ecx_in='0x00' eax='0' ebx='0x00000020' ecx='0' edx='0x20000000'/>
  <msr index='0x10a' edx='0x00000000' eax='0x00000001'/>
</cpudata>"""


@pytest.mark.parametrize(
    ("text", "more"), [(RAW, set()), (CPUDATA, {"rdctl-no"})], ids=["cpuid -r", "cpudata"]
)
def test_both_formats_say_the_same(text: str, more: set[str]) -> None:
    data = read_cpuid(text)
    assert vendor_string(data) == "GenuineIntel"
    assert identity(data) == Identity(6, 60, 3)
    assert {str(name) for name in features_of(data, MAP.feature_bits)} == {
        "pni", "pclmuldq", "fpu", "tsc", "avx2", "arch-capabilities", *more
    }  # fmt: skip


def test_the_probe_guests_records(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Known by their content, wherever CPUID data may stand; the same as what they are as
    <cpudata>.
    """
    data = read_cpuid(RECORDS.read_bytes())
    assert (vendor_string(data), identity(data)) == ("GenuineIntel", Identity(6, 26, 3))
    assert data.msrs[0x480] == 0
    written = cpudata_text(data)
    assert read_cpuid(written) == data
    for content in (RECORDS.read_bytes(), written.encode()):
        file = tmp_path / "cpu"
        file.write_bytes(content)
        assert main(["decode", "--as", "guest", str(file)]) == 0
        assert "<model fallback='allow'>Nehalem</model>" in capsys.readouterr().out
        assert main(["compare", str(file), str(RECORDS)]) == 0
        assert capsys.readouterr().out == "identical\n"


def test_records_of_a_guest_that_did_not_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "cpu.records"
    file.write_bytes(RECORDS.read_bytes()[:-1])
    assert main(["decode", str(file)]) == 2
    assert "what a probe guest wrote is cut off" in capsys.readouterr().err


@given(st.dictionaries(st.integers(0, 0xFFFFFFFF), st.integers(0, 2**64 - 1)))
def test_registers_come_back(msrs: dict[int, int]) -> None:
    data = CpuidData({(7, 1): (1, 2, 3, 0xFFFFFFFF)}, msrs)
    assert read_cpuid(cpudata_text(data)) == data


def test_registers_are_read_at_their_numbers(tmp_path: Path) -> None:
    """A file in place of the device: what it has no 8 bytes for is not there. Without a file,
    that is an error.
    """
    device = tmp_path / "msr"
    device.write_bytes(bytes(0x10A) + (0x2B).to_bytes(8, "little"))
    assert own_msrs(device) == {0xCF: 0, 0x10A: 0x2B}
    with pytest.raises(SourceError, match=r"cannot read this machine's MSRs: .*No such file"):
        own_msrs(tmp_path / "none")


def test_every_register_of_a_feature_is_read() -> None:
    held = {
        bits.index
        for feature in MAP.features.values()
        for bits in feature.bits
        if isinstance(bits, MsrBits)
    }
    assert held <= set(FEATURE_MSRS)


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
    assert (
        features_of(data_of(map(MAP_NAMES.__getitem__, features), MAP), MAP.feature_bits)
        == features
    )


MAP_NAMES = {str(name): name for name in MAP.features}


def test_the_vendor_comes_back() -> None:
    data = with_identity(data_of([MAP_NAMES["avx2"]], MAP), "AuthenticAMD", Identity(25, 1, 1))
    assert (vendor_string(data), identity(data)) == ("AuthenticAMD", Identity(25, 1, 1))
    assert features_of(data, MAP.feature_bits) == {"avx2"}


CPUINFO = """processor\t: 0
vendor_id\t: AuthenticAMD
cpu family\t: 25
model\t\t: 1
stepping\t: 1
flags\t\t: fpu pclmulqdq sse4_1 tsc_deadline_timer cr8_legacy sha_ni \
constant_tsc nonstop_tsc rep_good

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
    (
        "<cpudata arch='x86'>\n<cpuid eax='1'/></cpudata>",
        "in:2: missing required attribute 'eax_in'",
    ),
    (
        "<cpudata arch='x86'>\n<cpuid eax_in='x'/></cpudata>",
        "in:2: invalid value for attribute 'eax_in'",
    ),
    (
        "<cpudata arch='x86'>\n<cpuid eax_in='1'/>\n<cpuid eax_in='1'/></cpudata>",
        "in:3: CPUID leaf 0x1, subleaf 0",
    ),
    ("<cpudata", "in:1: not well-formed XML"),
    (bytes(23), "in: what a probe guest wrote is cut off: 23 bytes are no whole number of records"),
    (
        struct.pack("<6I", 1, 0, 0, 0, 0, 0) + struct.pack("<6I", 2, 0, 0, 0, 0, 0),
        "in: what a probe guest wrote is cut off: there is no",
    ),
]


@pytest.mark.parametrize(("text", "message"), BAD)
def test_bad_data(text: str | bytes, message: str) -> None:
    with pytest.raises(CpuidError) as raised:
        read_cpuid(text, name="in")
    assert str(raised.value).startswith(message)


def test_what_is_no_cpuinfo() -> None:
    with pytest.raises(CpuidError, match="not the /proc/cpuinfo of an x86 machine"):
        read_cpuinfo("processor: 0\nFeatures: fp asimd", MAP)


@pytest.mark.live
def test_this_machine_is_one_machine() -> None:
    """The kernel's CPUID device, the cpuid program and the kernel's own flags speak of the same
    CPU.
    """
    import subprocess

    printed = read_cpuid(
        subprocess.run(["cpuid", "-r"], check=True, capture_output=True, timeout=30).stdout
    )
    own = own_cpuid()
    assert features_of(own, MAP.feature_bits) == features_of(printed, MAP.feature_bits)
    info = read_cpuinfo(Path("/proc/cpuinfo").read_text(), MAP)
    assert (info.vendor, info.identity) == (vendor_string(own), identity(own))
    assert info.features <= features_of(own, MAP.feature_bits)


@pytest.mark.live
def test_registers_of_this_machine(capsys: pytest.CaptureFixture[str]) -> None:
    """Read where Linux gives them; where it does not, `decode` says so. What is read is what the
    features go by.
    """
    data, unread = own_data()
    assert data.cpuid == own_cpuid().cpuid
    assert main(["decode", "/dev/cpu/0/cpuid"]) == 0
    said = capsys.readouterr().err
    if Path("/dev/cpu/0/msr").exists():
        assert not unread and not said
        assert (0x10A in data.msrs) == ("arch-capabilities" in features_of(data, MAP.feature_bits))
        assert (0x480 in data.msrs) == ("vmx" in features_of(data, MAP.feature_bits))
    else:
        assert not data.msrs
        assert "/dev/cpu/0/msr" in unread and said.endswith(
            "features that MSRs hold are unknown, and left out\n"
        )
