"""A conversion on a terminal: the bar, the colours, and Ctrl-C."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cpumap.fleet.journal import JOURNAL
from tests.support.documents import RECORDED, content, convert, kinds, small, stored

CTRL_C = b"\x03"
BAR = re.compile(r"converting \S+ +\d+/600 \d+ a second \d:\d\d:\d\d")
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """A conversion whose terminal this is."""

    def __init__(
        self,
        *words: object,
        output: Path | None = None,
        environment: tuple[str, str] = ("LC_ALL", "C.UTF-8"),
    ) -> None:
        """`output` gets its standard output; `environment` is a variable on top of the usual
        ones.
        """
        command = [sys.executable, "-m", "cpumap", "convert", *map(str, words), *RECORDED]
        child, self._handle = pty.fork()
        if not child:
            if output is not None:
                os.dup2(os.open(output, os.O_WRONLY | os.O_CREAT), 1)
            variables = {
                **os.environ,
                "TERM": "xterm",
                "COLUMNS": "120",
                **dict([environment] if environment else []),
            }
            os.execve(sys.executable, command, variables)
        self._child = child
        self.shown = ""

    def read(self, until: str | None = None) -> None:
        """Reads what is shown: till this appears, or the program ends."""
        deadline = time.monotonic() + 60
        while until is None or until not in self.shown:
            ready, _, _ = select.select([self._handle], [], [], max(0, deadline - time.monotonic()))
            assert ready, f"no {until!r} in {self.shown!r}"
            try:
                self.shown += os.read(self._handle, 65536).decode()
            except OSError:  # what a terminal says when nobody has it open any more
                assert until is None, self.shown
                return

    def press(self, key: bytes) -> None:
        os.write(self._handle, key)

    def end(self) -> int:
        """The exit code as a shell sees it.

        Python ends by the signal itself where Ctrl-C came while a dataclass was being made; shells
        call that 130 too.
        """
        code = os.waitstatus_to_exitcode(os.waitpid(self._child, 0)[1])
        os.close(self._handle)
        return code if code >= 0 else 128 - code

    @property
    def text(self) -> str:
        """What is shown, less colours and movements."""
        return ESCAPE.sub("", self.shown)


def test_a_bar_with_rate_and_remaining_time(tmp_path: Path) -> None:
    directory = stored(tmp_path / "in", {**kinds(599), "999.xml": b"<domain"})
    terminal = Terminal(directory, "--output-dir", tmp_path / "out")
    terminal.read()
    assert terminal.end() == 2
    assert BAR.search(terminal.text), terminal.text[-2000:]
    lines = [
        line for line in terminal.text.splitlines() if line.strip() and "converting" not in line
    ]
    assert lines[0].startswith(f"failed: {directory}/999.xml:1: not well-formed XML"), (
        "what is wrong is said at once"
    )
    assert lines[1].startswith("cpumap: 600 documents: 599 converted, 1 failed in ")
    assert terminal.shown.count("\x1b[?25l") == terminal.shown.count("\x1b[?25h") == 1, (
        "the cursor is back"
    )


def test_a_coloured_diff(tmp_path: Path) -> None:
    directory = stored(tmp_path, {"a.xml": small()})
    words = (directory, "--diff")
    terminal = Terminal(*words)
    terminal.read()
    assert terminal.end() == 0
    assert f"\x1b[31m--- a/{directory}/a.xml\x1b[0m" in terminal.shown
    assert "\x1b[32m+  <qemu:commandline>\r" in terminal.shown
    assert "\x1b[31m-  <cpu mode='custom'><model>Haswell</model></cpu>" in terminal.shown
    assert "converting" not in terminal.shown, "a bar would stand among the lines"


def test_a_diff_without_colours(tmp_path: Path) -> None:
    directory = stored(tmp_path, {"a.xml": small()})
    plain = [sys.executable, "-m", "cpumap", "convert", str(directory), "--diff", *RECORDED]
    piped = subprocess.run(plain, capture_output=True, check=True).stdout.decode()
    assert "\x1b" not in piped and "\n+  <qemu:commandline>\r\n" in piped
    for environment in (("NO_COLOR", "1"), ("TERM", "dumb")):
        terminal = Terminal(directory, "--diff", environment=environment)
        terminal.read()
        assert terminal.end() == 0
        assert terminal.shown.replace("\r", "").startswith(piped.replace("\r", ""))


@pytest.mark.parametrize(
    "words", [("--dry-run", "--format", "json"), ("--diff",), ("--dry-run",)], ids=" ".join
)
def test_data_goes_to_a_file_and_the_bar_to_the_terminal(
    tmp_path: Path, words: tuple[str, ...]
) -> None:
    directory = stored(tmp_path / "etc", {**kinds(2), "broken.xml": b"<"})
    quiet = [sys.executable, "-m", "cpumap", "convert", str(directory), *words, *RECORDED]
    expected = subprocess.run(quiet, capture_output=True, check=False).stdout.decode()
    data = tmp_path / "data"
    terminal = Terminal(directory, *words, output=data)
    terminal.read()
    assert terminal.end() == 2
    assert _less_time(data.read_bytes().decode()) == _less_time(expected) != ""
    assert "\x1b[2Kconverting " in terminal.shown and "<qemu:commandline>" not in terminal.shown


def _less_time(text: str) -> str:
    return re.sub(r'"seconds": [0-9.]+', "", text)


@pytest.mark.parametrize("jobs", [1, 2])
def test_ctrl_c(tmp_path: Path, jobs: int) -> None:
    old = kinds(600)
    directory = stored(tmp_path / "etc", old)
    words = (directory, "--in-place", "--jobs", jobs)
    terminal = Terminal(*words)
    terminal.read(until=" a second")
    terminal.press(CTRL_C)
    pressed = time.monotonic()
    terminal.read()
    assert time.monotonic() - pressed < 1
    assert terminal.end() == 130
    assert re.search(
        r"cpumap: stopped after \d+ documents: .*; --resume goes on\r?\n", terminal.text
    ), terminal.text
    assert terminal.text.endswith("cpumap: interrupted\r\n") and "Traceback" not in terminal.text
    left = content(directory)
    assert left.pop(JOURNAL)
    assert left.keys() == old.keys(), "no temporary files"
    changed = [name for name, data in left.items() if data != old[name]]
    assert 0 < len(changed) < len(old)
    assert convert(*words, "--resume") == 0
    finished = content(directory)
    assert finished.keys() == old.keys() and all(finished[name] == left[name] for name in changed)
    assert convert(stored(tmp_path / "alone", old), "--in-place") == 0
    assert finished == content(tmp_path / "alone")


def test_ctrl_c_while_processes_start(tmp_path: Path) -> None:
    """Whatever is starting when the key is pressed, nobody shows a traceback."""
    directory = stored(tmp_path / "etc", kinds(600))
    for delay in range(5):
        terminal = Terminal(directory, "--output-dir", tmp_path / str(delay), "--jobs", 2)
        terminal.read(until="converting")
        time.sleep(delay * 0.08)
        terminal.press(CTRL_C)
        pressed = time.monotonic()
        terminal.read()
        assert time.monotonic() - pressed < 1
        assert (terminal.end(), "Traceback" in terminal.text) == (130, False), terminal.text
