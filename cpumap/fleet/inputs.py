"""Where stored documents come from: files, directories, tar archives, lists on standard input.
One at a time.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any

from cpumap.errors import InputError, SourceError
from cpumap.system.xml_document import SIZE_LIMIT

if TYPE_CHECKING:
    import tarfile

LEFT_ALONE = frozenset({"autostart", "networks"})
"""Directories in /etc/libvirt/qemu that hold links to domains, and networks."""


Stamp = tuple[int, int, int, int]
"""What changes when a file does: inode, size, modification and change time in nanoseconds."""


_TAR_STARTS = (b"\x1f\x8b", b"\xfd7zXZ", b"BZh", b"\x28\xb5\x2f\xfd")


@dataclass(frozen=True, slots=True)
class Input:
    """One stored document, found and not yet read; or what keeps it from being one."""

    name: str
    place: str
    """Its path below an output or backup directory."""
    path: str | None = None
    """None: `data` holds it, a member of an archive."""
    data: bytes | None = None
    skip: str = ""
    problem: str = ""


def find_documents(paths: Iterable[str | Input], stdin: IO[bytes]) -> Iterator[Input]:
    """Every document of the paths, in their order; directories sorted by name, at any depth.

    Documents read already come first.
    """
    every = list(paths)
    yield from (path for path in every if isinstance(path, Input))
    yield from _below([path for path in every if isinstance(path, str)], stdin)


def _below(named: list[str], stdin: IO[bytes]) -> Iterator[Input]:
    if named.count("-") > 1:
        raise InputError("standard input can be read only once")
    directories = [Path(path).resolve().name for path in named if Path(path).is_dir()]
    below = len(named) > 1
    if len(directories) != len(set(directories)) and below:
        raise InputError("two directories of the same name: convert them one after the other")
    for path in named:
        if path == "-":
            yield from _from_stdin(stdin)
        else:
            yield from _from_path(Path(path), Path(path).resolve().name if below else "")


def _from_path(path: Path, place: str) -> Iterator[Input]:
    if path.is_dir():
        yield from _from_directory(path, place)
    elif path.suffix != ".xml" and path.is_file() and _is_tar(path):
        with path.open("rb") as stream:
            yield from _from_tar(stream, str(path))
    else:
        yield Input(str(path), path.name, str(path))


def _is_tar(path: Path) -> bool:
    import tarfile

    try:
        return tarfile.is_tarfile(path)
    except Exception:  # its decompressors fail in ways of their own
        return False  # reading it as a document will say why


def _from_directory(directory: Path, place: str) -> Iterator[Input]:
    try:
        with os.scandir(directory) as scan:
            entries = sorted(scan, key=lambda entry: entry.name)
    except OSError as err:
        yield Input(str(directory), place, problem=err.strerror or str(err))
        return
    within = str(directory / "_")[:-1]
    for entry in entries:
        path, below = within + entry.name, f"{place}/{entry.name}" if place else entry.name
        if entry.is_dir(follow_symlinks=False):
            if entry.name in LEFT_ALONE:
                yield Input(path, below, skip="left alone")
            elif not entry.name.startswith("."):
                yield from _from_directory(Path(path), below)
        elif entry.name.endswith(".xml") and not entry.name.startswith("."):
            yield Input(path, below, path)


def _from_stdin(stdin: IO[bytes]) -> Iterator[Input]:
    stream = _Peeked(stdin)
    if stream.first.startswith(_TAR_STARTS) or stream.first[257:262] == b"ustar":
        yield from _from_tar(stream, "<stdin>")
        return
    if stream.first.lstrip().startswith(b"<"):
        raise InputError(
            "a document, not a list of files or a tar archive: `translate --format xml -` takes one"
        )
    for name in stream.names():
        path = Path(name)
        place = path.as_posix().lstrip("/")
        if ".." in PurePosixPath(place).parts:
            yield Input(name, place, problem="a listed path with .. has no place below a directory")
        elif path.is_dir():
            yield from _from_directory(path, place)
        else:
            yield Input(name, place, name)


class _Peeked:
    """A stream of which the first bytes have been looked at."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.first = stream.read(512)
        self._rest = self.first
        self._stream = stream

    def read(self, size: int) -> bytes:
        """As a file's."""
        taken, self._rest = self._rest[:size], self._rest[size:]
        return taken if len(taken) == size else taken + self._stream.read(size - len(taken))

    def names(self) -> Iterator[str]:
        """The entries of a list, each ended by a line end, or by NUL if the first is."""
        separator = b"\0" if b"\0" in self.first else b"\n"
        rest = b""
        while block := self.read(65536):
            *whole, rest = (rest + block).split(separator)
            yield from (os.fsdecode(name) for name in whole if name.strip())
        if rest.strip():
            yield os.fsdecode(rest)


def _from_tar(stream: Any, name: str) -> Iterator[Input]:
    from cpumap.fleet.archive import members

    try:
        for archive, member in members(stream):
            if member.isreg() and member.name.endswith(".xml"):
                yield _member(archive, member, name)
    except Exception as err:  # its decompressors and headers fail in ways of their own
        yield Input(name, name, problem=f"broken archive: {type(err).__name__}: {err}")


def _member(archive: tarfile.TarFile, member: tarfile.TarInfo, archive_name: str) -> Input:
    name = f"{archive_name}!{member.name}"
    place = PurePosixPath(member.name)
    if place.is_absolute() or ".." in place.parts:
        return Input(name, str(place), problem="its name leads out of the archive")
    if member.size > SIZE_LIMIT:
        return Input(name, str(place), problem=f"too large: the limit is {SIZE_LIMIT // 2**20} MiB")
    stream = archive.extractfile(member)
    return Input(name, str(place), data=stream.read() if stream else b"")


def read_whole(path: str) -> tuple[bytes, os.stat_result]:
    """The bytes of a regular file and its status, nobody having written to it meanwhile.

    Errors: `InputError` for what is no such file or too large, `SourceError` where the file system
    fails.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as err:
        raise SourceError(f"{path}: {err.strerror}") from err
    try:
        before = os.fstat(handle)
        if not stat.S_ISREG(before.st_mode):
            raise InputError("no regular file", path)
        if before.st_size > SIZE_LIMIT:
            raise InputError(f"too large: the limit is {SIZE_LIMIT // 2**20} MiB", path)
        data = os.read(handle, before.st_size + 1)
        while 0 < len(data) < before.st_size and (more := os.read(handle, before.st_size)):
            data += more
        if stamp_of(os.fstat(handle)) != stamp_of(before) or len(data) != before.st_size:
            raise SourceError(f"{path}: changed while it was read")
    except OSError as err:
        raise SourceError(f"{path}: {err.strerror}") from err
    finally:
        os.close(handle)
    return data, before


def stamp_of(status: os.stat_result) -> Stamp:
    """The stamp of a file by its status."""
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
