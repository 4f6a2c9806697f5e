"""An audit compares like with like, knows guests by who they are, and says how grave a difference
is.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cpumap.cli.main import main
from tests.support.documents import RECORDED, small, stored

ONE, OTHER = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"

HOST = """\
<capabilities><host><cpu><arch>x86_64</arch><model>Nehalem</model><vendor>Intel</vendor></cpu></host></capabilities>
"""

Audit = Callable[..., tuple[int, Any]]


def guest(name: str, uuid: str = "", model: str = "Haswell", machine: str = "pc-q35-5.2") -> bytes:
    said = f"</name><uuid>{uuid}</uuid>" if uuid else "</name>"
    return small(name, model, machine).replace(b"</name>", said.encode())


def locked(directory: Path, *words: object, code: int = 0) -> Path:
    path = directory.parent / "cpu.lock.json"
    assert main(["lock", str(directory), "-o", str(path), *RECORDED, *map(str, words)]) == code
    return path


@pytest.fixture
def audit(capsys: pytest.CaptureFixture[str]) -> Audit:
    def run(*words: object) -> tuple[int, Any]:
        capsys.readouterr()
        where = () if "--recorded" in words else RECORDED
        code = main(["audit", *map(str, words), *where, "--format", "json"])
        return code, json.loads(capsys.readouterr().out)

    return run


def test_a_guest_is_known_by_its_uuid_wherever_its_file_is(tmp_path: Path, audit: Audit) -> None:
    directory = stored(tmp_path / "etc", {"a.xml": guest("a", ONE), "b.xml": guest("b")})
    path = locked(directory)
    assert set(json.loads(path.read_text())["guests"]) == {ONE, "b"}
    (directory / "a.xml").rename(directory / "renamed.xml")
    (directory / "b.xml").rename(directory / "moved.xml")
    code, answer = audit(path, directory)
    assert (code, answer["gone"], answer["new"]) == (0, [], [])


def test_another_guest_in_the_same_file_is_another_guest(tmp_path: Path, audit: Audit) -> None:
    directory = stored(tmp_path / "etc", {"a.xml": guest("a", ONE)})
    path = locked(directory)
    (directory / "a.xml").write_bytes(guest("a", OTHER))
    code, answer = audit(path, directory)
    name = str(directory / "a.xml")
    assert (code, answer["gone"], answer["new"]) == (1, [name], [name])


def test_missing_and_new_guests_are_no_yes(tmp_path: Path, audit: Audit) -> None:
    directory = stored(tmp_path / "etc", {"a.xml": guest("a"), "b.xml": guest("b")})
    path = locked(directory)
    assert audit(path, directory)[0] == 0
    (directory / "b.xml").unlink()
    assert audit(path, directory)[0] == 1
    (directory / "b.xml").write_bytes(guest("b"))
    (directory / "c.xml").write_bytes(guest("c"))
    assert audit(path, directory)[0] == 1


def test_guests_of_one_name_are_known_by_their_files(tmp_path: Path, audit: Audit) -> None:
    twins = {"a.xml": guest("twin"), "b.xml": guest("twin", model="EPYC")}
    directory = stored(tmp_path / "etc", twins)
    path = locked(directory)
    assert set(json.loads(path.read_text())["guests"]) == {str(directory / name) for name in twins}
    assert audit(path, directory)[0] == 0


def test_what_has_no_cpu_is_in_the_lock_with_its_reason(tmp_path: Path, audit: Audit) -> None:
    passed = guest("p", ONE).replace(b"'custom'><model>Haswell</model>", b"'host-passthrough'>")
    directory = stored(tmp_path / "etc", {"a.xml": guest("a"), "p.xml": passed})
    path = locked(directory, code=1)
    refused = json.loads(path.read_text())["refused"]
    assert "host" in refused[ONE]["reason"]
    code, answer = audit(path, directory)
    assert (code, answer["gone"], answer["new"]) == (0, [], [])
    assert list(answer["not-locked"]) == [str(directory / "p.xml")]


def test_an_empty_directory_and_an_empty_lock_are_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = tmp_path / "etc"
    directory.mkdir()
    path = locked(directory, code=1)
    assert "no guest is there" in capsys.readouterr().err
    assert main(["audit", str(path), *RECORDED]) == 1
    assert "holds no CPU" in capsys.readouterr().err


def test_a_lock_of_the_first_schema_is_still_read(tmp_path: Path, audit: Audit) -> None:
    directory = stored(tmp_path / "etc", {"a.xml": guest("a", ONE)})
    path = locked(directory)
    whole = json.loads(path.read_text())
    guests = {about["from"]: about["cpu"] for about in whole["guests"].values()}
    old = {"schema": "cpumap.lock/1", "cpus": whole["cpus"], "guests": guests}
    path.write_text(json.dumps(old))
    assert audit(path, directory)[0] == 0


def test_a_lock_made_with_a_host_is_compared_as_on_that_host(tmp_path: Path, audit: Audit) -> None:
    directory, host = stored(tmp_path / "etc", {"a.xml": guest("a")}), tmp_path / "host.xml"
    host.write_text(HOST)
    path = locked(directory, "--host", host)
    (cpu,) = json.loads(path.read_text())["cpus"].values()
    assert cpu["properties"]["avx2"] is False, "the host has none"
    code, answer = audit(path)
    assert code == 0 and answer["cpus"][0]["drifts"] == []


@pytest.mark.parametrize(
    ("model", "code", "gravity"), [("Haswell", 0, "property"), ("EPYC", 1, "guest")]
)
def test_what_no_guest_can_see_is_no_drift(
    model: str, code: int, gravity: str, tmp_path: Path, audit: Audit
) -> None:
    directory = stored(tmp_path / "etc", {"a.xml": guest("a", model=model)})
    path = locked(directory)
    found, answer = audit(path, "--machine", "pc-q35-7.2")
    (cpu,) = answer["cpus"]
    by_name = {drift["name"]: drift["gravity"] for drift in cpu["drifts"]}
    assert (found, by_name["x-vendor-cpuid-only"]) == (code, gravity)


def test_what_libvirt_will_not_start_is_foreseen(tmp_path: Path, audit: Audit) -> None:
    topology = "</model><topology sockets='1' cores='4' threads='1'/>"
    several = guest("a", model="qemu64").replace(b"</model>", topology.encode())
    several = several.replace(b"<os>", b"<vcpu>4</vcpu><os>").replace(b"'kvm'", b"'qemu'")
    directory = stored(tmp_path / "etc", {"a.xml": several})
    words = ["convert", str(directory), "--in-place", *RECORDED, "--unavailable", "off"]
    assert main(words) == 0
    path = directory / "a.xml"
    path.write_bytes(path.read_bytes().replace(b"check='partial'", b"check='full'"))
    lock = locked(directory, "--unavailable", "off")
    assert audit(lock)[0] == 0
    code, answer = audit(lock, "--recorded", "10.0")
    said = "libvirt does not start it: guest CPU doesn't match specification: extra features: "
    assert (code, answer["cpus"][0]["refused"]) == (1, f"{said}cmp_legacy,ht")
