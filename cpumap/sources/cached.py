"""A QEMU's answers kept in the user's cache, so that the same question starts no QEMU twice."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cpumap.cpu.build import Build
from cpumap.cpu.expansion import CpuModel, Definition, ExpansionType, Machine, Realised
from cpumap.cpu.names import Accel
from cpumap.errors import SourceError
from cpumap.sources.live import QemuSource
from cpumap.sources.source import Source
from cpumap.system.files import write_atomically

_KVM_PARAMETERS = ("kvm", "kvm_amd", "kvm_intel")


class CachedSource(Source):
    """A `Source` over a QEMU binary, started only for what the cache does not answer.

    An answer is kept under all it depends on: the binary (path, size, time of change), the
    question, and under KVM the host: its CPU, microcode, kernel and the parameters of the kvm
    modules.
    """

    def __init__(self, binary: str, accel: Accel, directory: Path) -> None:
        self.binary = binary
        self.accel: Accel = accel
        self._qemu: QemuSource | None = None
        self._directory = directory / _digest(_identity(binary, accel))
        about = self._answer(["about"], lambda: _about(self._live()))
        self.version: str = about["version"]
        self.arch: str = about["arch"]
        self.label = f"QEMU {self.version} ({binary})"

    def build(self) -> Build:
        return Build(**self._answer(["build"], lambda: asdict(self._live().build())))

    def machines(self) -> tuple[Machine, ...]:
        kept = self._answer(
            ["machines"], lambda: [asdict(machine) for machine in self._live().machines()]
        )
        return tuple(Machine(**entry) for entry in kept)

    def definitions(self, machine: str) -> tuple[Definition, ...]:
        kept = self._answer(
            ["definitions", machine],
            lambda: [asdict(found) for found in self._live().definitions(machine)],
        )
        return tuple(
            Definition(**{**entry, "unavailable": tuple(entry["unavailable"])}) for entry in kept
        )

    def expand(self, machine: str, model: CpuModel, kind: ExpansionType) -> CpuModel:
        question = ["expand", machine, model.name, sorted(model.props.items()), kind]
        kept = self._answer(question, lambda: asdict(self._live().expand(machine, model, kind)))
        return CpuModel(**kept)

    def realise(self, machine: str, model: CpuModel, *, unfiltered: bool = True) -> Realised:
        question = ["realise", machine, model.name, sorted(model.props.items()), unfiltered]
        kept = self._answer(
            question, lambda: asdict(self._live().realise(machine, model, unfiltered=unfiltered))
        )
        return Realised(**{**kept, "nameless": tuple(map(tuple, kept["nameless"]))})

    def close(self) -> None:
        if self._qemu is not None:
            self._qemu.close()
            self._qemu = None

    def _live(self) -> QemuSource:
        if self._qemu is None:
            self._qemu = QemuSource(self.binary, self.accel)
        return self._qemu

    def _answer(self, question: list[Any], ask: Callable[[], Any]) -> Any:
        path = self._directory / f"{_digest(question)}.json"
        try:
            kept = json.loads(path.read_bytes())
            if kept["question"] == json.loads(json.dumps(question)):
                return kept["answer"]
        except (OSError, ValueError, TypeError, KeyError):
            pass  # not there, or damaged: asked again
        answer = ask()
        self._keep(path, {"question": question, "answer": answer})
        return answer

    def _keep(self, path: Path, entry: Mapping[str, Any]) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, json.dumps(entry, default=dict).encode())
        except (OSError, SourceError):
            pass  # a cache that cannot be written costs time, not answers


def cache_directory() -> Path:
    """Where answers are kept: $CPUMAP_CACHE, else the user's cache directory as the platform has
    it.
    """
    if named := os.environ.get("CPUMAP_CACHE"):
        return Path(named)
    from platformdirs import user_cache_path

    return user_cache_path("cpumap") / "answers"


def _about(source: QemuSource) -> dict[str, str]:
    return {"version": source.version, "arch": source.arch}


def _identity(binary: str, accel: Accel) -> list[Any]:
    """What answers of this binary depend on. Errors: `SourceError` when it is not there."""
    path = Path(os.path.realpath(binary))
    try:
        found = path.stat()
    except OSError as err:
        raise SourceError(f"cannot start {binary}: {err.strerror}") from err
    host = _host() if accel == "kvm" else []
    return [4, str(path), found.st_size, found.st_mtime_ns, accel, host]


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
