"""What a program answers to `--version`."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile

from cpumap.errors import SourceError

TIME_LIMIT = 30.0
"""Seconds."""


LIMIT = 4096
"""Bytes of an answer; QEMU's has some 120."""


def version_told(binary: str) -> str:
    """The program's answer to `--version`, or how it ended without one. Errors: `SourceError`."""
    with tempfile.TemporaryFile() as answer:
        try:
            process = subprocess.Popen(
                [binary, "--version"],
                stdin=subprocess.DEVNULL,
                stdout=answer,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as err:
            raise SourceError(f"cannot start {binary}: {err.strerror}") from err
        try:
            code = process.wait(TIME_LIMIT)
        except subprocess.TimeoutExpired as err:
            raise SourceError(f"{binary} --version has no end in {TIME_LIMIT:.0f} s") from err
        finally:
            _end(process)
        answer.seek(0)
        return f"{code} {answer.read(LIMIT).decode(errors='replace')}"


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends it and whatever it has started, however this ends."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
