"""The one way in which a program is started that may hang, lie or run wild: a QEMU."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, Self
from weakref import WeakSet

from cpumap.errors import SourceError
from cpumap.system.say import detail

_KEEPER = Path(__file__).with_name("keeper.py")


SAID = 4 << 20
"""How much of what a program says is read, in bytes: 255 vCPUs say some 300 KB."""


_LAST_WORDS = 4000


_ENDING = 20.0
"""Seconds for the kernel to take away what was killed."""


class Process:
    """A program that runs no longer than this process, and no longer than it is wanted.

    It has a parent of its own (`keeper`), which ends it and all that it has started once the
    socket between them is closed, as it is when this process ends, however that happens. So it
    does not matter which thread starts it, nor where an interrupt strikes. A context manager.
    Errors: `SourceError` where it cannot be started.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        pass_fds: Sequence[int] = (),
        heard: Literal["stdout", "stderr"] = "stderr",
        timeout: float = 30.0,
    ) -> None:
        """`heard` is what is kept of what the program says; `timeout`, in seconds, is for its
        start.
        """
        detail(f"starts {' '.join(command)}")
        self._label = command[0]
        self._code: int | None = None
        self._told = b""
        self._output = _file_without_a_name()
        self._line, theirs = socket.socketpair()
        _lines.add(self._line)
        try:
            with theirs:
                outputs: dict[str, int] = {heard: self._output}
                self._keeper = _keeper(command, theirs, outputs, pass_fds)
            self._begin(time.monotonic() + timeout)
        except BaseException:
            self.end()
            raise

    _keeper: subprocess.Popen[bytes] | None = None

    def _begin(self, deadline: float) -> None:
        word, _, number = self._next(deadline).partition(" ")
        if word == "failed":
            raise SourceError(f"cannot start {self._label}: {os.strerror(int(number))}")
        if word == "":
            raise SourceError(f"cannot start {self._label}: it did not come up in time")

    def wait(self, timeout: float) -> int | None:
        """How the program ended, negative for a signal; None where it still runs after `timeout`
        seconds.
        """
        if self._code is None:
            word, _, number = self._next(time.monotonic() + timeout).partition(" ")
            if word == "ended":
                self._code = int(number)
            elif word == "gone":
                self._code = self._keeper.wait() if self._keeper else 0
        return self._code

    def _next(self, deadline: float) -> str:
        """The next line that the keeper says; `gone` where it will say no more, empty at the
        deadline.
        """
        waiting = select.poll()  # unlike select(), it takes descriptors of any number
        waiting.register(self._line, select.POLLIN)
        while b"\n" not in self._told:
            left = max(0.0, deadline - time.monotonic())
            if not waiting.poll(left * 1000):
                return ""
            told = self._line.recv(256)
            if not told:
                return "gone"
            self._told += told
        line, _, self._told = self._told.partition(b"\n")
        return line.decode()

    def said(self) -> list[str]:
        """The lines that the program has written so far, of the first four megabytes."""
        return os.pread(self._output, SAID, 0).decode(errors="replace").splitlines()

    def last_line(self) -> str:
        """The last line that the program has written so far; empty where there is none."""
        start = max(0, os.fstat(self._output).st_size - _LAST_WORDS)
        words = os.pread(self._output, _LAST_WORDS, start).decode(errors="replace")
        lines = words.strip().splitlines()
        return lines[-1].strip() if lines else ""

    def end(self) -> None:
        """Ends the program and all that it has started. May be called twice."""
        self._line.close()
        if self._keeper is not None:
            try:
                self._keeper.wait(_ENDING)
            except subprocess.TimeoutExpired:
                self._keeper.kill()
                self._keeper.wait()
        if self._output >= 0:
            os.close(self._output)
            self._output = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()


def _file_without_a_name() -> int:
    """A descriptor of a file that is gone once it is closed: a pipe holds less than QEMU may
    say.
    """
    number, name = tempfile.mkstemp(prefix="cpumap-")
    Path(name).unlink()
    return number


def _keeper(
    command: Sequence[str],
    line: socket.socket,
    outputs: Mapping[str, int],
    pass_fds: Sequence[int],
) -> subprocess.Popen[bytes]:
    """A session of its own: a Ctrl-C at the terminal is for this process, which then ends it."""
    passed = ",".join(map(str, pass_fds))
    try:
        return subprocess.Popen(
            [sys.executable, "-I", "-S", str(_KEEPER), passed, *command],
            pass_fds=tuple(pass_fds),
            stdin=line.fileno(),
            stdout=outputs.get("stdout", subprocess.DEVNULL),
            stderr=outputs.get("stderr", subprocess.DEVNULL),
            start_new_session=True,
        )
    except OSError as err:
        raise SourceError(f"cannot start {sys.executable}: {err.strerror}") from err


_lines: WeakSet[socket.socket] = WeakSet()


def _let_go() -> None:
    """A forked child holds no program of its parent's: it would live as long as the child does."""
    for line in list(_lines):
        line.close()


os.register_at_fork(after_in_child=_let_go)


def ending(code: int) -> str:
    """How a program ended, in words."""
    return f"ended with status {code}" if code >= 0 else f"was killed by signal {-code}"
