"""A peer that speaks QMP and answers with what it is told to."""

from __future__ import annotations

import copy
import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

VERSION = {"qemu": {"major": 7, "minor": 2, "micro": 22}, "package": ""}
ANSWERS: dict[str, Any] = {
    "qmp_capabilities": {},
    "query-version": VERSION,
    "query-target": {"arch": "x86_64"},
    "query-kvm": {"enabled": False, "present": True},
    "query-machines": [
        {
            "name": "pc-q35-7.2",
            "alias": "q35",
            "cpu-max": 288,
            "default-cpu-type": "qemu64-x86_64-cpu",
        }
    ],
    "query-cpu-definitions": [
        {"name": "Haswell", "typename": "Haswell-x86_64-cpu", "unavailable-features": ["hle"]},
        {
            "name": "qemu64",
            "typename": "qemu64-x86_64-cpu",
            "static": False,
            "migration-safe": True,
        },
    ],
    "query-cpu-model-expansion": {"model": {"name": "base", "props": {"avx": True, "level": 13}}},
    "query-cpus-fast": [{"qom-path": "/machine/cpu[0]", "cpu-index": 0}],
    "qom-list": [{"name": "avx", "type": "bool"}, {"name": "level", "type": "uint32"}],
    "qom-list-types": [{"name": "Haswell-x86_64-cpu"}],
}
"""As QEMU 7.2 gives them, shortened."""


class Peer:
    """Listens on a socket for one conversation; a context manager that gives the address."""

    def __init__(self, path: Path, change: Callable[[Any], Any]) -> None:
        self._path = path
        self._change = change
        self._socket = socket.socket(socket.AF_UNIX)

    def __enter__(self) -> str:
        self._path.unlink(missing_ok=True)
        self._socket.bind(str(self._path))
        self._socket.listen(1)
        self._socket.settimeout(5)
        threading.Thread(target=self._serve, daemon=True).start()
        return str(self._path)

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, at: TracebackType | None
    ) -> None:
        self._socket.close()

    def _serve(self) -> None:
        try:
            connection, _ = self._socket.accept()
            with connection:
                self._put(connection, {"QMP": {"version": VERSION, "capabilities": []}})
                for command in _commands(connection):
                    self._answer(connection, command)
        except (OSError, ValueError):
            return  # the other side has enough of it

    def _answer(self, connection: socket.socket, command: dict[str, Any]) -> None:
        name = command["execute"]
        if name == "qom-get":
            said: Any = {"type": "pc-q35-7.2-machine", "level": 13}.get(
                command["arguments"]["property"], True
            )
        else:
            said = copy.deepcopy(ANSWERS.get(name, {}))
        if name != "qmp_capabilities":
            said = self._change(said)
        self._put(connection, {"return": said, "id": command.get("id")})

    @staticmethod
    def _put(connection: socket.socket, message: dict[str, Any]) -> None:
        connection.sendall(json.dumps(message).encode() + b"\n")


def _commands(connection: socket.socket) -> Iterator[dict[str, Any]]:
    """The commands as they come: one after the other, with nothing between them."""
    text = ""
    while block := connection.recv(65536):
        text += block.decode()
        while text := text.lstrip():
            try:
                command, end = json.JSONDecoder().raw_decode(text)
            except ValueError:
                break  # the rest of it is still to come
            text = text[end:]
            yield command
