"""Domains converted where libvirt keeps them: nothing is lost, whenever it is interrupted."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from cpumap.cli.main import main
from cpumap.fleet.libvirt import definition, keep
from cpumap.sources.libvirt import Hypervisor
from tests.support import libvirtd
from tests.support.definitions import Case, model

pytestmark = [pytest.mark.live, pytest.mark.xdist_group("libvirt")]

MODELS = ("Penryn", "Haswell", "Westmere", "EPYC")
FLEET = 200


@pytest.fixture(scope="module")
def daemon() -> Iterator[libvirtd.Daemon]:
    with libvirtd.private() as daemon:
        yield daemon


@pytest.fixture
def hypervisor(daemon: libvirtd.Daemon) -> Iterator[Hypervisor]:
    """The daemon, empty again afterwards."""
    with Hypervisor(daemon.uri, write=True) as hypervisor:
        yield hypervisor
        for domain in hypervisor.domains():
            if domain.active:
                hypervisor.destroy(domain.name)
            hypervisor.undefine(domain.name)


def define(
    hypervisor: Hypervisor, daemon: libvirtd.Daemon, emulator: Path, name: str, cpu: str
) -> bytes:
    hypervisor.define(Case(cpu).xml(name, str(emulator.resolve()), daemon.root / "qmp").encode())
    return hypervisor.xml(name)


def convert(daemon: libvirtd.Daemon, *words: str) -> int:
    return main(["convert", "--connect", daemon.uri, *words])


def test_converted_read_back_and_undone(
    hypervisor: Hypervisor, daemon: libvirtd.Daemon, qemus: Mapping[str, Path], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    old = define(hypervisor, daemon, qemus["7.2"], "one", model("Haswell"))
    assert convert(daemon, "one", "--diff=full") == 0
    assert "+    <feature policy='disable' name='3dnow'/>" in capsys.readouterr().out
    assert convert(daemon, "one", "--dry-run") == 0
    assert hypervisor.xml("one") == old
    assert convert(daemon, "one", "--backup-dir", str(tmp_path / "backup")) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "converted  one"
    new = hypervisor.xml("one")
    assert definition(new, "one") != definition(old, "one")
    assert (tmp_path / "backup/one.xml").read_bytes() == old
    assert convert(daemon, "--all", "--backup-dir", str(tmp_path / "backup")) == 0
    assert capsys.readouterr().out == "explicit  one\n"
    assert convert(daemon, "--restore", str(tmp_path / "backup")) == 0
    assert hypervisor.xml("one") == old


def test_a_running_guest_gets_the_cpu_that_it_has(
    hypervisor: Hypervisor, daemon: libvirtd.Daemon, qemus: Mapping[str, Path], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    define(hypervisor, daemon, qemus["7.2"], "runs", model("Haswell"))
    hypervisor.start("runs", paused=True)
    has = hypervisor.guest("runs").running()
    assert {"hle", "rtm"} <= has.filtered.keys()
    assert convert(daemon, "runs", "--live", "--backup-dir", str(tmp_path)) == 0
    assert "effective at its next start" in capsys.readouterr().err
    stored = hypervisor.xml("runs").decode()
    assert "<feature policy='disable' name='hle'/>" in stored and "check='full'" in stored
    hypervisor.destroy("runs")
    hypervisor.start("runs", paused=True)
    now = hypervisor.guest("runs").running()
    assert (now.properties, now.filtered) == (has.properties, {})


def test_what_keeps_the_old_cpu_is_said(
    hypervisor: Hypervisor,
    daemon: libvirtd.Daemon,
    qemus: Mapping[str, Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    import libvirt

    xml = define(hypervisor, daemon, qemus["7.2"], "sleeps", model("Penryn")).decode()
    connection = daemon.open()
    domain = connection.lookupByName("sleeps")
    snapshot = (
        f"<domainsnapshot><name>before</name><state>shutoff</state><creationTime>"
        f"1</creationTime>{xml}</domainsnapshot>"
    )
    domain.snapshotCreateXML(snapshot, libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_REDEFINE)
    domain.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)
    domain.managedSave(0)
    try:
        assert convert(daemon, "sleeps", "--dry-run") == 0
    finally:
        flags = (
            libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
            | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
        )
        domain.undefineFlags(flags)
        connection.close()
    said = capsys.readouterr().err
    assert "its managed-save image is left alone" in said
    assert "snapshots are left alone, and have the CPU they were taken with: before" in said


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["nosuch", "--dry-run"], 3, "no domain with matching name 'nosuch'"),
        (["--dry-run"], 2, "name the domains, or say --all"),
        (["one"], 2, "--backup-dir"),
        (["one", "--in-place", "--dry-run"], 2, "for files"),
        (["--restore", "/nonexistent"], 3, "nonexistent"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(
    daemon: libvirtd.Daemon,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    code: int,
    said: str,
) -> None:
    assert convert(daemon, *words) == code
    complaint = capsys.readouterr().err
    assert said in complaint and complaint.count("\n") == 1


@pytest.mark.parametrize(
    "uri", ["qemu:///nonsense", "qemu+unix:///system?socket=/nonexistent", "nonsense:///"]
)
def test_no_connection_is_said_in_a_line(uri: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["translate", "--connect", uri, "--domain", "any"]) == 3
    assert capsys.readouterr().err.count("\n") == 1


def test_nothing_is_lost_when_killed(
    hypervisor: Hypervisor, daemon: libvirtd.Daemon, qemus: Mapping[str, Path], tmp_path: Path
) -> None:
    """Killed at random points: every domain old or new, whatever is new has its backup, and the
    next run goes on.
    """
    old = {
        name: define(hypervisor, daemon, qemus["7.2"], name, model(MODELS[number % len(MODELS)]))
        for number, name in enumerate(f"fleet-{number:03}" for number in range(FLEET))
    }
    chance, backup = random.Random(), tmp_path / "backup"
    command = [
        sys.executable,
        "-m",
        "cpumap",
        "convert",
        "--connect",
        daemon.uri,
        "--all",
        "--backup-dir",
        str(backup),
    ]
    interrupted = 0
    for _ in range(20):
        run = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
        )
        assert run.stdout is not None
        for _ in range(chance.randrange(1, FLEET // 3)):
            while (line := run.stdout.readline()).startswith(b"explicit"):
                pass
            if not line:
                break
        time.sleep(chance.uniform(0, 0.02))
        run.send_signal(signal.SIGKILL)
        run.stdout.close()
        interrupted += run.wait() == -signal.SIGKILL
        new = {name: xml for name in old if (xml := hypervisor.xml(name)) != old[name]}
        assert all(b"name='3dnow'/>" in xml and xml.count(b"-global") > 100 for xml in new.values())
        assert all((backup / f"{name}.xml").read_bytes() == old[name] for name in new)
        if len(new) > FLEET * 0.9:
            break
    assert interrupted >= 2
    assert (
        subprocess.run(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False
        ).returncode
        == 0
    )
    assert {path.stem: path.read_bytes() for path in backup.glob("*.xml")} == old
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.stdout.split() == [word for name in sorted(old) for word in ("explicit", name)]


def test_a_backup_is_never_overwritten_by_another(tmp_path: Path) -> None:
    assert [keep(tmp_path, "a", content).name for content in (b"1", b"2", b"1")] == [
        "a.xml",
        "a~1.xml",
        "a.xml",
    ]
    assert (tmp_path / "a.xml").read_bytes() == b"1"
    assert keep(tmp_path, "../x", b"").parent == tmp_path
