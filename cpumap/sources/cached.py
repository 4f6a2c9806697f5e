"""A QEMU's answers kept in the user's cache, so that the same question starts no QEMU twice."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from cpumap.cpu.build import Build
from cpumap.cpu.expansion import CpuModel, Definition, ExpansionType, Machine, Realised
from cpumap.cpu.names import Accel
from cpumap.sources.kept import Kept
from cpumap.sources.live import QemuSource
from cpumap.sources.source import Source
from cpumap.system.made import made
from cpumap.system.shape import Shaped


class CachedSource(Source):
    """A `Source` over a QEMU binary, started only for what the cache does not answer.

    An answer is kept under all it depends on: the binary (path, inode, size, times of change; of a
    script also its version), the question, and under KVM the host: its CPU, microcode, kernel and
    the parameters of the kvm modules.
    """

    def __init__(self, binary: str, accel: Accel, directory: Path) -> None:
        self.binary = binary
        self.accel: Accel = accel
        self._qemu: QemuSource | None = None
        self._kept = Kept(directory, binary, accel)
        about = self._kept.answer(["about"], lambda: _about(self._live()), _texts_of)
        self.version, self.arch = about
        self.label = f"QEMU {self.version} ({binary})"

    def build(self) -> Build:
        return self._kept.answer(
            ["build"], lambda: asdict(self._live().build()), lambda kept: made(Build, kept)
        )

    def machines(self) -> tuple[Machine, ...]:
        return self._kept.answer(
            ["machines"],
            lambda: [asdict(machine) for machine in self._live().machines()],
            lambda kept: tuple(made(Machine, entry) for entry in kept.entries()),
        )

    def definitions(self, machine: str) -> tuple[Definition, ...]:
        return self._kept.answer(
            ["definitions", machine],
            lambda: [asdict(found) for found in self._live().definitions(machine)],
            lambda kept: tuple(made(Definition, entry) for entry in kept.entries()),
        )

    def expand(self, machine: str, model: CpuModel, kind: ExpansionType) -> CpuModel:
        question = ["expand", machine, model.name, sorted(model.props.items()), kind]
        return self._kept.answer(
            question,
            lambda: asdict(self._live().expand(machine, model, kind)),
            lambda kept: made(CpuModel, kept),
        )

    def realise(self, machine: str, model: CpuModel, *, unfiltered: bool = True) -> Realised:
        question = ["realise", machine, model.name, sorted(model.props.items()), unfiltered]
        return self._kept.answer(
            question,
            lambda: asdict(self._live().realise(machine, model, unfiltered=unfiltered)),
            lambda kept: made(Realised, kept),
        )

    def close(self) -> None:
        if self._qemu is not None:
            self._qemu.close()
            self._qemu = None

    def _live(self) -> QemuSource:
        if self._qemu is None:
            self._qemu = QemuSource(self.binary, self.accel)
        return self._qemu


def _texts_of(about: Shaped) -> tuple[str, str]:
    return about.key("version").text, about.key("arch").text


def _about(source: QemuSource) -> dict[str, str]:
    return {"version": source.version, "arch": source.arch}
