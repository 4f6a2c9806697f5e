"""`compare`, `baseline`, `update`, `decode` as commands, and comparisons that ask a recorded
QEMU.
"""

from __future__ import annotations

import io
import json
import random
from pathlib import Path
from typing import Any

import pytest

from cpumap.cli.main import main
from cpumap.cpu.expansion import CpuModel
from cpumap.cpu.host import HostCpu
from cpumap.cpu.names import FeatureName, PropertyName
from cpumap.cpu.request import CpuRequest, FeaturePolicy, Match
from cpumap.errors import ArchitectureError, ResolveError
from cpumap.hosts.described import DescribedHost
from cpumap.libvirt.cpu_element import cpu_element
from cpumap.libvirt.cpu_map.load import load_cpu_map
from cpumap.runnable.compare import compare_all, compare_on, runnable_on_all, worst
from cpumap.sources.platform import Platform
from cpumap.sources.recorded import RecordedSource
from cpumap.sources.recordings import find_recording

CPU_MAP = load_cpu_map()
KVM = RecordedSource(find_recording("7.2", "kvm"))
MACHINE = "pc-q35-7.2"
HOST = "<cpu><arch>x86_64</arch><model>Haswell</model><vendor>Intel</vendor>{}</cpu>"
Run = Any


def _host_with(model: str, machine: str = MACHINE, *more: str) -> DescribedHost:
    """A host that gives exactly what QEMU's model has under a machine type, and more."""
    static = KVM.expand(machine, CpuModel(model), "static").props
    features = frozenset(name for name, value in static.items() if value is True)
    return DescribedHost(
        HostCpu(vendor="Intel"), features | frozenset(map(PropertyName, more)), True, "host"
    )


def _guest(model: str, *features: FeaturePolicy, match: Match | None = None) -> CpuRequest:
    return CpuRequest(mode="custom", model=model, features=features, match=match)


@pytest.mark.parametrize("model", ["Haswell-v1", "EPYC-v1", "qemu64-v1", "Skylake-Server-v4"])
def test_a_host_with_just_that_cpu_is_identical(model: str) -> None:
    assert (
        compare_on(Platform(KVM, CPU_MAP, MACHINE), _host_with(model), _guest(model)).verdict
        == "identical"
    )
    more = compare_on(
        Platform(KVM, CPU_MAP, MACHINE), _host_with(model, MACHINE, "sgx"), _guest(model)
    )
    assert (more.verdict, more.extra) == ("superset", ("sgx",))
    strict = compare_on(
        Platform(KVM, CPU_MAP, MACHINE),
        _host_with(model, MACHINE, "sgx"),
        _guest(model, match="strict"),
    )
    assert (strict.verdict, "sgx" in strict.reason) == ("incompatible", True)


def test_the_verdict_is_that_of_the_machine_type() -> None:
    """qemu64 had abm up to machine type 2.4: a host without it can run the guest under newer
    ones only.
    """
    host = _host_with("qemu64")
    table = {
        one.machine: one for one in compare_all(Platform(KVM, CPU_MAP), host, _guest("qemu64"))
    }
    assert table["pc-q35-7.2"].verdict == "identical"
    assert table["pc-i440fx-2.4"].verdict == "incompatible"
    assert "abm" in [lack.feature for lack in table["pc-i440fx-2.4"].checked.missing]
    assert table.keys() == {name for names in KVM.tables().values() for name in names}


def test_policies_and_vendor() -> None:
    host = _host_with("Haswell-v1")
    without = FeaturePolicy(FeatureName("avx2"), "disable")
    assert (
        compare_on(Platform(KVM, CPU_MAP, MACHINE), host, _guest("Haswell", without)).verdict
        == "identical"
    )
    forbidden = FeaturePolicy(FeatureName("avx2"), "forbid")
    assert (
        "forbidden features: avx2"
        in compare_on(Platform(KVM, CPU_MAP, MACHINE), host, _guest("Haswell", forbidden)).reason
    )
    optional = FeaturePolicy(FeatureName("sgx"), "optional")
    assert (
        compare_on(Platform(KVM, CPU_MAP, MACHINE), host, _guest("Haswell", optional)).verdict
        == "identical"
    )
    amd = CpuRequest(mode="custom", model="Haswell", vendor="AMD")
    assert "vendor" in compare_on(Platform(KVM, CPU_MAP, MACHINE), host, amd).reason
    other = CpuRequest(arch="aarch64", mode="custom", model="Haswell")
    with pytest.raises(ArchitectureError, match=r"one of aarch64, and .* is x86_64"):
        compare_on(Platform(KVM, CPU_MAP, MACHINE), host, other)


def test_more_on_the_host_never_makes_it_worse() -> None:
    dice = random.Random(7)
    models = [d.name for d in KVM.definitions(MACHINE) if d.name not in ("host", "max", "base")]
    static = [
        str(name)
        for name, value in KVM.expand(MACHINE, CpuModel("base"), "static").props.items()
        if value is False
    ]
    for _ in range(10):
        host, guest = dice.choice(models), dice.choice(models)
        before = compare_on(Platform(KVM, CPU_MAP, MACHINE), _host_with(host), _guest(guest))
        after = compare_on(
            Platform(KVM, CPU_MAP, MACHINE),
            _host_with(host, MACHINE, *dice.sample(static, 20)),
            _guest(guest),
        )
        assert (
            worst([before.verdict, after.verdict]) == before.verdict
            or before.verdict == "identical"
        )
        assert {lack.feature for lack in after.checked.missing} <= {
            lack.feature for lack in before.checked.missing
        }


def test_a_baseline_is_made_runnable_on_every_host() -> None:
    hosts = [_host_with("Haswell-v2"), _host_with("Broadwell-v1")]
    request, disabled = runnable_on_all(Platform(KVM, CPU_MAP, MACHINE), hosts, _guest("Haswell"))
    assert set(disabled) == {"hle", "rtm"}
    for host in hosts:
        assert compare_on(Platform(KVM, CPU_MAP, MACHINE), host, request).verdict in (
            "identical",
            "superset",
        )
    with pytest.raises(ResolveError, match="cannot run the baseline"):
        forced = FeaturePolicy(FeatureName("avx"), "forbid")
        runnable_on_all(Platform(KVM, CPU_MAP, MACHINE), hosts, _guest("pentium3", forced))


def test_worst() -> None:
    assert worst(["identical", "superset"]) == "superset"
    assert worst(["superset", "incompatible", "identical"]) == "incompatible"


def _run(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    code = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture
def haswell(tmp_path: Path) -> Path:
    path = tmp_path / "host.xml"
    path.write_text(HOST.format(""))
    return path


@pytest.mark.parametrize(
    ("cpu", "verdict", "code"),
    [
        ("<cpu match='exact'><model>Haswell</model></cpu>", "identical", 0),
        ("<cpu match='exact'><model>Westmere</model></cpu>", "superset", 0),
        ("<cpu match='exact'><model>EPYC</model></cpu>", "incompatible", 1),
        (
            "<cpu match='exact'><model>Haswell</model><feature policy='require' name='sgx'/></cpu>",
            "incompatible",
            1,
        ),
    ],
)
def test_compare_says_its_verdict_first(
    cpu: str,
    verdict: str,
    code: int,
    haswell: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    guest = tmp_path / "cpu.xml"
    guest.write_text(cpu)
    for options in ((), ("--recorded", "7.2", "--accel", "kvm", "--machine", MACHINE)):
        found, out, err = _run(capsys, "compare", haswell, guest, "--error", *options)
        assert (found, out.splitlines()[0]) == (code, verdict) or (
            options and verdict == "identical"
        )
        assert bool(err) == (code == 1), err
    found, out, _ = _run(capsys, "compare", haswell, guest, "--format", "json")
    assert (found, json.loads(out)["schema"], json.loads(out)["verdict"]) == (
        code,
        "cpumap.compare/1",
        verdict,
    )


def test_compare_under_all_machine_types(
    haswell: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    guest = tmp_path / "cpu.xml"
    guest.write_text("<cpu><model>Westmere</model></cpu>")
    code, out, _ = _run(capsys, "compare", haswell, guest, "--recorded", "7.2", "--machine", "all")
    first, *rows = out.splitlines()
    assert (code, first) == (1, "incompatible")  # microvm has newer versions of the models
    assert {row.split()[1] for row in rows if row.startswith("pc-")} == {"superset"}
    assert next(row for row in rows if row.startswith("microvm")).endswith(
        "required features: spec-ctrl"
    )
    assert {row.split()[0] for row in rows} == {
        name for names in KVM.tables().values() for name in names
    }
    code, out, _ = _run(
        capsys,
        "compare",
        haswell,
        guest,
        "--recorded",
        "7.2",
        "--machine",
        "all",
        "--format",
        "json",
    )
    assert len(json.loads(out)["machines"]) == len(rows)


def test_machine_types_without_a_qemu_mean_nothing(
    haswell: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = _run(capsys, "compare", haswell, haswell, "--machine", MACHINE)
    assert (code, out) == (2, "")
    assert "--recorded" in err


def test_baseline_update_and_decode_print_a_cpu(
    haswell: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    westmere = tmp_path / "westmere.xml"
    westmere.write_text(HOST.format("").replace("Haswell", "Westmere"))
    code, out, _ = _run(capsys, "baseline", haswell, westmere)
    assert (code, "<model fallback='allow'>Westmere</model>" in out) == (0, True)
    joined = tmp_path / "both.xml"
    joined.write_text(haswell.read_text() + "\n" + westmere.read_text())
    assert _run(capsys, "baseline", joined) == (0, out, "")
    assert _run(capsys, "baseline", westmere, haswell)[1] == out
    code, listed, _ = _run(capsys, "baseline", haswell, westmere, "--features")
    assert listed.count("<feature ") >= len(CPU_MAP.models["Westmere"].features)
    guest = tmp_path / "cpu.xml"
    guest.write_text("<cpu mode='host-model'><topology sockets='1' cores='2' threads='1'/></cpu>")
    code, out, _ = _run(capsys, "update", haswell, guest)
    assert (code, "<model fallback='allow'>Haswell</model>" in out, "<topology " in out) == (
        0,
        True,
        True,
    )
    data = tmp_path / "cpu.raw"
    data.write_text(
        "CPU 0:\n   0x00000000 0x00: eax=0x00000001 ebx=0x756e6547 ecx=0x6c65746e edx=0x49656e69\n"
        "   0x00000001 0x00: eax=0x00000673 ebx=0x00000000 ecx=0x00000000 edx=0x0383fbff\n"
    )
    code, out, _ = _run(capsys, "decode", data)
    assert (code, out.splitlines()[0], "<model>pentium3</model>" in out) == (0, "<cpu>", True)
    code, out, _ = _run(capsys, "decode", data, "--as", "guest", "--models", "pentium2,486")
    assert "<model fallback='allow'>pentium2</model>" in out
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data.read_bytes())))
    code, out, _ = _run(capsys, "decode", "-", "--format", "json")
    assert (code, json.loads(out)["model"]) == (0, "pentium3")
    assert _run(capsys, "decode", data, "--models", "nosuch")[0] == 2


def test_baseline_with_a_qemu(
    tmp_path: Path, haswell: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """QEMU's Haswell has what the map's may lack: the result is what this QEMU can run on the
    host.
    """
    arguments = ("baseline", haswell, "--recorded", "7.2", "--accel", "kvm", "--machine", MACHINE)
    code, out, _ = _run(capsys, *arguments)
    assert code == 0
    result = tmp_path / "result.xml"
    result.write_text(out)
    checked = _run(
        capsys,
        "check",
        result,
        "--host",
        haswell,
        "--recorded",
        "7.2",
        "--accel",
        "kvm",
        "--machine",
        MACHINE,
    )
    assert checked[0] == 0, checked


def test_baseline_of_saved_hosts_is_runnable_under_their_own_machine_types(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two hosts in one file, each as its QEMU sees it under one machine type; qemu64 lost abm
    after 2.4.
    """
    saved = [_saved("qemu64", "pc-i440fx-2.4", "sgx"), _saved("qemu64", MACHINE, "avx")]
    hosts, result = tmp_path / "hosts.json", tmp_path / "result.xml"
    hosts.write_text("\n".join(json.dumps(one) for one in saved))
    code, out, _ = _run(capsys, "baseline", hosts, "--recorded", "7.2", "--accel", "kvm")
    assert code == 0
    result.write_text(out)
    for one in saved:
        host = tmp_path / "host.json"
        host.write_text(json.dumps(one))
        machine = one["context"]["machine"]
        options = ("--host", host, "--recorded", "7.2", "--accel", "kvm", "--machine", machine)
        code, text, _ = _run(capsys, "check", result, *options)
        assert code == 0, text


def _saved(model: str, machine: str, *more: str) -> dict[str, Any]:
    """A saved host that gives what QEMU's model has under the machine type, and more."""
    properties = _host_with(model, machine, *more).properties
    features = [CPU_MAP.feature_of(name) for name in properties]
    return {
        "schema": "cpumap.host/1",
        "arch": "x86_64",
        "model": None,
        "vendor": "AMD",
        "features": {name: True for name in features if name in CPU_MAP.features},
        "properties": sorted(properties),
        "context": {"machine": machine},
    }


def test_elements_are_escaped() -> None:
    cpu = CpuRequest(
        mode="custom",
        model="a<b",
        vendor="A&B",
        features=(FeaturePolicy(FeatureName("x'y"), "force"),),
    )
    assert cpu_element(cpu) == (
        "<cpu mode='custom'>\n  <model fallback='allow'>a&lt;b</model>\n  "
        "<vendor>A&amp;B</vendor>\n"
        "  <feature policy='force' name=\"x'y\"/>\n</cpu>\n"
    )
