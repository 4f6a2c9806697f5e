"""One QMP session with one QEMU: start or attach, execute (pipelined), time out, quit."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import tempfile
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol, Self, TypeVar

from cpumap.errors import SourceError

if TYPE_CHECKING:
    from qemu.qmp import QMPClient


Command = tuple[str, Mapping[str, object]]


T = TypeVar("T")


_BARE = ("-nodefaults", "-no-user-config", "-display", "none", "-S")
"""No devices, no configuration but ours, and not a guest instruction executed."""


_PR_SET_PDEATHSIG = 1


class CommandFailedError(SourceError):
    """QEMU answered a QMP command with an error; the message is QEMU's own."""


class Conversation(Protocol):
    """QMP spoken with one QEMU, whoever carries the words."""

    label: str

    def execute(self, command: str, **arguments: object) -> Any: ...

    def answers(self, commands: Iterable[Command]) -> list[Any]: ...

    def warnings(self) -> list[str]: ...

    def close(self) -> None: ...


def _death_with_parent() -> Callable[[], object]:
    """What a child does first, so that the kernel ends it when this process is killed outright
    (prctl(2)).
    """
    prctl = ctypes.CDLL(None).prctl
    return lambda: prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Session:
    """A QMP conversation. A context manager; closing it ends a QEMU that it started, and no
    other.
    """

    def __init__(self, label: str, timeout: float = 30.0) -> None:
        self.label = label
        self.timeout = timeout
        self._loop = asyncio.new_event_loop()
        self._process: subprocess.Popen[bytes] | None = None
        self._stderr: IO[bytes] | None = None
        self._client: QMPClient | None = None

    @classmethod
    def start(
        cls, binary: str | Path, arguments: Sequence[str] = (), *, timeout: float = 30.0
    ) -> Self:
        """A session with a paused QEMU started for it; `timeout` in seconds bounds each answer."""
        session = cls(str(binary), timeout)
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                session._spawn(str(binary), arguments, theirs)
            session._connect(ours)
        except BaseException:
            ours.close()
            session.close()
            raise
        return session

    @classmethod
    def attach(cls, address: str, *, timeout: float = 30.0) -> Self:
        """A session with the QEMU that listens on a QMP socket: a path, or HOST:PORT."""
        session = cls(address, timeout)
        host, colon, port = address.rpartition(":")
        try:
            is_tcp = bool(colon) and port.isdigit() and not Path(address).exists()
            session._connect((host, int(port)) if is_tcp else address)
        except BaseException:
            session.close()
            raise
        return session

    def execute(self, command: str, **arguments: object) -> Any:
        """What QEMU returns for one command. Errors: `CommandFailedError`, and `SourceError` when
        QEMU is gone.
        """
        return self.pipeline([(command, arguments)])[0]

    def pipeline(self, commands: Iterable[Command]) -> list[Any]:
        """The return values of commands sent together, in order; the first error raises."""
        answers = self.answers(commands)
        for answer in answers:
            if isinstance(answer, CommandFailedError):
                raise answer
        return answers

    def answers(self, commands: Iterable[Command]) -> list[Any]:
        """As `pipeline`, but a command that QEMU refuses gives its `CommandFailedError` in place."""
        batch = list(commands)
        return self._run(self._execute_all(batch), self.timeout + len(batch) * 0.05)

    async def _execute_all(self, commands: list[Command]) -> list[Any]:
        return list(
            await asyncio.gather(*(self._execute(name, arguments) for name, arguments in commands))
        )

    async def _execute(self, name: str, arguments: Mapping[str, object]) -> Any:
        from qemu.qmp import ExecuteError

        assert self._client is not None
        try:
            return await self._client.execute(name, arguments)
        except ExecuteError as err:
            return CommandFailedError(f"{self.label}: {err}")

    def _spawn(self, binary: str, arguments: Sequence[str], theirs: socket.socket) -> None:
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the session; close() ends it
        monitor = (
            "-chardev",
            f"socket,id=qmp,fd={theirs.fileno()}",
            "-mon",
            "chardev=qmp,mode=control",
        )
        try:
            self._process = subprocess.Popen(
                [binary, *_BARE, *monitor, *arguments],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._stderr,
                start_new_session=True,
                preexec_fn=_death_with_parent(),
            )
        except OSError as err:
            raise SourceError(f"cannot start {binary}: {err.strerror}") from err

    def _connect(self, address: socket.socket | tuple[str, int] | str) -> None:
        import logging

        from qemu.qmp import QMPClient

        logging.getLogger("qemu.qmp").setLevel(logging.CRITICAL)
        client = QMPClient("cpumap")
        self._client = client
        self._run(client.connect(address), self.timeout)

    def _run(self, work: Awaitable[T], timeout: float) -> T:
        from qemu.qmp import QMPError

        try:
            return self._loop.run_until_complete(asyncio.wait_for(work, timeout))
        except TimeoutError as err:
            raise SourceError(
                f"{self.label} did not answer within {timeout:.0f} s{self._last_words()}"
            ) from err
        except (QMPError, OSError, asyncio.CancelledError) as err:
            raise SourceError(f"{self.label}: {self._reason(err)}{self._last_words()}") from err

    def _reason(self, err: BaseException) -> str:
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(1)
            code = self._process.returncode
            if code is not None:
                ended = f"was killed by signal {-code}" if code < 0 else f"ended with status {code}"
                return f"QEMU {ended} before it answered"
        return f"no QMP conversation ({' '.join(str(err).split()) or type(err).__name__})"

    def _last_words(self) -> str:
        """What QEMU printed last, as the end of a sentence; a warning-only log too says why it
        may hang.
        """
        if self._stderr is None:
            return ""
        self._stderr.seek(0)
        lines = self._stderr.read()[-4000:].decode(errors="replace").strip().splitlines()
        return f": {lines[-1].strip()}" if lines else ""

    def warnings(self) -> list[str]:
        """The lines that a QEMU started here has printed on stderr so far."""
        if self._stderr is None:
            return []
        self._stderr.seek(0)
        return self._stderr.read().decode(errors="replace").splitlines()

    def close(self) -> None:
        """Ends the conversation, and the QEMU if it was started here. May be called twice."""
        if self._process is not None:
            self._kill(self._process)
            self._process = None
        if self._client is not None and not self._loop.is_closed():
            with contextlib.suppress(
                Exception
            ):  # a peer that is gone or talks garbage may fail in any way
                self._loop.run_until_complete(asyncio.wait_for(self._client.disconnect(), 2))
            self._client = None
        if not self._loop.is_closed():
            self._loop.close()
        if self._stderr is not None:
            self._stderr.close()
            self._stderr = None

    @staticmethod
    def _kill(process: subprocess.Popen[bytes]) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
