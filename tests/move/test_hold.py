"""A sample of the matrix: a guest sees the same explicit CPU everywhere, or exactly the
differences predicted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from cpumap.arch.arch import JUDGES
from cpumap.cpu.expansion import Expansion
from cpumap.cpu.explicit import ExplicitCpu
from cpumap.cpu.machine_type import machine_type, of_family
from cpumap.cpu.names import PropertyName
from cpumap.cpu.request import CpuRequest
from cpumap.cpu.topology import Topology
from cpumap.libvirt.cpu_map.load import load_cpu_map
from cpumap.libvirt.cpu_map.map import CpuMap
from cpumap.pin.compact import changing_properties
from cpumap.pin.expand import expand
from cpumap.pin.resolve import Choices, resolve
from cpumap.proof.verify import JudgedPlace, Verification, verify
from cpumap.sources.live import QemuSource
from cpumap.sources.platform import Platform

pytestmark = pytest.mark.live

MODELS = ("Haswell", "EPYC-v1", "n270-v1")
PAIRS = (("5.2", "7.2"), ("7.2", "10.0"), ("10.0", "11.1"), ("11.1", "10.0"))
BESIDE = (("10.0.2", "10.0"), ("10.0", "10.0.2"), ("7.2", "8.2-ubuntu"), ("8.2-ubuntu", "10.0.2"))
"""Among them two builds of one X.Y, and a distribution's."""


@pytest.fixture(scope="session")
def cpu_map() -> CpuMap:
    return load_cpu_map()


def ends(source: QemuSource) -> tuple[str, str]:
    """The oldest and the newest pc-q35 machine type."""
    names = [m.name for m in of_family(source.machines(), "pc-q35") if machine_type(m.name).release]
    return names[0], names[-1]


def explicit(
    source: QemuSource, machine: str, request: CpuRequest, cpu_map: CpuMap
) -> tuple[ExplicitCpu, Expansion]:
    expansion = expand(request, Platform(source, cpu_map, machine))
    return resolve(request, expansion), expansion


def requested(model: str, source: QemuSource) -> CpuRequest:
    return CpuRequest(mode="custom", model=model, accel=source.accel)


def seen(report: Verification) -> list[JudgedPlace]:
    """The places in which the guest did not see what had been said."""
    return [place for place in report.places if not place.as_predicted]


@pytest.mark.parametrize("model", ["Haswell", "EPYC-v1", "max"])
def test_one_qemu_holds_between_its_oldest_and_newest_machine_type(
    qemu: Path, model: str, cpu_map: CpuMap
) -> None:
    with QemuSource(qemu) as source:
        oldest, newest = ends(source)
        for here, there in ((oldest, newest), (newest, oldest)):
            cpu, expansion = explicit(source, here, requested(model, source), cpu_map)
            report = verify(cpu, expansion, Platform(source, cpu_map), [(source, there)])
            assert report.holds, report.as_json()


@pytest.mark.parametrize("pair", PAIRS, ids="->".join)
def test_another_qemu_differs_as_predicted(
    pair: tuple[str, str], qemus: Mapping[str, Path], cpu_map: CpuMap
) -> None:
    with QemuSource(qemus[pair[0]]) as source, QemuSource(qemus[pair[1]]) as target:
        for model in MODELS:
            cpu, expansion = explicit(source, ends(source)[1], requested(model, source), cpu_map)
            report = verify(cpu, expansion, Platform(source, cpu_map), [(target, ends(target)[1])])
            assert not seen(report), report.as_json()


@pytest.mark.needs("qemu-10.0.2", "qemu-8.2-ubuntu")
@pytest.mark.parametrize("pair", BESIDE, ids="->".join)
@pytest.mark.parametrize("topology", [Topology(), Topology(cores=3, threads=2), Topology(dies=2)])
def test_another_build_differs_as_predicted(
    pair: tuple[str, str],
    topology: Topology,
    qemus: Mapping[str, Path],
    other_qemus: Mapping[str, Path],
    cpu_map: CpuMap,
) -> None:
    known = {**qemus, **other_qemus}
    with QemuSource(known[pair[0]]) as source, QemuSource(known[pair[1]]) as target:
        for model in ("Haswell", "EPYC-v1"):
            asked = CpuRequest(accel="tcg", topology=topology, vcpus=topology.count)
            request = replace(asked, mode="custom", model=model)
            cpu, expansion = explicit(source, "pc-q35-7.2", request, cpu_map)
            report = verify(cpu, expansion, Platform(source, cpu_map), [(target, "pc-q35-7.2")])
            assert not seen(report), report.as_json()


def test_under_kvm(qemu: Path, kvm: Path, cpu_map: CpuMap) -> None:
    with QemuSource(qemu, "kvm") as source:
        oldest, newest = ends(source)
        cpu, expansion = explicit(source, oldest, requested("EPYC-v1", source), cpu_map)
        report = verify(cpu, expansion, Platform(source, cpu_map), [(source, newest)])
    assert report.holds, report.as_json()


@pytest.mark.parametrize("release", ["5.2", "11.1"])
def test_a_compact_cpu_holds_and_is_shorter(
    release: str, qemus: Mapping[str, Path], cpu_map: CpuMap
) -> None:
    with QemuSource(qemus[release]) as source:
        oldest, newest = ends(source)
        cpu, expansion = explicit(source, oldest, requested("Haswell", source), cpu_map)
        only = changing_properties(cpu, [source])
        report = verify(cpu, expansion, Platform(source, cpu_map), [(source, newest)], only=only)
        short = resolve(cpu.request, expansion, Choices(only=only))
    assert report.holds, report.as_json()
    assert 0 < len(short.properties) < len(cpu.properties) / 4


@pytest.mark.parametrize("topology", [Topology(sockets=2, cores=3), Topology(dies=2, cores=2)])
def test_a_topology_holds(qemu: Path, topology: Topology, cpu_map: CpuMap) -> None:
    with QemuSource(qemu) as source:
        oldest, newest = ends(source)
        asked = CpuRequest(accel="tcg", topology=topology, vcpus=topology.count)
        request = replace(asked, mode="custom", model="Haswell")
        cpu, expansion = explicit(source, oldest, request, cpu_map)
        report = verify(cpu, expansion, Platform(source, cpu_map), [(source, newest)])
    assert report.holds, report.as_json()


def test_a_bare_model_does_not_hold(qemus: Mapping[str, Path], cpu_map: CpuMap) -> None:
    """The judges can say no: with next to nothing named, all three see what the machine type
    changes.
    """
    with QemuSource(qemus["7.2"]) as source:
        oldest, newest = ends(source)
        cpu, expansion = explicit(source, oldest, requested("Haswell", source), cpu_map)
        report = verify(
            cpu,
            expansion,
            Platform(source, cpu_map),
            [(source, newest)],
            only=frozenset({PropertyName("lm")}),
        )
    place = report.places[0]
    assert {j.judge: j.verdict for j in place.judgements} == dict.fromkeys(JUDGES, "differs")
    assert not place.as_predicted
    assert "abm" in {
        name for judgement in place.judgements for bit in judgement.bits for name in bit.names
    }


@pytest.mark.parametrize(
    "topology", [Topology(sockets=2, cores=4, threads=2), Topology(dies=2, cores=3, threads=3)]
)
@pytest.mark.parametrize(
    ("here", "there", "model"),
    [
        ("7.2", "10.0", "Haswell"),
        ("5.2", "7.2", "EPYC"),
        ("10.0", "11.1", "486"),
        ("11.1", "10.0", "GraniteRapids-v4"),
    ],
)
def test_what_several_vcpus_read_elsewhere_is_predicted(
    here: str,
    there: str,
    model: str,
    topology: Topology,
    qemus: Mapping[str, Path],
    cpu_map: CpuMap,
) -> None:
    with QemuSource(qemus[here]) as source, QemuSource(qemus[there]) as target:
        machine = ends(
            min(source, target, key=lambda one: [int(part) for part in one.version.split(".")])
        )[1]
        asked = CpuRequest(accel="tcg", topology=topology, vcpus=topology.count)
        request = replace(asked, mode="custom", model=model)
        cpu, expansion = explicit(source, machine, request, cpu_map)
        report = verify(cpu, expansion, Platform(source, cpu_map), [(target, machine)])
    assert report.places[0].as_predicted, report.as_json()
