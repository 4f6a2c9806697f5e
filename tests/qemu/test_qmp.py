"""QMP sessions with real QEMUs, and with programs that are none."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cpumap.cli.main import main
from cpumap.errors import SourceError
from cpumap.qemu.qmp import CommandFailedError, Session

pytestmark = pytest.mark.live

GARBAGE = (
    "import os, re, sys, time; "
    'os.write(int(re.search(r"fd=(\\d+)", " ".join(sys.argv))[1]), b"garbage\\n"); time.sleep(60)'
)
"""A program that talks, but not QMP."""

Q35 = ("-machine", "q35,accel=tcg")


def _gone(marker: str) -> bool:
    return subprocess.run(["pgrep", "-f", marker], capture_output=True, check=False).returncode == 1


def test_pipeline_answers_in_order(qemu: Path) -> None:
    with Session.start(qemu, Q35) as session:
        names = [entry["name"] for entry in session.execute("query-cpu-definitions")][:20]
        asked = [
            (
                "query-cpu-model-expansion",
                {"type": "static", "model": {"name": name, "props": {"model-id": name}}},
            )
            for name in names
        ]
        answers = session.pipeline(asked)
    assert [answer["model"]["props"]["model-id"] for answer in answers] == names


def test_qemus_own_words_for_a_refused_command(qemu: Path) -> None:
    with (
        Session.start(qemu, Q35) as session,
        pytest.raises(CommandFailedError, match="CPU model 'no-such' not found"),
    ):
        session.execute("query-cpu-model-expansion", type="full", model={"name": "no-such"})


def test_qemu_that_refuses_its_arguments(qemu: Path) -> None:
    with pytest.raises(SourceError, match=r"ended with status 1 before it answered: .*no-such"):
        Session.start(qemu, ("-machine", "q35", "-cpu", "no-such"))


def test_no_process_is_left_behind(qemu: Path) -> None:
    marker = f"cpumap-test-{time.monotonic_ns()}"
    with Session.start(qemu, (*Q35, "-name", marker)):
        assert not _gone(marker)
    assert _gone(marker)


def test_no_process_is_left_behind_by_a_kill(qemu: Path) -> None:
    marker = f"cpumap-test-{time.monotonic_ns()}"
    code = (
        "import os, sys, cpumap.qemu.qmp as q; q.Session.start(sys.argv[1], sys.argv[2:]); "
        "os.kill(os.getpid(), 9)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(qemu), *Q35, "-name", marker], check=False
    )
    assert done.returncode == -9
    deadline = time.monotonic() + 5
    while not _gone(marker) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert _gone(marker)


def test_qemu_killed_in_the_middle(qemu: Path) -> None:
    marker = f"cpumap-test-{time.monotonic_ns()}"
    with Session.start(qemu, (*Q35, "-name", marker)) as session:
        subprocess.run(["pkill", "-KILL", "-f", marker], check=True)
        with pytest.raises(SourceError, match="killed by signal 9"):
            session.execute("query-version")


def _script(directory: Path, body: str) -> Path:
    script = directory / "not-qemu"
    script.write_text(f"#!/bin/sh\n{body}\n")
    script.chmod(0o755)
    return script


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("exit 7", "ended with status 7"),
        ("kill -SEGV $$", "killed by signal 11"),
        ("echo 'no such luck' >&2; exit 1", "no such luck"),
        ("sleep 60", "did not answer within 1 s"),
        ("echo 'Password:' >&2; read x; sleep 60", "did not answer within 1 s: Password:"),
        (f"exec python3 -c '{GARBAGE}' \"$@\"", "no QMP conversation"),
    ],
)
def test_program_that_is_no_qemu(tmp_path: Path, body: str, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        Session.start(_script(tmp_path, body), timeout=1)
    assert _gone(str(tmp_path))


def test_program_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="No such file or directory"):
        Session.start(tmp_path / "nothing")


def _attached(path: Path) -> Session:
    """A session, as soon as QEMU listens."""
    deadline = time.monotonic() + 20
    while True:
        try:
            return Session.attach(str(path))
        except SourceError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.02)


def test_attach_and_leave_running(qemu: Path, tmp_path: Path) -> None:
    path = tmp_path / "qmp"
    command = [str(qemu), "-machine", "q35,accel=tcg", "-display", "none", "-nodefaults", "-S"]
    with subprocess.Popen(
        [*command, "-qmp", f"unix:{path},server=on,wait=off"], stderr=subprocess.DEVNULL
    ) as process:
        try:
            with _attached(path) as session:
                assert session.execute("query-status")["running"] is False
            assert process.poll() is None
        finally:
            process.kill()


def test_a_running_qemu_tells_of_cpus_that_it_does_not_have(
    qemu: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "qmp"
    with Session.start(
        qemu, ("-machine", "q35,accel=tcg", "-qmp", f"unix:{path},server=on,wait=off")
    ):
        assert main(["expand", "Haswell", "--qmp", str(path)]) == 0
        assert json.loads(capsys.readouterr().out)["model"]["props"]["avx2"] is True
        assert main(["dump", "Haswell", "--qmp", str(path)]) == 0
        assert 'property = "avx2"' in capsys.readouterr().out


def test_attach_to_nothing(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="No such file or directory"):
        Session.attach(str(tmp_path / "nothing"))
