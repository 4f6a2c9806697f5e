"""The probe guest: what it reads is what QEMU was told, in every QEMU, and what differs is found
to the bit.
"""

from __future__ import annotations

import re
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from cpumap.arch.x86.cpuid import Registers
from cpumap.cli.main import main
from cpumap.cpu.bits import REGISTERS
from cpumap.cpu.names import Accel
from cpumap.cpu.request import CpuRequest
from cpumap.errors import SourceError
from cpumap.libvirt.cpu_map.load import load_cpu_map
from cpumap.libvirt.rules.compare import features_of_cpu
from cpumap.libvirt.rules.decode import decode, known_from
from cpumap.proof.guest import (
    MASKS,
    BitDifference,
    GuestCpu,
    Mask,
    differences,
    parse_records,
    probe,
    probe_records,
)
from cpumap.system.data import data_path
from tests.support.paths import TREE
from tests.support.processes import running, until

VENDOR_AMD = struct.unpack("<3I", b"AuthenticAMD")


def guest(
    leaves: Mapping[tuple[int, int], Registers], msrs: Mapping[int, int | None] | None = None
) -> GuestCpu:
    return GuestCpu(leaves, msrs or {}, (leaves,))


# ---- differences and masks


def test_same_guests_do_not_differ() -> None:
    a = guest({(0, 0): (1, 2, 3, 4), (1, 0): (5, 6, 7, 8)}, {0x10A: 1, 0x480: None})
    assert differences(a, a) == ()


def test_a_difference_says_where_and_which_bits() -> None:
    a, b = guest({(7, 0): (0, 0b0110, 0, 0)}), guest({(7, 0): (0, 0b0011, 0, 0)})
    assert differences(a, b) == (
        BitDifference(7, 0, "ebx", 0b0101, 0b0110, 0b0011),
        BitDifference(7, 0, "ebx", 0b0101, 0b0110, 0b0011, vcpu=0),
    )


def test_a_leaf_that_one_side_lacks_differs_where_it_is_not_zero() -> None:
    a, b = GuestCpu({(0x1D, 0): (0, 0, 9, 0), (0x1C, 0): (0, 0, 0, 0)}), GuestCpu({})
    assert differences(a, b) == (BitDifference(0x1D, 0, "ecx", 9, 9, None),)
    assert differences(b, a) == (BitDifference(0x1D, 0, "ecx", 9, None, 9),)


def test_an_msr_that_faults_differs_from_one_that_is_zero() -> None:
    a, b = guest({}, {0x10A: 0, 0xCE: 1 << 31}), guest({}, {0x10A: None, 0xCE: 0})
    assert differences(a, b) == (
        BitDifference(0xCE, 0, "msr", 1 << 31, 1 << 31, 0),
        BitDifference(0x10A, 0, "msr", 0, 0, None),
    )


def test_a_missing_vcpu_differs() -> None:
    leaf: Mapping[tuple[int, int], Registers] = {(1, 0): (1, 0, 0, 0)}
    a, b = GuestCpu(leaf, {}, (leaf, leaf)), GuestCpu(leaf, {}, (leaf,))
    assert differences(a, b) == (BitDifference(1, 0, "eax", 1, 1, None, vcpu=1),)


@pytest.mark.parametrize("mask", MASKS, ids=lambda mask: f"{mask.leaf:x}.{mask.register}")
def test_a_mask_hides_its_bits_and_no_others(mask: Mask) -> None:
    eax, ebx, ecx, edx = (0xFFFFFFFF if name == mask.register else 0 for name in REGISTERS)
    leaf = (mask.leaf, 3 if mask.subleaf is None else mask.subleaf)
    a, b = GuestCpu({leaf: (0, 0, 0, 0)}), GuestCpu({leaf: (eax, ebx, ecx, edx)})
    assert [found.xor for found in differences(a, b, ())] == [0xFFFFFFFF]
    assert [found.xor for found in differences(a, b)] == (
        [~mask.bits & 0xFFFFFFFF] if mask.bits != 0xFFFFFFFF else []
    )


def test_apic_ids_are_compared_vcpu_by_vcpu() -> None:
    a, b = ({(1, 0): (0, number << 24, 0, 0)} for number in (1, 2))
    assert differences(GuestCpu(a), GuestCpu(b)) == ()
    assert [found.xor for found in differences(GuestCpu({}, {}, (a,)), GuestCpu({}, {}, (b,)))] == [
        3 << 24
    ]


# ---- the records


def test_records_become_one_view_per_vcpu_in_apic_order() -> None:
    records = [
        (2, 0xFFFFFFFD, 0, 0, 0, 0),
        (1, 0, 0, 2 << 24, 0, 0),
        (1, 0xFFFFFFFD, 0, 0, 0, 0),
        (1, 0, 0, 1 << 24, 0, 0),
        (0x8B, 0xFFFFFFFF, 5, 0xFFFFFFFF, 0x8B, 6),
        (0x480, 0xFFFFFFFE, 0, 0xFFFFFFFE, 0x480, 0),
        (0, 0, 1, 0, 0, 0),
        (1, 0, 7, 0, 0, 0),
    ]
    cpu = parse_records(b"".join(struct.pack("<6I", *record) for record in records))
    assert cpu.cpuid == {(0, 0): (1, 0, 0, 0), (1, 0): (7, 0, 0, 0)}
    assert cpu.msrs == {0x8B: 6 << 32 | 5, 0x480: None}
    assert [view[1, 0] for view in cpu.vcpus] == [
        (7, 0, 0, 0),
        (0, 1 << 24, 0, 0),
        (0, 2 << 24, 0, 0),
    ]


@pytest.mark.parametrize("data", [b"", b"\0" * 23, b"\0" * 25])
def test_broken_records_are_refused(data: bytes) -> None:
    with pytest.raises(SourceError, match="no whole number of records"):
        parse_records(data)


# ---- in a real QEMU


def machine_types(qemu: Path, family: str) -> list[str]:
    """QEMU's machine types of one family, oldest first."""
    listed = subprocess.run(
        [qemu, "-machine", "help"], capture_output=True, text=True, check=True
    ).stdout
    names = re.findall(rf"^({family}-\d\S*)", listed, re.MULTILINE)
    return sorted(
        names, key=lambda name: [int(part) for part in re.findall(r"\d+", name.rpartition("-")[2])]
    )


def cpu_of(
    qemu: Path, cpu: str, machine: str = "q35", accel: Accel = "tcg", smp: str = "1"
) -> GuestCpu:
    return probe(qemu, machine, ["-cpu", cpu], accel=accel, smp=smp)


@pytest.mark.live
def test_the_image_is_what_the_source_assembles_to(tmp_path: Path) -> None:
    subprocess.run([TREE / "tools/build-probe", tmp_path], check=True)
    assert (tmp_path / "probe.bin").read_bytes() == data_path("probe.bin").read_bytes()


@pytest.mark.live
def test_a_guest_sees_vendor_family_model_stepping_and_features(qemu: Path) -> None:
    cpu = cpu_of(
        qemu,
        "Haswell,vendor=AuthenticAMD,family=0x15,model=0x2a,stepping=3,xlevel=0x80000012,model-id=probed",
    )
    eax, ebx, ecx, edx = cpu.cpuid[0, 0]
    assert (ebx, edx, ecx) == VENDOR_AMD
    assert cpu.cpuid[1, 0][0] == (0x15 - 0xF) << 20 | 0x2 << 16 | 0xF << 8 | 0xA << 4 | 3
    assert struct.pack("<4I", *cpu.cpuid[0x80000002, 0]) == b"probed".ljust(16, b"\0")
    assert cpu.cpuid[0x80000000, 0][0] == 0x80000012
    assert set(cpu.cpuid) >= {(leaf, 0) for leaf in range(eax + 1)}


@pytest.mark.live
@pytest.mark.parametrize("family", ["pc-q35", "pc(?:-i440fx)?"])
def test_oldest_and_newest_machine_types_are_probed(qemu: Path, family: str) -> None:
    names = machine_types(qemu, family)
    for machine in (names[0], names[-1]):
        assert cpu_of(qemu, "Haswell,stepping=9", machine).cpuid[1, 0][0] & 0xF == 9


@pytest.mark.live
@pytest.mark.parametrize(
    ("machine", "cpu"), [("isapc", "486"), ("microvm", "Haswell"), ("pc", "Haswell")]
)
def test_other_kinds_of_machines_are_probed(qemu: Path, machine: str, cpu: str) -> None:
    assert cpu_of(qemu, f"{cpu},stepping=9", machine).cpuid[1, 0][0] & 0xF == 9


@pytest.mark.live
@pytest.mark.parametrize(
    ("feature", "leaf", "register", "bit"),
    [
        ("avx2", 7, "ebx", 5),
        ("aes", 1, "ecx", 25),
        ("abm", 0x80000001, "ecx", 5),
        ("syscall", 0x80000001, "edx", 11),
    ],
)
def test_one_feature_changes_one_bit(
    qemu: Path, feature: str, leaf: int, register: str, bit: int
) -> None:
    on, off = (
        cpu_of(qemu, f"Haswell,x-force-features=on,{feature}={state}") for state in ("on", "off")
    )
    found = [item for item in differences(on, off) if item.vcpu is None]
    assert [(item.leaf, item.subleaf, item.register, item.xor) for item in found] == [
        (leaf, 0, register, 1 << bit)
    ]


@pytest.mark.live
@pytest.mark.parametrize(
    "model", ["486", "pentium", "qemu32", "n270", "coreduo", "qemu64,-pae", "Haswell,-lm", "base"]
)
def test_cpus_without_long_mode_are_probed(qemu: Path, model: str) -> None:
    cpu = cpu_of(qemu, f"{model},level=1,stepping=7")
    assert cpu.cpuid[0, 0][0] == 1
    assert cpu.cpuid[1, 0][0] & 0xF == 7


@pytest.mark.live
def test_the_last_leaf_is_as_high_as_the_levels_say(qemu: Path) -> None:
    cpu = cpu_of(qemu, "qemu64,level=0x300,xlevel=0x80000030,xlevel2=0xC0000004")
    basic, extended, centaur = (
        [leaf for leaf, _ in cpu.cpuid if base <= leaf <= base + 0xFFFF]
        for base in (0, 0x80000000, 0xC0000000)
    )
    assert max(basic) == 0xFF  # what the probe reads at most
    assert max(extended) == 0x80000030
    assert max(centaur) == 0xC0000004


@pytest.mark.live
def test_msrs_are_read(qemu: Path) -> None:
    cpu = cpu_of(qemu, "Haswell,ucode-rev=0x1234567800000000")
    assert cpu.msrs[0x8B] == 0x1234567800000000
    assert cpu.msrs.keys() == {0x8B, 0xCE, 0xCF, 0x10A, 0x345, *range(0x480, 0x492)}


@pytest.mark.live
@pytest.mark.parametrize(
    ("smp", "apic_ids"),
    [
        ("4,sockets=2,cores=2,threads=1", [0, 1, 2, 3]),
        ("6,sockets=2,cores=3,threads=1", [0, 1, 2, 4, 5, 6]),
        ("4,sockets=1,dies=2,cores=1,threads=2", [0, 1, 2, 3]),
    ],
)
@pytest.mark.parametrize("accel", ["tcg", "kvm"])
def test_every_vcpu_tells_its_apic_id(
    qemu: Path, kvm: Path, accel: Accel, smp: str, apic_ids: list[int]
) -> None:
    cpu = cpu_of(qemu, "Haswell", accel=accel, smp=smp)
    assert [vcpu[1, 0][1] >> 24 for vcpu in cpu.vcpus] == apic_ids
    assert [vcpu[0xB, 0][3] for vcpu in cpu.vcpus] == apic_ids
    assert differences(cpu, cpu_of(qemu, "Haswell", accel=accel, smp=smp)) == ()


@pytest.mark.live
def test_dies_are_seen_in_leaf_1f(qemu: Path) -> None:
    cpu = cpu_of(qemu, "Haswell", smp="4,sockets=1,dies=2,cores=1,threads=2")
    levels = [cpu.cpuid[0x1F, subleaf] for subleaf in range(3)]
    assert [(ecx >> 8, ebx) for _, ebx, ecx, _ in levels] == [(1, 2), (2, 2), (5, 4)]


@pytest.mark.live
def test_under_kvm_too_and_msrs_that_fault_are_none(qemu: Path, kvm: Path) -> None:
    cpu = cpu_of(qemu, "qemu64,vendor=AuthenticAMD,stepping=6,-vmx,-svm", accel="kvm")
    assert (cpu.cpuid[0, 0][1], cpu.cpuid[0, 0][3], cpu.cpuid[0, 0][2]) == VENDOR_AMD
    assert cpu.cpuid[1, 0][0] & 0xF == 6
    assert cpu.cpuid[0x40000000, 0][1:] == struct.unpack("<3I", b"KVMKVMKVM\0\0\0")
    assert cpu.msrs[0x480] is None
    assert cpu.msrs[0x8B] is not None
    without = cpu_of(qemu, "qemu64,vendor=AuthenticAMD,stepping=6,-vmx,-svm,kvm=off", accel="kvm")
    assert without.cpuid[0x40000000, 0][1:] == (0, 0, 0)


@pytest.mark.live
def test_many_vcpus_with_many_warnings(qemus: Mapping[str, Path]) -> None:
    newest = list(qemus.values())[-1]
    cpu = cpu_of(
        newest, "Haswell", smp="130,sockets=130,cores=1,threads=1"
    )  # more warnings than a pipe holds
    assert [vcpu[1, 0][1] >> 24 for vcpu in cpu.vcpus] == list(range(130))


# ---- when QEMU does not do it


@pytest.mark.live
def test_what_qemu_refuses_is_said_in_its_words(qemu: Path) -> None:
    with pytest.raises(SourceError, match="unable to find CPU model 'Hasswell'"):
        cpu_of(qemu, "Hasswell")
    with pytest.raises(
        SourceError, match=r"TCG doesn't support requested feature.*invpcid"
    ) as caught:
        cpu_of(qemu, "Haswell,enforce", smp="2")
    lines = str(caught.value).splitlines()
    assert len(lines) == len(set(lines))


def test_a_qemu_that_is_not_there() -> None:
    with pytest.raises(SourceError, match="cannot start /nonexistent/qemu: No such file"):
        probe("/nonexistent/qemu", "q35", [], accel="tcg")


@pytest.mark.live
def test_a_guest_that_does_not_end_is_ended(qemu: Path) -> None:
    token = f"ended-{time.monotonic_ns()}"
    with pytest.raises(SourceError, match=r"no end after 0\.5 s"):
        probe(qemu, "q35", ["-S", "-name", token], accel="tcg", timeout=0.5)
    assert running(token) == []


@pytest.mark.live
def test_an_interrupt_leaves_no_process(qemu: Path) -> None:
    token = f"interrupted-{time.monotonic_ns()}"
    code = (
        "import sys; from cpumap.proof.guest import probe; probe(sys.argv[1], 'q35', "
        "sys.argv[2:], accel='tcg')"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, qemu, "-S", "-name", token], cwd=TREE, stderr=subprocess.PIPE
    ) as python:
        # the Python, what keeps QEMU, and QEMU
        assert until(lambda: len(running(token)) == 3)
        python.send_signal(signal.SIGINT)
        _, said = python.communicate(timeout=60)
    assert b"KeyboardInterrupt" in said
    assert until(lambda: running(token) == [])


@pytest.mark.parametrize("model", ["Haswell", "EPYC-Rome", "Nehalem"])
def test_what_a_guest_reads_is_decoded_as_its_model(qemu: Path, model: str) -> None:
    """The model that QEMU was told, with all that counts as this guest's features added or taken
    away.
    """
    cpu_map = load_cpu_map()
    seen = probe(qemu, "q35", ["-cpu", f"{model},x-force-features=on"], accel="tcg").data()
    decoded = decode(seen, cpu_map, "guest")
    assert isinstance(decoded, CpuRequest)
    assert decoded.model is not None and decoded.model.startswith(model)
    assert features_of_cpu(decoded, cpu_map) == known_from(seen, cpu_map).features


@pytest.mark.live
def test_a_guest_on_file(qemus: Mapping[str, Path]) -> None:
    """The recording that other tests read is what the guest writes today."""
    written = probe_records(
        qemus["7.2"], "pc-q35-7.2", ["-cpu", "Nehalem,x-force-features=on"], accel="tcg"
    )
    assert written == (TREE / "tests/proof/guests/Nehalem.records").read_bytes()


@pytest.mark.live
@pytest.mark.parametrize("accel", ["tcg", "kvm"])
def test_from_a_guest_through_a_file_to_its_model(
    qemu: Path, kvm: Path, accel: Accel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`expand --type guest`, and the guest's own records: decode gives the CPU back that QEMU
    was told.
    """
    assert (
        main(
            [
                "expand",
                "--type",
                "guest",
                "--qemu",
                str(qemu),
                "--accel",
                accel,
                "Westmere,-popcnt,+cx16",
            ]
        )
        == 0
    )
    shown, records = tmp_path / "guest.xml", tmp_path / "guest.records"
    shown.write_text(capsys.readouterr().out)
    how = ",x-force-features=on" if accel == "tcg" else ""
    arguments = ["-cpu", f"Westmere,-popcnt,+cx16{how}"]
    records.write_bytes(probe_records(qemu, "pc", arguments, accel=accel))
    answers = []
    for file in (shown, records):
        assert main(["decode", "--as", "guest", str(file)]) == 0
        answers.append(capsys.readouterr().out)
    assert answers[0] == answers[1]
    if accel == "tcg":
        assert "<model fallback='allow'>Westmere</model>" in answers[0]
        assert "<feature policy='disable' name='popcnt'/>" in answers[0]


def test_a_guest_needs_a_qemu_to_start(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["expand", "--type", "guest", "--recorded", "7.2", "Haswell"]) == 2
    assert (
        "expand starts guests: name a QEMU binary that is here with --qemu PATH"
        in capsys.readouterr().err
    )
