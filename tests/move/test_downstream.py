"""Machine types of distributions: known to their own QEMU, never taken for a release of
upstream's.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cpumap.cli.main import main
from cpumap.cpu.vendors import vendor_among, vendor_of
from cpumap.sources.recordings import user_directory
from tests.support.renamed import write_rhel

DOMAIN = """<domain type='{kind}'><name>guest</name><memory>1</memory><vcpu>1</vcpu>
  <os><type arch='x86_64' machine='{machine}'>hvm</type></os>{cpu}
</domain>
"""
HASWELL = "<cpu mode='custom'><model>Haswell</model></cpu>"
RHEL_TYPES = ("pc-q35-rhel9.4.0", "pc-i440fx-rhel7.6.0")
UBUNTU_TYPES = ("pc-q35-noble", "pc-q35-noble-v2", "pc-i440fx-jammy-hpb", "ubuntu", "ubuntu-q35")


@pytest.fixture
def no_qemu(monkeypatch: pytest.MonkeyPatch) -> None:
    """No QEMU is on PATH: recordings answer."""
    monkeypatch.setenv("PATH", "")


def domain(directory: Path, machine: str, kind: str = "qemu", cpu: str = HASWELL) -> Path:
    """A guest with this machine type."""
    path = directory / f"{machine}.xml"
    path.write_text(DOMAIN.format(kind=kind, machine=machine, cpu=cpu))
    return path


def said(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    """A command's exit code, and what it said on stdout and stderr."""
    capsys.readouterr()
    code = main([str(word) for word in words])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.mark.parametrize(
    ("name", "vendor"),
    [
        *((name, "RHEL") for name in RHEL_TYPES),
        *((name, "Ubuntu") for name in UBUNTU_TYPES),
        ("pc-q35-7.2", ""),
        ("pc-q35-9.2+pve1", ""),
        ("pc-i440fx-mantic-maxcpus", "Ubuntu"),
        ("microvm", ""),
        ("q35", ""),
    ],
)
def test_whose_a_machine_type_is(name: str, vendor: str) -> None:
    assert vendor_of(name) == vendor
    assert vendor_among([name, "pc", "isapc"]) == vendor


@pytest.mark.usefixtures("no_qemu")
@pytest.mark.parametrize("machine", RHEL_TYPES)
@pytest.mark.parametrize("command", [("translate",), ("convert", "--dry-run"), ("lock",)])
def test_a_type_that_no_recording_knows_is_said_to_be_whose(
    command: tuple[str, ...], machine: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    guest = domain(tmp_path, machine)
    code, out, err = said(capsys, command[0], guest, *command[1:])
    assert code == 2
    for part in ("RHEL's own", "cpumap record --qemu /usr/libexec/qemu-kvm", "--recorded FILE"):
        assert part in out + err


@pytest.mark.usefixtures("no_qemu")
def test_a_hook_says_whose_it_is_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    guest = domain(tmp_path, RHEL_TYPES[0])
    code, out, err = said(capsys, "hook", "libvirt", "--check", guest)
    assert code != 0 and "RHEL's own" in out + err and "cpumap record" in out + err


@pytest.mark.usefixtures("no_qemu")
def test_a_type_of_another_architecture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = said(capsys, "translate", domain(tmp_path, "virt-7.2"))
    assert code == 2 and "not of x86_64" in err


@pytest.mark.usefixtures("no_qemu")
@pytest.mark.parametrize("machine", UBUNTU_TYPES)
def test_ubuntus_types_are_answered_by_ubuntus_qemu(
    machine: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = said(capsys, "translate", domain(tmp_path, machine))
    assert code == 0 and out.startswith("-cpu ") and "8.2.2 of Ubuntu" in err


@pytest.mark.usefixtures("no_qemu")
def test_proxmox_labels_upstreams_type_and_has_a_default_of_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labelled = said(capsys, "translate", domain(tmp_path, "pc-q35-9.2+pve1"))
    upstream = said(capsys, "translate", domain(tmp_path, "pc-q35-9.2"))
    assert labelled == upstream and labelled[0] == 0
    _, out, _ = said(capsys, "translate", domain(tmp_path, "pc-q35-9.2+pve1", cpu=""))
    assert "kvm64-v1," in out
    _, out, _ = said(capsys, "translate", domain(tmp_path, "pc-q35-9.2", cpu=""))
    assert "qemu64-v1," in out


@pytest.mark.usefixtures("no_qemu")
def test_a_recording_of_the_user_is_found_by_machine_type_release_and_vendor(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    user_directory().mkdir(parents=True)
    write_rhel(user_directory())
    guest = domain(tmp_path, RHEL_TYPES[0])
    by_type = said(capsys, "translate", guest)
    assert by_type[0] == 0 and "9.1.0 of RHEL" in by_type[2]
    for name in ("rhel", "9.1-rhel", "9.1.0-rhel"):
        assert said(capsys, "translate", guest, "--recorded", name)[:2] == by_type[:2]
    code, _, err = said(capsys, "translate", guest, "--recorded", "9.1")
    assert code == 2 and "9.1.0-rhel" in err


@pytest.mark.parametrize(
    ("machine", "target", "to"),
    [
        (RHEL_TYPES[0], "10.0", "pc-q35-10.0"),
        (RHEL_TYPES[1], "ubuntu", "pc-i440fx-noble"),
        ("pc-q35-7.2", "RHEL", RHEL_TYPES[0]),
    ],
)
def test_a_move_to_or_from_what_nobody_measured_is_not_known(
    machine: str, target: str, to: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rhel = write_rhel(tmp_path)
    source = rhel if "rhel" in machine else "7.2"
    where = ["--target-qemu", rhel if target == "RHEL" else target, "--target-machine", to]
    guest = domain(tmp_path, machine)
    code, out, err = said(capsys, "translate", guest, "--recorded", source, *where)
    assert (code, out) == (1, "") and "is not known" in err and "cannot stay" not in err
    code, out, _ = said(capsys, "translate", guest, "--recorded", source, *where, "--allow-drift")
    assert code == 0 and out.startswith("-cpu ")


@pytest.mark.parametrize("source", ["ubuntu", "RHEL"])
def test_a_fleet_on_types_of_a_distribution(
    source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Converted, locked and audited on the QEMU that knows them, and on one that does not."""
    rhel = write_rhel(tmp_path)
    recorded = rhel if source == "RHEL" else source
    old, new = RHEL_TYPES if source == "RHEL" else ("pc-q35-noble", "pc-i440fx-jammy")
    guests = tmp_path / "guests"
    guests.mkdir()
    domain(guests, old)
    domain(guests, new)
    lock = tmp_path / "lock.json"
    assert said(capsys, "lock", guests, "--recorded", recorded, "-o", lock)[0] == 0
    assert said(capsys, "audit", lock, "--recorded", recorded)[0] == 0
    code, out, _ = said(
        capsys, "audit", lock, "--recorded", "10.0", "--machine", "pc-q35-10.0", "--format", "json"
    )
    # Ubuntu's was measured, and no guest with one vCPU reads a difference; RHEL's was not.
    assert code == (1 if source == "RHEL" else 0) and len(json.loads(out)["cpus"]) == 2
    out_dir = tmp_path / "out"
    assert said(capsys, "convert", guests, "--output-dir", out_dir, "--recorded", recorded)[0] == 0
    assert len(list(out_dir.iterdir())) == 2
    code, _, err = said(
        capsys, "convert", guests, "--dry-run", "--recorded", recorded, "--machine", new
    )
    assert code in (0, 1) and "Traceback" not in err


@pytest.mark.parametrize("source", ["ubuntu", "RHEL"])
def test_diff_of_all_machine_types(
    source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recorded = write_rhel(tmp_path) if source == "RHEL" else source
    code, out, err = said(capsys, "diff", "Haswell", "--all-machines", "--recorded", recorded)
    assert code in (0, 1) and "Traceback" not in err
    assert "pc-q35-rhel9.4.0" in out if source == "RHEL" else "noble" in out
