"""What is printed: no control characters, and no stream that keeps it from being said."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpumap.cli.main import main
from cpumap.system.say import plain, plain_lines
from tests.support.paths import TREE

DOMAIN = (
    "<domain type='qemu'><os><type arch='x86_64' machine='pc-q35-7.2'>hvm</type></os>"
    "<cpu mode='custom' match='exact'><model>Haswell</model></cpu></domain>"
)
HOSTILE = "\x1b\x9b\u202e\u2028\r\x07"


@given(st.text())
def test_no_control_character_is_left(text: str) -> None:
    shown = plain(text)
    assert not {unicodedata.category(char) for char in shown.replace("\t", "")} & {"Cc", "Cs"}
    assert not set(shown) & set(HOSTILE)
    assert "\n" not in shown


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_json_stays_the_same_json(text: str) -> None:
    assert json.loads(plain_lines(json.dumps(text, ensure_ascii=False))) == text


def test_all_that_is_printed_goes_through_one_module() -> None:
    found = []
    for path in (TREE / "cpumap").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            line = getattr(node, "lineno", 0)
            is_print = isinstance(node, ast.Call) and ast.unparse(node.func) == "print"
            is_write = isinstance(node, ast.Attribute) and ast.unparse(node).endswith(
                ("stdout.write", "stdout.buffer", "stderr.write", "stderr.buffer")
            )
            if (is_print or is_write) and path.name != "say.py":
                found.append(f"{path}:{line}")
    assert found == []


@pytest.mark.parametrize("word", [f"no{HOSTILE}such.xml", f"a\ncpumap: forged{HOSTILE}"])
def test_a_file_name_is_shown_without_control_characters(
    word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["translate", "--recorded", "7.2", word]) == 2
    said = capsys.readouterr().err
    assert not set(said) & set(HOSTILE)
    assert said.count("\n") == 1


def _run(words: list[str], **environment: str) -> subprocess.CompletedProcess[bytes]:
    command = " ".join([sys.executable, "-m", "cpumap", *words])
    return subprocess.run(
        ["sh", "-c", command],
        input=DOMAIN.encode(),
        capture_output=True,
        timeout=60,
        env={**os.environ, **environment},
        check=False,
    )


@pytest.mark.parametrize("stdout", [">/dev/full", ">&-"])
@pytest.mark.parametrize(
    "words", ["translate --recorded 7.2 -", "models --recorded 7.2", "--help", "--version"]
)
def test_a_full_or_closed_stdout_is_one_line(words: str, stdout: str) -> None:
    done = _run([words, stdout])
    assert done.returncode == 3
    assert done.stderr.decode().splitlines()[-1].startswith("cpumap: standard output: ")
    assert b"Traceback" not in done.stderr


def test_a_closed_stdin_is_one_line() -> None:
    done = _run(["translate --recorded 7.2 - <&-"])
    assert done.returncode == 2
    assert b"cpumap: <stdin>: Bad file descriptor\n" in done.stderr


def test_a_closed_stderr_changes_nothing_else() -> None:
    done = _run(["translate --recorded 7.2 - 2>&-"])
    assert (done.returncode, done.stdout[:13]) == (0, b"-cpu 'Haswell")


def test_a_terminal_that_lacks_a_character(tmp_path: Path) -> None:
    folder = tmp_path / "ünicöde → \udcff"
    folder.mkdir()
    (folder / "a.xml").write_text(DOMAIN)
    words = [f"convert --dry-run --format json --recorded 7.2 '{os.fsencode(tmp_path).decode()}'"]
    for encoding in ("latin-1", "ascii", "utf-8"):
        done = _run(words, PYTHONIOENCODING=encoding, PYTHONUTF8="0")
        assert done.returncode == 0, done.stderr
        shown = json.loads(done.stdout.decode(encoding))
        assert shown["files"][0]["file"] == str(folder / "a.xml")


def test_completion_without_its_extra_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert main(["--print-completion", "bash"]) == 3
    assert "cpumap[completion]" in capsys.readouterr().err
