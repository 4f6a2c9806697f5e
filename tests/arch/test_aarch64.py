"""aarch64: a model, the properties that a guest can tell, and what a machine type overrules."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from cpumap.cpu.expansion import CpuModel
from cpumap.cpu.names import PropertyName
from cpumap.errors import UnknownNameError
from cpumap.proof.guest_aarch64 import probe_aarch64, register_differences
from cpumap.sources.live import QemuSource
from cpumap.sources.open_recording import open_recording
from cpumap.sources.recordings import find_recording
from tests.arch.test_s390x import run
from tests.support import libvirt_releases
from tests.support.releases import needing

OTHER_ARCHITECTURE = re.compile(
    r"x86|cpuid|\bmsr\b|intel|amd\b|pc-q35|i440fx|vendor|phys-bits|s390|migratable", re.IGNORECASE
)


def _domain(cpu: str = "", machine: str = "virt-7.2", rest: str = "") -> str:
    return (
        f"<domain type='qemu'><name>a</name><memory>1</memory><vcpu>1</vcpu>"
        f"<os><type arch='aarch64' machine='{machine}'>hvm</type></os>\n{cpu}\n{rest}</domain>"
    )


MODEL = "<cpu mode='custom' match='exact' check='none'><model>{}</model>{}</cpu>"


def _written(tmp_path: Path, text: str) -> str:
    path = tmp_path / "guest.xml"
    path.write_text(text)
    return str(path)


def test_what_a_guest_can_tell_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    guest = _written(tmp_path, _domain(MODEL.format("cortex-a57", "")))
    code, out, err = run(capsys, "translate", guest, "--recorded", "7.2")
    assert (code, out) == (0, "-cpu cortex-a57,cntfrq=62500000,pmu=on\n"), err
    guest = _written(tmp_path, _domain(MODEL.format("max", ""), "virt-6.2"))
    code, out, _ = run(capsys, "translate", guest, "--recorded", "7.2")
    assert code == 0
    assert {"lpa2=off", "pauth=on", "sme_fa64=on", "sve2048=on"} <= set(out.strip().split(","))


def test_each_property_is_written_where_it_can_be_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    guest = _written(tmp_path, _domain(MODEL.format("max", "")))
    code, out, _ = run(capsys, "translate", guest, "--recorded", "7.2", "--format", "xml")
    assert code == 0
    assert "<feature policy='require' name='sve512'/>" in out
    assert "arm-cpu.lpa2=on" in out and "arm-cpu.sve512" not in out
    assert "name='pauth'" not in out, "libvirt 9.0 has no word for it"


def test_what_the_machine_type_overrules_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    guest = _written(tmp_path, _domain(MODEL.format("max", "")))
    code, _, err = run(
        capsys, "translate", guest, "--recorded", "7.2", "--target-machine", "virt-2.6"
    )
    assert code == 1
    assert "makes lpa2 off whatever is named" in err
    assert "makes pmu off whatever is named" in err
    guest = _written(tmp_path, _domain(MODEL.format("cortex-a57", ""), "virt-5.2"))
    code, out, _ = run(
        capsys, "translate", guest, "--recorded", "7.2", "--target-machine", "virt-7.2"
    )
    assert (code, out) == (0, "-cpu cortex-a57,cntfrq=62500000,pmu=on\n")


def test_another_release_is_not_known(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    guest = _written(tmp_path, _domain(MODEL.format("cortex-a57", "")))
    code, out, err = run(
        capsys, "translate", guest, "--recorded", "7.2", "--target-qemu", "5.2",
        "--target-machine", "virt-5.2",
    )  # fmt: skip
    assert (code, out) == (1, "")
    assert "not known" in err


def test_a_recording_does_not_guess() -> None:
    source = open_recording(find_recording("7.2", "tcg", "aarch64"))
    model = CpuModel("max", {PropertyName("sve"): False})
    with pytest.raises(UnknownNameError, match="does not say what else changes"):
        source.realise("virt-7.2", model)


@pytest.mark.parametrize("arch", ["armv7l", "armv6l"])
def test_32_bit_guests_are_refused(
    arch: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = _domain(MODEL.format("cortex-a15", "")).replace("'aarch64'", f"'{arch}'")
    code, out, err = run(capsys, "translate", _written(tmp_path, text), "--recorded", "7.2")
    assert (code, out) == (2, "")
    assert arch in err and len(err.splitlines()) == 1


@pytest.mark.parametrize(
    "command",
    [
        ["translate", "GUEST", "--recorded", "7.2"],
        ["translate", "GUEST", "--recorded", "7.2", "--format", "xml"],
        ["translate", "GUEST", "--recorded", "7.2", "--pin", "none"],
        ["translate", "GUEST", "--recorded", "7.2", "--pin", "custom"],
        ["check", "GUEST", "--recorded", "7.2"],
        ["expand", "max", "--arch", "aarch64", "--recorded", "7.2", "--machine", "virt-7.2"],
        ["dump", "max", "--arch", "aarch64", "--recorded", "7.2", "--machine", "virt-7.2"],
        ["models", "--arch", "aarch64", "--recorded", "7.2", "--machine", "virt-7.2"],
        ["machines", "--arch", "aarch64", "--recorded", "7.2"],
        ["host", "--arch", "aarch64", "--recorded", "7.2", "--accel", "tcg"],
        ["diff", "max@virt-7.2", "max@virt-6.2", "--arch", "aarch64", "--recorded", "7.2"],
    ],
)
def test_no_answer_has_a_word_of_another_architecture(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    guest = _written(tmp_path, _domain(MODEL.format("max", "")))
    code, out, err = run(capsys, *(guest if word == "GUEST" else word for word in command))
    assert code in (0, 1, 2), err
    assert not OTHER_ARCHITECTURE.search((out + err).replace('"migration-safe"', "")), out + err


@pytest.mark.live
@pytest.mark.needs("qemu-aarch64-7.2")
def test_a_recording_answers_as_its_qemu_does(other_qemus: Mapping[str, Path]) -> None:
    recorded = open_recording(find_recording("7.2", "tcg", "aarch64"))
    with QemuSource(other_qemus["aarch64-7.2"]) as live:
        for machine in ("virt-2.6", "virt-6.2", "virt-7.2"):
            there = live.realise(machine, CpuModel("max")).properties
            for name, value in recorded.realise(machine, CpuModel("max")).properties.items():
                assert there[name] == value, (machine, name)


@pytest.mark.live
@pytest.mark.needs("qemu-aarch64-7.2", "qemu-aarch64-11.1")
def test_a_guest_reads_its_registers(
    other_qemus: Mapping[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    qemu = str(other_qemus["aarch64-7.2"])
    a57 = probe_aarch64(qemu, "virt-7.2", ["-cpu", "cortex-a57"])
    assert a57["MIDR_EL1"] == 0x411FD070  # Arm, Cortex-A57 r1p0
    assert a57["CNTFRQ_EL0"] == 62500000
    off = probe_aarch64(qemu, "virt-7.2", ["-cpu", "cortex-a57,pmu=off"])
    assert any("ID_AA64DFR0_EL1" in text for text in register_differences(a57, off))
    guest = _written(tmp_path, _domain(MODEL.format("cortex-a57", ""), "virt-5.2"))
    code, out, _ = run(capsys, "verify", guest, "--qemu", qemu, "--target-machine", "virt-7.2")
    assert code == 0
    assert "realised: holds, seen by a guest: holds" in out
    other = str(other_qemus["aarch64-11.1"])
    code, out, _ = run(capsys, "verify", guest, "--qemu", qemu, "--target-qemu", other)
    assert code == 1
    assert "not known beforehand" in out and "ID_DFR0_EL1" in out


SETTINGS = [
    ("", ""),
    (MODEL.format("cortex-a57", ""), ""),
    (MODEL.format("max", "<feature policy='disable' name='sve'/>"), ""),
    (MODEL.format("max", "<feature policy='require' name='sve256'/>"), ""),
    (MODEL.format("max", "<feature policy='optional' name='sve'/>"), ""),
    (MODEL.format("max", "<feature policy='forbid' name='sve'/>"), ""),
    (MODEL.format("max", "").replace("exact", "minimum"), ""),
    (MODEL.format("cortex-a57", ""), "<features><pmu state='off'/></features>"),
    ("<cpu mode='maximum'/>", ""),
]


@pytest.mark.live
@pytest.mark.needs("qemu-aarch64-7.2")
@pytest.mark.parametrize("release", needing("libvirt", ("9.0",)))
def test_pin_none_is_what_libvirt_passes(
    release: str,
    other_qemus: Mapping[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    qemu = other_qemus["aarch64-7.2"]
    with libvirt_releases.running(release) as daemon:
        emulator = f"<devices><emulator>{daemon.emulator(qemu)}</emulator></devices>"
        for cpu, rest in SETTINGS:
            text = _domain(cpu, rest=rest + emulator)
            given = daemon.virsh("domxml-to-native", "qemu-argv", "/dev/stdin", given=text)
            (passed,) = re.findall(r"-cpu '?([^ \\']+)", given)
            guest = _written(tmp_path, text)
            code, out, err = run(capsys, "translate", guest, "--pin", "none", "--recorded", "7.2")
            assert code == 0, err
            assert out == f"-cpu {passed}\n"
