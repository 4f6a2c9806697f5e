"""QMP on a socket: the greeting, commands sent together, and their answers, each within its time.

Written from the QMP specification that QEMU documents (Interoperability, "QEMU Machine Protocol
Specification"): one JSON object a line, an `id` that comes back with the answer, events between.
"""

from __future__ import annotations

import json
import select
import socket
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

LONGEST = 64 << 20
"""Bytes of one message; the longest answer seen, of `qom-list-types`, has 0.1 MB."""

_BLOCK = 1 << 16


class WireError(Exception):
    """What is said on the socket is not QMP, or nothing is said any more."""


class Wire:
    """One QMP conversation on a connected socket, which it owns. Errors: `WireError`,
    `TimeoutError`, `OSError`.
    """

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._socket.setblocking(False)
        self._heard = bytearray()
        self._searched = 0
        self._number = 0

    def negotiate(self, deadline: float) -> None:
        """Hears the greeting and leaves the negotiation of capabilities: none is wanted."""
        greeting = self._exchange(b"", deadline)
        if not isinstance(greeting.get("QMP"), dict):
            raise WireError("it greets with something else")
        [answer] = self.answers([("qmp_capabilities", {})], deadline)
        if "return" not in answer:
            raise WireError("it refuses the negotiation")

    def answers(
        self, commands: Iterable[tuple[str, Mapping[str, object]]], deadline: float
    ) -> list[dict[str, Any]]:
        """The answers in the order of the commands, each with `return` or `error`; the deadline is
        one of `time.monotonic`.
        """
        first = self._number
        text = b"".join(self._spelt(name, arguments) for name, arguments in commands)
        expected = range(first, self._number)
        answers: dict[int, dict[str, Any]] = {}
        while len(answers) < len(expected):
            message = self._exchange(text, deadline)
            text = b""
            if "event" in message:
                continue
            number = message.get("id")
            if not isinstance(number, int) or not _is_answer(message):
                raise WireError(_complaint(message))
            # What an interrupted question left unheard is no answer to this one.
            if number in expected:
                answers[number] = message
        return [answers[number] for number in expected]

    def _spelt(self, name: str, arguments: Mapping[str, object]) -> bytes:
        command: dict[str, object] = {"execute": name, "id": self._number}
        if arguments:
            command["arguments"] = arguments
        self._number += 1
        return json.dumps(command).encode() + b"\n"

    def _exchange(self, text: bytes, deadline: float) -> dict[str, Any]:
        """The next message, once the text is sent. It listens while it sends: a peer may wait for
        its answers to be taken.
        """
        left = memoryview(text)
        while left or not self._has_line():
            readable, writable, _ = select.select(
                [self._socket], [self._socket] if left else [], [], _until(deadline)
            )
            if readable and not self._hear():
                break
            if writable:
                with suppress(BlockingIOError):
                    left = left[self._socket.send(left) :]
            if not readable and not writable:
                raise TimeoutError
        if not self._has_line():
            raise WireError("it ended the conversation")
        return _message(self._line())

    def _has_line(self) -> bool:
        found = self._heard.find(b"\n", self._searched) >= 0
        self._searched = 0 if found else len(self._heard)
        if not found and len(self._heard) > LONGEST:
            raise WireError(f"it says more than {LONGEST >> 20} MB at once")
        return found

    def _hear(self) -> bool:
        """Whether the peer says anything more."""
        block = self._socket.recv(_BLOCK)
        self._heard += block
        return bool(block)

    def _line(self) -> bytes:
        end = self._heard.index(b"\n") + 1
        line = bytes(self._heard[:end])
        del self._heard[:end]
        return line

    def close(self) -> None:
        """Ends the conversation. May be called twice."""
        self._socket.close()


def connected(address: str | tuple[str, int], timeout: float) -> socket.socket:
    """A socket connected to a path or to a host's port. Errors: `OSError`, `TimeoutError`."""
    if isinstance(address, tuple):
        return socket.create_connection(address, timeout)
    unix = socket.socket(socket.AF_UNIX)
    try:
        unix.settimeout(timeout)
        unix.connect(address)
    except BaseException:
        unix.close()
        raise
    return unix


def _until(deadline: float) -> float:
    return max(0.0, deadline - time.monotonic())


def _message(line: bytes) -> dict[str, Any]:
    try:
        message = json.loads(line)
    except (ValueError, RecursionError) as err:
        raise WireError("it says what is no JSON") from err
    if not isinstance(message, dict):
        raise WireError("it says what is no JSON object")
    return message


def _is_answer(message: Mapping[str, Any]) -> bool:
    return "return" in message or _reason(message) is not None


def _reason(message: Mapping[str, Any]) -> str | None:
    error = message.get("error")
    reason = error.get("desc") if isinstance(error, dict) else None
    return reason if isinstance(reason, str) else None


def _complaint(message: Mapping[str, Any]) -> str:
    return _reason(message) or "it says what is neither answer nor event"
