"""Files replaced atomically or not at all."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
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
    import tempfile

    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name[:40]}.")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            take_after(target, target.stat() if target.exists() else None, handle)
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


class Folder:
    """A directory held open: what is done to a file in it by name needs no way to it looked up."""

    def __init__(self, path: str) -> None:
        """Errors: `OSError`."""
        self.path = path
        self.handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def status(self, name: str) -> os.stat_result | None:
        """The status of a file, behind a link if it is one; None: there is none."""
        try:
            return os.stat(name, dir_fd=self.handle)
        except FileNotFoundError:
            return None

    def is_link(self, name: str) -> bool:
        """Whether it is a symbolic link. Errors: `OSError`."""
        status = os.stat(name, dir_fd=self.handle, follow_symlinks=False)
        return stat.S_ISLNK(status.st_mode)

    def create(self, name: str) -> int:
        """A handle to read and write the file with, made if it is not there, never behind a link;
        what is new is its owner's alone.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        return os.open(name, flags, 0o600, dir_fd=self.handle)

    def rename(self, name: str, new: str) -> None:
        """Gives a file another's name, at once."""
        os.replace(name, new, src_dir_fd=self.handle, dst_dir_fd=self.handle)

    def remove(self, name: str) -> None:
        """Removes a file, if it is there."""
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self.handle)

    def sync(self) -> None:
        """Makes what was renamed or made in it last."""
        os.fsync(self.handle)

    def close(self) -> None:
        """No more is done in it."""
        os.close(self.handle)


def take_after(target: str | os.PathLike[str], old: os.stat_result | None, handle: int) -> None:
    """Mode, owner and extended attributes of the file that is to be replaced, and no others.

    `old` is its status; None: there is no such file. SELinux labels and access control lists are
    extended attributes; the directory may have a default for the latter.
    """
    if old is None:
        mask = os.umask(0)
        os.umask(mask)
        os.fchmod(handle, 0o666 & ~mask)
        return
    new = os.fstat(handle)
    if (new.st_uid, new.st_gid) != (old.st_uid, old.st_gid):
        os.fchown(handle, old.st_uid, old.st_gid)
    os.fchmod(handle, old.st_mode & 0o7777)
    kept = set(os.listxattr(target))
    for name in kept - OF_CONTENT:
        os.setxattr(handle, name, os.getxattr(target, name))
    for name in set(os.listxattr(handle)) - kept:
        os.removexattr(handle, name)


def sync_directory(directory: str | os.PathLike[str]) -> None:
    """Makes what was renamed or made in the directory last."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
