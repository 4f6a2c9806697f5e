"""Fleets with what somebody hostile, or something broken, has put into them."""

from __future__ import annotations

import io
import json
import os
import tarfile
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from cpumap.cli.main import main
from cpumap.fleet.journal import JOURNAL

DOMAIN = (
    "<domain type='qemu'><name>web</name>\n"
    "<os><type arch='x86_64' machine='pc-q35-7.2'>hvm</type></os>\n"
    "<cpu mode='custom' match='exact'><model>Haswell</model></cpu></domain>\n"
)
LONG = "9" * 5000

BAD = {
    "a number of 5,000 digits": DOMAIN.replace("<os>", f"<vcpu>{LONG}</vcpu><os>").encode(),
    "a topology of 5,000 digits": DOMAIN.replace(
        "</model>", f"</model><topology sockets='{LONG}' cores='1' threads='1'/>"
    ).encode(),
    "UTF-32": DOMAIN.encode("utf-32"),
    "UTF-16": DOMAIN.encode("utf-16"),
    "a doctype with a cpu in it": f'<!DOCTYPE domain SYSTEM "<cpu >">{DOMAIN}'.encode(),
    "a doctype with a domain": f"<!DOCTYPE domain [<!-- <domain><cpu/> -->]>{DOMAIN}".encode(),
    "nothing": b"",
    "NUL": b"\0" * 100,
    "deep": b"<domain>" * 100_000,
    "no XML": b"\xff\xfe<",
}


def _archive(path: Path, members: Mapping[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
@pytest.mark.parametrize("kind", ["files", "archive"])
def test_one_bad_document_stops_no_other(
    tmp_path: Path, bad: bytes, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    members = {"a.xml": DOMAIN.encode(), "b.xml": bad, "c.xml": DOMAIN.encode()}
    fleet = tmp_path / "fleet"
    fleet.mkdir()
    for name, content in members.items():
        (fleet / name).write_bytes(content)
    path = fleet if kind == "files" else _archive(tmp_path / "a.tar", members)
    out = tmp_path / "out"
    words = ["convert", "--format", "json", "--recorded", "7.2", "--output-dir", str(out)]
    code = main([*words, str(path)])
    captured = capsys.readouterr()
    files = json.loads(captured.out)["files"]
    assert [entry["status"] for entry in files][::2] == ["converted", "converted"]
    assert code in ((0, 2, 3) if bad[:1] == b"<" or bad[:2] in (b"\xff\xfe", b"<\0") else (2, 3))
    assert "unforeseen" not in captured.out
    assert (out / "c.xml").exists()


def test_no_member_is_written_through_a_link(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    out = tmp_path / "out"
    out.mkdir()
    (out / "link").symlink_to(outside)
    members = {"link/evil.xml": DOMAIN.encode(), "link/new/evil.xml": DOMAIN.encode()}
    archive = _archive(tmp_path / "a.tar", members)
    words = ["convert", "--recorded", "7.2", "--output-dir", str(out), str(archive)]
    assert main(words) == 3
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize("name", ["../evil.xml", "/evil.xml", "a/../../evil.xml"])
def test_no_member_leads_out_of_its_archive(tmp_path: Path, name: str) -> None:
    archive = _archive(tmp_path / "a.tar", {name: DOMAIN.encode()})
    out = tmp_path / "deep/out"
    words = ["convert", "--recorded", "7.2", "--output-dir", str(out), str(archive)]
    assert main(words) == 3
    assert not list(tmp_path.rglob("evil.xml"))


JOURNALS = {
    "not JSON": b"{\n",
    "a number": b'{"schema": "cpumap.convert-journal/1"}\n1\n2\n',
    "too short": b'{"schema": "cpumap.convert-journal/1"}\n["a.xml"]\n["a.xml"]\n',
    "of the wrong types": b'{}\n[1, 2, 3, 4]\n{"a": 1}\n',
    "deep": b"{}\n" + b"[" * 100_000 + b"\n",
}


@pytest.mark.parametrize("journal", JOURNALS.values(), ids=JOURNALS)
@pytest.mark.parametrize("resume", [[], ["--resume"]])
def test_a_journal_that_is_none(
    tmp_path: Path, journal: bytes, resume: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / JOURNAL).write_bytes(journal)
    (tmp_path / "a.xml").write_text(DOMAIN)
    words = ["convert", "--recorded", "7.2", "--output-dir", str(tmp_path / "out"), *resume]
    assert main([*words, str(tmp_path / "a.xml")]) in (0, 2)
    assert "unforeseen" not in capsys.readouterr().err


def test_a_journal_that_is_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    os.mkfifo(tmp_path / "out" / JOURNAL)
    (tmp_path / "a.xml").write_text(DOMAIN)
    words = ["convert", "--recorded", "7.2", "--output-dir", str(tmp_path / "out")]
    assert main([*words, str(tmp_path / "a.xml")]) == 3


@pytest.mark.parametrize("part", ["<?xml", "<!DOCTYPE", "<?xml ", "</a", "</a>\n", "<!--", "<a "])
def test_a_hostile_host_takes_no_time(tmp_path: Path, part: str) -> None:
    host = tmp_path / "host.xml"
    host.write_text(part * (500_000 // len(part)))
    (tmp_path / "a.xml").write_text(DOMAIN)
    began = time.process_time()
    words = ["check", "--recorded", "7.2", "--host", str(host), str(tmp_path / "a.xml")]
    assert main(words) == 2
    assert time.process_time() - began < 10
