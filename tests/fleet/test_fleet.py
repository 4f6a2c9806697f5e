"""Locks, audits and reports: what a fleet has, what drifts, and how a person sees it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from cpumap.cli.main import main
from tests.support import chromium
from tests.support.documents import RECORDED, small, stored

FLEET = {
    "db.xml": small("db", "Skylake-Server-IBRS", "pc-q35-2.11"),
    "mail.xml": small("mail", "Haswell", "pc-q35-5.2"),
    "new.xml": small("new", "Haswell", "pc-q35-7.2"),
    "old.xml": small("old", "Haswell", "pc-q35-2.11"),
    "web.xml": small("web", "Haswell", "pc-q35-5.2"),
}

HOST = """\
<capabilities><host><cpu><arch>x86_64</arch><model>Haswell-noTSX</model><vendor>Intel</vendor></cpu></host></capabilities>
"""


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    path = tmp_path / "cpu.lock.json"
    assert main(["lock", str(stored(tmp_path / "etc", FLEET)), "-o", str(path), *RECORDED]) == 0
    return path


def audit(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, Any]:
    capsys.readouterr()
    code = main(["audit", *map(str, words), "--format", "json"])
    return code, json.loads(capsys.readouterr().out)


def test_guests_that_share_a_cpu_share_an_entry(lock: Path) -> None:
    stored_lock = json.loads(lock.read_text())
    assert stored_lock["schema"] == "cpumap.lock/2"
    guests = {Path(who["from"]).name: who["cpu"] for who in stored_lock["guests"].values()}
    assert set(stored_lock["guests"]) == {"db", "mail", "new", "old", "web"}, "no file has a UUID"
    assert guests["mail.xml"] == guests["web.xml"] != guests["old.xml"]
    assert len(stored_lock["cpus"]) == 4
    entry = stored_lock["cpus"][guests["db.xml"]]
    assert entry["context"].pop("build")["package"].startswith("Debian 1:7.2+dfsg")
    assert entry["context"] == {
        "qemu": "7.2.22",
        "arch": "x86_64",
        "machine": "pc-q35-2.11",
        "accel": "kvm",
    }
    assert entry["properties"]["mpx"] is True and entry["properties"]["pku"] is False


def test_nothing_drifts_where_nothing_changed(
    lock: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, answer = audit(capsys, lock, *RECORDED)
    assert code == 0 and all(cpu["holds"] for cpu in answer["cpus"])


def test_another_machine_type(lock: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, answer = audit(capsys, lock, *RECORDED, "--machine", "pc-q35-7.2")
    assert code == 1
    drifts = {Path(guest).name: cpu["drifts"] for cpu in answer["cpus"] for guest in cpu["guests"]}
    assert [d["name"] for d in drifts["web.xml"]] == ["x-vendor-cpuid-only"], (
        "no Hyper-V is shown, so no version of it"
    )
    mpx = next(drift for drift in drifts["db.xml"] if drift["name"] == "mpx")
    assert (mpx["locked"], mpx["now"]) == (True, False)
    assert mpx["cause"] == "machine type: pc-q35-2.11 is not pc-q35-7.2"
    assert mpx["place"] == "CPUID[eax=07h,ecx=00h].EBX.mpx [bit 14]"


def test_another_qemu(lock: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, answer = audit(capsys, lock, "--recorded", "11.1")
    assert code == 1
    refused = {
        Path(g).name: cpu["refused"]
        for cpu in answer["cpus"]
        for g in cpu["guests"]
        if cpu["refused"]
    }
    assert "has no machine type 'pc-q35-2.11'" in refused["old.xml"]


def test_a_converted_fleet_drifts_with_no_machine_type(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory, path = stored(tmp_path / "etc", FLEET), tmp_path / "lock"
    assert main(["convert", str(directory), "--in-place", *RECORDED]) == 0
    assert main(["lock", str(directory), "-o", str(path), *RECORDED]) == 0
    assert audit(capsys, path, *RECORDED, "--machine", "pc-q35-7.2")[0] == 0


def test_which_runs_on_which_host(
    lock: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    host = tmp_path / "host.xml"
    host.write_text(HOST)
    code, answer = audit(capsys, lock, *RECORDED, "--host", host)
    assert code == 1
    missing = {Path(guest).name: features for guest, features in answer["hosts"][str(host)].items()}
    assert {"hle", "rtm"} == set(missing["web.xml"])
    assert {"avx512f", "mpx"} <= set(missing["db.xml"])


def test_host_model_is_the_cpu_of_the_host(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    guest = small("a", "Haswell", "pc-q35-7.2").replace(
        b"'custom'><model>Haswell</model>", b"'host-model'>"
    )
    directory, path, host = (
        stored(tmp_path / "etc", {"a.xml": guest}),
        tmp_path / "lock",
        tmp_path / "host.xml",
    )
    host.write_text(HOST)
    assert main(["lock", str(directory), "-o", str(path), *RECORDED]) == 1, "whose CPU is not known"
    assert main(["lock", str(directory), "-o", str(path), *RECORDED, "--host", str(host)]) == 0
    (cpu,) = json.loads(path.read_text())["cpus"].values()
    assert cpu["request"]["model"] == "Haswell-noTSX" and cpu["properties"]["avx2"] is True
    assert audit(capsys, path, *RECORDED)[0] == 0


def test_definitions_read_again(
    lock: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = tmp_path / "etc"
    assert audit(capsys, lock, directory, *RECORDED)[0] == 0
    (directory / "new.xml").unlink()
    (directory / "added.xml").write_bytes(FLEET["web.xml"])
    (directory / "db.xml").write_bytes(b"<domain>")
    (directory / "web.xml").write_bytes(
        FLEET["web.xml"].replace(b"</model>", b"</model><feature policy='disable' name='avx2'/>")
    )
    code, answer = audit(capsys, lock, directory, *RECORDED)
    assert code == 1
    assert [Path(name).name for name in answer["gone"]] == ["new.xml"]
    assert [Path(name).name for name in answer["new"]] == ["added.xml"]
    by_guest = {Path(guest).name: cpu for cpu in answer["cpus"] for guest in cpu["guests"]}
    assert by_guest["mail.xml"]["holds"] and not by_guest["mail.xml"]["edited"]
    assert "not well-formed" in by_guest["db.xml"]["refused"]
    assert by_guest["web.xml"]["edited"] and by_guest["web.xml"]["drifts"] == [
        {
            "name": "avx2",
            "locked": True,
            "now": False,
            "cause": "definition: edited since it was locked",
            "place": "CPUID[eax=07h,ecx=00h].EBX.avx2 [bit 5]",
            "gravity": "guest",
        }
    ]


def test_what_no_property_says_is_predicted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    guest = small("a", "Haswell", "pc-q35-7.2").replace(b"type='kvm'", b"type='qemu'")
    directory, path = stored(tmp_path / "etc", {"a.xml": guest}), tmp_path / "lock"
    assert main(["lock", str(directory), "-o", str(path), *RECORDED]) == 0
    code, answer = audit(capsys, path, "--recorded", "5.2", "--machine", "pc-q35-5.2")
    (cpu,) = answer["cpus"]
    assert code == 1 and not cpu["holds"] and cpu["unknown"] == []
    assert [(bit["leaf"], bit["subleaf"], bit["register"]) for bit in cpu["predicted"]] == [
        (0xD, 1, "ebx")
    ]
    assert main(["audit", str(path), "--recorded", "5.2", "--machine", "pc-q35-5.2"]) == 1
    assert "CPUID[eax=0Dh,ecx=01h].EBX" in capsys.readouterr().out


def test_a_lock_without_guests(lock: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", str(lock), "--guest", *RECORDED]) == 2
    assert "`lock --guest` does" in capsys.readouterr().err
    assert main(["lock", str(lock.parent / "etc"), "--guest", *RECORDED]) == 2
    assert "name a --qemu" in capsys.readouterr().err


@pytest.mark.live
def test_a_guest_reads_the_cpu_then_and_now(
    tmp_path: Path, qemus: Mapping[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    guests = {
        name: small(name, model, "pc-q35-7.2")
        for name, model in (("a", "Haswell"), ("b", "qemu64"))
    }
    tcg = {
        f"{name}.xml": guest.replace(b"type='kvm'", b"type='qemu'")
        for name, guest in guests.items()
    }
    directory, path = stored(tmp_path / "etc", tcg), tmp_path / "lock"
    assert (
        main(["lock", str(directory), "--guest", "-o", str(path), "--qemu", str(qemus["7.2"])]) == 0
    )
    code, answer = audit(capsys, path, "--guest", "--qemu", qemus["7.2"])
    assert code == 0 and all(cpu["seen"] == [] for cpu in answer["cpus"])
    code, answer = audit(capsys, path, "--guest", "--qemu", qemus["5.2"], "--machine", "pc-q35-2.4")
    assert code == 1
    by_guest = {Path(guest).name: cpu for cpu in answer["cpus"] for guest in cpu["guests"]}
    seen = {
        (bit["leaf"], bit["subleaf"], bit["register"]): bit for bit in by_guest["a.xml"]["seen"]
    }
    abm, sizes, cache = seen[0x80000001, 0, "ecx"], seen[0xD, 1, "ebx"], seen[0x4, 3, "ebx"]
    assert (abm["bits"], abm["names"], abm["predicted"]) == (
        [5],
        ["abm"],
        False,
    ) and "abm: " in abm["cause"]
    assert sizes["predicted"] and "leaf 0xD" in sizes["cause"]
    assert cache["predicted"] and "legacy GenuineIntel with l3-cache" in cache["cause"]


@pytest.mark.parametrize(
    "text",
    ["", "[]", '{"schema": "cpumap.lock/1"}', '{"schema": "cpumap.lock/1", "cpus": {"1": {}}}'],
)
def test_no_lock(tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "lock"
    path.write_text(text)
    assert main(["audit", str(path), *RECORDED]) == 2
    assert "not a lock" in capsys.readouterr().err


@pytest.mark.live
def test_report_in_a_browser(lock: Path, tmp_path: Path) -> None:
    report, host = tmp_path / "report.html", tmp_path / "host.xml"
    host.write_text(HOST)
    words = ["--machine", "pc-q35-7.2", "--host", str(host), "--report", str(report)]
    assert main(["audit", str(lock), *RECORDED, *words]) == 1
    with chromium.page(tmp_path / "profile") as page:
        page.open(report.as_uri())
        assert page.requests() == 1, "a report needs nothing but itself"
        assert page.value("document.querySelector('#title').textContent") == "Fleet audited"
        assert page.value("document.querySelectorAll('tr.guest').length") == 5
        assert page.value("document.querySelectorAll('table.map td.cell').length") >= 20
        _filters_work(page)
        _details_open(page)
        _urgent_comes_first(page)
        _columns_sort(page)
        _keys_open(page)
        assert page.value("document.querySelectorAll('#hosts td.bad').length") == 4
        before = page.value("getComputedStyle(document.body).backgroundColor")
        page.value("document.querySelector('#dark').click()")
        assert page.value("getComputedStyle(document.body).backgroundColor") != before
        page.call("Emulation.setEmulatedMedia", media="print")
        assert page.value("getComputedStyle(document.querySelector('.filters')).display") == "none"
        assert page.value("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        page.screenshot(tmp_path / "report.png")
        page.call("Emulation.setEmulatedMedia", media="")
        _fits_a_telephone(page)
        assert page.complaints == []


def _fits_a_telephone(page: chromium.Page) -> None:
    """At 400 pixels nothing of the list is cut off, whether a guest is opened or not."""
    page.call(
        "Emulation.setDeviceMetricsOverride",
        width=400,
        height=800,
        deviceScaleFactor=1,
        mobile=True,
    )
    overflow = "(e => e.scrollWidth - e.clientWidth)"
    for _ in range(2):
        assert page.value(f"{overflow}(document.documentElement)") == 0
        assert page.value(f"{overflow}(document.querySelector('table.guests').parentNode)") == 0
        page.value("document.querySelector('tr.guest').click()")
    page.call("Emulation.clearDeviceMetricsOverride")


def _filters_work(page: chromium.Page) -> None:
    def after(selector: str, text: str) -> list[str]:
        script = (
            "(e => { e.value = %s; e.dispatchEvent(new Event('input')) "
            "})(document.querySelector(%s))"
        )
        page.value(script % (json.dumps(text), json.dumps(selector)))
        names: list[str] = page.value(
            "[...document.querySelectorAll('tr.guest td.name')].map(e => e.textContent)"
        )
        return [Path(name).name for name in names]

    assert after("#search", "skylake mpx") == ["db.xml"]
    assert after("#search", "no such thing") == []
    assert after("#search", "") == sorted(FLEET)
    assert after("#model", "Haswell") == ["mail.xml", "new.xml", "old.xml", "web.xml"]
    assert after("#status", "drifts") == []
    assert after("#status", "holds") == ["mail.xml", "new.xml", "old.xml", "web.xml"]
    assert after("#model", "") == ["mail.xml", "new.xml", "old.xml", "web.xml"]
    assert after("#status", "drifts") == ["db.xml"]
    assert after("#status", "") == sorted(FLEET)


def _urgent_comes_first(page: chromium.Page) -> None:
    """What needs attention stands before the list, with what to do; the drift map is folded."""
    headings = page.value("[...document.querySelectorAll('h1, h2')].map(e => e.textContent)")
    assert headings[:3] == ["Fleet audited", "What needs attention", "All guests"]
    urgent = page.value("[...document.querySelectorAll('#urgent li')].map(e => e.innerText)")
    assert len(urgent) == 3, "the others hold, and this host lacks something for each"
    assert [item.partition(": ")[0].split(" on ")[0] for item in urgent[1:]] == ["does not run"] * 2
    assert "lacks hle, rtm" in urgent[1], "that of most guests first"
    assert urgent[0].startswith("drifts: ")
    assert "db.xml\n" in urgent[0] and "\nmpx, pku: machine type" in urgent[0]
    assert "cpumap convert" in page.value("document.querySelector('#urgent .do').textContent")
    facts = page.value("document.querySelector('#facts').innerText").split("\n")
    assert {"Date", "Locked on", "Compared with", "libvirt", "Hosts"} < set(facts)
    assert page.value("document.querySelector('details.part').open") is False


def _columns_sort(page: chromium.Page) -> None:
    def after_a_click(column: str, cell: int) -> list[str]:
        heads = "[...document.querySelectorAll('#heads button')]"
        page.value(f"{heads}.find(e => e.textContent === {column!r}).click()")
        shown = f"document.querySelectorAll('tr.guest td:nth-child({cell})')"
        found: list[str] = page.value(f"[...{shown}].map(e => e.textContent)")
        return found

    machines = after_a_click("Machine type", 4)
    order = ["pc-q35-2.11", "pc-q35-2.11", "pc-q35-5.2", "pc-q35-5.2", "pc-q35-7.2"]
    assert machines == order, "by number, not by letter"
    assert after_a_click("Machine type", 4) == order[::-1]
    sorts = page.value("[...document.querySelectorAll('#heads th')].map(e => e.ariaSort)")
    assert sorts == [None, None, None, "descending", None]
    assert after_a_click("Status", 2)[-1].startswith("holds")
    after_a_click("Guest", 1)


def _keys_open(page: chromium.Page) -> None:
    """A guest's name is a button that the keyboard reaches, and says whether it is open."""
    button = "document.querySelector('td.name button')"
    page.value(f"{button}.focus()")
    for expected in ("true", "false"):
        for kind in ("rawKeyDown", "char", "keyUp"):
            key = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13, "text": "\r"}
            page.call("Input.dispatchKeyEvent", type=kind, **key)
        assert page.value(f"{button}.ariaExpanded") == expected
    unnamed = "[...document.querySelectorAll('.scroll[tabindex], .tall')].filter(e => !e.ariaLabel)"
    assert page.value(f"{unnamed}.length") == 0


def _details_open(page: chromium.Page) -> None:
    page.value("document.querySelector('tr.guest').click()")
    assert "mpx" in page.value("document.querySelector('table.differences').textContent")
    assert page.value("document.querySelector('table.registers').textContent").startswith("Leaf")
    assert page.value("document.querySelectorAll('table.registers .bits i.on').length") >= 1
    assert page.value("document.querySelectorAll('table.properties tbody tr').length") > 200
    page.value("document.querySelector('tr.guest').click()")
    assert page.value("document.querySelector('tr.opened')") is None


@pytest.mark.live
def test_report_of_a_conversion_in_a_browser(tmp_path: Path) -> None:
    odd = {"<script>alert(1)<script>.xml": small("x"), "broken.xml": b"<domain>"}
    directory, report = stored(tmp_path / "etc", {**FLEET, **odd}), tmp_path / "report.html"
    words = ["--dry-run", "--report", str(report)]
    assert main(["convert", str(directory), *words, *RECORDED]) == 2
    with chromium.page(tmp_path / "profile") as page:
        page.open(report.as_uri())
        tiles = page.value("[...document.querySelectorAll('.tile')].map(e => e.textContent)")
        assert tiles[:3] == ["7guests", "6depended on defaults", "6to change"]
        assert page.value("document.querySelectorAll('tr.guest').length") == 7
        _fits_a_telephone(page)
        assert page.complaints == []


@pytest.mark.live
def test_report_of_a_difference_in_a_browser(tmp_path: Path) -> None:
    report = tmp_path / "report.html"
    words = [
        "Skylake-Server-IBRS@pc-q35-2.11",
        "Skylake-Server-IBRS@pc-q35-7.2",
        "--report",
        str(report),
    ]
    assert main(["diff", *words, *RECORDED]) == 1
    with chromium.page(tmp_path / "profile") as page:
        page.open(report.as_uri())
        page.value("document.querySelector('tr.guest').click()")
        registers = page.value(
            "[...document.querySelectorAll('table.registers tbody tr')].map(e => e.textContent)"
        )
        assert "0x70ebx14 mpx" in registers and "0x70ecx3 pku" in registers
        _fits_a_telephone(page)
        assert page.complaints == []
