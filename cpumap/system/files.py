"""Files replaced atomically or not at all."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from pathlib import Path

from cpumap.errors import SourceError
from cpumap.system.trust import reason_not_to_obey


def write_atomically(path: Path, content: bytes) -> None:
    """Puts the content at the path, behind a link if it is one: all of it, durably, or nothing.

    Mode and owner of the file that was there are kept. Errors: `SourceError`; the old file is then
    as it was.
    """
    target = Path(os.path.realpath(path))
    try:
        _replace(target, content)
    except OSError as err:
        raise SourceError(f"{path}: {err.strerror}") from err


def _replace(target: Path, content: bytes) -> None:
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            take_after(target, handle)
            stream.flush()
            os.fsync(handle)
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(target.parent)


def read_regular(path: Path, limit: int, *, own: bool = False) -> bytes:
    """The bytes of a regular file, at most `limit`; never waits for a pipe. With `own`, no link
    leads to it and nobody but the caller and root can write it. Errors: `OSError`.
    """
    handle = open_regular(path, os.O_RDONLY | (os.O_NOFOLLOW if own else 0))
    with os.fdopen(handle, "rb") as stream:
        if own and reason_not_to_obey(path, handle):
            raise OSError(errno.EPERM, "not the caller's own", str(path))
        data = stream.read(limit + 1)
    if len(data) > limit:
        raise OSError(errno.EFBIG, f"too large: the limit is {limit // 2**20} MiB", str(path))
    return data


def open_regular(path: Path, flags: int) -> int:
    """A handle of what must be a regular file: a pipe or device is not waited for. Errors:
    `OSError`.
    """
    try:
        handle = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    except ValueError as err:  # a name with NUL
        raise OSError(errno.EINVAL, str(err), str(path)) from err
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "no regular file", str(path))
    return handle


OF_CONTENT = frozenset({"security.evm", "security.ima"})
"""Extended attributes by which the kernel's integrity measurement knows a file's content: a new
one gets its own.
"""


def take_after(target: Path, handle: int) -> None:
    """Mode, owner and extended attributes of the file that is to be replaced, and no others.

    SELinux labels and access control lists are extended attributes; the directory may have a
    default for the latter.
    """
    if not target.exists():
        mask = os.umask(0)
        os.umask(mask)
        os.fchmod(handle, 0o666 & ~mask)
        return
    old = target.stat()
    if (os.geteuid(), os.getegid()) != (old.st_uid, old.st_gid):
        os.fchown(handle, old.st_uid, old.st_gid)
    os.fchmod(handle, old.st_mode & 0o7777)
    kept = set(os.listxattr(target))
    for name in kept - OF_CONTENT:
        os.setxattr(handle, name, os.getxattr(target, name))
    for name in set(os.listxattr(handle)) - kept:
        os.removexattr(handle, name)


def sync_directory(directory: Path) -> None:
    """Makes what was renamed or made in the directory last."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
