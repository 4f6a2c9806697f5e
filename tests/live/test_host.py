"""A host's own CPU made explicit, on the QEMU that described it: realised, it is what `-cpu host`
and `-cpu max` are there.
"""

from __future__ import annotations

import json
import platform
from contextlib import closing
from pathlib import Path

import pytest

from cpumap.cli.main import main
from cpumap.cpu.expansion import CpuModel
from cpumap.cpu.host import UNKNOWN_MACHINE, HostCpu
from cpumap.cpu.names import Accel, PropertyName
from cpumap.cpu.request import CpuRequest
from cpumap.errors import SourceError
from cpumap.hosts.described import described
from cpumap.hosts.read import read_host
from cpumap.libvirt.cpu_map.load import load_cpu_map
from cpumap.pin.translate import explicit_cpu
from cpumap.runnable.available import available
from cpumap.runnable.available_json import available_json
from cpumap.sources.live import QemuSource
from cpumap.sources.machines import has_machine
from cpumap.sources.platform import Platform
from cpumap.sources.source import Source
from cpumap.system.json_text import json_text

pytestmark = pytest.mark.live

CPU_MAP = load_cpu_map()

OF_THE_ASKING = frozenset(
    {"type", "realized", "check", "enforce", "x-force-features", "tsc-frequency", "memory"}
)
"""What differs by how a CPU is asked for, not by what a guest sees of it."""

SAID_BEFORE = frozenset({"host-phys-bits", "migratable", "host-cache-info"})
"""What only a host's own CPU has, and its address bits, which are named instead."""

MACHINES = ("pc-q35-5.2", "pc-i440fx-7.2", "pc-q35-7.2")


def _asked(source: Source) -> HostCpu:
    """The host as another machine reads it."""
    found = available(Platform(source, CPU_MAP), UNKNOWN_MACHINE, options=False, made=True)
    return read_host(json_text("host", available_json(found, CPU_MAP)), CPU_MAP, name="here.json")


@pytest.mark.parametrize("accel", ["tcg", "kvm"])
def test_the_explicit_cpu_is_the_hosts(accel: Accel, qemu: Path) -> None:
    with closing(QemuSource(qemu, accel, timeout=120)) as source:
        host = _asked(source)
        assert host.made, host
        for machine in (name for name in MACHINES if has_machine(source, name)):
            for made in host.made:
                _compare(source, host, machine, made.migratable)


def _compare(source: QemuSource, host: HostCpu, machine: str, migratable: bool) -> None:
    made = next(one for one in host.made if one.migratable == migratable)
    props = {PropertyName("migratable"): migratable, **dict.fromkeys(made.without, False)}
    try:
        own = source.realise(machine, CpuModel(made.model, props)).properties
    except SourceError:
        return  # QEMU does not start its own host under this machine type
    request = CpuRequest(
        accel=source.accel, machine=machine, mode="host-passthrough", migratable=migratable
    )
    place = Platform(source, CPU_MAP)
    cpu = explicit_cpu(request, place, host=described(host, CPU_MAP, "here.json"))
    again = source.realise(machine, CpuModel(cpu.model, cpu.values), unfiltered=False)
    assert not again.filtered
    differ = {
        name: (own.get(name), again.properties.get(name))
        for name in own.keys() | again.properties.keys()
        if own.get(name) != again.properties.get(name)
    }
    assert differ.keys() <= OF_THE_ASKING | SAID_BEFORE, differ


def test_without_options_a_host_says_everything(
    capsys: pytest.CaptureFixture[str], kvm: Path
) -> None:
    """The QEMU on PATH, under KVM and tcg, and the machine: enough for a guest of either kind."""
    assert kvm.exists()
    assert main(["host", "--format", "json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["context"]["accel"] == "kvm"
    assert [other["context"]["accel"] for other in said["also"]] == ["tcg"]
    assert said["qemu"]["offers"]
    assert said["machine"]["kernel"] == platform.release()
    assert said["machine"]["kvm-cpuid"]["0x00000000 0x00"]
    assert set(said["machine"]["module-parameters"]) == {"kvm", "kvm_amd", "kvm_intel"}
    host = read_host(json.dumps(said), CPU_MAP)
    for cpu in (host, *host.also):
        assert [made.migratable for made in cpu.made] == [True, False]
        assert cpu.made[0].properties[PropertyName("level")]


def test_a_qemu_by_name_is_that_of_path(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    qemus: dict[str, Path],
    tmp_path: Path,
) -> None:
    (tmp_path / "my-qemu").symlink_to(qemus["7.2"])
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["host", "--qemu", "my-qemu", "--accel", "tcg"]) == 0
    assert "avx2" in capsys.readouterr().out
