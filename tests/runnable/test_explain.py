"""`explain`: messages taken apart, spellings found, and what recordings say of models and
machine types.
"""

from __future__ import annotations

import json
import tomllib

import pytest

from cpumap.cli.main import main
from cpumap.cpu.expansion import CpuModel
from cpumap.cpu.names import PropertyName
from cpumap.libvirt.cpu_map.load import load_cpu_map
from cpumap.runnable.explain import explain
from cpumap.runnable.explain_feature import Explained
from cpumap.sources.machines import find_machine
from cpumap.sources.recorded import RecordedSource
from cpumap.sources.recordings import find_recording, shipped
from cpumap.system.data import data_path

CPU_MAP = load_cpu_map()


def _one(name: str) -> Explained:
    (found,) = explain(name, CPU_MAP).features
    return found


@pytest.mark.parametrize(
    ("name", "feature"),
    [
        ("pclmulqdq", "pclmuldq"),
        ("sse4_1", "sse4.1"),
        ("arch-facilities", "arch-capabilities"),
        ("lzcnt", "abm"),
        ("sse3", "pni"),
        ("lahf-lm", "lahf_lm"),
        ("tsc_deadline_timer", "tsc-deadline"),
        ("avx512_vbmi2", "avx512vbmi2"),
        ("kvm-asyncpf", "kvm-asyncpf"),
    ],
)
def test_every_spelling_is_found(name: str, feature: str) -> None:
    assert _one(name).feature.name == feature


def test_models_are_those_that_the_recording_shows() -> None:
    """Every model under every machine type: held by those, and only those, whose expansion has
    the feature.
    """
    source = RecordedSource(find_recording("7.2", "kvm"))
    for name in ("x2apic", "rtm", "sse4.1", "abm"):
        with_it = source.models_with(PropertyName(name))
        for table in list(source.tables())[::5]:
            for definition in source.definitions(table)[::7]:
                if definition.name not in ("host", "max"):
                    full = source.expand(table, CpuModel(definition.name), "full").props
                    assert (table in with_it.get(definition.name, ())) == full[
                        PropertyName(name)
                    ], definition.name


def test_since_which_machine_type() -> None:
    """Under KVM, x2apic came to every model with machine type 2.0; qemu64 lost abm after 2.4."""
    held = next(held for held in _one("x2apic").held if held.release.startswith("7.2"))
    assert held.since["qemu64"] == "pc-i440fx-2.0"
    assert "Westmere-v1" in held.everywhere or held.since["Westmere-v1"] == "pc-i440fx-2.0"
    held = next(held for held in _one("abm").held if held.release.startswith("7.2"))
    assert held.until["qemu64"] == "pc-i440fx-2.4"


def test_what_depends_on_what() -> None:
    assert "vmx-ept" in _one("vmx").dependants
    assert "vmx" in _one("vmx-ept").needs
    assert _one("invtsc").blocks_migration


def test_the_facts_are_of_features_that_there_are() -> None:
    facts = tomllib.loads(data_path("features.toml").read_text())
    described = [name for known in facts["meaning"].values() for name in known]
    assert len(described) == len(set(described)) >= 300
    assert facts["meaning"].keys() == facts["manuals"].keys()
    assert facts["story"].keys() <= set(described)
    assert {name for name in facts["linux"].values() if name} <= set(CPU_MAP.features)
    assert set(facts["former"].values()) <= set(CPU_MAP.features)
    assert not set(facts["former"]) & set(CPU_MAP.features)
    assert all(
        text and not text.endswith(".")
        for known in facts["meaning"].values()
        for text in known.values()
    )


def test_every_feature_is_described() -> None:
    """Those of the CPU map, and those that a recorded QEMU has besides; and nothing else is."""
    facts = tomllib.loads(data_path("features.toml").read_text())
    described = {name for known in facts["meaning"].values() for name in known}
    features = set(CPU_MAP.features)
    for path in (found.path for found in shipped()):
        source = RecordedSource(path)
        machine, base = find_machine(source, None).name, CpuModel("base")
        full = {
            name for name in source.expand(machine, base, "full").props if name.startswith("hv-")
        }
        static = {
            name
            for name, value in source.expand(machine, base, "static").props.items()
            if isinstance(value, bool)
        }
        names = {name for name in full | static if source.knows(name)}
        assert {"kvm-asyncpf", "hv-time", "lmce"} <= names
        features |= {CPU_MAP.feature_of(name) for name in names}
    assert described == features


@pytest.mark.parametrize(
    ("name", "feature"),
    [("kvm-pv-eoi", "kvm_pv_eoi"), ("kvm_mmu", "kvm-mmu"), ("hv-time", "hv-time")],
)
def test_features_that_only_qemu_has(name: str, feature: str) -> None:
    found = _one(name)
    assert found.feature.name == feature
    assert found.meaning and found.manual
    assert len(found.releases) == 10


def test_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "missing features: rtm,extra features: ht"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("rtm: restricted transactional memory")
    assert "CPUID[eax=07h,ecx=00h].EBX [bit 11]" in out
    assert "Haswell-v1" in out
    assert "extra: it is there unasked" in out
    assert "since QEMU 10.0, it is on wherever a package has several threads" in out
    assert main(["explain", "--format", "json", "--accel", "tcg", "rtm"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["schema"] == "cpumap.explain/1"
    assert answer["features"][0]["bits"] == [
        {"leaf": 7, "subleaf": 0, "register": "ebx", "bits": [11]}
    ]
    assert main(["explain", "nosuch"]) == 2
    assert main(["explain", " "]) == 2
