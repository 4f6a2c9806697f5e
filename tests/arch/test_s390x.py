"""s390x from recordings: a CPU is a base model and features, the same wherever it goes."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from cpumap.arch.s390x.s390x import S390X
from cpumap.cpu.expansion import CpuModel
from cpumap.cpu.names import PropertyName
from cpumap.errors import UnknownNameError
from cpumap.proof.guest_s390x import field_differences, probe_s390x
from cpumap.sources.live import QemuSource
from cpumap.sources.open_recording import open_recording
from cpumap.sources.recordings import shipped
from cpumap.sources.source import Source
from tests.support import libvirt_releases
from tests.support.releases import needing

RELEASES = ("5.2.0", "7.2.22", "10.0.13", "11.1.3")

OTHER_ARCHITECTURE = re.compile(
    r"x86|cpuid|\bmsr\b|intel|amd\b|pc-q35|i440fx|vendor|enforce|phys-bits|apic", re.IGNORECASE
)
"""Words that mean nothing to a CPU of s390x."""


def _recorded(release: str) -> Source:
    (found,) = [one for one in shipped("tcg", "s390x") if str(one.release) == release]
    return open_recording(found.path)


def _domain(cpu: str, machine: str = "s390-ccw-virtio-7.2", kind: str = "kvm") -> str:
    return (
        f"<domain type='{kind}'><name>z</name><memory>1</memory><vcpu>1</vcpu>"
        f"<os><type arch='s390x' machine='{machine}'>hvm</type></os>\n{cpu}\n</domain>"
    )


Z14 = "<cpu mode='custom' match='exact'><model>z14</model>{}</cpu>"


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, output and messages of the command line."""
    from cpumap.cli.main import main

    try:
        code = main(list(arguments))
    except SystemExit as exit_:
        code = int(exit_.code or 0)
    said = capsys.readouterr()
    return code, said.out, said.err


@pytest.fixture
def z14(tmp_path: Path) -> Path:
    path = tmp_path / "z14.xml"
    path.write_text(_domain(Z14.format("")))
    return path


def test_four_releases_are_shipped() -> None:
    assert [str(one.release) for one in shipped("tcg", "s390x")] == list(RELEASES)


@pytest.mark.parametrize("release", RELEASES)
def test_a_static_expansion_is_the_same_under_every_machine_type(release: str) -> None:
    """Of the newest and the oldest machine type, every model, expanded again under every type."""
    source = _recorded(release)
    tables = list(source.tables())
    total = 0
    for there in (tables[0], tables[-1]):
        for entry in source.definitions(there):
            if entry.name == "max":
                continue  # whatever the accelerator has
            explicit = source.expand(there, CpuModel(entry.name), "static")
            for machine in tables:
                again = source.expand(machine, explicit, "static")
                assert again == explicit, (entry.name, there, machine)
                total += 1
    assert total > 500


@pytest.mark.parametrize("release", RELEASES[1:])
def test_a_static_expansion_of_an_old_release_is_the_same_in_a_new_one(release: str) -> None:
    old, new = _recorded("5.2.0"), _recorded(release)
    machine = "s390-ccw-virtio-5.2"
    newest = new.machines()[0].name
    for entry in old.definitions(machine):
        if entry.name in ("max", "qemu"):
            continue
        explicit = old.expand(machine, CpuModel(entry.name), "static")
        assert new.expand(newest, explicit, "static") == explicit


def test_naive_models_do_drift() -> None:
    """What z14 has under the oldest machine type and under the newest, from QEMU's own answers."""
    source = _recorded("7.2.22")
    old = source.expand("s390-ccw-virtio-2.9", CpuModel("z14"), "static").props
    new = source.expand("s390-ccw-virtio-7.2", CpuModel("z14"), "static").props
    gained = {"aen", "bpb", "esop", "mepoch", "mepochptff", "ppa15", "sea_esop2", "zpci"}
    assert new.keys() - old.keys() == gained


def test_groups_are_opened_and_named_again() -> None:
    groups = S390X.groups
    msa5 = groups.members[PropertyName("msa5")]
    assert len(msa5) == 2
    assert groups.named(msa5) == {"msa5"}
    less = groups.changed(msa5, {PropertyName(min(msa5)): False})
    assert groups.named(less) == msa5 - {min(msa5)}


def test_a_feature_of_later_models_is_refused_in_qemus_words() -> None:
    source = _recorded("11.1.3")
    with pytest.raises(UnknownNameError, match="'vx' is not available for CPU model 'z10EC'"):
        source.expand(
            "s390-ccw-virtio-11.1", CpuModel("z10EC", {PropertyName("vx"): True}), "static"
        )


def test_translate_writes_the_base_model_of_the_guests_machine_type(
    z14: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(capsys, "translate", str(z14), "--recorded", "7.2")
    assert code == 0, err
    assert out.startswith("-cpu z14-base,+aefsi,+aen,+bpb,")
    old = z14.with_name("old.xml")
    old.write_text(z14.read_text().replace("-7.2", "-2.9"))
    code, out, err = run(capsys, "translate", str(old), "--recorded", "7.2")
    assert code == 0, err
    assert "+aen" not in out


def test_the_explicit_cpu_is_all_in_libvirts_words(
    z14: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run(capsys, "translate", str(z14), "--recorded", "7.2", "--format", "xml")
    assert code == 0
    assert "<model fallback='forbid'>z14-base</model>" in out
    assert "<feature policy='require' name='sea_esop2'/>" in out
    assert "check='none'" in out
    assert "qemu:commandline" not in out


def test_deprecated_features_are_switched_off_on_demand(
    z14: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run(capsys, "translate", str(z14), "--recorded", "10.0", "--deprecated", "off")
    assert code == 0
    named = set(out.strip().partition(" ")[2].split(",")[1:])
    assert "-csske" in named
    assert not {"+te", "+cte", "+bpb", "+csske"} & named


@pytest.mark.parametrize(
    ("cpu", "reason"),
    [
        (Z14.format("<feature policy='optional' name='vx'/>"), "policy 'optional'"),
        (Z14.format("").replace("exact", "minimum"), "match mode minimum not supported"),
        (Z14.format("<feature policy='require' name='vox'/>"), "'vox'"),
        (Z14.format("<feature policy='require' name='msa9'/>"), "introduced with later models"),
        (
            Z14.format(
                "<feature policy='disable' name='msa5'/>"
                "<feature policy='require' name='kimd-sha-512'/>"
            ).replace("kimd-sha-512", min(S390X.groups.members[PropertyName("msa5")])),
            "msa5",
        ),
        ("<cpu mode='host-passthrough'/>", "whatever its host has"),
        ("<cpu mode='host-model'/>", "host-model"),
    ],
)
def test_what_cannot_be_answered_is_refused_in_one_line(
    cpu: str, reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bad.xml"
    path.write_text(_domain(cpu))
    code, out, err = run(capsys, "translate", str(path), "--recorded", "7.2")
    assert code in (1, 2), err
    assert not out
    assert reason in err
    assert len(err.splitlines()) == 1


def test_kvm_takes_no_model_under_the_oldest_machine_types(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "old.xml"
    path.write_text(_domain(Z14.format(""), "s390-ccw-virtio-2.7"))
    code, _, err = run(capsys, "translate", str(path), "--recorded", "7.2")
    assert code == 1
    assert "host-passthrough only" in err


def test_tcg_says_what_it_cannot_give(z14: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "translate", str(z14), "--recorded", "7.2", "--accel", "tcg")
    assert code == 0
    assert "QEMU starts no such CPU there" in err
    off = run(
        capsys, "translate", str(z14), "--recorded", "7.2", "--accel", "tcg", "--unavailable", "off"
    )
    assert off[0] == 0
    assert "-dfp," in off[1]
    assert "+te" not in off[1]
    assert "+te" in out


def test_a_model_newer_than_tcg_is_refused_where_it_should_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "gen16.xml"
    path.write_text(_domain("<cpu mode='custom'><model>gen16a</model></cpu>", kind="qemu"))
    code, _, err = run(capsys, "translate", str(path), "--recorded", "7.2", "--unavailable", "off")
    assert code == 1
    assert "newer than what tcg has" in err


def test_a_lock_holds_across_releases_and_tells_drift(
    z14: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lock = str(tmp_path / "fleet.lock")
    assert run(capsys, "lock", str(z14), "--recorded", "7.2", "-o", lock)[0] == 0
    assert run(capsys, "audit", lock, "--recorded", "10.0")[0] == 0
    code, out, _ = run(
        capsys, "audit", lock, "--recorded", "10.0", "--machine", "s390-ccw-virtio-2.9"
    )
    assert code == 1
    assert "mepoch: on" in out


def test_a_move_that_is_refused_says_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "gen16.xml"
    path.write_text(_domain("<cpu mode='custom'><model>gen16a</model></cpu>"))
    code, _, err = run(
        capsys, "translate", str(path), "--recorded", "7.2", "--target-qemu", "5.2",
        "--target-machine", "s390-ccw-virtio-5.2",
    )  # fmt: skip
    assert code == 1
    assert "no CPU model 'gen16a-base'" in err


@pytest.mark.parametrize(
    "command",
    [
        ["translate", "Z14", "--recorded", "7.2"],
        ["translate", "Z14", "--recorded", "7.2", "--format", "xml"],
        ["translate", "Z14", "--recorded", "7.2", "--pin", "none"],
        ["translate", "Z14", "--recorded", "7.2", "--pin", "custom"],
        ["check", "Z14", "--recorded", "7.2", "--accel", "tcg"],
        ["expand", "z14", "--arch", "s390x", "--recorded", "7.2"],
        ["dump", "z14", "--arch", "s390x", "--recorded", "7.2"],
        ["models", "--arch", "s390x", "--recorded", "7.2"],
        ["machines", "--arch", "s390x", "--recorded", "7.2"],
        ["host", "--arch", "s390x", "--recorded", "7.2"],
        ["host", "--arch", "s390x", "--recorded", "7.2", "--accel", "tcg"],
        ["diff", "z14", "--arch", "s390x", "--recorded", "7.2", "--all-machines"],
    ],
)
def test_no_answer_has_a_word_of_another_architecture(
    command: list[str], z14: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(z14) if word == "Z14" else word for word in command]
    code, out, err = run(capsys, *arguments)
    assert code in (0, 1, 2)
    assert out or err
    answer = out + err.replace(str(z14), "")
    assert not OTHER_ARCHITECTURE.search(answer.replace('"enforce": false', "")), answer


def test_models_say_which_features_are_deprecated(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(
        capsys, "expand", "z14", "--arch", "s390x", "--recorded", "11.1", "--type", "static"
    )
    assert code == 0
    answer = json.loads(out)
    assert answer["model"]["name"] == "z14-base"
    assert answer["deprecated-props"] == ["bpb", "csske", "cte", "te"]


@pytest.mark.live
@pytest.mark.needs("qemu-s390x-7.2")
def test_a_recording_answers_as_its_qemu_does(other_qemus: Mapping[str, Path]) -> None:
    """Models with features of any kind switched, at random (with a seed)."""
    recorded = _recorded("7.2.22")
    choose = random.Random(390)
    machine = "s390-ccw-virtio-4.0"
    with QemuSource(other_qemus["s390x-7.2"]) as live:
        for ours, theirs in zip(
            recorded.definitions(machine), live.definitions(machine), strict=True
        ):
            assert ours == replace(theirs, unavailable=tuple(sorted(theirs.unavailable)))
        names = sorted(live.expand(machine, CpuModel("gen16a"), "full").props)
        names += sorted(
            S390X.groups.singles(name for name in names if name in S390X.groups.members)
        )
        models = [entry.name for entry in live.definitions(machine)]
        taken = 0
        for _ in range(150):
            props = {choose.choice(names): choose.random() < 0.5 for _ in range(3)}
            if S390X.groups.contradiction(props):
                continue
            model = CpuModel(choose.choice(models), props)
            try:
                answer = live.expand(machine, model, "static")
            except Exception as err:
                with pytest.raises(UnknownNameError) as refused:
                    recorded.expand(machine, model, "static")
                assert "not available for CPU model" in str(err)
                assert "not available for CPU model" in str(refused.value)
                continue
            assert recorded.expand(machine, model, "static") == answer
            taken += 1
        assert taken > 30


CPU = "<cpu><arch>s390x</arch><model>{}</model></cpu>"


def test_libvirt_calls_any_two_cpus_identical(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.xml").write_text(CPU.format("z13"))
    (tmp_path / "b.xml").write_text(CPU.format("z14"))
    code, out, err = run(capsys, "compare", str(tmp_path / "a.xml"), str(tmp_path / "b.xml"))
    assert (code, out) == (0, "identical\n")
    assert "--qemu" in err


@pytest.mark.live
@pytest.mark.needs("qemu-s390x-7.2")
def test_qemu_compares_and_finds_the_baseline(
    other_qemus: Mapping[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    z13, z14 = str(tmp_path / "a.xml"), str(tmp_path / "b.xml")
    Path(z13).write_text(CPU.format("z13"))
    Path(z14).write_text(CPU.format("z14"))
    qemu = ("--qemu", str(other_qemus["s390x-7.2"]))
    assert run(capsys, "compare", z14, z13, *qemu)[:2] == (0, "superset\n")
    assert run(capsys, "compare", z14, z14, *qemu)[:2] == (0, "identical\n")
    code, out, err = run(capsys, "compare", z13, z14, *qemu, "--error")
    assert (code, out) == (1, "incompatible\n")
    assert "type" in err and "vxeh" in err
    code, out, _ = run(capsys, "baseline", z14, z13, *qemu)
    assert code == 0
    assert "<model fallback='forbid'>z13-base</model>" in out


@pytest.mark.live
@pytest.mark.needs("qemu-s390x-5.2", "qemu-s390x-11.1")
def test_a_guest_reads_the_same_in_another_release(
    other_qemus: Mapping[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "z196.xml"
    model = "<cpu mode='custom'><model>z196</model></cpu>"
    path.write_text(_domain(model, "s390-ccw-virtio-5.2", "qemu"))
    code, out, err = run(
        capsys, "verify", str(path), "--qemu", str(other_qemus["s390x-5.2"]),
        "--unavailable", "off", "--target-qemu", str(other_qemus["s390x-11.1"]),
        "--target-machine", "s390-ccw-virtio-11.1",
    )  # fmt: skip
    assert code == 0, err
    assert "expanded again: holds, seen by a guest: holds" in out


@pytest.mark.live
@pytest.mark.needs("qemu-s390x-7.2")
def test_a_guest_tells_models_apart(other_qemus: Mapping[str, Path]) -> None:
    """z900.2 has features that z900 has not, and another type; both start under tcg."""
    qemu, machine = str(other_qemus["s390x-7.2"]), "s390-ccw-virtio-7.2"
    one = probe_s390x(qemu, machine, ["-cpu", "z900"])
    assert one["STFLE"][:2] == b"\xe0\x00"
    assert not list(field_differences(one, probe_s390x(qemu, machine, ["-cpu", "z900-base"])))
    other = probe_s390x(qemu, machine, ["-cpu", "qemu"])
    found = [str(difference) for difference in field_differences(one, other)]
    assert any(text.startswith("STFLE") for text in found)
    assert any(text.startswith("STIDP") for text in found)


SETTINGS = [
    "",
    Z14.format(""),
    Z14.format("<feature policy='disable' name='te'/><feature policy='require' name='vx'/>"),
    Z14.format("<feature policy='force' name='te'/>"),
    Z14.format("").replace("exact", "strict"),
    "<cpu mode='custom' check='none'><model>z14-base</model>"
    "<feature policy='require' name='sea_esop2'/></cpu>",
    "<cpu mode='maximum'/>",
]


@pytest.mark.live
@pytest.mark.needs("qemu-s390x-7.2")
@pytest.mark.parametrize("release", needing("libvirt", ("9.0",)))
def test_pin_none_is_what_libvirt_passes(
    release: str,
    other_qemus: Mapping[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    qemu = other_qemus["s390x-7.2"]
    with libvirt_releases.running(release) as daemon:
        for cpu in SETTINGS:
            text = _domain(cpu.replace("match=", "check='none' match="), kind="qemu").replace(
                "</domain>",
                f"<devices><emulator>{daemon.emulator(qemu)}</emulator></devices></domain>",
            )
            given = daemon.virsh("domxml-to-native", "qemu-argv", "/dev/stdin", given=text)
            (passed,) = re.findall(r"-cpu '?([^ \\']+)", given)
            path = tmp_path / "guest.xml"
            path.write_text(text)
            code, out, err = run(
                capsys, "translate", str(path), "--pin", "none", "--recorded", "7.2"
            )
            assert code == 0, err
            assert out == f"-cpu {passed}\n"


@pytest.mark.live
@pytest.mark.needs("qemu-s390x-7.2")
@pytest.mark.parametrize("release", needing("libvirt", ("9.0",)))
def test_libvirt_passes_on_all_of_an_explicit_cpu(
    release: str,
    other_qemus: Mapping[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with libvirt_releases.running(release) as daemon:
        emulator = daemon.emulator(other_qemus["s390x-7.2"])
        path = tmp_path / "guest.xml"
        path.write_text(
            _domain(Z14.format(""), kind="qemu").replace(
                "</domain>", f"<devices><emulator>{emulator}</emulator></devices></domain>"
            )
        )
        options = ("--recorded", "7.2", "--style", "onoff")
        explicit = run(capsys, "translate", str(path), *options)[1]
        written = run(capsys, "translate", str(path), *options, "--format", "xml")[1]
        given = daemon.virsh("domxml-to-native", "qemu-argv", "/dev/stdin", given=written)
        (passed,) = re.findall(r"-cpu '?([^ \\']+)", given)
        assert explicit == f"-cpu {passed}\n"
