"""host-passthrough and maximum on a described host: the CPU of that host, every property named.

The host is QEMU 7.2's own under tcg, as `cpumap host --format json` wrote it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cpumap.cli.main import main
from cpumap.cpu.explicit import ExplicitCpu
from cpumap.cpu.names import FeatureName
from cpumap.cpu.request import Cache, CpuRequest, FeaturePolicy, MaxPhysAddr
from cpumap.errors import InputError, ResolveError
from cpumap.hosts.described import DescribedHost, read_described
from cpumap.libvirt.cpu_map.load import load_cpu_map
from cpumap.pin.resolve import resolve
from cpumap.pin.translate import expand_on, explicit_cpu, write
from cpumap.pin.write import explicit_arguments
from cpumap.qemu.cpu_option import parse_cpu_option
from cpumap.runnable.check import check
from cpumap.sources.platform import Platform
from cpumap.sources.recorded import RecordedSource
from cpumap.sources.recordings import find_recording

CPU_MAP = load_cpu_map()
TCG = RecordedSource(find_recording("7.2", "tcg"))
KVM = RecordedSource(find_recording("7.2", "kvm"))
HOST = Path(__file__).with_name("cases") / "tcg-7.2.json"


def _described(path: Path = HOST) -> DescribedHost:
    return read_described(path.read_bytes(), CPU_MAP, name=path.name)


def _passthrough(source: RecordedSource = TCG, **asked: Any) -> ExplicitCpu:
    said = {"machine": "pc-i440fx-7.2", **asked}
    request = CpuRequest(accel=source.accel, mode="host-passthrough", where="guest.xml:3", **said)
    return explicit_cpu(request, Platform(source, CPU_MAP), host=_described())


def test_the_hosts_cpu_by_its_properties() -> None:
    cpu = _passthrough()
    values = {str(name): value for name, value in cpu.values.items()}
    assert cpu.model == "base"
    # what QEMU 7.2's max is under tcg, by its own qom-get
    assert (values["family"], values["model"], values["stepping"]) == (15, 107, 1)
    assert (values["level"], values["xlevel"], values["phys-bits"]) == (13, 0x8000000A, 40)
    assert values["vendor"] == "AuthenticAMD"
    assert values["avx2"] is True
    assert values["invtsc"] is False
    assert not values.keys() & {"migratable", "host-cache-info"}
    assert str(cpu.properties[0].origin) in ("host tcg-7.2.json", "model base")
    assert cpu.notes == ()


def test_another_machine_type_is_said() -> None:
    (note,) = _passthrough(machine="pc-q35-2.12").notes
    assert "described with QEMU 7.2.22, pc-i440fx-7.2" in note


def test_what_is_asked_for_beside_it_counts() -> None:
    off = (FeaturePolicy(FeatureName("avx2"), "disable"),)
    values = {str(name): value for name, value in _passthrough(features=off).values.items()}
    assert values["avx2"] is False
    assert values["avx"] is True


def test_caches_of_the_host_are_said_to_be_lost() -> None:
    cpu = _passthrough(cache=Cache("passthrough"))
    assert "host-cache-info" not in cpu.values
    assert any("which no property describes" in note for note in cpu.notes)


def test_it_is_accepted_for_that_host_again() -> None:
    """What was written, read again: the same CPU, runnable there as before."""
    cpu = _passthrough()
    (_, option) = explicit_arguments(cpu)
    again = parse_cpu_option(option)
    platform = Platform(TCG, CPU_MAP, "pc-i440fx-7.2")
    before = CpuRequest(accel="tcg", mode="host-passthrough")
    assert check(before, platform, host=_described()).runnable
    assert check(again, platform, host=_described()).runnable
    second = explicit_cpu(again, platform, host=_described())
    assert second.values == cpu.values
    assert (second.model, second.enforce) == (cpu.model, cpu.enforce)


def test_a_host_described_with_another_accelerator_is_not_known() -> None:
    with pytest.raises(ResolveError, match=r"under kvm, which tcg-7\.2\.json does not describe"):
        _passthrough(KVM)


def test_a_description_without_the_cpu_itself_is_not_enough(tmp_path: Path) -> None:
    capabilities = tmp_path / "host.xml"
    capabilities.write_text("<cpu><arch>x86_64</arch><model>Haswell</model></cpu>")
    request = CpuRequest(machine="pc-q35-7.2", mode="host-passthrough", where="guest.xml:3")
    with pytest.raises(ResolveError, match=r"^guest.xml:3: .*`cpumap host --format json"):
        explicit_cpu(request, Platform(KVM, CPU_MAP), host=_described(capabilities))


@pytest.mark.parametrize("mode", ["host-passthrough", "host-model"])
def test_without_a_host_the_message_says_what_would_do(
    mode: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    guest = tmp_path / "guest.xml"
    guest.write_text(
        "<domain type='kvm'><name>g</name><os><type arch='x86_64' machine='pc-q35-7.2'>hvm</type>"
        f"</os><cpu mode='{mode}'/></domain>"
    )
    assert main(["translate", "--recorded", "7.2", str(guest)]) == 1
    said = capsys.readouterr().err
    assert f"{mode} means the host's CPU: `cpumap host --format json > HOST.json` there" in said


def test_address_bits_of_a_described_host_are_named() -> None:
    request = CpuRequest(
        accel="tcg",
        machine="pc-q35-7.2",
        mode="custom",
        model="Haswell",
        maxphysaddr=MaxPhysAddr("passthrough", limit=39),
    )
    cpu = explicit_cpu(request, Platform(TCG, CPU_MAP), host=_described())
    values = {str(name): value for name, value in cpu.values.items()}
    assert (values["phys-bits"], values["host-phys-bits"]) == (39, False)


@pytest.mark.parametrize(
    "damage",
    ['"cpus":[{}]', '"cpus":[{"migratable":1}]', '"cpus":7', '"cpus":[{"migratable":true}]'],
)
def test_a_damaged_description_is_one_line(damage: str) -> None:
    broken = (
        f'{{"schema":"cpumap.host/1","arch":"x86_64","model":null,"vendor":null,'
        f'"features":{{}},"realised":{{"base":{{}},{damage}}}}}'
    )
    with pytest.raises(InputError, match="not a saved host"):
        read_described(broken, CPU_MAP, name="broken.json")


def test_on_the_nearest_model_it_is_the_same_cpu() -> None:
    """`--pin model`: every property is named, so the model makes no difference."""
    request = CpuRequest(accel="tcg", machine="pc-q35-7.2", mode="maximum")
    place = Platform(TCG, CPU_MAP)
    _, bare = expand_on(_described(), request, place)
    meant, near = expand_on(_described(), request, place, on_model=True)
    assert near.model.name == "Opteron_G2-v1" != bare.model.name
    on_model, on_bare = resolve(meant, near), resolve(request, bare)
    assert on_model.values == on_bare.values
    assert 'fallback="forbid"' in write(on_model, format="cpu-xml").decode().replace("'", '"')
