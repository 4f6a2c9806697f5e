"""`check`, `translate --host` and `host`'s JSON on recorded QEMUs and described hosts: no QEMU
is started.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cpumap.arch.x86.cpuid import CpuidData, features_of
from cpumap.arch.x86.kvm import supported_cpuid
from cpumap.cli.main import main
from cpumap.cpu.bits import CpuidBits, MsrBits, place, qemu_words
from cpumap.cpu.expansion import Context, CpuModel
from cpumap.cpu.host import UNKNOWN_MACHINE, ThisMachine
from cpumap.cpu.names import FeatureName, Property, PropertyName
from cpumap.cpu.origin import origin
from cpumap.cpu.request import CpuRequest, FeaturePolicy, PolicyName
from cpumap.cpu.topology import Topology
from cpumap.errors import InputError, SourceError, UnknownNameError
from cpumap.hosts.described import DescribedHost, read_described, request_on
from cpumap.hosts.lack import who_lacks
from cpumap.hosts.read import read_host
from cpumap.libvirt.cpu_map.load import load_cpu_map
from cpumap.libvirt.cpu_map.places import bits_of
from cpumap.pin.translate import translate
from cpumap.runnable.available import Available, Kind, OptionEffect, available, listed
from cpumap.runnable.available_json import available_host, available_json
from cpumap.runnable.check import check
from cpumap.runnable.checked import Checked
from cpumap.sources.platform import Platform
from cpumap.sources.recorded import RecordedSource
from cpumap.sources.recordings import find_recording
from cpumap.system.json_text import json_text
from tests.support.cpuid_words import data_of

CPU_MAP = load_cpu_map()
TCG = RecordedSource(find_recording("7.2", "tcg"))
KVM = RecordedSource(find_recording("7.2", "kvm"))
MACHINE = "pc-q35-7.2"


def _names(*names: str) -> frozenset[PropertyName]:
    return frozenset(map(PropertyName, names))


def _feature(name: str, policy: PolicyName = "require") -> FeaturePolicy:
    return FeaturePolicy(FeatureName(name), policy)


def _host(*names: str, **changes: Any) -> bytes:
    """A saved host: what KVM gives everywhere, the features of qemu64, and these."""
    of_model = KVM.expand(MACHINE, CpuModel("qemu64-v1"), "static").props
    features = {name for name, value in of_model.items() if value is True} | set(names)
    found = Available(
        context=Context("7.2.22", "x86_64", MACHINE, "kvm"),
        features=frozenset(map(PropertyName, features)),
        emulated=_names("x2apic"),
        blocking=_names("invtsc"),
        vendor="GenuineIntel",
        family=6,
        model=60,
        stepping=4,
        phys_bits=46,
        models={"qemu64": (), "EPYC": ("svm",)},
        best=CpuModel("qemu64-v1", {PropertyName("avx"): True}),
        options=(OptionEffect("kernel-irqchip=off", lost=_names("x2apic")),),
    )
    return json_text("host", {**available_json(found, CPU_MAP), **changes}).encode()


def _described(*names: str, **changes: Any) -> DescribedHost:
    return read_described(_host(*names, **changes), CPU_MAP, name="host.json")


def _checked(
    model: str, *features: FeaturePolicy, host: DescribedHost | None = None, **asked: Any
) -> Checked:
    request = CpuRequest(
        accel="kvm" if host else "tcg", mode="custom", model=model, features=features, **asked
    )
    return check(request, Platform(KVM if host else TCG, CPU_MAP, MACHINE), host=host)


def test_tcg_says_what_it_lacks_of_a_model() -> None:
    found = _checked("Haswell")
    assert not found.runnable
    assert found.enforce_fails
    assert {lack.feature for lack in found.missing} == {
        "hle",
        "invpcid",
        "pcid",
        "rtm",
        "tsc-deadline",
        "x2apic",
    }
    rtm = next(lack for lack in found.missing if lack.feature == "rtm")
    assert rtm.bits == (CpuidBits(7, 0, "ebx", 1 << 11),)
    assert (rtm.who, rtm.words, str(rtm.origin)) == (
        "QEMU (tcg)",
        "CPUID.07H:EBX.rtm [bit 11]",
        "model Haswell-v1",
    )


def test_a_model_without_what_is_lacking_is_runnable() -> None:
    lacking = [lack.feature for lack in _checked("Haswell").missing]
    found = _checked("Haswell", *(_feature(name, "disable") for name in lacking))
    assert found.runnable
    assert not found.enforce_fails


def test_policies() -> None:
    assert _checked("pentium3").runnable
    assert [str(lack.origin) for lack in _checked("pentium3", _feature("rtm")).missing] == [
        "policy require"
    ]
    assert [
        str(lack.origin) for lack in _checked("pentium3", _feature("rtm", "force")).missing
    ] == ["policy force"]
    left_out = _checked("pentium3", _feature("rtm", "optional"))
    assert (left_out.runnable, left_out.optional) == (True, ("rtm",))
    forbidden = _checked("pentium3", _feature("avx", "forbid"))
    assert [lack.feature for lack in forbidden.forbidden] == ["avx"]
    assert (forbidden.runnable, forbidden.enforce_fails) == (False, False)
    assert _checked("pentium3", _feature("rtm", "forbid")).runnable


def test_a_feature_whose_condition_is_off() -> None:
    found = _checked("pentium3", _feature("vmx-ept"))
    assert [lack.who for lack in found.missing] == ["option (what it depends on is off)"]
    assert isinstance(found.missing[0].bits[0], MsrBits)
    assert found.enforce_fails
    clock = _checked("pentium3", _feature("kvm-asyncpf"))
    assert [lack.feature for lack in clock.silent] == ["kvm-asyncpf"]
    assert (clock.runnable, clock.enforce_fails) == (False, False)


def test_a_feature_that_this_qemu_has_no_property_for() -> None:
    found = _checked("pentium3", _feature("avx10"))
    assert [(lack.feature, lack.who) for lack in found.missing] == [("avx10", "QEMU")]
    assert _checked("pentium3", _feature("avx10", "optional")).runnable
    with pytest.raises(UnknownNameError, match="nosuch"):
        _checked("pentium3", _feature("nosuch"))
    with pytest.raises(UnknownNameError, match="nosuch"):
        _checked("pentium3", settings=(Property(PropertyName("nosuch"), True, origin("-cpu")),))
    enlightened = _checked(
        "pentium3",
        settings=(Property(PropertyName("hv-nosuch"), True, origin("element", "hyperv")),),
    )
    assert [(lack.property, str(lack.origin)) for lack in enlightened.missing] == [
        ("hv-nosuch", "hyperv")
    ]


def test_nothing_is_proven_by_a_recording_under_kvm_without_a_host() -> None:
    """What is known without one is said all the same: what hurts later, what cannot start."""
    threads = Topology(cores=2, threads=2)
    request = CpuRequest(mode="custom", model="EPYC-Rome", topology=threads, vcpus=4)
    off = FeaturePolicy(FeatureName("topoext"), "disable")
    found = check(replace(request, features=(off,)), Platform(KVM, CPU_MAP, MACHINE))
    assert not found.runnable and not found.stopped
    assert "holds no host (--host FILE)" in found.unproven
    assert [warning for warning in found.warnings if "without topoext" in warning]


def test_who_lacks_it_on_another_host() -> None:
    """A host's JSON says what its CPU and its kernel have by themselves, and what an option
    would give.
    """
    own = {
        "cpu": ["avx", "avx2", "fma"],
        "kernel": ["avx", "avx2"],
        "partial": False,
        "msrs": False,
    }
    gained = [
        {
            "option": "kernel-irqchip=split",
            "gained": ["movbe"],
            "lost": [],
            "values": {},
            "refused": "",
        }
    ]
    host = _described(**{"features-of": own, "options": gained})
    found = _checked(
        "Haswell-noTSX",
        *map(_feature, ("kvm-hint-dedicated", "arch-capabilities", "rdctl-no")),
        host=host,
    )
    who = {str(lack.feature): lack.who for lack in found.missing}
    assert who["avx2"] == "QEMU (host.json)"
    assert who["fma"] == who["kvm-hint-dedicated"] == "kernel (KVM) (host.json)"
    assert who["movbe"] == "option (kernel-irqchip=split would give it) (host.json)"
    assert who["bmi2"] == "host CPU (host.json)"
    assert who["rdctl-no"] == "host CPU or kernel (KVM) (host.json)"


def test_what_a_host_says_of_itself_comes_back() -> None:
    found = json.loads(_host())
    assert found["features-of"] == {"cpu": None, "kernel": None, "partial": False, "msrs": False}
    here = ThisMachine(frozenset({FeatureName("avx")}), None, msrs=True)
    own = {"cpu": ["avx"], "kernel": None, "partial": False, "msrs": True}
    assert _described(**{"features-of": own}).cpu.own == here
    del found["features-of"]
    assert read_described(json.dumps(found).encode(), CPU_MAP).cpu.own == UNKNOWN_MACHINE
    wrong: list[Any] = [{"cpu": None}, {**own, "cpu": [1]}, []]
    for broken in wrong:
        with pytest.raises(InputError, match="not a saved host"):
            _described(**{"features-of": broken})
    with pytest.raises(InputError, match="not a saved host: ValueError at 'xen'"):
        _described(context={**found["context"], "accel": "xen"})


def test_described_hosts() -> None:
    assert _checked("qemu64", host=_described()).runnable
    found = _checked("Haswell-noTSX", host=_described("avx"))
    lacking = {lack.feature for lack in found.missing}
    assert "avx2" in lacking
    assert "avx" not in lacking
    assert {lack.who for lack in found.missing} == {"host (host.json)"}
    assert _checked("qemu64", _feature("avx", "forbid"), host=_described("avx")).forbidden
    passthrough = CpuRequest(mode="host-passthrough", features=(_feature("rtm"),))
    assert [
        lack.feature
        for lack in check(passthrough, Platform(KVM, CPU_MAP, MACHINE), host=_described()).missing
    ] == ["rtm"]


def test_capabilities_say_nothing_of_what_kvm_emulates() -> None:
    capabilities = (
        b"<capabilities><host><cpu><arch>x86_64</arch><model>Haswell</model></cpu>"
        b"</host></capabilities>"
    )
    host = read_described(capabilities, CPU_MAP, name="caps.xml")
    assert not host.by_qemu
    assert host.gives(PropertyName("x2apic"))
    assert host.gives(PropertyName("kvmclock"))
    assert not host.gives(PropertyName("avx512f"))


def test_requests_on_a_host() -> None:
    host = _described("avx")
    optional = CpuRequest(
        mode="custom",
        model="qemu64",
        features=(_feature("avx", "optional"), _feature("rtm", "optional")),
    )
    assert {f.name: f.policy for f in request_on(host, optional, CPU_MAP).features} == {
        "avx": "require",
        "rtm": "disable",
    }
    model = request_on(host, CpuRequest(mode="host-model"), CPU_MAP)
    assert model.mode == "custom"
    assert model.model == "qemu64"
    known = request_on(host, CpuRequest(mode="host-model"), CPU_MAP, known=_names("avx"))
    assert {f.name for f in known.features if f.policy == "require"} <= {"avx"}


def test_who_lacks_it_is_told_by_who_has_it() -> None:
    has = frozenset({FeatureName("avx2")})
    none: frozenset[FeatureName] = frozenset()
    avx2 = PropertyName("avx2")
    bits = bits_of(avx2, CPU_MAP)
    assert who_lacks(avx2, bits, "kvm", ThisMachine(has, has), CPU_MAP) == "QEMU"
    assert who_lacks(avx2, bits, "kvm", ThisMachine(has, none), CPU_MAP) == "kernel (KVM)"
    assert who_lacks(avx2, bits, "kvm", ThisMachine(none, none), CPU_MAP) == "host CPU"
    assert (
        who_lacks(avx2, bits, "kvm", ThisMachine(none, none, partial=True), CPU_MAP)
        == "host CPU or kernel (KVM)"
    )
    assert (
        who_lacks(avx2, bits, "kvm", ThisMachine(None, None), CPU_MAP)
        == "host CPU, kernel (KVM) or QEMU"
    )
    assert who_lacks(avx2, bits, "tcg", ThisMachine(has, has), CPU_MAP) == "QEMU (tcg)"
    assert (
        who_lacks(PropertyName("kvmclock"), (), "kvm", ThisMachine(has, has), CPU_MAP)
        == "kernel (KVM)"
    )
    rdctl = PropertyName("rdctl-no")
    machine = ThisMachine(none, none)
    assert (
        who_lacks(rdctl, bits_of(rdctl, CPU_MAP), "kvm", machine, CPU_MAP)
        == "host CPU or kernel (KVM)"
    )


def test_places_in_words() -> None:
    assert place(CpuidBits(7, 0, "ebx", 1 << 5)) == "CPUID[eax=07h,ecx=00h].EBX [bit 5]"
    assert place(CpuidBits(0x80000001, 0, "edx", 1 << 29)) == "CPUID[eax=80000001h].EDX [bit 29]"
    assert place(MsrBits(0x10A, 1)) == "MSR(10Ah) [bit 0]"
    assert qemu_words(PropertyName("avx2"), bits_of(PropertyName("avx2"), CPU_MAP)) == (
        "CPUID[eax=07h,ecx=00h].EBX.avx2 [bit 5]"
    )


def test_json_of_a_host_is_read_back() -> None:
    host = _described("avx", "invtsc")
    assert PropertyName("avx") in host.properties
    assert host.cpu.vendor == "Intel"
    assert host.cpu.usable == ("qemu64",)
    assert {f.name for f in host.cpu.features} <= set(CPU_MAP.features)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "not JSON"),
        (_host(properties="avx"), "not a saved host"),
        (_host(schema="cpumap.host/9"), "saved host"),
    ],
)
def test_json_that_is_no_host(content: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_described(content, CPU_MAP, name="host.json")


def test_kinds() -> None:
    found = Available(
        Context("7.2.22", "x86_64", MACHINE, "kvm"),
        features=_names("avx", "x2apic", "invtsc"),
        emulated=_names("x2apic"),
        blocking=_names("invtsc"),
        vendor="GenuineIntel",
        family=6,
        model=60,
        stepping=4,
        phys_bits=None,
        models={},
        best=CpuModel("base"),
    )
    assert listed(found, "all") == found.features
    assert listed(found, "match") == _names("avx", "invtsc")
    assert listed(found, "match", migratable=True) == _names("avx")
    assert listed(found, "best") == _names("avx", "x2apic")


def test_no_kvm_here(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="No such file"):
        supported_cpuid(tmp_path / "kvm")
    (tmp_path / "file").touch()
    with pytest.raises(SourceError, match="KVM does not say"):
        supported_cpuid(tmp_path / "file")


def test_check_prints_the_answer_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cpu = tmp_path / "cpu.xml"
    cpu.write_text("<cpu><model>Haswell</model></cpu>")
    assert main(["check", str(cpu), "--recorded", "7.2", "--accel", "tcg"]) == 1
    first, second, *rest = capsys.readouterr().out.splitlines()
    assert first.startswith("not runnable: Haswell-v1 on pc-")
    assert second == "missing:"
    assert any("rtm" in line and "CPUID.07H:EBX.rtm [bit 11]" in line for line in rest)
    cpu.write_text("<cpu><model>pentium3</model></cpu>")
    assert main(["check", str(cpu), "--recorded", "7.2", "--accel", "tcg", "--format", "json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["schema"], answer["runnable"], answer["missing"]) == ("cpumap.check/1", True, [])


def test_translate_on_a_host(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What the host lacks is off, its vendor is the guest's, host-model is its model, a required
    feature is refused.
    """
    host, cpu = tmp_path / "host.json", tmp_path / "cpu.xml"
    host.write_bytes(_host("avx"))
    arguments = [
        "translate",
        str(cpu),
        "--recorded",
        "7.2",
        "--host",
        str(host),
        "--format",
        "json",
    ]
    cpu.write_text("<cpu><model>EPYC</model><feature policy='optional' name='avx512f'/></cpu>")
    assert main(arguments) == 0
    captured = capsys.readouterr()
    values = {prop["name"]: prop["value"] for prop in json.loads(captured.out)["properties"]}
    assert (values["vendor"], values["avx"], values["avx2"], values["avx512f"]) == (
        "GenuineIntel",
        True,
        False,
        False,
    )
    assert "no host is known" not in captured.err
    cpu.write_text("<cpu mode='host-model'/>")
    assert main(arguments) == 0
    assert json.loads(capsys.readouterr().out)["model"] == "qemu64-v1"
    assert main([*arguments[:-1], "cpu-xml"]) == 0
    assert ">qemu64</model>" in capsys.readouterr().out
    cpu.write_text("<cpu><model>qemu64</model><feature policy='require' name='avx2'/></cpu>")
    assert main(arguments) == 1
    assert "CPUID[eax=07h,ecx=00h].EBX.avx2 [bit 5]" in capsys.readouterr().err


def test_translate_on_a_host_from_python() -> None:
    host = _host("avx").decode()
    text = translate("<cpu mode='host-model'/>", recorded="7.2", host=host, machine=MACHINE)
    assert text.startswith("-cpu ")
    assert "qemu64-v1," in text
    assert "vendor=GenuineIntel" in text


@pytest.mark.parametrize("kind", ["all", "best"])
def test_a_host_asked_here_is_the_one_that_others_read_of_its_json(kind: Kind) -> None:
    found = available(Platform(TCG, CPU_MAP, MACHINE), UNKNOWN_MACHINE)
    migratable = kind == "best"
    text = json_text("host", available_json(found, CPU_MAP, kind, migratable=migratable))
    host = available_host(found, CPU_MAP, kind, migratable=migratable)
    assert read_host(text, CPU_MAP, name="there") == replace(host, where="there")


def test_bits_and_back() -> None:
    """What KVM or CPUID would answer for a feature is what says that the feature is there."""
    for name in ("avx2", "rdctl-no", "lm", "sse4.1"):
        assert FeatureName(name) in features_of(
            data_of([FeatureName(name)], CPU_MAP), CPU_MAP.feature_bits
        )
    assert not features_of(CpuidData({}), CPU_MAP.feature_bits)


def test_what_tcg_can_enable() -> None:
    """From a recording: nothing that it lacks, all that its `max` has, and the best model is
    made of just that.
    """
    found = available(Platform(TCG, CPU_MAP, MACHINE), UNKNOWN_MACHINE)
    most = TCG.expand(MACHINE, CpuModel("max"), "static").props
    assert {name for name, value in most.items() if value is True} <= found.features
    asked = CpuModel("base", dict.fromkeys(sorted(found.features), True))
    assert not TCG.realise(MACHINE, asked).filtered
    best = TCG.expand(MACHINE, found.best, "static").props
    assert {name for name, value in best.items() if value is True} == listed(found, "best")
    assert not found.breaches
    assert found.emulated is None


def test_the_best_model_needs_the_fewest_additions() -> None:
    found = available(Platform(TCG, CPU_MAP, MACHINE), UNKNOWN_MACHINE)
    for name, lacking in found.models.items():
        own = {
            n
            for n, value in TCG.expand(MACHINE, CpuModel(name), "static").props.items()
            if value is True
        }
        same_vendor = (
            TCG.expand(MACHINE, CpuModel(name), "full").props[PropertyName("vendor")]
            == found.vendor
        )
        if not lacking and same_vendor:
            assert len(found.features - own) >= len(found.best.props), name


def test_host_on_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    source = ["--recorded", "7.2", "--accel", "tcg", "--machine", MACHINE]
    assert main(["host", *source]) == 0
    assert "avx2" in capsys.readouterr().out.splitlines()
    assert main(["host", *source, "--kind", "best"]) == 0
    assert capsys.readouterr().out.startswith("-cpu Opteron_")
    assert main(["host", *source, "--kind", "match"]) == 3
    assert capsys.readouterr().out == ""
    assert main(["host", *source, "--format", "json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["schema"], answer["kind"], answer["context"]["machine"]) == (
        "cpumap.host/1",
        "all",
        MACHINE,
    )
    assert main(["host", "--recorded", "7.2"]) == 2  # under KVM a recording has no host
    assert "max" in capsys.readouterr().err
