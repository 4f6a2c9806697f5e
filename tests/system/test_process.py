"""A started program and its children never outlive who started them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from cpumap.errors import SourceError
from cpumap.system.process import SAID, Process, ending
from tests.support.processes import running, until

STARTER = (
    "import sys; from cpumap.system.process import Process; process = Process(sys.argv[2:]); {}"
)
"""A Python that starts what its further arguments say. The first one makes it known."""


@pytest.fixture
def token() -> str:
    return f"cpumap-process-{time.monotonic_ns()}"


def family(tmp_path: Path, token: str) -> list[str]:
    """A program with a child, a child in a session of its own, and one that it has left behind."""
    script = tmp_path / token
    script.write_text(
        "#!/bin/sh\n"
        f"sleep 300 &\n"
        f"python3 -c 'import time; time.sleep(300)' {token} &\n"
        f"setsid python3 -c 'import time; time.sleep(300)' {token} &\n"
        f"(setsid sh -c \"python3 -c 'import time; time.sleep(300)' {token} & exit\" &)\n"
        f"python3 -c 'import time; time.sleep(300)' {token}\n"
    )
    script.chmod(0o755)
    return [str(script)]


def test_how_a_program_ends_is_told() -> None:
    with Process(["/bin/sh", "-c", "exit 7"]) as process:
        assert process.wait(60) == 7 and process.wait(0) == 7
    with Process(["/bin/sh", "-c", "kill -SEGV $$"]) as process:
        assert process.wait(60) == -signal.SIGSEGV
    assert (ending(7), ending(-11)) == ("ended with status 7", "was killed by signal 11")


def test_waiting_has_a_deadline() -> None:
    with Process(["/bin/sleep", "300"]) as process:
        began = time.monotonic()
        assert process.wait(0.2) is None
        assert 0.2 <= time.monotonic() - began < 30


def test_what_cannot_be_started() -> None:
    with pytest.raises(SourceError, match="cannot start /nonexistent: No such file or directory"):
        Process(["/nonexistent"])
    with pytest.raises(SourceError, match="cannot start /etc/passwd: Permission denied"):
        Process(["/etc/passwd"])


def test_what_is_said_is_bounded() -> None:
    flood = (
        "yes 'one line of many' | head -c 20000000 >&2; echo >&2; echo the last word >&2; sleep 300"
    )
    with Process(["/bin/sh", "-c", flood]) as process:
        assert until(lambda: process.last_line() == "the last word")
        said = process.said()
        assert said[0] == "one line of many" and sum(len(line) + 1 for line in said) <= SAID + 1


def test_the_program_keeps_its_signals_and_its_descriptors() -> None:
    """Python ignores SIGPIPE for itself, and the lifeline is none of the program's."""
    look = "grep SigIgn /proc/self/status >&2; ls -l /proc/self/fd >&2"
    reading, writing = os.pipe()
    with Process(
        ["/bin/bash", "-c", f"{look}; echo here >&{writing}"], pass_fds=[writing]
    ) as process:
        os.close(writing)
        assert process.wait(60) == 0
        said = "\n".join(process.said())
    assert os.read(reading, 10) == b"here\n"
    assert os.read(reading, 10) == b"", "nobody else holds what was passed"
    os.close(reading)
    assert int(said.split("SigIgn:")[1].split()[0], 16) & (1 << signal.SIGPIPE - 1) == 0
    assert "0 -> /dev/null" in said
    assert "socket:" not in said


@pytest.mark.parametrize("how", ["end", "own end"])
def test_nobody_is_left_behind(how: str, tmp_path: Path, token: str) -> None:
    command = family(tmp_path, token)
    with Process(command) as process:
        assert until(lambda: len(running(token)) >= 6)
        if how == "own end":
            (program,) = [n for n in running(token) if _parent_is_keeper(n, token)]
            os.kill(program, signal.SIGTERM)
            assert process.wait(60) == -signal.SIGTERM
    assert running(token) == []


def _parent_is_keeper(number: int, token: str) -> bool:
    command = Path(f"/proc/{number}/cmdline").read_bytes().split(b"\0")
    return command[0] == b"/bin/sh" and token.encode() in command[1]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_an_end_of_ours_is_theirs(number: signal.Signals, tmp_path: Path, token: str) -> None:
    command = [sys.executable, "-c", STARTER.format("process.wait(300)"), token]
    with subprocess.Popen([*command, *family(tmp_path, token)], stderr=subprocess.DEVNULL) as ours:
        assert until(lambda: len(running(token)) >= 7)
        ours.send_signal(number)
        ours.wait(60)
    assert until(lambda: running(token) == [])


def test_an_interrupt_at_any_time(tmp_path: Path, token: str) -> None:
    """Also in the middle of starting: nothing is half made."""
    command = [sys.executable, "-c", STARTER.format("process.wait(300)"), token]
    for delay in range(0, 200, 20):
        with subprocess.Popen(
            [*command, "/bin/sleep", f"300.{token[-6:]}"], stderr=subprocess.DEVNULL
        ) as ours:
            time.sleep(delay / 1000)
            ours.send_signal(signal.SIGINT)
            ours.wait(60)
    assert until(lambda: not running(token) and not running(f"300.{token[-6:]}"))


def test_the_thread_that_starts_it_may_end(token: str) -> None:
    started: list[Process] = []
    thread = threading.Thread(
        target=lambda: started.append(Process(["/bin/sh", "-c", "sleep 300", token]))
    )
    thread.start()
    thread.join()
    with started[0] as process:
        assert process.wait(0.5) is None and running(token)
    assert running(token) == []


def test_a_forked_child_of_ours_holds_nothing(token: str) -> None:
    code = STARTER.format("os.fork() or time.sleep(300); os.kill(os.getpid(), 9)").replace(
        "import sys", "import os, sys, time"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, "x", "/bin/sh", "-c", "sleep 300", token]
    ) as ours:
        ours.wait(60)
        assert until(lambda: not [n for n in running(token) if _name(n) in ("sh", "sleep")])
    subprocess.run(["pkill", "-f", token], check=False)


def _name(number: int) -> str:
    try:
        return Path(f"/proc/{number}/comm").read_text().strip()
    except OSError:
        return ""


def test_a_killed_keeper_takes_its_program_along(token: str) -> None:
    with Process(["/bin/sh", "-c", "sleep 300; exit", token]) as process:
        keepers = [n for n in running(token) if _name(n).startswith("python")]
        assert len(keepers) == 1
        os.kill(keepers[0], signal.SIGKILL)
        assert process.wait(60) == -signal.SIGKILL
        assert until(lambda: running(token) == [])
