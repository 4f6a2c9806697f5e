"""Stored configs converted: what is written, what is left alone, and that nothing is lost when a
run is cut short.
"""

from __future__ import annotations

import importlib
import io
import json
import os
import re
import struct
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cpumap.arch.x86.x86 import X86_64
from cpumap.cli.main import main
from tests.support.documents import RECORDED, content, convert, kinds, small, stored
from tests.support.paths import TREE

ACCESS_LIST = "system.posix_acl_access"
NO_ID = 0xFFFFFFFF
"""Stands for an id in entries of an access list that have none."""


@pytest.fixture(scope="session")
def fleet_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], dict[str, bytes]]:
    """So many generated domains, by name."""
    directory = tmp_path_factory.mktemp("fleet")
    command = [sys.executable, str(TREE / "tools/generate_domains.py"), "100", str(directory)]
    subprocess.run(command, check=True)
    documents = {path.name: path.read_bytes() for path in sorted(directory.rglob("*.xml"))}

    def first(count: int) -> dict[str, bytes]:
        return dict(list(documents.items())[:count])

    return first


def test_in_place_then_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    documents = stored(tmp_path / "etc", {"a.xml": small(), "sub/b.xml": small("b", "EPYC")})
    backups = tmp_path / "backups"
    assert convert(documents, "--in-place", "--backup-dir", backups) == 0
    first = content(documents)
    assert content(backups) == {"a.xml": small(), "sub/b.xml": small("b", "EPYC")}
    assert first["a.xml"].startswith(b"<!-- guest -->\r\n<domain xmlns:qemu=")
    assert (
        first["a.xml"].endswith(b"</qemu:commandline>\r\n</domain>\r\n")
        and b"<!-- <cpu/> -->\r\n" in first["a.xml"]
    )
    capsys.readouterr()
    assert convert(documents, "--in-place") == 0
    assert content(documents) == first
    out, err = capsys.readouterr()
    assert out == f"already explicit: {documents}/a.xml\nalready explicit: {documents}/sub/b.xml\n"
    assert "2 documents: 2 already explicit" in err


def test_a_moved_machine_type_keeps_its_cpu(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    documents = stored(
        tmp_path, {"a.xml": small(machine="pc-q35-2.11"), "b.xml": small(machine="pc-q35-6.2")}
    )
    assert convert(documents, "--in-place", "--machine", "pc-q35-2.11=pc-q35-7.2") == 0
    moved, other = (documents / "a.xml").read_bytes(), (documents / "b.xml").read_bytes()
    assert b'machine="pc-q35-7.2"' in moved and b'machine="pc-q35-6.2"' in other

    def cpu(path: Path, *options: str) -> str:
        capsys.readouterr()
        assert main(["translate", str(path), *options, *RECORDED]) == 0
        named = capsys.readouterr().out.split(",")
        return ",".join(
            word for word in named if word.partition("=")[0] not in (X86_64.forgotten or {})
        )

    old = tmp_path / "old"
    old.write_bytes(small(machine="pc-q35-2.11"))
    assert cpu(documents / "a.xml") == cpu(old)
    again = content(documents)
    assert convert(documents, "--in-place") == 0 and content(documents) == again


def test_unknown_new_machine_type(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    documents = stored(tmp_path, {"a.xml": small()})
    assert convert(documents, "--in-place", "--machine", "pc-q35-99") == 2
    assert content(documents) == {"a.xml": small()}
    assert "has no machine type 'pc-q35-99'" in capsys.readouterr().out


def test_a_feature_that_nobody_knows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = small().replace(b"</model>", b"</model>\n<feature name='avx9'/>")
    directory = stored(tmp_path / "etc", {"a.xml": asked, "b.xml": b"\n" + asked.lstrip()})
    assert convert(directory, "--dry-run") == 2
    reason = "recorded QEMU 7.2.22 has no CPU property 'avx9' (policy require)"
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        f"failed: {directory}/a.xml:5: {reason}",
        f"failed: {directory}/b.xml:6: {reason}",
    ]


def test_what_is_not_ours_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = stored(
        tmp_path / "etc",
        {
            "broken.xml": b"<domain type='kvm'>\n<name>",
            "good.xml": small(),
            "host.xml": small().replace(
                b"<cpu mode='custom'><model>Haswell</model></cpu>", b"<cpu mode='host-model'/>"
            ),
            "net.xml": b"<network/>",
            "networks/default.xml": b"<network/>",
            "notes.txt": b"<domain/>",
            "xen.xml": small().replace(b"'kvm'", b"'xen'"),
        },
    )
    (directory / "autostart").mkdir()
    (directory / "autostart/good.xml").symlink_to("../good.xml")
    os.mkfifo(directory / "pipe.xml")
    with (directory / "vast.xml").open("wb") as file:
        file.truncate(100 * 2**20)
    kept = {
        name: data
        for name, data in content(directory).items()
        if name not in ("good.xml", "autostart/good.xml")
    }
    assert convert(directory, "--in-place", "--format", "json") == 2
    answer = json.loads(capsys.readouterr().out)
    assert answer["schema"] == "cpumap.convert/1"
    found = {
        Path(entry["file"]).name: (entry["status"], entry.get("reason", ""))
        for entry in answer["files"]
    }
    assert found == {
        "autostart": ("skipped", "left alone"),
        "broken.xml": (
            "failed",
            f"{directory}/broken.xml:2: not well-formed XML: Premature end of data in tag name "
            "line 2",
        ),
        "good.xml": ("converted", ""),
        "host.xml": (
            "refused",
            f"{directory}/host.xml:5: host-model means the host's CPU: `cpumap host --format json"
            " > HOST.json` there describes it, for --host HOST.json",
        ),
        "net.xml": ("skipped", "<network> holds no domain"),
        "networks": ("skipped", "left alone"),
        "pipe.xml": ("failed", "no regular file"),
        "vast.xml": ("failed", "too large: the limit is 16 MiB"),
        "xen.xml": ("skipped", "domain type 'xen' has no QEMU CPU"),
    }
    assert answer["summary"]["converted"] == 1 and answer["summary"]["skipped"] == 4
    after = content(directory)
    assert {name: after[name] for name in kept} == kept and after["good.xml"] != small()


def test_links_mode_and_owner(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stored(tmp_path / "store", {"a.xml": small(), "b.xml": small("b"), "c.xml": small("c")})
    directory = tmp_path / "etc"
    directory.mkdir()
    (directory / "a.xml").symlink_to("../store/a.xml")
    (directory / "b.xml").hardlink_to(tmp_path / "store/b.xml")
    (tmp_path / "store/a.xml").chmod(0o640)
    (tmp_path / "store/c.xml").chmod(0o444)
    os.setxattr(tmp_path / "store/a.xml", "user.note", b"kept")
    assert convert(directory, "--in-place") == 0
    assert (directory / "a.xml").is_symlink()
    target = tmp_path / "store/a.xml"
    assert target.read_bytes() != small() and target.stat().st_mode & 0o777 == 0o640
    assert os.getxattr(target, "user.note") == b"kept"
    assert (
        (tmp_path / "store/b.xml").read_bytes() == small("b") != (directory / "b.xml").read_bytes()
    )
    assert "1 other hard link to it still lead to the old document" in capsys.readouterr().err
    assert convert(tmp_path / "store/c.xml", "--in-place") == 3
    assert (tmp_path / "store/c.xml").read_bytes() == small("c")


def _acl(*entries: tuple[int, int, int]) -> bytes:
    """A POSIX access control list as Linux stores it: (tag, permissions, id) each, behind the
    version.
    """
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


NOBODY_READS = _acl(
    (0x01, 6, NO_ID), (0x02, 4, 65534), (0x04, 4, NO_ID), (0x10, 4, NO_ID), (0x20, 0, NO_ID)
)
"""rw for the owner, r for user 65534 and the group, nothing for others."""


@pytest.mark.live
def test_labels_and_access_lists(tmp_path: Path) -> None:
    """Kept as they are: neither lost nor, where the directory has a default for new files, won.
    Wants root.
    """
    directory = stored(
        tmp_path / "etc", {name: small() for name in ("labelled.xml", "listed.xml", "bare.xml")}
    )
    label = b"system_u:object_r:virt_etc_t:s0\0"
    os.setxattr(directory / "labelled.xml", "security.selinux", label)
    os.setxattr(directory / "bare.xml", "security.ima", b"\x01digest of the old content")
    os.setxattr(directory / "listed.xml", ACCESS_LIST, NOBODY_READS)
    os.setxattr(directory, "system.posix_acl_default", NOBODY_READS)
    for path in directory.iterdir():
        os.chown(path, 65534, 65533)
    before = {path.name: (path.stat().st_mode, _attributes(path)) for path in directory.iterdir()}
    del before["bare.xml"][1]["security.ima"]
    assert ACCESS_LIST in before["listed.xml"][1] and ACCESS_LIST not in before["bare.xml"][1]
    assert convert(directory, "--in-place", "--backup-dir", tmp_path / "backup") == 0
    for path in (*directory.iterdir(), *(tmp_path / "backup").iterdir()):
        assert (path.stat().st_mode, _attributes(path)) == before[path.name], path
        assert (path.stat().st_uid, path.stat().st_gid) == (65534, 65533)
    assert os.getxattr(directory / "labelled.xml", "security.selinux") == label
    assert all(data != small() for data in content(directory).values())


def _attributes(path: Path) -> dict[str, bytes]:
    return {name: os.getxattr(path, name) for name in os.listxattr(path)}


def test_json_with_a_diff_is_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = stored(tmp_path, {"a.xml": small(), "b.xml": b"<domain"})
    assert convert(directory, "--dry-run", "--diff=full", "--stat", "--format", "json") == 2
    changed, failed = json.loads(capsys.readouterr().out)["files"]
    assert changed["diff"].startswith(f"--- a/{directory}/a.xml\n+++ b/{directory}/a.xml\n@@ ")
    assert changed["stat"].startswith(f"{directory}/a.xml | +")
    assert "diff" not in failed and "stat" not in failed


def test_diff_and_dry_run_write_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = stored(tmp_path, {"a.xml": small()})
    assert convert(directory, "--diff=full") == 0
    out = capsys.readouterr().out
    assert (
        out.startswith(f"--- a/{directory}/a.xml\n+++ b/{directory}/a.xml\n@@ ")
        and "\n+  <qemu:commandline>" in out
    )
    assert convert(directory, "--dry-run") == 0
    captured = capsys.readouterr()
    assert captured.out == f"to change: {directory}/a.xml\n"
    assert "cpumap: plan: 1 to change, 0 unchanged, 0 refused; nothing is written" in captured.err
    assert content(directory) == {"a.xml": small()}


def test_a_diff_counts_long_lists_and_shows_what_was_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Folded and full say the same: each line of a list is in one of the counts, or shown."""
    guest = (TREE / "data/examples/web-server.xml").read_bytes()
    directory = stored(tmp_path, {"a.xml": guest})
    assert convert(directory, "--diff=full") == 0
    full = capsys.readouterr().out.splitlines()
    assert convert(directory, "--diff") == 0
    folded = capsys.readouterr().out.splitlines()
    assert len(full) > 300 and len(folded) < 40
    counted = "\n".join(line for line in folded if line.lstrip("+ ").startswith("["))
    for policy in ("require", "disable"):
        named = f"+    <feature policy='{policy}'"
        shown = sum(1 for line in folded if named in line)
        counts = sum(int(number) for number in re.findall(rf"(\d+) {policy}", counted))
        assert counts + shown == sum(1 for line in full if named in line)
    # What the document named stays in sight, on both sides.
    for name in ("md-clear", "avx2"):
        assert sum(1 for line in folded if f"name='{name}'" in line and line[0] in "+-") == 2
    written = sum(1 for line in full if line.startswith("+    <qemu:arg value='-global'"))
    assert f"[properties as -global: {written}]" in counted


def test_stat_says_how_much(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = stored(tmp_path, {"a.xml": small(), "b.xml": b"<"})
    assert convert(directory, "--stat") == 2
    captured = capsys.readouterr()
    assert re.fullmatch(rf"{directory}/a\.xml \| \+\d+ -2 \(\d+ features named\)\n", captured.out)
    assert "plan: 1 to change, 0 unchanged, 0 refused, 1 failed; nothing is written" in captured.err
    assert "cpumap: failed: 1 times not well-formed XML" in captured.err


@pytest.mark.parametrize(
    "words", [(), ("--backup-dir", "b"), ("--in-place", "--machine", "a=")], ids=str
)
def test_usage(tmp_path: Path, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert convert(stored(tmp_path, {"a.xml": small()}), *words) == 2
    assert capsys.readouterr().err.startswith("cpumap: ")
    assert content(tmp_path) == {"a.xml": small()}


def test_output_inside_input(tmp_path: Path) -> None:
    assert convert(stored(tmp_path, {"a.xml": small()}), "--output-dir", tmp_path / "out") == 2


def _tar(documents: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, data in documents.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def test_directory_list_and_archives_give_the_same(
    tmp_path: Path, fleet_of: Callable[[int], dict[str, bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = fleet_of(8)
    directory = stored(tmp_path / "in", documents)
    archive = tmp_path / "fleet.tar.gz"
    archive.write_bytes(_tar({**documents, "../evil.xml": small(), "readme": b""}))
    assert convert(directory, "--output-dir", tmp_path / "1") == 0
    assert convert(archive, "--output-dir", tmp_path / "2") == 3
    for number, given in (
        ("3", archive.read_bytes()),
        ("4", "".join(f"{directory}/{n}\n" for n in documents).encode()),
    ):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(given)))
        convert("-", "--output-dir", tmp_path / number)
    expected = content(tmp_path / "1")
    assert len(expected) == 8 and content(tmp_path / "2") == content(tmp_path / "3") == expected
    assert content(tmp_path / f"4{directory}") == expected
    assert not (tmp_path / "evil.xml").exists()


def test_one_process_or_many(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    directory = stored(tmp_path / "in", {**kinds(70), "broken.xml": b"<"})
    results = []
    for jobs in (1, 2):
        assert convert(directory, "--output-dir", tmp_path / str(jobs), "--jobs", jobs) == 2
        results.append((capfd.readouterr().out, content(tmp_path / str(jobs))))
    assert results[0] == results[1] and len(results[0][1]) == 70


@pytest.mark.live
def test_a_dask_cluster(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    distributed: Any = importlib.import_module("distributed")
    directory = stored(tmp_path / "in", {**kinds(70), "broken.xml": b"<"})
    assert convert(directory, "--output-dir", tmp_path / "1", "--jobs", 1) == 2
    expected = capfd.readouterr().out
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None
    ) as cluster:
        address = cluster.scheduler_address
        assert convert(directory, "--output-dir", tmp_path / "2", "--scheduler", address) == 2
    assert capfd.readouterr().out == expected
    assert content(tmp_path / "1") == content(tmp_path / "2")


def test_no_scheduler(tmp_path: Path) -> None:
    assert (
        convert(stored(tmp_path / "in", {"a.xml": small()}), "--dry-run", "--scheduler", "nonsense")
        == 3
    )


def test_the_same_as_one_by_one(
    tmp_path: Path,
    fleet_of: Callable[[int], dict[str, bytes]],
    capfdbinary: pytest.CaptureFixture[bytes],
) -> None:
    directory = stored(tmp_path / "in", fleet_of(30))
    assert convert(directory, "--output-dir", tmp_path / "out") == 0
    for name, data in content(tmp_path / "out").items():
        capfdbinary.readouterr()
        assert main(["translate", str(directory / name), "--format", "xml", *RECORDED]) == 0
        assert capfdbinary.readouterr().out == data, name


def test_where_it_will_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = stored(tmp_path / "in", {"a.xml": small(model="EPYC-Genoa", machine="pc-q35-10.0")})
    words = [
        "--output-dir",
        str(tmp_path / "out"),
        "--target-qemu",
        "5.2",
        "--machine",
        "pc-q35-5.2",
    ]
    command = ["convert", str(directory), "--recorded", "11.1", *words]
    assert main(command) == 1
    assert "cannot stay the same in QEMU 5.2.0, pc-q35-5.2" in capsys.readouterr().out
    assert content(tmp_path / "out") == {}
    assert main([*command, "--allow-drift"]) == 0
    assert "will differ: CPUID[eax=" in capsys.readouterr().err
    assert b'machine="pc-q35-5.2"' in content(tmp_path / "out")["a.xml"]


def test_compact(tmp_path: Path) -> None:
    directory = stored(tmp_path / "in", {"a.xml": small()})
    assert convert(directory, "--output-dir", tmp_path / "whole") == 0
    assert convert(directory, "--output-dir", tmp_path / "compact", "--compact") == 0
    whole, compact = (content(tmp_path / name)["a.xml"] for name in ("whole", "compact"))
    assert len(compact) < len(whole) / 2
    assert convert(tmp_path / "compact", "--in-place", "--compact") == 0
    assert content(tmp_path / "compact")["a.xml"] == compact


def test_another_host(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = stored(tmp_path / "in", {"a.xml": small(model="Skylake-Server-IBRS")})
    host = TREE / "data/examples/hosts/westmere.xml"
    assert convert(directory, "--output-dir", tmp_path / "out", "--host", host) == 0
    assert b"<feature policy='disable' name='avx512f'/>" in content(tmp_path / "out")["a.xml"]
    assert convert(directory, "--output-dir", tmp_path / "any") == 0
    assert b"<feature policy='require' name='avx512f'/>" in content(tmp_path / "any")["a.xml"]
    assert (
        convert(directory, "--output-dir", tmp_path / "none", "--host", tmp_path / "nowhere") == 2
    )
