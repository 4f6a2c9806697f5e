"""Without a QEMU at hand, the answer starts on the QEMU of the machine type's own release."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from cpumap.cpu.expansion import CpuModel
from cpumap.cpu.machine_type import machine_type, release
from cpumap.libvirt.cpu_map.load import load_cpu_map
from cpumap.libvirt.domain import parse_request
from cpumap.pin.expand import expand
from cpumap.pin.resolve import resolve
from cpumap.sources.choose import recorded_for
from cpumap.sources.live import QemuSource
from cpumap.sources.platform import Platform
from tests.support.paths import TREE

pytestmark = pytest.mark.live

EXAMPLES = [
    path
    for path in sorted((TREE / "data/examples").glob("*.xml"))
    if parse_request(path).arch in (None, "x86_64", "i686")
]
"""Those of x86: the QEMUs here are x86's."""


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_the_answer_starts(example: Path, qemus: Mapping[str, Path]) -> None:
    """On the oldest QEMU here that is not older than the machine type."""
    request = parse_request(example, name=example.name)
    source = recorded_for(request.machine, "tcg")
    cpu = resolve(request, expand(request, Platform(source, load_cpu_map())))
    own = machine_type(cpu.context.machine).release
    assert own is not None
    here = min((name for name in qemus if release(name) >= own), key=release)
    with QemuSource(qemus[here]) as qemu:
        assert release(qemu.version).series == release(source.version).series
        realised = qemu.realise(cpu.context.machine, CpuModel(cpu.model, cpu.values))
    assert {name: realised.properties[name] for name in cpu.values} == cpu.values


@pytest.mark.parametrize("model", ["Haswell", "EPYC-v1", "qemu64"])
@pytest.mark.parametrize("own", ["5.2", "7.2", "10.0", "11.1"])
def test_a_type_is_answered_by_its_own_release(
    model: str, own: str, qemus: Mapping[str, Path]
) -> None:
    with QemuSource(qemus[own]) as qemu:
        source = recorded_for(f"pc-q35-{own}", "tcg")
        assert source.version == qemu.version
        found = source.expand(f"pc-q35-{own}", CpuModel(model), "full").props
        assert found == qemu.expand(f"pc-q35-{own}", CpuModel(model), "full").props
