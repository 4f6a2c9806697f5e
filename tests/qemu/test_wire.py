"""QMP on a socket, with peers that speak it well, badly or not at all."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from cpumap.qemu.wire import LONGEST, Wire, WireError, connected

GREETING = b'{"QMP": {"version": {}, "capabilities": ["oob"]}}\r\n'
WELCOME = GREETING + b'{"return": {}, "id": 0}\r\n'


@contextmanager
def _peer(act: Callable[[socket.socket], object]) -> Iterator[Wire]:
    """A conversation with a thread that acts so at its end of the socket, then hangs up."""
    ours, theirs = socket.socketpair()

    def run() -> None:
        with theirs:
            try:
                act(theirs)
            except OSError:
                return  # the other side has enough of it

    thread = threading.Thread(target=run)
    thread.start()
    wire = Wire(ours)
    try:
        yield wire
    finally:
        wire.close()
        thread.join(20)
    assert not thread.is_alive()


def _soon() -> float:
    return time.monotonic() + 20


def _says(text: bytes) -> Callable[[socket.socket], object]:
    """Says it at once, and listens until the other side hangs up."""

    def act(connection: socket.socket) -> None:
        connection.sendall(text)
        while connection.recv(65536):
            pass

    return act


def test_the_greeting_is_answered_without_capabilities() -> None:
    heard: list[bytes] = []

    def act(connection: socket.socket) -> None:
        connection.sendall(GREETING)
        heard.append(connection.recv(65536))
        connection.sendall(b'{"return": {}, "id": 0}\r\n')

    with _peer(act) as wire:
        wire.negotiate(_soon())
    assert [json.loads(line) for line in heard] == [{"execute": "qmp_capabilities", "id": 0}]


def test_answers_in_the_order_of_the_commands_with_events_between() -> None:
    said = (
        b'{"return": 2, "id": 2}\r\n{"event": "STOP", "data": {}, "timestamp": {}}\r\n'
        b'{"error": {"class": "GenericError", "desc": "no"}, "id": 1}\r\n'
    )
    with _peer(_says(WELCOME + said)) as wire:
        wire.negotiate(_soon())
        first, second = wire.answers([("one", {}), ("two", {"of": [1]})], _soon())
    assert first["error"]["desc"] == "no"
    assert second["return"] == 2


def test_an_answer_that_comes_in_pieces() -> None:
    def act(connection: socket.socket) -> None:
        for place in range(len(WELCOME)):
            connection.sendall(WELCOME[place : place + 1])
        connection.recv(65536)

    with _peer(act) as wire:
        wire.negotiate(_soon())


def test_a_late_answer_to_an_interrupted_question_is_passed_over() -> None:
    def act(connection: socket.socket) -> None:
        connection.sendall(WELCOME)
        commands = connection.makefile()
        while json.loads(commands.readline())["id"] != 2:
            pass
        connection.sendall(b'{"return": "late", "id": 1}\r\n{"return": "right", "id": 2}\r\n')

    with _peer(act) as wire:
        wire.negotiate(_soon())
        with pytest.raises(TimeoutError):
            wire.answers([("first", {})], time.monotonic() + 0.1)
        assert wire.answers([("second", {})], _soon())[0]["return"] == "right"


def test_a_peer_that_answers_each_command_before_it_takes_the_next() -> None:
    """Neither side's buffer holds all of it: one that only sends would wait for ever."""
    number = 2000
    filling = "x" * 2000

    def act(connection: socket.socket) -> None:
        connection.sendall(GREETING)
        commands = connection.makefile()
        for _ in range(number + 1):
            answer = {"return": filling, "id": json.loads(commands.readline())["id"]}
            connection.sendall(json.dumps(answer).encode() + b"\n")

    with _peer(act) as wire:
        wire.negotiate(_soon())
        answers = wire.answers([("q", {"text": filling})] * number, _soon())
    assert [answer["return"] == filling for answer in answers] == [True] * number


@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        (b"", "ended the conversation"),
        (b'{"QMP": ', "ended the conversation"),
        (b"HTTP/1.1 400 Bad Request\r\n", "no JSON"),
        (b"\xff\xfe\n", "no JSON"),
        (b"[" * 100_000 + b"\n", "no JSON"),
        (b'["QMP"]\n', "no JSON object"),
        (b'{"hello": 1}\n', "greets with something else"),
        (b'{"QMP": 1}\n', "greets with something else"),
        (GREETING + b'{"error": {"desc": "no"}, "id": 0}\n', "refuses the negotiation"),
        (GREETING + b'{"error": {"class": "GenericError", "desc": "bad"}}\n', "bad"),
        (GREETING + b'{"error": "no", "id": 0}\n', "neither answer nor event"),
        (GREETING + b'{"return": {}, "id": "0"}\n', "neither answer nor event"),
        (GREETING + b'{"return": {}}\n', "neither answer nor event"),
    ],
)
def test_what_is_no_qmp(said: bytes, complaint: str) -> None:
    def act(connection: socket.socket) -> None:
        connection.sendall(said)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(65536):
            pass

    with _peer(act) as wire, pytest.raises(WireError, match=complaint):
        wire.negotiate(_soon())


def test_a_message_without_end() -> None:
    def act(connection: socket.socket) -> None:
        for _ in range(2 * LONGEST >> 20):
            connection.sendall(b" " * (1 << 20))

    with _peer(act) as wire, pytest.raises(WireError, match="more than 64 MB"):
        wire.negotiate(_soon())


def test_one_who_only_tells_of_events_is_not_listened_to_for_ever() -> None:
    def act(connection: socket.socket) -> None:
        connection.sendall(WELCOME)
        while True:
            connection.sendall(b'{"event": "STOP"}\r\n' * 100)

    with _peer(act) as wire:
        wire.negotiate(_soon())
        with pytest.raises(TimeoutError):
            wire.answers([("one", {})], time.monotonic() + 0.2)


def test_nobody_listens_there() -> None:
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        with pytest.raises(ConnectionRefusedError):
            connected(("127.0.0.1", unheard.getsockname()[1]), 5)
