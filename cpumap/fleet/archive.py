"""Tar archives read in one go, and to their end: one that was cut or damaged is an error."""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterator
from typing import IO, Any, Self

_BLOCK = 65536


class _Header(tarfile.TarInfo):
    """A header; a damaged one is an error, which `tarfile` takes for the archive's end."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(archive)
        except tarfile.HeaderError as err:
            if type(err).__name__ == "EOFHeaderError":  # the block of zeros that ends an archive
                raise
            raise tarfile.ReadError(f"cut or damaged: {err}") from err


class _Begun:
    """A stream whose first bytes have been looked at."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.first = stream.read(6)
        self._rest = self.first
        self._stream = stream

    def read(self, size: int = -1) -> bytes:
        """As a file's."""
        if not self._rest:
            return self._stream.read(size)
        taken, self._rest = self._rest, b""
        if 0 <= size < len(taken):
            taken, self._rest = taken[:size], taken[size:]
        return taken

    def readable(self) -> bool:
        """Whether it can be read."""
        return True


def members(stream: IO[bytes]) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    """Every member of an archive, compressed or not, with the archive to read it from.

    Errors: whatever `tarfile` and the decompressors raise for one that is cut or damaged; the
    checksums of gzip, bzip2 and xz are known only at the end.
    """
    plain = _decompressed(_Begun(stream))
    archive: Any
    with tarfile.open(fileobj=plain, mode="r|", tarinfo=_Header) as archive:
        for member in archive:
            yield archive, member
            archive.members.clear()  # it would remember every one
    while plain.read(_BLOCK):
        pass


def _decompressed(stream: _Begun) -> Any:
    for magic, opened in _DECOMPRESSORS.items():
        if stream.first.startswith(magic):
            return opened(stream)
    return stream


def _gzip(stream: Any) -> Any:
    import gzip

    return gzip.GzipFile(fileobj=stream)


def _xz(stream: Any) -> Any:
    import lzma

    return lzma.LZMAFile(stream)


def _bzip2(stream: Any) -> Any:
    import bz2

    return bz2.BZ2File(stream)


_DECOMPRESSORS: dict[bytes, Callable[[Any], Any]] = {
    b"\x1f\x8b": _gzip,
    b"\xfd7zXZ": _xz,
    b"BZh": _bzip2,
}
