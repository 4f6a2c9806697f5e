"""Files that are the system's or the caller's own, and others."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from cpumap.system.trust import reason_not_to_run
from tests.support.trusted import place_of_our_own


@pytest.fixture
def home() -> Iterator[Path]:
    """A directory that nobody else can write."""
    with place_of_our_own() as place:
        yield place


@pytest.fixture
def program(home: Path) -> Path:
    path = home / "a/b/program"
    path.parent.mkdir(parents=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


def test_a_program_of_our_own(program: Path) -> None:
    assert reason_not_to_run(str(program)) == ""
    assert reason_not_to_run("/bin/sh") == ""


@pytest.mark.parametrize("path", ["", "program", "./program", "~/program", "-", "a/../../b"])
def test_only_from_an_absolute_path(path: str) -> None:
    assert reason_not_to_run(path) == "its path is not absolute"


@pytest.mark.parametrize("mode", [0o775, 0o757, 0o1777, 0o777, 0o2775])
def test_no_directory_may_be_written_by_others(program: Path, mode: int) -> None:
    for directory in (program.parent, program.parent.parent):
        directory.chmod(mode)
        assert reason_not_to_run(str(program)) == f"{directory} can be written by others"
        directory.chmod(0o755)
    assert reason_not_to_run(str(program)) == ""


def test_the_file_may_not_be_written_by_others(program: Path) -> None:
    for mode in (0o775, 0o757, 0o777):
        program.chmod(mode)
        assert reason_not_to_run(str(program)) == f"{program} can be written by others"


def test_links_are_followed_and_their_ways_looked_at(program: Path, home: Path) -> None:
    (home / "link").symlink_to("a/b/../b/program")
    (home / "bin").symlink_to(program.parent)
    assert reason_not_to_run(str(home / "link")) == ""
    assert reason_not_to_run(str(home / "bin/program")) == ""
    program.parent.chmod(0o777)
    for way in (home / "link", home / "bin/program", home / "bin/../b/program"):
        assert reason_not_to_run(str(way)) == f"{program.parent} can be written by others"


def test_links_in_a_circle_end(home: Path) -> None:
    (home / "one").symlink_to("two")
    (home / "two").symlink_to("one")
    assert reason_not_to_run(str(home / "one")) == "Too many levels of symbolic links"


@pytest.mark.parametrize("name", ["a", "none", "pipe", "closed"])
def test_what_is_no_program(program: Path, home: Path, name: str) -> None:
    os.mkfifo(home / "pipe")
    (home / "closed").write_text("")
    assert program.exists()
    assert reason_not_to_run(str(home / name)) in ("it is no program", "No such file or directory")
