"""The main job on real QEMUs: what `translate` writes loads there, and is the model it was
written from.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from cpumap.cpu.expansion import CpuModel
from cpumap.cpu.explicit import ExplicitCpu
from cpumap.cpu.names import PropertyName, Value
from cpumap.cpu.request import CpuRequest
from cpumap.libvirt.cpu_map.load import load_cpu_map
from cpumap.pin.resolve import Choices, Pin
from cpumap.pin.translate import explicit_cpu
from cpumap.pin.write import explicit_arguments, readconfig
from cpumap.qemu.qmp import Session
from cpumap.sources.live import QemuSource
from cpumap.sources.platform import Platform
from cpumap.sources.recorded import RecordedSource
from cpumap.sources.recordings import find_recording

pytestmark = pytest.mark.live

CPU_MAP = load_cpu_map()


PINS: dict[Pin, int] = {"model": 1, "custom": 4}
"""How many models apart those are that are tried with a pin."""


def _release(machine: str) -> tuple[int, ...]:
    return tuple(int(part) for part in machine.rpartition("-")[2].split("."))


def _ends(source: RecordedSource) -> Iterator[str]:
    """The oldest and the newest pc and q35 machine types."""
    for family in ("pc-i440fx-", "pc-q35-"):
        startable = [name for group in source.tables().values() for name in group]
        machines = sorted((name for name in startable if name.startswith(family)), key=_release)
        yield from (machines[0], machines[-1])


def _explicit(
    model: str, machine: str, source: RecordedSource | QemuSource, choices: Choices
) -> ExplicitCpu:
    request = CpuRequest(accel="tcg", mode="custom", model=model, machine=machine)
    return explicit_cpu(request, Platform(source, CPU_MAP), choices=choices)


def _as_asked(cpu: ExplicitCpu) -> CpuModel:
    return CpuModel(cpu.model, cpu.values)


def _unlike(
    wanted: Mapping[PropertyName, Value], got: Mapping[PropertyName, Value]
) -> dict[str, tuple[object, object]]:
    return {
        name: (value, got.get(name)) for name, value in wanted.items() if got.get(name) != value
    }


def test_static_expansion_is_the_models(qemu: Path) -> None:
    """Every model on the oldest and newest pc and q35 machine types, and every fourth on `base`,
    asked of the QEMU.
    """
    with QemuSource(qemu, "tcg") as live:
        recorded = RecordedSource(find_recording(live.version, "tcg"))
        for machine in _ends(recorded):
            names = [d.name for d in recorded.definitions(machine) if d.name != "host"]
            answers = live.expand_many(machine, [CpuModel(name) for name in names], "static")
            wanted = [answer.props for answer in answers]
            wanted[names.index("max")] = _as_realised(
                live, machine, "max", wanted[names.index("max")]
            )
            for pin, step in PINS.items():
                explicit = [
                    _explicit(name, machine, recorded, Choices(pin=pin)) for name in names[::step]
                ]
                got = live.expand_many(machine, [_as_asked(cpu) for cpu in explicit], "static")
                pairs = zip(names[::step], wanted[::step], got, strict=True)
                unlike = {
                    name: found
                    for name, want, have in pairs
                    if (found := _unlike(want, have.props))
                }
                assert not unlike, f"{machine}, --pin {pin}: (model's, explicit) {unlike}"


def _as_realised(
    live: QemuSource, machine: str, name: str, static: Mapping[PropertyName, Value]
) -> Mapping[PropertyName, Value]:
    """The static expansion with what QEMU sets only when it makes the CPU (family, model and
    stepping of `max`).
    """
    realised = live.realise(machine, CpuModel(name)).properties
    return {prop: realised[prop] for prop in static}


def _sample(source: RecordedSource, machine: str) -> list[str]:
    names = [d.name for d in source.definitions(machine) if not d.alias_of and d.name != "host"]
    return names[:: max(1, len(names) // 8)]


def test_arguments_start_a_guest(qemu: Path) -> None:
    """A sample of the models, started as written: QEMU refuses none and, where enforce is kept,
    lacks nothing.
    """
    with QemuSource(qemu, "tcg") as live:
        recorded = RecordedSource(find_recording(live.version, "tcg"))
    for machine in _ends(recorded):
        for name in _sample(recorded, machine):
            arguments = explicit_arguments(_explicit(name, machine, recorded, Choices()))
            with Session.start(qemu, ["-machine", f"{machine},accel=tcg", *arguments]) as session:
                assert session.execute("query-status")["running"] is False


def test_readconfig_recreates_the_cpu(qemu: Path, tmp_path: Path) -> None:
    """A sample of the models, dumped, loaded with -readconfig, and expanded by the QEMU that
    loaded it.
    """
    with QemuSource(qemu, "tcg") as live:
        recorded = RecordedSource(find_recording(live.version, "tcg"))
    path = tmp_path / "cpu.cfg"
    for machine in _ends(recorded):
        for name in _sample(recorded, machine):
            cpu = _explicit(name, machine, recorded, Choices(pin="custom"))
            path.write_text(readconfig(cpu))
            assert path.read_text().startswith(f"# -cpu {cpu.model}\n")
            arguments = [
                "-machine",
                f"{machine},accel=tcg",
                "-readconfig",
                str(path),
                "-cpu",
                cpu.model,
            ]
            with Session.start(qemu, arguments) as session:
                got = session.execute(
                    "query-cpu-model-expansion", type="full", model={"name": cpu.model}
                )
            assert not _unlike(cpu.values, got["model"]["props"]), f"{name} on {machine}"


def test_kvm_guest_starts_with_enforce(qemu: Path, kvm: Path) -> None:
    """What this host lacks is off in the explicit CPU, which then starts with enforce."""
    with QemuSource(qemu, "kvm") as live:
        machine = next(m.name for m in live.machines() if m.alias == "q35")
        for name in ("qemu64", "Haswell", "EPYC"):
            request = CpuRequest(accel="kvm", mode="custom", model=name, machine=machine)
            cpu = explicit_cpu(request, Platform(live, CPU_MAP))
            assert cpu.enforce
            command = [
                str(qemu),
                "-machine",
                f"{machine},accel=kvm",
                "-display",
                "none",
                "-nodefaults",
                "-S",
            ]
            command += [*explicit_arguments(cpu), "-monitor", "stdio"]
            done = subprocess.run(
                command, input="quit\n", capture_output=True, text=True, timeout=60, check=False
            )
            assert (done.returncode, "support requested feature" in done.stderr) == (0, False), (
                name,
                done.stderr,
            )
