"""One QMP session with one QEMU: start or attach, execute (pipelined), time out, quit."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

from cpumap.errors import SourceError
from cpumap.system.process import Process, ending

if TYPE_CHECKING:
    from qemu.qmp import QMPClient


Command = tuple[str, Mapping[str, object]]


T = TypeVar("T")


_BARE = ("-nodefaults", "-no-user-config", "-display", "none", "-S")
"""No devices, no configuration but ours, and not a guest instruction executed."""


class CommandFailedError(SourceError):
    """QEMU answered a QMP command with an error; the message is QEMU's own."""


class Conversation(Protocol):
    """QMP spoken with one QEMU, whoever carries the words."""

    label: str

    def execute(self, command: str, **arguments: object) -> Any: ...

    def answers(self, commands: Iterable[Command]) -> list[Any]: ...

    def warnings(self) -> list[str]: ...

    def close(self) -> None: ...


class Session:
    """A QMP conversation. A context manager; closing it ends a QEMU that it started, and no
    other.
    """

    def __init__(self, label: str, timeout: float = 30.0) -> None:
        self.label = label
        self.timeout = timeout
        self._loop = asyncio.new_event_loop()
        # What a peer or a signal ends in the middle is told by us, not by the loop's log.
        self._loop.set_exception_handler(lambda *_: None)
        self._process: Process | None = None
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
        """As `pipeline`, but a command that QEMU refuses gives its `CommandFailedError` in
        place.
        """
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
        number = theirs.fileno()
        monitor = ("-chardev", f"socket,id=qmp,fd={number}", "-mon", "chardev=qmp,mode=control")
        command = [binary, *_BARE, *monitor, *arguments]
        self._process = Process(command, pass_fds=[number], timeout=self.timeout)

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
        code = self._process.wait(1) if self._process is not None else None
        if code is not None:
            return f"QEMU {ending(code)} before it answered"
        return f"no QMP conversation ({' '.join(str(err).split()) or type(err).__name__})"

    def _last_words(self) -> str:
        """What QEMU printed last, as the end of a sentence; a warning-only log too says why it
        may hang.
        """
        said = self._process.last_line() if self._process is not None else ""
        return f": {said}" if said else ""

    def warnings(self) -> list[str]:
        """The lines that a QEMU started here has printed on stderr so far."""
        return self._process.said() if self._process is not None else []

    def close(self) -> None:
        """Ends the conversation, and the QEMU if it was started here. May be called twice."""
        if self._process is not None:
            self._process.end()
            self._process = None
        if self._client is not None and not self._loop.is_closed():
            with contextlib.suppress(
                Exception
            ):  # a peer that is gone or talks garbage may fail in any way
                self._loop.run_until_complete(asyncio.wait_for(self._client.disconnect(), 2))
            self._client = None
        if not self._loop.is_closed():
            self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
