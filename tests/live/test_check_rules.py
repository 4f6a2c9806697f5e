"""The rules of machine types that `check` knows are those of QEMU itself."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from cpumap.cpu.expansion import Machine
from cpumap.cpu.request import CpuRequest
from cpumap.cpu.topology import Topology
from cpumap.runnable.rules import refused_by_rule
from cpumap.sources.recorded import RecordedSource
from cpumap.sources.recordings import find_recording

pytestmark = pytest.mark.live

TCG = RecordedSource(find_recording("10.0", "tcg"))


def _words(qemu: Path, *arguments: str) -> str:
    """What QEMU says; it ends by itself, since its monitor says so."""
    every = [str(qemu), "-display", "none", "-nodefaults", "-S", "-monitor", "stdio", *arguments]
    ran: subprocess.CompletedProcess[str] = subprocess.run(
        every, input="quit\n", capture_output=True, text=True, timeout=300, check=False
    )
    return ran.stderr


@pytest.mark.parametrize("release", ["5.2", "7.2", "10.0", "11.1"])
@pytest.mark.parametrize(
    ("machine", "vcpus", "topology", "option"),
    [
        ("pc", 256, None, "256"),
        ("q35", 4, Topology(clusters=2, cores=2), "4,sockets=1,clusters=2,cores=2"),
        ("microvm", 4, Topology(dies=2, cores=2), "4,sockets=1,dies=2,cores=2"),
    ],
)
def test_what_a_rule_refuses_qemu_refuses(
    release: str,
    machine: str,
    vcpus: int,
    topology: Topology | None,
    option: str,
    qemus: Mapping[str, Path],
) -> None:
    if (machine, release) == ("microvm", "5.2"):
        topology, option = Topology(clusters=2, cores=2), "4,sockets=1,clusters=2,cores=2"
    name = {"pc": f"pc-i440fx-{release}", "q35": f"pc-q35-{release}"}.get(machine, machine)
    found = refused_by_rule(
        CpuRequest(accel="tcg", vcpus=vcpus, topology=topology),
        Machine(name, cpu_max=255 if machine == "pc" else 288),
        TCG,
    )
    assert found
    words = _words(qemus[release], "-machine", f"{machine},accel=tcg", "-smp", option)
    assert any(told in words for told in ("max CPUs supported", "not supported", "Invalid param"))


def test_qemu_warns_of_the_threads_that_check_warns_of(qemus: Mapping[str, Path]) -> None:
    for cpu, is_warned in (("EPYC-Rome,topoext=off", True), ("Haswell", False)):
        words = _words(
            qemus["10.0"], "-machine", "q35,accel=tcg", "-smp", "4,threads=2", "-cpu", cpu
        )
        assert ("doesn't support hyperthreading" in words) is is_warned
