"""What an upgrade does to guests, said before it.

That ht is an extra feature from QEMU 10.0 on, and that libvirt refuses a migration for it, is what
libvirt 9.0, 11.3 and 12.8 said when they were asked.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cpumap.cli.main import main
from tests.support.documents import RECORDED, stored

DOMAIN = """\
<domain type='{kind}'>
  <name>{name}</name>
  <vcpu>{vcpus}</vcpu>
  <os><type arch='x86_64' machine='{machine}'>hvm</type></os>
  {cpu}
</domain>
"""

HOST = """\
<capabilities><host><cpu><arch>x86_64</arch><model>Nehalem</model><vendor>Intel</vendor></cpu></host></capabilities>
"""

Planned = Callable[..., tuple[int, Any]]


def guest(
    model: str = "Haswell",
    machine: str = "pc-q35-7.2",
    *,
    cores: int = 1,
    kind: str = "kvm",
    check: str = "partial",
    features: str = "",
) -> bytes:
    topology = f"<topology sockets='1' cores='{cores}' threads='1'/>"
    start = f"<cpu mode='custom' match='exact' check='{check}'><model>{model}</model>"
    cpu = f"{start}{topology}{features}</cpu>"
    return DOMAIN.format(kind=kind, name="g", vcpus=cores, machine=machine, cpu=cpu).encode()


def passed_through() -> bytes:
    cpu = "<cpu mode='host-passthrough'/>"
    return DOMAIN.format(kind="kvm", name="p", vcpus=1, machine="pc-q35-7.2", cpu=cpu).encode()


@pytest.fixture
def planned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Planned:
    def run(guests: dict[str, bytes] | Path, *words: object) -> tuple[int, Any]:
        directory = guests if isinstance(guests, Path) else stored(tmp_path / "etc", guests)
        capsys.readouterr()
        code = main(["plan", str(directory), *RECORDED, *map(str, words), "--format", "json"])
        answer = json.loads(capsys.readouterr().out)
        assert answer["schema"] == "cpumap.plan/1"
        return code, answer

    return run


def only(answer: Any) -> Any:
    (group,) = answer["groups"]
    return group


def test_nothing_happens_to_a_guest_that_stays_as_it_is(planned: Planned) -> None:
    code, answer = planned({"a.xml": guest()}, "--to-qemu", "7.2", "--to-libvirt", "9.0")
    group = only(answer)
    assert (code, group["status"], group["advice"]) == (0, "unchanged", "nothing")
    assert group["migrates"] == group["migrates-back"] == {"possible": True, "reason": ""}


def test_several_threads_start_there_and_cannot_migrate_there(planned: Planned) -> None:
    code, answer = planned({"a.xml": guest(cores=4)}, "--to-qemu", "10.0", "--to-libvirt", "11.3")
    group = only(answer)
    assert (code, group["status"], group["starts"]) == (0, "unchanged", True)
    assert group["changes"][-1]["what"] == "ht" and group["changes"][-1]["gravity"] == "libvirt"
    refused = "guest CPU doesn't match specification: extra features: ht"
    assert group["migrates"] == {"possible": False, "reason": refused}
    assert group["migrates-back"]["reason"].endswith("missing features: ht")


def test_a_libvirt_that_looks_at_no_threads(planned: Planned) -> None:
    full = guest(cores=4, check="full", features=OF_QEMU)
    code, answer = planned({"a.xml": full}, "--to-qemu", "10.0", "--to-libvirt", "12.8")
    group = only(answer)
    assert (code, group["starts"], group["migrates"]["possible"]) == (0, True, True)
    assert "ht" not in [change["what"] for change in group["changes"]]


def test_a_full_check_that_would_fail_is_foreseen(planned: Planned) -> None:
    guests = {"a.xml": guest(cores=4, check="full", features=OF_QEMU)}
    code, answer = planned(guests, "--to-qemu", "10.0", "--to-libvirt", "11.3")
    group = only(answer)
    assert (code, group["status"], group["advice"]) == (1, "does not start", "pin now")
    assert group["reason"].endswith("extra features: ht")


OF_QEMU = "<feature policy='require' name='hypervisor'/><feature policy='require' name='arat'/>"


def test_another_machine_type_changes_a_cpu_and_pinning_holds_it(planned: Planned) -> None:
    guests = {"a.xml": guest("Skylake-Server-IBRS", "pc-q35-2.11")}
    code, answer = planned(guests, "--to-machine", "pc-q35-7.2")
    group = only(answer)
    assert (code, group["status"]) == (1, "changes")
    mpx = next(change for change in group["changes"] if change["what"] == "mpx")
    assert (mpx["before"], mpx["after"], mpx["gravity"]) == (True, False, "guest")
    assert mpx["cause"] == "machine type: pc-q35-2.11 is not pc-q35-7.2"
    assert group["advice"] == "move the machine type"
    assert group["how"] == "convert --machine pc-q35-7.2"
    assert "machine type" in group["migrates"]["reason"]


def test_a_machine_type_that_is_gone(planned: Planned) -> None:
    code, answer = planned({"a.xml": guest(machine="pc-q35-2.4")}, "--to-qemu", "11.1")
    group = only(answer)
    assert (code, group["status"], group["starts"]) == (1, "does not start", False)
    assert "no machine type 'pc-q35-2.4'" in group["reason"]
    assert group["advice"] in ("move the machine type", "cannot be held")


def test_an_older_libvirt_lacks_words(planned: Planned) -> None:
    guests = {"a.xml": guest(features="<feature policy='require' name='gds-no'/>")}
    code, answer = planned(guests, "--to-libvirt", "9.0", "--recorded", "11.1")
    group = only(answer)
    assert code == 1 and group["reason"].startswith("libvirt 9.0: unknown CPU feature: gds-no")


def test_what_the_targets_host_lacks(planned: Planned, tmp_path: Path) -> None:
    host = tmp_path / "host.xml"
    host.write_text(HOST)
    code, answer = planned({"a.xml": guest()}, "--to-qemu", "10.0", "--host", host)
    group = only(answer)
    assert (code, group["status"]) == (1, "does not start")
    assert "required features:" in group["reason"] and "avx2" in group["reason"]
    assert answer["host-known"] is True


def test_a_guest_that_cannot_be_judged_is_counted(
    planned: Planned, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    guests = {"a.xml": guest(), "p.xml": passed_through(), "broken.xml": b"<domain>"}
    code, answer = planned(guests, "--to-qemu", "7.2")
    assert code == 1
    assert answer["summary"]["guests"] == 3 and answer["summary"]["not judged"] == 2
    assert answer["host-known"] is False
    words = ["plan", str(tmp_path / "etc"), *RECORDED, "--to-qemu", "7.2"]
    assert main(words) == 1
    out = capsys.readouterr().out
    first, *rest = out.splitlines()
    assert first == "3 guests: 1 unchanged, 0 change, 0 do not start, 2 cannot be judged"
    assert not any("a.xml" in line for line in rest), "only what needs a person"
    main([*words, "--all"])
    assert "a.xml" in capsys.readouterr().out


def test_what_has_no_known_cpu_is_counted_too(planned: Planned) -> None:
    strange = guest().replace(b"x86_64", b"alpha")
    container = b"<domain type='lxc'><name>c</name></domain>"
    answer = planned({"a.xml": strange, "c.xml": container}, "--to-qemu", "10.0")[1]
    group = only(answer)
    assert (group["status"], group["advice"]) == ("not judged", "not known")
    assert "architecture alpha" in group["reason"]


def test_a_lock_is_as_good_as_the_documents(planned: Planned, tmp_path: Path) -> None:
    directory, path = stored(tmp_path / "etc", {"a.xml": guest("EPYC")}), tmp_path / "lock.json"
    assert main(["lock", str(directory), "-o", str(path), *RECORDED]) == 0
    _, of_lock = planned(path, "--to-qemu", "10.0", "--to-machine", "pc-q35-10.0")
    _, of_files = planned(directory, "--to-qemu", "10.0", "--to-machine", "pc-q35-10.0")
    assert only(of_lock)["status"] == only(of_files)["status"]
    assert only(of_lock)["changes"] == only(of_files)["changes"] != []


def test_a_pinned_guest_starts_on_both_sides(planned: Planned, tmp_path: Path) -> None:
    directory = stored(tmp_path / "etc", {"a.xml": guest("qemu64", cores=4, kind="qemu")})
    assert main(["convert", str(directory), "--in-place", *RECORDED]) == 0
    for qemu, libvirt in (("7.2", "9.0"), ("10.0", "11.3"), ("11.1", "12.8")):
        _, answer = planned(directory, "--to-qemu", qemu, "--to-libvirt", libvirt)
        assert only(answer)["starts"] is True, (qemu, only(answer)["reason"])


def test_a_report(planned: Planned, tmp_path: Path) -> None:
    report = tmp_path / "plan.html"
    planned({"a.xml": guest("EPYC", cores=4)}, "--to-qemu", "10.0", "--report", report)
    text = report.read_text()
    assert "libvirt checks it" in text and "a.xml" in text


@pytest.mark.parametrize(
    ("words", "said"),
    [([], "say what changes"), (["--to-qemu", "99.9"], "99.9"), (["--to-libvirt", "x"], "version")],
)
def test_a_plan_for_nothing(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = stored(tmp_path / "etc", {"a.xml": guest()})
    assert main(["plan", str(directory), *RECORDED, *words]) == 2
    assert said in capsys.readouterr().err
    assert main(["plan", "--to-qemu", "10.0"]) == 2
