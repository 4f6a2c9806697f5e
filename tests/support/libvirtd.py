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

DEADLINE = 300
"""Seconds until a daemon must answer: on a busy machine the first one takes more than 30."""

NAMESPACES = (
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
)
"""Starts a command in namespaces of its own, which end with it and with whoever started it."""

OWN_DIRECTORIES = (
    "/etc/libvirt",
    "/run/libvirt",
    "/var/lib/libvirt",
    "/var/log/libvirt",
    "/var/cache/libvirt",
)
LOG = "var/log/libvirt/libvirtd.log"
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
unix_sock_dir = "{sockets}"
auth_unix_ro = "none"
auth_unix_rw = "none"
log_outputs = "3:file:/{log}"
host_uuid = "{uuid}"
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
        return (self.root / LOG).read_text(errors="replace")

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
        return str(binary.resolve())

    def open(self) -> libvirt.virConnect:
        """A connection, as soon as it answers."""
        import libvirt

        libvirt.registerErrorHandler(lambda *_: None, None)  # it would print every error
        deadline = time.monotonic() + DEADLINE
        while True:
            try:
                return libvirt.open(self.uri)
            except libvirt.libvirtError as error:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    pytest.fail(f"{error}\n{self.log}", pytrace=False)
                time.sleep(0.05)


@contextmanager
def private(prepare: Callable[[Path], object] = lambda root: None) -> Iterator[Daemon]:
    """A libvirtd in namespaces of its own, gone afterwards with all its guests. Wants root.

    `prepare` gets its root directory before it starts, for hooks that it is to find.
    """
    with own_directory(prepare) as root:
        daemon = Daemon(root, start(PRIVATE, root, DAEMON=_daemon()))
        with ended_afterwards(daemon):
            yield daemon


@contextmanager
def own_directory(prepare: Callable[[Path], object], sockets: str | None = None) -> Iterator[Path]:
    """A directory with what a libvirtd has of its own, gone afterwards. Wants root.

    `sockets` is the path by which the daemon knows the directory `sockets` in there.
    """
    if os.geteuid() != 0:
        # in a user namespace libvirtd cannot start QEMU: setgroups is forbidden there
        pytest.fail("a libvirtd of the tests' own wants root: run the tests as root", pytrace=False)
    root = Path(tempfile.mkdtemp(prefix="cpumap-"))  # short: a socket's path has at most 107 bytes
    for directory in (*OWN_DIRECTORIES, "/sockets", "/etc/libvirt/hooks"):
        (root / directory[1:]).mkdir(parents=True)
    configuration = LIBVIRTD_CONF.format(sockets=sockets or root / "sockets", log=LOG, uuid=uuid4())
    (root / "etc/libvirt/qemu.conf").write_text(QEMU_CONF)
    (root / "etc/libvirt/libvirtd.conf").write_text(configuration)
    try:
        prepare(root)
        yield root
    finally:
        shutil.rmtree(root, ignore_errors=True)


def start(script: str, root: Path, **more: str) -> subprocess.Popen[bytes]:
    """A shell script that runs in namespaces of its own, with `variables`.

    What it complains of goes where its libvirtd logs.
    """
    with (root / LOG).open("ab") as log:
        return subprocess.Popen(
            [*NAMESPACES, "sh", "-c", script],
            env=variables(root, **more),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log,
            start_new_session=True,
        )


def variables(root: Path, **more: str) -> dict[str, str]:
    """The environment of a script that starts a libvirtd in a directory of its own."""
    return {
        **os.environ,
        "ROOT": str(root),
        "DIRECTORIES": " ".join(OWN_DIRECTORIES),
        "HOST": f"cpumap-{uuid4().hex[:8]}",  # no guest migrates to a host of the same name
        **more,
    }


@contextmanager
def ended_afterwards(daemon: Daemon) -> Iterator[None]:
    """Waits for the daemon, and ends it with all its guests afterwards."""
    try:
        daemon.open().close()
        yield
        _destroy_all(daemon)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(daemon.process.pid, signal.SIGTERM)
        daemon.process.wait(timeout=DEADLINE)


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
    deadline = time.monotonic() + DEADLINE
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
