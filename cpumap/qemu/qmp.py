"""One QMP session with one QEMU: start or attach, execute (pipelined), time out, quit."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

from cpumap.errors import SourceError
from cpumap.qemu.wire import Wire, WireError, connected
from cpumap.system.process import Process, ending

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
        self._process: Process | None = None
        self._wire: Wire | None = None

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
            session._negotiate(lambda: ours)
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
            place = (host, int(port)) if is_tcp else address
            session._negotiate(lambda: connected(place, timeout))
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
        wire = self._wire
        assert wire is not None
        deadline = time.monotonic() + self.timeout + len(batch) * 0.05
        answers = self._understood(lambda: wire.answers(batch, deadline))
        return [self._answer(answer) for answer in answers]

    def _answer(self, message: Mapping[str, Any]) -> Any:
        if "return" in message:
            return message["return"]
        return CommandFailedError(f"{self.label}: {message['error']['desc']}")

    def _spawn(self, binary: str, arguments: Sequence[str], theirs: socket.socket) -> None:
        number = theirs.fileno()
        monitor = ("-chardev", f"socket,id=qmp,fd={number}", "-mon", "chardev=qmp,mode=control")
        command = [binary, *_BARE, *monitor, *arguments]
        self._process = Process(command, pass_fds=[number], timeout=self.timeout)

    def _negotiate(self, connection: Callable[[], socket.socket]) -> None:
        wire = self._wire = Wire(self._understood(connection))
        deadline = time.monotonic() + self.timeout
        self._understood(lambda: wire.negotiate(deadline))

    def _understood(self, work: Callable[[], T]) -> T:
        try:
            return work()
        except TimeoutError as err:
            raise SourceError(
                f"{self.label} did not answer within {self.timeout:.0f} s{self._last_words()}"
            ) from err
        except (WireError, OSError, ValueError) as err:
            raise SourceError(f"{self.label}: {self._reason(err)}{self._last_words()}") from err

    def _reason(self, err: BaseException) -> str:
        code = self._process.wait(1) if self._process is not None else None
        if code is not None:
            return f"QEMU {ending(code)} before it answered"
        reason = getattr(err, "strerror", None) or str(err) or type(err).__name__
        return f"no QMP conversation ({' '.join(reason.split())})"

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
        if self._wire is not None:
            self._wire.close()
            self._wire = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
