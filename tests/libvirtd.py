"""A connection to a real libvirtd: the one that runs, or one started for the tests."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import libvirt

URI = "qemu:///system" if os.geteuid() == 0 else "qemu:///session"
DAEMONS = ("virtlogd", "libvirtd")
IDLE = 5
"""Seconds after the last connection at which a daemon that the tests started ends by itself."""


@contextmanager
def connection() -> Iterator[libvirt.virConnect]:
    """A connection to `URI`. Daemons started for it are gone afterwards, unless somebody else uses them by then."""
    started: list[subprocess.Popen[bytes]] = []
    try:
        opened = _open_running() or _start_and_open(started)
        try:
            yield opened
        finally:
            opened.close()
    finally:
        for daemon in reversed(started):
            with suppress(subprocess.TimeoutExpired):
                daemon.wait(timeout=3 * IDLE)


def _open_running() -> libvirt.virConnect | None:
    """A connection to the daemon that already runs, if one does."""
    import libvirt

    if not any((_runtime_directory() / name).is_socket() for name in ("libvirt-sock", "virtqemud-sock")):
        return None
    try:
        return libvirt.open(URI)
    except libvirt.libvirtError:
        return None  # a socket that a daemon left behind


def _runtime_directory() -> Path:
    """Where libvirt's sockets are; libvirt falls back on the cache directory for a user without XDG_RUNTIME_DIR."""
    if os.geteuid() == 0:
        return Path("/run/libvirt")
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    return Path(runtime) / "libvirt" if runtime else Path.home() / ".cache/libvirt"


def _start_and_open(started: list[subprocess.Popen[bytes]]) -> libvirt.virConnect:
    import libvirt

    if Path("/run/systemd/system").is_dir() and os.geteuid() == 0:
        subprocess.run(["systemctl", "start", "libvirtd"], check=True)
    else:
        started += [_start(name) for name in DAEMONS]
    deadline = time.monotonic() + 30
    while True:
        try:
            return libvirt.open(URI)
        except libvirt.libvirtError as error:
            if time.monotonic() > deadline:
                pytest.fail(f"no connection to {URI}: {error}", pytrace=False)
            time.sleep(0.1)


def _start(name: str) -> subprocess.Popen[bytes]:
    program = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        pytest.fail(f"{name} is not installed (tools/setup-test installs it)", pytrace=False)
    quiet = subprocess.DEVNULL
    return subprocess.Popen([program, "--timeout", str(IDLE)], stdin=quiet, stdout=quiet, stderr=quiet)
