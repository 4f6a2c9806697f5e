"""Real libvirtds of several releases, each in a root of its own with the QEMU of its suite.

`tools/fetch-libvirts` puts the roots there. A root is only read: whatever a daemon writes goes to
a directory that is gone afterwards, so that several may run at once.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import libvirtd
from tests.support.releases import LIBVIRTS, QEMUS

EMULATOR = "/usr/bin/qemu-system-x86_64"
"""The QEMU of a root's own suite, by the path that it has in there."""

MOUNTS = """
set -e
PATH=$PATH:/usr/sbin:/sbin
inside=$ROOT/inside
hostname "$HOST"
mkdir "$inside"
mount --bind "$RELEASE" "$inside"
mount -t proc proc "$inside/proc"
mount --rbind /sys "$inside/sys"
mount -t tmpfs dev "$inside/dev"
for device in null zero full random urandom; do
  : > "$inside/dev/$device"
  mount --bind "/dev/$device" "$inside/dev/$device"
done
mkdir "$inside/dev/pts" "$inside/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$inside/dev/pts"
ln -s pts/ptmx "$inside/dev/ptmx"
ln -s /proc/self/fd "$inside/dev/fd"
ln -s /proc/self/fd/0 "$inside/dev/stdin"
for directory in /run /tmp; do mount -t tmpfs tmpfs "$inside$directory"; done
mkdir "$inside/run/libvirt"
for directory in $DIRECTORIES /sockets; do
  mount --bind "$ROOT$directory" "$inside$directory"
done
if [ -d "$QEMUS" ]; then
  mkdir -p "$inside$QEMUS"
  mount --bind "$QEMUS" "$inside$QEMUS"
fi
"""
"""Makes the root RELEASE a place to live in, below the directory ROOT.

There is no /dev/kvm in there: with one that does not work, as /dev/null in its place, libvirtd
asks its QEMUs anew for every domain, and a definition takes six seconds. The QEMUs of
`tools/fetch-qemus` are in there, by the paths that they have outside.
"""

ENVIRONMENT = ("/usr/bin/env", "-i", "PATH=/usr/bin:/usr/sbin", "HOME=/", "LC_ALL=C")
DAEMON = f"""{MOUNTS}
chroot "$inside" {" ".join(ENVIRONMENT)} /usr/sbin/libvirtd &
wait
"""
COMMAND = f"""{MOUNTS}
exec chroot "$inside" {" ".join(ENVIRONMENT)} "$@"
"""


@dataclass(frozen=True, slots=True)
class ReleasedDaemon(libvirtd.Daemon):
    """A libvirtd of some release that belongs to the tests alone."""

    release: str
    """`12.8`"""

    @property
    def version(self) -> str:
        """`12.8.0`, as it says itself."""
        connection = self.open()
        number = connection.getLibVersion()
        connection.close()
        return f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"

    def virsh(self, *arguments: str, given: str = "") -> str:
        """What this release's own virsh prints, connected to this libvirtd.

        `given` is what it reads from /dev/stdin. It raises CalledProcessError, with what virsh
        complained of as `stderr`.
        """
        namespaces = Path("/proc") / str(self.process.pid) / "ns"
        command = [
            "nsenter",
            f"--mount={namespaces / 'mnt'}",
            f"--pid={namespaces / 'pid_for_children'}",
            "chroot",
            str(self.root / "inside"),
            *ENVIRONMENT,
            "virsh",
            "--connect",
            "qemu:///system?socket=/sockets/libvirt-sock",
        ]
        return _output([*command, *arguments], given)

    def emulator(self, binary: Path) -> str:
        """A path by which this libvirtd can start a QEMU of `tools/fetch-qemus`."""
        target = binary.resolve()
        if target.is_relative_to(QEMUS.resolve()):
            return str(target)
        for unpacked in sorted(QEMUS.glob("*/qemu-x86_64")):  # the system's own is not in there
            if _version(unpacked) == _version(target):
                return str(unpacked)
        pytest.fail(f"{binary}: not unpacked below {QEMUS} (tools/fetch-qemus)", pytrace=False)


@contextmanager
def running(
    release: str, prepare: Callable[[Path], object] = lambda root: None
) -> Iterator[ReleasedDaemon]:
    """The libvirtd of a release, gone afterwards with all its guests. Wants root.

    `prepare` gets its own directory before it starts, for hooks that it is to find.
    """
    with libvirtd.own_directory(prepare, sockets="/sockets") as root:
        process = libvirtd.start(DAEMON, root, RELEASE=str(root_of(release)), QEMUS=str(QEMUS))
        daemon = ReleasedDaemon(root, process, release)
        with libvirtd.ended_afterwards(daemon):
            yield daemon


def virsh(release: str, *arguments: str, given: str = "") -> str:
    """What the virsh of a release prints without any daemon, for the driver of `test:///default`.

    `given` is what it reads from /dev/stdin. It raises CalledProcessError, with what virsh
    complained of as `stderr`. Wants root.
    """
    with libvirtd.own_directory(lambda root: None) as root:
        variables = libvirtd.variables(root, RELEASE=str(root_of(release)), QEMUS=str(QEMUS))
        command = [*libvirtd.NAMESPACES, "sh", "-c", COMMAND, "sh", "virsh"]
        return _output([*command, *arguments], given, variables)


def root_of(release: str) -> Path:
    """The root of a release, one that is there."""
    root = LIBVIRTS / f"libvirt-{release}"
    if not root.is_dir():
        pytest.fail(f"missing: {root} (tools/fetch-libvirts puts it there)", pytrace=False)
    return root.resolve()


def _output(command: list[str], given: str, environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        command,
        input=given,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=libvirtd.DEADLINE,
    )
    return done.stdout


def _version(binary: Path) -> str:
    return _output([str(binary), "--version"], "").partition("\n")[0]
