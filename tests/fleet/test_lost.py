"""Nothing is lost: archives that were damaged, backups that are none, files that wait under a
temporary's name, names as long as they may be.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from cpumap.fleet.libvirt import keep
from tests.support.documents import convert, small, stored

COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "tar": bytes,
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
}


def archive() -> bytes:
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as tar:
        for name in ("a.xml", "b.xml", "c.xml"):
            member = tarfile.TarInfo(name)
            member.size = len(small(name))
            tar.addfile(member, io.BytesIO(small(name)))
    return whole.getvalue()


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


HEADER = 1024
"""Where the second member's header starts: a document is smaller than a block."""


@pytest.mark.parametrize("kind", COMPRESSIONS)
def test_a_whole_archive_is_read(tmp_path: Path, kind: str) -> None:
    (tmp_path / "a.tar").write_bytes(COMPRESSIONS[kind](archive()))
    assert convert(tmp_path / "a.tar", "--output-dir", tmp_path / "out") == 0
    assert names(tmp_path / "out") == ["a.xml", "b.xml", "c.xml"]


@pytest.mark.parametrize("kind", COMPRESSIONS)
@pytest.mark.parametrize("length", [HEADER, HEADER + 100, HEADER + 512, HEADER + 700])
def test_an_archive_that_was_cut_is_an_error(
    tmp_path: Path, kind: str, length: int, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.tar").write_bytes(COMPRESSIONS[kind](archive()[:length]))
    assert convert(tmp_path / "a.tar", "--output-dir", tmp_path / "out") not in (0, 1)
    assert "broken archive" in "".join(capsys.readouterr())


@pytest.mark.parametrize("kind", ["gz", "bz2", "xz"])
def test_a_compressed_file_that_was_cut_is_an_error(tmp_path: Path, kind: str) -> None:
    whole = COMPRESSIONS[kind](archive())
    for cut in (4, 9, len(whole) // 3):
        (tmp_path / "a.tar").write_bytes(whole[:-cut])
        assert convert(tmp_path / "a.tar", "--output-dir", tmp_path / "out") not in (0, 1)


def test_a_wrong_checksum_is_an_error(tmp_path: Path) -> None:
    header = bytearray(archive())
    header[HEADER + 150] ^= 1
    (tmp_path / "header.tar").write_bytes(header)
    packed = bytearray(gzip.compress(archive()))
    packed[-6] ^= 1
    (tmp_path / "packed.tar").write_bytes(packed)
    for name in ("header.tar", "packed.tar"):
        assert convert(tmp_path / name, "--output-dir", tmp_path / "out") not in (0, 1)


def test_a_document_is_not_its_own_backup(tmp_path: Path) -> None:
    documents = stored(tmp_path / "etc", {"a.xml": small()})
    assert convert(documents / "a.xml", "--in-place", "--backup-dir", documents) == 3
    (tmp_path / "kept").mkdir()
    for make in (os.symlink, os.link):
        make(documents / "a.xml", tmp_path / "kept/a.xml")
        assert convert(documents / "a.xml", "--in-place", "--backup-dir", tmp_path / "kept") == 3
        (tmp_path / "kept/a.xml").unlink()
    assert (documents / "a.xml").read_bytes() == small()


def test_a_hard_link_under_the_temporarys_name_keeps_its_content(tmp_path: Path) -> None:
    documents = stored(tmp_path / "etc", {"a.xml": small()})
    (tmp_path / "precious").write_text("precious")
    os.link(tmp_path / "precious", documents / ".a.xml.cpumap")
    assert convert(documents, "--in-place") == 0
    assert (tmp_path / "precious").read_text() == "precious"
    assert names(documents) == ["a.xml"]
    assert b"qemu:commandline" in (documents / "a.xml").read_bytes()


@pytest.mark.parametrize("length", [240, 247, 248, 249, 255])
def test_names_as_long_as_they_may_be(tmp_path: Path, length: int) -> None:
    name = "n" * (length - 4) + ".xml"
    documents = stored(tmp_path / "etc", {name: small()})
    assert convert(documents, "--in-place", "--backup-dir", tmp_path / "kept") == 0
    assert (tmp_path / "kept" / name).read_bytes() == small()
    assert names(documents) == [name]


def test_every_name_has_a_backup_of_its_own(tmp_path: Path) -> None:
    domains = ("web", "web.1", "web~1", "ubuntu-22.04", "a/b", "a_b", "a%2Fb", ".hidden", "_hidden")
    kept = {keep(tmp_path, name, name.encode()) for name in domains}
    assert len(kept) == len(domains)
    later = keep(tmp_path, "web", b"later")
    assert later not in kept and keep(tmp_path, "web", b"later") == later


def test_a_file_named_twice_and_a_link_beside_its_target(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stored(tmp_path / "etc", {"a.xml": small()})
    (tmp_path / "etc/b.xml").symlink_to("a.xml")
    (tmp_path / "etc/c.xml").symlink_to(tmp_path / "etc/b.xml")
    assert convert(tmp_path / "etc", tmp_path / "etc/a.xml", "--in-place") == 0
    said = capsys.readouterr()
    assert said.out.count("converted: ") == 1 and said.out.count("skipped: ") == 3
    assert "the same document as another one of this run, in the same place" in said.out
    assert (tmp_path / "etc/b.xml").readlink() == Path("a.xml")
    assert (tmp_path / "etc/a.xml").read_bytes() != small()
    assert convert(tmp_path / "etc", "--in-place") == 0
    assert "3 already explicit" in capsys.readouterr().err


def test_hard_links_are_all_converted(tmp_path: Path) -> None:
    stored(tmp_path / "etc", {"a.xml": small()})
    for name in ("b.xml", "c.xml"):
        (tmp_path / "etc" / name).hardlink_to(tmp_path / "etc/a.xml")
    assert convert(tmp_path / "etc", "--in-place") == 0
    contents = {path.read_bytes() for path in (tmp_path / "etc").iterdir()}
    assert len(contents) == 1 and contents != {small()}
    assert names(tmp_path / "etc") == ["a.xml", "b.xml", "c.xml"]


def test_two_members_of_one_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, other = (tmp_path / name for name in ("one.tar", "other.tar"))
    for path, second in ((one, small("a", "Haswell")), (other, small("a", "EPYC"))):
        with tarfile.open(path, mode="w") as tar:
            for content in (small("a", "Haswell"), second):
                member = tarfile.TarInfo("a.xml")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    assert convert(one, "--output-dir", tmp_path / "out") == 0
    assert "1 skipped" in capsys.readouterr().err
    assert convert(other, "--output-dir", tmp_path / "others") == 2
    place = tmp_path / "others/a.xml"
    assert f"another document of this run has its place, {place}" in capsys.readouterr().out
    assert b"Haswell" in place.read_bytes()


def test_two_files_of_one_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stored(tmp_path / "one", {"a.xml": small("a", "Haswell")})
    stored(tmp_path / "two", {"a.xml": small("a", "EPYC")})
    files = tmp_path / "one/a.xml", tmp_path / "two/a.xml"
    assert convert(*files, "--output-dir", tmp_path / "out") == 2
    assert "another document of this run has its place" in capsys.readouterr().out
