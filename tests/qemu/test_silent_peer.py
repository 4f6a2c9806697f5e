"""A peer that never answers, and a signal while it is waited for."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import TREE


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_while_waiting_is_no_traceback(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    address = tmp_path / "qmp"
    with socket.socket(socket.AF_UNIX) as peer:
        peer.bind(str(address))
        peer.listen(1)
        peer.settimeout(60)
        command = [sys.executable, "-m", "cpumap", "models", "--qmp", str(address)]
        env = {**os.environ, "PYTHONPATH": str(TREE)}
        with subprocess.Popen(command, stderr=subprocess.PIPE, env=env) as process:
            connection, _ = peer.accept()
            process.send_signal(number)
            _, said = process.communicate(timeout=60)
            connection.close()
    assert process.returncode == code
    assert b"Traceback" not in said
