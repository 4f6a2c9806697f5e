"""ppc64: a CPU is an exact model and options of the machine, proven by the guest's device tree."""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from pathlib import Path

import pytest

from cpumap.cpu.expansion import CpuModel
from cpumap.errors import SourceError
from cpumap.libvirt.cpu_map.load import load_cpu_map
from cpumap.libvirt.domain import parse_request
from cpumap.pin.expand import expand
from cpumap.pin.resolve import resolve
from cpumap.proof.verify_of_machine import tree_of_cpu
from cpumap.qemu.cpu_option import parse_cpu_option
from cpumap.qemu.device_tree import read_device_tree
from cpumap.sources.live import QemuSource
from cpumap.sources.platform import Platform
from tests.arch.test_s390x import OTHER_ARCHITECTURE, run

FEATURES = """<features><htm state='off'/><nested-hv state='off'/><ccf-assist state='on'/>
<cfpc value='workaround'/><sbbc value='broken'/><ibs value='fixed-na'/>
<hpt resizing='required'><maxpagesize unit='KiB'>64</maxpagesize></hpt></features>"""

POWER9 = "<cpu mode='custom' check='none'><model>POWER9</model></cpu>"


def _domain(cpu: str = POWER9, machine: str = "pseries-7.2", arch: str = "ppc64") -> str:
    return (
        f"<domain type='qemu'><name>p</name><memory>1</memory><vcpu>1</vcpu>"
        f"<os><type arch='{arch}' machine='{machine}'>hvm</type></os>\n{cpu}\n</domain>"
    )


def _file(folder: Path, text: str) -> str:
    path = folder / "guest"
    path.write_text(text)
    return str(path)


def test_libvirts_words_for_the_machine_are_read() -> None:
    """libvirt 9.0 makes of this document: resize-hpt=required,cap-hpt-max-page-size=64k,
    cap-htm=off,cap-nested-hv=off,cap-ccf-assist=on,cap-cfpc=workaround,cap-sbbc=broken,
    cap-ibs=fixed-na.
    """
    settings = parse_request(_domain(FEATURES + POWER9)).settings
    assert {setting.name: setting.value for setting in settings} == {
        "resize-hpt": "required",
        "cap-hpt-max-page-size": 65536,
        "cap-htm": False,
        "cap-nested-hv": False,
        "cap-ccf-assist": True,
        "cap-cfpc": "workaround",
        "cap-sbbc": "broken",
        "cap-ibs": "fixed-na",
    }


@pytest.mark.parametrize(
    "words",
    [
        "<cfpc value='maybe'/>",
        "<ibs/>",
        "<hpt resizing='on'/>",
        "<hpt><maxpagesize unit='ell'>64</maxpagesize></hpt>",
        "<hpt><maxpagesize>much</maxpagesize></hpt>",
    ],
)
def test_what_libvirt_refuses_of_them_is_bad_input(
    words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    guest = _file(tmp_path, _domain(f"<features>{words}</features>{POWER9}"))
    code, out, err = run(capsys, "translate", guest)
    assert (code, out) == (2, "")
    assert f"{guest}:2: " in err


def test_options_of_the_machine_are_read_from_a_command_line() -> None:
    line = "-M pseries-7.2,cap-htm=on,hmat=on -machine cap-hpt-max-page-size=16m -cpu power9"
    request = parse_cpu_option(line)
    assert request.machine == "pseries-7.2"
    assert {setting.name: setting.value for setting in request.settings} == {
        "cap-htm": True,
        "cap-hpt-max-page-size": 16 * 2**20,
    }


def test_no_recording_is_said_without_the_names_of_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(capsys, "translate", _file(tmp_path, _domain()))
    assert (code, out) == (2, "")
    assert "no QEMU of ppc64 is recorded: name one with --qemu" in err


def test_several_threads_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """tcg has none of them, and what KVM makes of them was not measured."""
    threads = "<cpu><topology sockets='1' cores='1' threads='4'/></cpu>"
    text = _domain(threads).replace("<vcpu>1<", "<vcpu>4<")
    code, out, err = run(capsys, "convert", "--dry-run", _file(tmp_path, text))
    assert "several threads of a core" in out + err
    assert code == 1


@pytest.mark.parametrize("blob", [b"", b"\0" * 64, struct.pack(">4I", 0xD00DFEED, 16, 16, 16)])
def test_what_is_no_device_tree_is_said(blob: bytes) -> None:
    with pytest.raises(SourceError, match="device tree cannot be read"):
        read_device_tree(blob)


@pytest.mark.live
@pytest.mark.needs("qemu-ppc64-7.2")
def test_every_command_answers(
    other_qemus: Mapping[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    qemu = str(other_qemus["ppc64-7.2"])
    guest = _file(tmp_path, _domain(arch="ppc64le"))
    for command, expected in (
        (["translate", guest], "-cpu power9_v2.0 -machine cap-ccf-assist=on,"),
        (["translate", guest, "--pin", "none"], "-cpu POWER9\n"),
        (["translate", guest, "--format", "xml"], ">power9_v2.0</model>"),
        (["models", "--accel", "tcg"], "power9_v2.0"),
        (["machines", "--accel", "tcg"], "pseries-6.2"),
        (["expand", "POWER9", "--accel", "tcg"], '"cap-large-decr": true'),
        (["dump", "power9", "--accel", "tcg"], '\n[machine]\n  cap-ccf-assist = "on"\n'),
        (["verify", guest, "--target-machine", "pseries-3.1"], "device tree: holds"),
        (["translate", guest, "--target-machine", "pseries-3.1"], "vsmt=1"),
    ):
        code, out, err = run(capsys, *command, "--qemu", qemu)
        assert code == 0, err
        assert expected in out
        assert not OTHER_ARCHITECTURE.search((out + err).replace(guest, "")), out + err


@pytest.mark.live
@pytest.mark.needs("qemu-ppc64-7.2")
def test_converting_twice_changes_nothing(
    other_qemus: Mapping[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And what the document says of the machine itself is kept."""
    guest = _file(tmp_path, _domain(FEATURES + POWER9, "pseries-3.1"))
    arguments = ("convert", "--in-place", guest, "--qemu", str(other_qemus["ppc64-7.2"]))
    assert run(capsys, *arguments)[0] == 0
    first = Path(guest).read_text()
    (options,) = re.findall("value='(cap-[^']+)'", first)
    assert "cap-ibs=fixed-na" in options and "resize-hpt=required" in options
    assert "cap-large-decr=off" in options and "ic-mode=xics" in options
    assert run(capsys, *arguments)[0] == 0
    assert Path(guest).read_text() == first


@pytest.mark.live
@pytest.mark.needs("qemu-ppc64-7.2")
@pytest.mark.parametrize("model", ["power8", "power9", "power10"])
@pytest.mark.parametrize(
    ("old", "new"), [("pseries-3.1", "pseries-7.2"), ("pseries-7.2", "pseries-3.1")]
)
def test_the_device_tree_stays(
    model: str, old: str, new: str, other_qemus: Mapping[str, Path]
) -> None:
    """Old to new and back; where nothing is named it changes."""
    with QemuSource(other_qemus["ppc64-7.2"]) as source:
        platform = Platform(source, load_cpu_map())
        request = parse_cpu_option(f"-M {old} -accel tcg -cpu {model}")
        cpu = resolve(request, expand(request, platform))
        assert cpu.model.startswith(f"{model}_v")
        before = tree_of_cpu(source, old, CpuModel(model))
        assert before and before != tree_of_cpu(source, new, CpuModel(model))
        assert before == tree_of_cpu(source, new, CpuModel(cpu.model, cpu.values))


@pytest.mark.live
@pytest.mark.needs("qemu-ppc64-7.2")
def test_what_old_machine_types_cannot_name_is_named_elsewhere(
    other_qemus: Mapping[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    qemu = str(other_qemus["ppc64-7.2"])
    old = _file(tmp_path, _domain(machine="pseries-2.12"))
    moved = run(capsys, "verify", old, "--target-machine", "pseries-7.2", "--qemu", qemu)
    assert "holds, device tree: holds" in moved[1], moved
    code, out, _ = run(capsys, "translate", old, "--target-machine", "pseries-7.2", "--qemu", qemu)
    assert (code, "ic-mode=xics" in out) == (0, True)
    new = _file(tmp_path, _domain(machine="pseries-7.2"))
    code, out, err = run(
        capsys, "translate", new, "--target-machine", "pseries-2.12", "--qemu", qemu
    )
    assert (code, out) == (1, "")
    assert "cannot stay the same" in err


@pytest.mark.parametrize("command", ["compare GUEST GUEST", "baseline GUEST", "update GUEST GUEST"])
def test_what_cannot_be_told_is_refused_in_one_sentence(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    guest = _file(tmp_path, _domain())
    code, out, err = run(capsys, *command.replace("GUEST", guest).split())
    assert (code, out) == (2, "")
    assert "can enable of ppc64 CPUs is not known here" in err


@pytest.mark.live
@pytest.mark.needs("qemu-ppc64-7.2")
@pytest.mark.parametrize("command", ["check GUEST", "host --accel tcg"])
def test_what_its_qemu_cannot_tell_is_refused_in_one_sentence(
    command: str,
    other_qemus: Mapping[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = command.replace("GUEST", _file(tmp_path, _domain())).split()
    code, out, err = run(capsys, *words, "--qemu", str(other_qemus["ppc64-7.2"]))
    assert (code, out) == (2, "")
    sentences = (
        "can enable of ppc64 CPUs is not known",
        "does not say what hosts of ppc64 can give",
    )
    assert [sentence for sentence in sentences if sentence in err]
