"""A connection to a real libvirtd: the one that runs, or one started for the tests."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

if TYPE_CHECKING:
    import libvirt

URI = "qemu:///system" if os.geteuid() == 0 else "qemu:///session"
DAEMONS = ("virtlogd", "libvirtd")
IDLE = 5
"""Seconds after the last connection at which a daemon that the tests started ends by itself."""

OWN_DIRECTORIES = (
    "/etc/libvirt",
    "/run/libvirt",
    "/var/lib/libvirt",
    "/var/log/libvirt",
    "/var/cache/libvirt",
)
PRIVATE = """
set -e
hostname "$HOST"
for directory in $DIRECTORIES; do mount --bind "$ROOT$directory" "$directory"; done
"$DAEMON" --pid-file "$ROOT/libvirtd.pid" --timeout 30 &
wait
"""
"""Run in namespaces of its own: a libvirtd whose directories are those under ROOT, nobody else's.

The shell is process 1 in there: it reaps QEMUs that end, and everything ends with it.
"""

QEMU_CONF = """
user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
stdio_handler = "file"
security_driver = "none"
namespaces = []
cgroup_controllers = []
"""
LIBVIRTD_CONF = """
unix_sock_dir = "{root}/sockets"
auth_unix_ro = "none"
auth_unix_rw = "none"
log_outputs = "3:file:{root}/libvirtd.log"
host_uuid = "{uuid}"
"""

EMULATOR = """#!/bin/sh
exec unshare --mount sh -c 'for modules in /usr/lib/*/qemu; do mount --bind {empty} "$modules"; done
exec {binary} "$@"' sh "$@"
"""
"""A QEMU beside the distribution's own, kept from loading the modules of that one, at which it
aborts.
"""


@dataclass(frozen=True, slots=True)
class Daemon:
    """A libvirtd that belongs to the tests alone: its configuration, hooks and guests are nobody
    else's.
    """

    root: Path
    process: subprocess.Popen[bytes]

    @property
    def uri(self) -> str:
        return f"qemu:///system?socket={self.root}/sockets/libvirt-sock"

    @property
    def hooks(self) -> Path:
        """Its `/etc/libvirt/hooks`."""
        return self.root / "etc/libvirt/hooks"

    @property
    def log(self) -> str:
        """What it has logged so far: errors and warnings."""
        return (self.root / "libvirtd.log").read_text(errors="replace")

    def options(self, domain: str) -> dict[str, list[str]]:
        """The values of the -cpu and -global options with which it last started a QEMU for the
        domain.
        """
        log = (self.root / "var/log/libvirt/qemu" / f"{domain}.log").read_text(errors="replace")
        command = log[log.rindex("\nLC_ALL=C ") :].replace("\\\n", " ").lstrip().partition("\n")[0]
        found: dict[str, list[str]] = {"-cpu": [], "-global": []}
        for option, value in pairwise(shlex.split(command)):
            if option in found:
                found[option].append(value)
        return found

    def emulator(self, binary: Path) -> str:
        """A path that this libvirtd can start the QEMU binary by."""
        if binary.resolve().parent == Path("/usr/bin"):
            return str(binary.resolve())
        script = self.root / binary.name
        (self.root / "empty").mkdir(exist_ok=True)
        script.write_text(EMULATOR.format(empty=self.root / "empty", binary=binary))
        script.chmod(0o755)
        return str(script)

    def open(self) -> libvirt.virConnect:
        """A connection, as soon as it answers."""
        import libvirt

        libvirt.registerErrorHandler(lambda *_: None, None)  # it would print every error
        deadline = time.monotonic() + 30
        while True:
            try:
                return libvirt.open(self.uri)
            except libvirt.libvirtError as error:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    log = self.root / "libvirtd.log"
                    pytest.fail(f"{error}\n{self.log if log.exists() else ''}", pytrace=False)
                time.sleep(0.05)


@contextmanager
def private(prepare: Callable[[Path], object] = lambda root: None) -> Iterator[Daemon]:
    """A libvirtd in namespaces of its own, gone afterwards with all its guests. Wants root.

    `prepare` gets its root directory before it starts, for hooks that it is to find.
    """
    if (
        os.geteuid() != 0
    ):  # in a user namespace libvirtd cannot start QEMU: setgroups is forbidden there
        pytest.fail("a libvirtd of the tests' own wants root: run the tests as root", pytrace=False)
    root = Path(tempfile.mkdtemp(prefix="cpumap-"))  # short: a socket's path has at most 107 bytes
    for directory in (*OWN_DIRECTORIES, "/sockets", "/etc/libvirt/hooks"):
        (root / directory[1:]).mkdir(parents=True)
    (root / "etc/libvirt/qemu.conf").write_text(QEMU_CONF)
    (root / "etc/libvirt/libvirtd.conf").write_text(LIBVIRTD_CONF.format(root=root, uuid=uuid4()))
    prepare(root)
    unshare = [
        "setpriv",
        "--pdeathsig",
        "KILL",
        "unshare",
        "--mount",
        "--uts",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
    ]
    environment = {
        **os.environ,
        "ROOT": str(root),
        "DIRECTORIES": " ".join(OWN_DIRECTORIES),
        "DAEMON": _daemon(),
    }
    environment["HOST"] = (
        f"cpumap-{uuid4().hex[:8]}"  # libvirt migrates no guest to a host of the same name
    )
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(
        [*unshare, "sh", "-c", PRIVATE],
        env=environment,
        stdin=quiet,
        stdout=quiet,
        stderr=quiet,
        start_new_session=True,
    )
    daemon = Daemon(root, process)
    try:
        daemon.open().close()
        yield daemon
        _destroy_all(daemon)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=30)
        shutil.rmtree(root, ignore_errors=True)


def _destroy_all(daemon: Daemon) -> None:
    import libvirt

    connection = daemon.open()
    for domain in connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE):
        with suppress(libvirt.libvirtError):
            domain.destroy()
    connection.close()


def _daemon() -> str:
    program = shutil.which("libvirtd", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        pytest.fail("libvirtd is not installed (tools/setup-test installs it)", pytrace=False)
    return program


@contextmanager
def connection() -> Iterator[libvirt.virConnect]:
    """A connection to `URI`. Daemons started for it are gone afterwards, unless somebody else
    uses them by then.
    """
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

    if not any(
        (_runtime_directory() / name).is_socket() for name in ("libvirt-sock", "virtqemud-sock")
    ):
        return None
    try:
        return libvirt.open(URI)
    except libvirt.libvirtError:
        return None  # a socket that a daemon left behind


def _runtime_directory() -> Path:
    """Where libvirt's sockets are; libvirt falls back on the cache directory for a user without
    XDG_RUNTIME_DIR.
    """
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
    return subprocess.Popen(
        [program, "--timeout", str(IDLE)], stdin=quiet, stdout=quiet, stderr=quiet
    )
