"""A document's `<emulator>`: run only where nobody else decides what is in the file."""

from __future__ import annotations

import io
import re
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import cpumap
from cpumap.cli.main import main
from cpumap.errors import CpumapError
from tests.support.trusted import place_of_our_own

DOMAIN = """\
<domain type='qemu'>
  <name>web</name>
  <uuid>8c3b1b1e-5b58-4d0e-9d2c-2f7b3a8b7a10</uuid>
  <memory unit='MiB'>512</memory>
  <os><type arch='x86_64' machine='pc-q35-7.2'>hvm</type></os>
  <cpu mode='custom' match='exact' check='none'><model>Penryn</model></cpu>
  <devices><emulator>{emulator}</emulator></devices>
</domain>
"""


class Emulator:
    """A program that leaves a trace when it is run, and is no QEMU."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "qemu"
        self._trace = directory / "trace"
        self.path.write_text(f"#!/bin/sh\n: > {self._trace}\nexit 9\n")
        self.path.chmod(0o755)

    @property
    def was_run(self) -> bool:
        return self._trace.exists()


@pytest.fixture
def hostile(tmp_path: Path) -> Emulator:
    """In a directory that others may write, though it is sticky."""
    place = tmp_path / "open"
    place.mkdir()
    place.chmod(0o1777)
    return Emulator(place)


@pytest.fixture
def trusted() -> Iterator[Emulator]:
    with place_of_our_own() as place:
        yield Emulator(place)


def _file(tmp_path: Path, emulator: Path | str) -> Path:
    path = tmp_path / "web.xml"
    path.write_text(DOMAIN.format(emulator=emulator))
    return path


COMMANDS = (
    ["translate", "FILE"],
    ["translate", "--pin", "none", "FILE"],
    ["check", "FILE"],
    ["dump", "FILE"],
    ["expand", "FILE"],
    ["convert", "--dry-run", "FILE"],
    ["convert", "--dry-run", "--jobs", "2", "FILE"],
    ["lock", "FILE"],
    ["verify", "FILE"],
    ["diff", "FILE", "FILE"],
)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_what_others_may_write_is_never_run(
    tmp_path: Path, hostile: Emulator, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    file = _file(tmp_path, hostile.path)
    main([str(file) if word == "FILE" else word for word in command])
    assert not hostile.was_run
    said = capsys.readouterr().err
    if command[0] not in ("expand", "dump", "diff"):
        assert re.search(f"{hostile.path} is not run: \\S+ can be written by others", said)


def test_a_relative_path_is_never_run(
    tmp_path: Path, trusted: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(trusted.path.parent)
    assert main(["translate", str(_file(tmp_path, "./qemu"))]) == 0
    assert main(["translate", str(_file(tmp_path, "qemu"))]) == 0
    assert not trusted.was_run


def test_a_trusted_one_is_asked(tmp_path: Path, trusted: Emulator) -> None:
    assert main(["translate", str(_file(tmp_path, trusted.path))]) == 3
    assert trusted.was_run


def test_what_the_user_names_is_asked_wherever_it_is(tmp_path: Path, hostile: Emulator) -> None:
    file = _file(tmp_path, "/usr/bin/none")
    assert main(["translate", "--qemu", str(hostile.path), str(file)]) == 3
    assert hostile.was_run


def _given(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))


@pytest.mark.parametrize("command", [["translate"], ["check"], ["translate", "--pin", "none"]])
def test_never_for_standard_input(
    trusted: Emulator, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    _given(monkeypatch, DOMAIN.format(emulator=trusted.path).encode())
    assert main([*command, "-"]) == 0
    assert not trusted.was_run


def _archive(path: Path, content: bytes) -> Path:
    with tarfile.open(path, "w") as archive:
        member = tarfile.TarInfo("web.xml")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return path


def test_never_for_archives(
    tmp_path: Path, trusted: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = _archive(tmp_path / "a.tar", DOMAIN.format(emulator=trusted.path).encode())
    assert main(["convert", "--dry-run", str(archive)]) == 0
    _given(monkeypatch, archive.read_bytes())
    assert main(["convert", "--dry-run", "-"]) == 0
    assert main(["lock", str(archive)]) == 0
    assert not trusted.was_run


def test_an_archives_member_shares_nothing_that_a_file_was_told(
    tmp_path: Path, trusted: Emulator
) -> None:
    file = _file(tmp_path, trusted.path)
    archive = _archive(tmp_path / "a.tar", file.read_bytes())
    assert main(["convert", "--dry-run", str(archive), str(file)]) == 3
    assert trusted.was_run


def test_never_for_lock_files(tmp_path: Path, trusted: Emulator) -> None:
    file = _file(tmp_path, trusted.path)
    lock = tmp_path / "fleet.lock"
    assert main(["lock", "--recorded", "7.2", "-o", str(lock), str(file)]) == 0
    assert str(trusted.path) in lock.read_text()
    assert main(["audit", str(lock)]) == 0
    assert not trusted.was_run
    main(["audit", str(lock), str(file)])
    assert trusted.was_run


@pytest.mark.parametrize("policy", ["", "run-emulator = false"])
def test_never_in_hooks(
    tmp_path: Path, trusted: Emulator, monkeypatch: pytest.MonkeyPatch, policy: str
) -> None:
    _given(monkeypatch, DOMAIN.format(emulator=trusted.path).encode())
    _hook(tmp_path, policy)
    assert not trusted.was_run


def test_in_hooks_where_policy_says_so(
    tmp_path: Path, trusted: Emulator, hostile: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    for emulator in (trusted, hostile):
        _given(monkeypatch, DOMAIN.format(emulator=emulator.path).encode())
        _hook(tmp_path, "run-emulator = true")
    assert (trusted.was_run, hostile.was_run) == (True, False)


def _hook(tmp_path: Path, text: str) -> None:
    policy = tmp_path / "hook.toml"
    policy.write_text(text)
    words = ["--policy", str(policy), "--", "libvirt", "web", "start", "begin", "-"]
    assert main(["hook", *words]) == 0


def test_the_library_does_as_the_commands(hostile: Emulator, trusted: Emulator) -> None:
    assert cpumap.translate(DOMAIN.format(emulator=hostile.path)).startswith("-cpu ")
    assert not hostile.was_run
    with pytest.raises(CpumapError):
        cpumap.translate(DOMAIN.format(emulator=trusted.path))
    assert trusted.was_run


def test_the_qemu_on_path_comes_before_a_recording(
    tmp_path: Path,
    trusted: Emulator,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (trusted.path.parent / "qemu-system-x86_64").symlink_to(trusted.path)
    monkeypatch.setenv("PATH", str(trusted.path.parent))
    assert main(["translate", str(_file(tmp_path, "/usr/bin/none"))]) == 0
    assert trusted.was_run, "asked, and no QEMU: a recording answers"
    assert "answers from recorded QEMU 7.2" in capsys.readouterr().err


def test_nothing_is_taken_from_the_working_directory(
    tmp_path: Path, trusted: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    (trusted.path.parent / "qemu-system-x86_64").symlink_to(trusted.path)
    monkeypatch.chdir(trusted.path.parent)
    for path in ("", ".", ":", "bin::"):
        monkeypatch.setenv("PATH", path)
        assert main(["translate", str(_file(tmp_path, "/usr/bin/none"))]) == 0
    assert not trusted.was_run
