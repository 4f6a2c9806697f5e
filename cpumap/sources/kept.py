"""Answers of a QEMU kept in the user's cache, and what they depend on."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from cpumap.cpu.names import Accel
from cpumap.errors import InputError, SourceError
from cpumap.sources.kept_version import version_told
from cpumap.system.files import read_regular
from cpumap.system.shape import Shaped, at_top, read_json
from cpumap.system.trust import reason_not_to_keep

T = TypeVar("T")


LIMIT = 64 * 1024 * 1024
"""Bytes of one answer; the largest, all models of one machine type, has some 300,000."""


_FORMAT = 5
"""Of the answers kept: another one is another key."""


_KVM_PARAMETERS = ("kvm", "kvm_amd", "kvm_intel")


def cache_directory() -> Path:
    """Where answers are kept: $CPUMAP_CACHE, else the user's cache directory as the platform has
    it.
    """
    if named := os.environ.get("CPUMAP_CACHE"):
        return Path(named)
    from platformdirs import user_cache_path

    return user_cache_path("cpumap") / "answers"


class Kept:
    """The answers of one QEMU, in a directory that is the caller's own, else nowhere."""

    def __init__(self, directory: Path, binary: str, accel: Accel) -> None:
        """Errors: `SourceError` when the binary is not there."""
        self._directory = directory.absolute() / _digest(identity_of(binary, accel))
        self._usable = not reason_not_to_keep(self._directory)

    def answer(self, question: list[Any], ask: Callable[[], Any], read: Callable[[Shaped], T]) -> T:
        """The answer, kept or asked for; `read` makes it what it is for, or raises `InputError`."""
        path = self._directory / f"{_digest(question)}.json"
        try:
            return read(self._find(path, question))
        except (OSError, InputError):
            pass  # not there, damaged, or of the wrong shape: asked again
        text = json.dumps({"question": question, "answer": ask()}, default=dict)
        found = read(at_top(json.loads(text)["answer"], f"answer to {question[0]}", SourceError))
        self._keep(path, text)
        return found

    def _find(self, path: Path, question: list[Any]) -> Shaped:
        if not self._usable:
            raise InputError("not the caller's own", str(self._directory))
        kept = read_json(read_regular(path, LIMIT, own=True), str(path))
        if kept.key("question").value != json.loads(json.dumps(question)):
            raise InputError("another question", str(path))
        return kept.key("answer")

    def _keep(self, path: Path, text: str) -> None:
        if not self._usable:
            return
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Looked at again: it may not have been there, and made by another meanwhile.
            if not reason_not_to_keep(self._directory):
                _put(path, text.encode())
        except OSError:
            pass  # a cache that cannot be written costs time, not answers


def _put(path: Path, content: bytes) -> None:
    """Renamed into its place, for the caller alone. A power failure may damage it: it is no
    loss.
    """
    handle, name = tempfile.mkstemp(dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def identity_of(binary: str, accel: Accel) -> list[Any]:
    """What answers of this binary depend on. Errors: `SourceError` when it is not there."""
    path = Path(os.path.realpath(binary))
    try:
        found = path.stat()
        is_script = _is_script(path)
    except OSError as err:
        raise SourceError(f"cannot start {binary}: {err.strerror}") from err
    # One file may act by the name that it is called by, as snap's does.
    names = [str(Path(binary).absolute()), str(path)]
    stamp = [found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns]
    # What a script runs may be replaced without a trace on the script itself.
    told = version_told(binary) if is_script else ""
    host = _host() if accel == "kvm" else []
    return [_FORMAT, names, stamp, told, accel, host]


def _is_script(path: Path) -> bool:
    """Whether the file is no program of its own (ELF), but has others do the work."""
    with path.open("rb") as file:
        return file.read(4) != b"\x7fELF"


def _host() -> list[str]:
    info = _text(Path("/proc/cpuinfo")).partition("\n\n")[0].splitlines()
    names = ("vendor_id", "cpu family", "model", "stepping", "microcode", "flags")
    cpu = [line for line in info if line.partition(":")[0].strip() in names]
    directories = [Path("/sys/module", module, "parameters") for module in _KVM_PARAMETERS]
    parameters = [
        f"{path}={_text(path)}" for directory in directories for path in sorted(directory.glob("*"))
    ]
    return [platform.release(), *cpu, *parameters]


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, default=str).encode()).hexdigest()[:32]
