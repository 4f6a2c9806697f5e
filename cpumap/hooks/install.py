"""A hook put where libvirt or vdsm finds it, beside whatever hooks are there, and taken away
again.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from cpumap.errors import InputError, SourceError
from cpumap.system.files import write_atomically

PLACES = {
    "libvirt": ("qemu.d/50-cpumap",),
    "vdsm": ("before_vm_start/50_cpumap", "before_vm_migrate_destination/50_cpumap"),
}
"""Where, below the directory of hooks. libvirt runs what is in qemu.d after a user's own `qemu`,
since release 6.5.
"""


DIRECTORIES = {"libvirt": "/etc/libvirt/hooks", "vdsm": "/usr/libexec/vdsm/hooks"}


MARK = "# written by cpumap hook --install"


SCRIPT = """#!/bin/sh
{mark}
# A cpumap that cannot be started at all keeps no guest from running.
command -v {python} >/dev/null || exit 0
# -I: no module comes from the working directory, the environment or a user's own site-packages.
exec {python} -I -c {start} hook --policy {policy} {event}-- {kind} "$@"
"""


START = """import sys
sys.path.append({place!r})
try:
    from cpumap.cli.main import main
except ImportError as err:
    sys.exit(print("cpumap: cannot be started:", err, file=sys.stderr))
sys.exit(main())
"""
"""`sys.exit(None)` exits with 0. The place is that of a cpumap that is not installed, but run."""


def install(kind: str, directory: Path, policy: Path) -> list[Path]:
    """The scripts written; a file of that name that is not ours stays. Errors: `InputError`,
    `SourceError`.
    """
    paths = [directory / place for place in _places(kind)]
    for path in paths:
        if path.exists() and not is_ours(path):
            raise InputError("is there already and not cpumap's: it stays", str(path))
    for path in paths:
        event = f"--event {path.parent.name} " if kind == "vdsm" else ""
        start = START.format(place=str(Path(__file__).resolve().parents[2]))
        text = SCRIPT.format(
            mark=MARK,
            start=shlex.quote(start),
            python=shlex.quote(sys.executable),
            kind=kind,
            policy=shlex.quote(str(policy)),
            event=event,
        )
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, text.encode())
            path.chmod(0o755)
        except OSError as err:
            raise SourceError(f"{path}: {err.strerror}") from err
    return paths


def uninstall(kind: str, directory: Path) -> list[Path]:
    """The scripts taken away: those that `install` wrote, no others. Errors: `SourceError`."""
    gone = [path for place in _places(kind) if is_ours(path := directory / place)]
    for path in gone:
        try:
            path.unlink()
        except OSError as err:
            raise SourceError(f"{path}: {err.strerror}") from err
    return gone


def is_ours(path: Path) -> bool:
    """Whether `install` wrote this file."""
    return path.is_file() and MARK in path.read_text(errors="replace")


def _places(kind: str) -> tuple[str, ...]:
    if kind not in PLACES:
        raise InputError(
            f"the {kind} hook is not installed here but in its container: see docs/hooks.md"
        )
    return PLACES[kind]
