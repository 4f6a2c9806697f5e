"""What cpumap knows of each architecture, and that no CPU is asked of another one's QEMU."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from cpumap.arch.known import ARCHES, arch_of, is_known, must_run, runs, target_of
from cpumap.arch.x86.x86 import I686, X86_64
from cpumap.cli.main import main
from cpumap.cpu.machine_type import release
from cpumap.cpu.names import PropertyName
from cpumap.errors import ArchitectureError
from cpumap.libvirt.cpu_map.load import load_cpu_map
from cpumap.libvirt.domain import parse_request
from cpumap.pin.as_libvirt import libvirt_cpu_args
from cpumap.pin.expand import expand
from cpumap.sources.platform import Platform
from cpumap.sources.recorded import RecordedSource
from cpumap.sources.recordings import find_recording, upstream

DOMAIN = """<domain type='{kind}'><name>guest</name><memory>1</memory><vcpu>1</vcpu>
<os><type arch='{arch}' machine='{machine}'>hvm</type></os>{cpu}</domain>"""


def domain(
    arch: str = "riscv64", machine: str = "pc-q35-7.2", cpu: str = "", kind: str = "qemu"
) -> bytes:
    return DOMAIN.format(kind=kind, arch=arch, machine=machine, cpu=cpu).encode()


def test_names_of_libvirts_and_of_qemus() -> None:
    assert arch_of("x86_64") is X86_64
    assert arch_of("i686") is arch_of("i386") is I686
    assert not is_known("sparc64")
    with pytest.raises(ArchitectureError, match="no CPU of architecture sparc64"):
        arch_of("sparc64")


def test_each_architecture_has_a_name_of_its_own() -> None:
    assert len({arch.name for arch in ARCHES}) == len(ARCHES)
    assert {arch.target for arch in ARCHES} >= {"x86_64", "i386", "s390x", "ppc64"}


def test_who_runs_whom() -> None:
    assert runs("x86_64", "i686") and not runs("i386", "x86_64")
    assert runs("i386", "i686") and not runs("i386", "aarch64")
    assert runs("ppc64", "ppc64le") and runs("s390x", "s390x")
    assert runs("aarch64", None), "a guest that names no architecture is of its host's"
    assert target_of("i686") == "x86_64" and target_of("ppc64le") == "ppc64"
    assert target_of("aarch64") == "aarch64"
    with pytest.raises(ArchitectureError) as raised:
        must_run("x86_64", "aarch64", "QEMU 7.2.22", "vm.xml:3")
    assert str(raised.value) == "vm.xml:3: the CPU is one of aarch64, and QEMU 7.2.22 is x86_64"
    assert raised.value.exit_code == 2


def test_a_model_without_features_is_there_or_that_is_said() -> None:
    assert X86_64.bare_model == "base"
    with pytest.raises(ArchitectureError, match="QEMU has no x86_64 model without features"):
        _ = replace(X86_64, bare=None).bare_model


def test_a_typename_and_its_model() -> None:
    assert X86_64.typename("Haswell-v1") == "Haswell-v1-x86_64-cpu"
    assert I686.typename("base") == "base-i386-cpu"
    assert X86_64.model_of("qemu64-x86_64-cpu") == "qemu64"
    assert I686.model_of("qemu32-i386-cpu") == "qemu32"


@pytest.mark.parametrize("path", [found.path for found in upstream()], ids=lambda path: path.stem)
def test_forgotten_properties_are_those_that_a_release_has_not(path: Path) -> None:
    """No QEMU from that release on has one, and the QEMU before it has, so no name is too many."""
    here = release(json.loads(path.read_bytes())["qemu"])
    later = [release(found.name) for found in upstream("tcg") if found.release > here]
    for name, gone in (X86_64.forgotten or {}).items():
        if here >= release(gone):
            assert name not in _properties(path), f"{name} in {path.stem}"
        elif release(gone).series == later[0].series:
            assert name in _properties(path), f"{name} in {path.stem}"


@pytest.mark.parametrize("accel", ["kvm", "tcg"])
def test_no_other_property_is_ever_forgotten(accel: str) -> None:
    """hv-syndbg is an option of QEMU's build, which these builds of 9.2 and 10.2 do not have."""
    for before, after in pairwise(found.path for found in upstream(accel)):
        lost = _properties(before) - _properties(after)
        assert lost <= {*(X86_64.forgotten or {}), "hv-syndbg"}, f"{before.stem} → {after.stem}"


def _properties(path: Path) -> set[str]:
    stored: dict[str, Any] = json.loads(path.read_bytes())
    return set().union(*stored["full"]["models"].values())


@pytest.mark.parametrize("path", [found.path for found in upstream()], ids=lambda path: path.stem)
def test_a_recordings_definitions_have_the_typename(path: Path) -> None:
    source = RecordedSource(path)
    arch = arch_of(source.arch)
    machine = next(iter(source.tables()))
    for definition in source.definitions(machine):
        assert definition.typename == arch.typename(definition.name)


@pytest.mark.parametrize("arch", ["x86_64", "i686"])
def test_a_guest_without_a_cpu_has_the_machine_types_default(arch: str) -> None:
    """libvirt asks QEMU, whatever the guest: qemu64 on qemu-system-x86_64."""
    source = RecordedSource(find_recording("7.2", "tcg"))
    platform = Platform(source, load_cpu_map())
    request = parse_request(domain(arch))
    assert expand(request, platform).definition.name == "qemu64"
    assert libvirt_cpu_args(request, platform) == ("-cpu", "qemu64")


@pytest.mark.parametrize("kind", ["static", "full"])
def test_an_expansion_keeps_the_name_of_its_model(kind: str) -> None:
    source = RecordedSource(find_recording("7.2", "tcg"))
    request = parse_request(domain("x86_64", cpu="<cpu><model>Haswell</model></cpu>"))
    found = expand(request, Platform(source, load_cpu_map()))
    assert (found.static_model, found.model.name) == ("base", "Haswell-v1")
    assert found.static[PropertyName("avx2")] is True


PASSTHROUGH = "<cpu mode='host-passthrough'/>"

COMMANDS = {
    "translate": ("translate", "FILE"),
    "translate of a recording": ("translate", "FILE", "--recorded", "7.2"),
    "translate to XML": ("translate", "--format", "xml", "FILE"),
    "as libvirt does it": ("translate", "--pin", "none", "FILE"),
    "on a host": ("translate", "--host", "HOST", "FILE"),
    "to another QEMU": ("translate", "--target-qemu", "10.0", "FILE"),
    "check": ("check", "FILE", "--recorded", "7.2", "--accel", "tcg"),
    "check on a host": ("check", "FILE", "--host", "HOST"),
    "update": ("update", "HOST", "FILE"),
    "diff": ("diff", "FILE", "FILE", "--recorded", "7.2"),
    "compare by QEMU": ("compare", "HOST", "FILE", "--recorded", "7.2"),
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("cpu", ["", PASSTHROUGH, "<cpu><model>Haswell</model></cpu>"])
def test_another_architectures_guest_is_refused(
    command: str, cpu: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One sentence that names it, before anything is asked of anybody."""
    files = {"FILE": tmp_path / "guest.xml", "HOST": tmp_path / "host.xml"}
    files["FILE"].write_bytes(domain(cpu=cpu, kind="kvm" if cpu == PASSTHROUGH else "qemu"))
    files["HOST"].write_text("<cpu><arch>x86_64</arch><model>Haswell</model></cpu>")
    words = [str(files[word]) if word in files else word for word in COMMANDS[command]]
    assert main(words) == 2
    captured = capsys.readouterr()
    assert not captured.out
    assert re.fullmatch(
        r"cpumap: \S+guest\.xml:\d: (the CPU is one of riscv64, and .+ is x86_64"
        r"|no CPU of architecture riscv64 can be made explicit, compared or held)\n",
        captured.err,
    )
