"""The cache of answers: what they depend on, and whose they are."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from cpumap.cpu.expansion import Machine, Realised
from cpumap.cpu.names import PropertyName
from cpumap.errors import SourceError
from cpumap.sources.kept import Kept, identity_of
from cpumap.system.made import made
from cpumap.system.trust import reason_not_to_keep

Change = Callable[[Path], object]


def _script(path: Path, version: str) -> Path:
    path.write_text(f"#!/bin/sh\necho {version}\n")
    path.chmod(0o755)
    return path


def _rewritten(path: Path) -> None:
    """Another binary of the same size and time."""
    old = path.stat()
    path.write_bytes(path.read_bytes().replace(b"nothing", b"no part"))
    os.utime(path, ns=(old.st_atime_ns, old.st_mtime_ns))


def _replaced(path: Path) -> None:
    """Another file of the same size and time in its place."""
    other = path.with_name("other")
    other.write_bytes(path.read_bytes())
    old = path.stat()
    os.utime(other, ns=(old.st_atime_ns, old.st_mtime_ns))
    other.replace(path)


@pytest.mark.parametrize("change", [_rewritten, _replaced, Path.touch])
def test_another_binary_is_another_key(tmp_path: Path, change: Change) -> None:
    binary = tmp_path / "qemu"
    binary.write_bytes(b"\x7fELF, of which nothing is run")
    before = identity_of(str(binary), "tcg")
    assert identity_of(str(binary), "tcg") == before
    change(binary)
    assert identity_of(str(binary), "tcg") != before


def test_what_a_script_runs_is_asked_for_its_version(tmp_path: Path) -> None:
    behind = _script(tmp_path / "behind", "one")
    wrapper = tmp_path / "qemu"
    wrapper.write_text(f'#!/bin/sh\nexec {behind} "$@"\n')
    wrapper.chmod(0o755)
    before = identity_of(str(wrapper), "tcg")
    assert identity_of(str(wrapper), "tcg") == before
    _script(behind, "two")
    assert identity_of(str(wrapper), "tcg") != before


def test_names_of_one_file_are_different_keys(tmp_path: Path) -> None:
    snap = _script(tmp_path / "snap", "one")
    for name in ("qemu-system-x86_64", "qemu-system-aarch64"):
        (tmp_path / name).symlink_to(snap)
    keys = [identity_of(str(path), "tcg") for path in sorted(tmp_path.iterdir())]
    assert len({json.dumps(key) for key in keys}) == 3


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    for name in ("none", "."):
        with pytest.raises(SourceError, match="cannot start"):
            identity_of(str(tmp_path / name), "tcg")


class Asked:
    """A question, and how often it was asked."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.times = 0

    def __call__(self, answer: Any = None) -> tuple[Machine, ...]:
        def ask() -> Any:
            self.times += 1
            return answer or [{"name": "pc-q35-7.2", "cpu_max": 288}]

        kept = Kept(self.directory, "/bin/sh", "tcg")
        return kept.answer(
            ["machines"], ask, lambda found: tuple(made(Machine, one) for one in found.entries())
        )

    @property
    def file(self) -> Path:
        (path,) = self.directory.rglob("*.json")
        return path


@pytest.fixture
def asked(tmp_path: Path) -> Asked:
    return Asked(tmp_path / "cache/answers")


def test_a_question_is_asked_once(asked: Asked) -> None:
    assert asked() == asked() == (Machine("pc-q35-7.2", cpu_max=288),)
    assert asked.times == 1
    assert asked.file.stat().st_mode & 0o077 == 0
    assert asked.file.parent.stat().st_mode & 0o077 == 0


WRONG = {
    "no JSON": "{",
    "a list": "[]",
    "another question": '{"question": ["others"], "answer": []}',
    "no answer": '{"question": ["machines"]}',
    "not a list": '{"question": ["machines"], "answer": {}}',
    "a number as name": '{"question": ["machines"], "answer": [{"name": 1}]}',
    "true as a number": '{"question": ["machines"], "answer": [{"name": "a", "cpu_max": true}]}',
    "no name": '{"question": ["machines"], "answer": [{"cpu_max": 1}]}',
    "a field too many": '{"question": ["machines"], "answer": [{"name": "a", "own": 1}]}',
    "deep": "[" * 100_000,
    "a long number": '{"question": ["machines"], "answer": ' + "9" * 5000 + "}",
    "no text": "\udcff",
}


@pytest.mark.parametrize("text", WRONG.values(), ids=WRONG)
def test_an_answer_of_the_wrong_shape_is_asked_for_again(asked: Asked, text: str) -> None:
    right = asked()
    asked.file.write_bytes(text.encode(errors="surrogateescape"))
    assert asked() == right
    assert asked() == right
    assert asked.times == 2


def test_a_pipe_is_not_waited_for(asked: Asked) -> None:
    right = asked()
    file = asked.file
    file.unlink()
    os.mkfifo(file)
    assert asked() == right


def test_links_in_the_cache_are_not_followed(asked: Asked, tmp_path: Path) -> None:
    right = asked()
    file = asked.file
    poisoned = tmp_path / "poisoned.json"
    poisoned.write_text('{"question": ["machines"], "answer": [{"name": "evil"}]}')
    file.unlink()
    file.symlink_to(poisoned)
    assert asked() == right
    assert "evil" in poisoned.read_text(), "what a link leads to is not written"


@pytest.mark.parametrize("mode", [0o777, 0o775, 0o1777, 0o757])
def test_a_directory_that_others_may_write_is_not_used(asked: Asked, mode: int) -> None:
    asked()
    asked.directory.parent.chmod(mode)
    asked.file.parent.chmod(mode)
    asked.file.write_text('{"question": ["machines"], "answer": [{"name": "evil"}]}')
    assert asked() == (Machine("pc-q35-7.2", cpu_max=288),)
    assert "evil" in asked.file.read_text()


def test_a_directory_of_another_user_is_not_used(tmp_path: Path) -> None:
    assert reason_not_to_keep(tmp_path / "new/one") == ""
    assert reason_not_to_keep(Path("/tmp")) == "/tmp can be written by others"
    assert reason_not_to_keep(Path("/proc/self/task/none")) == ""


def test_an_answer_that_is_not_understood_names_its_place(asked: Asked) -> None:
    with pytest.raises(SourceError, match=r"answer to machines: 0.name: expected text, not 1"):
        asked([{"name": 1}])


def test_what_is_kept_comes_back_the_same(tmp_path: Path) -> None:
    cpu = Realised(
        {
            PropertyName("avx"): True,
            PropertyName("level"): 13,
            PropertyName("vendor"): "AuthenticAMD",
        },
        {"avx2": "CPUID.07H:EBX.avx2 [bit 5]"},
        {},
        ((0xD, 1, "eax", 3),),
    )
    for _ in range(2):
        kept = Kept(tmp_path / "cache", "/bin/sh", "tcg")
        assert kept.answer(["cpu"], lambda: asdict(cpu), lambda found: made(Realised, found)) == cpu
