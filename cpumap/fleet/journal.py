"""What a conversion has done so far, written down for a later run that resumes it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from cpumap.errors import InputError, SourceError
from cpumap.system.files import open_regular
from cpumap.system.shape import at_top

JOURNAL = ".cpumap-convert.journal"


SCHEMA = "cpumap.convert-journal/1"


def digest(content: bytes) -> str:
    """What the journal knows a document by."""
    return hashlib.sha256(content).hexdigest()


class Journal:
    """What a run has done, in a file; a later run that resumes reads it."""

    def __init__(self, path: Path, options: dict[str, Any], *, resume: bool) -> None:
        """Errors: `InputError` when an interrupted run left one and `resume` is not wished, or it
        is of another run;
        `SourceError` when it cannot be read or begun.
        """
        self.path = path
        self.done: dict[str, list[Any]] = {}
        self._size = 0
        header = {"schema": SCHEMA, "options": options}
        try:
            self._handle = open_regular(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW)
        except OSError as err:
            raise SourceError(f"{path}: {err.strerror}") from err
        try:
            self._take_up(header, resume)
            if not self.done:
                self._begin(header)
        except BaseException:
            self.close()
            raise

    def _take_up(self, header: dict[str, Any], resume: bool) -> None:
        """Reads what an interrupted run left; the line at which it was cut short does not count."""
        whole = self.path.read_bytes().rpartition(b"\n")[0]
        entries = [entry for entry in map(_entry, whole.split(b"\n")) if entry is not None]
        if not resume and len(entries) > 1:
            raise InputError(
                "an interrupted run left this: --resume finishes it, without the file all starts "
                "anew",
                str(self.path),
            )
        if resume and entries and entries[0] != header:
            raise InputError("the interrupted run had other options or paths", str(self.path))
        self.done = {}
        for number, entry in enumerate(entries[1:], start=2):
            shaped = at_top(entry, f"{self.path}:{number}")
            place, content, status, notes = shaped.row(4)
            self.done[place.text] = [place.text, content.text, status.text, list(notes.texts)]
        self._size = len(whole) + 1

    def _begin(self, header: dict[str, Any]) -> None:
        self._size = 0
        try:
            self._append([header])
        except OSError as err:
            self.path.unlink()
            raise SourceError(f"{self.path}: {err.strerror}") from err

    def _append(self, entries: Iterable[Any]) -> None:
        """Errors: `OSError`; the journal is then as it was."""
        text = "".join(json.dumps(entry) + "\n" for entry in entries).encode()
        try:
            os.ftruncate(self._handle, self._size)
            with os.fdopen(self._handle, "wb", closefd=False) as stream:
                stream.seek(self._size)
                stream.write(text)
            os.fsync(self._handle)
        except OSError:
            os.ftruncate(self._handle, self._size)
            raise
        self._size += len(text)

    def intend(self, entries: Sequence[Sequence[Any]]) -> None:
        """Notes that the document at each place is about to become the one of this digest.
        Durable, or `OSError`.
        """
        if entries:
            self._append(entries)

    def remove(self) -> None:
        """The run is complete."""
        self.path.unlink(missing_ok=True)

    def close(self) -> None:
        """No more is written to it."""
        os.close(self._handle)


def _entry(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None  # of a run that was killed before its first line was written
