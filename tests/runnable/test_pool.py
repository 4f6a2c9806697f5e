"""A pool of described hosts: the CPU that all can run, what each gives up, and the settings of
those who start guests, read as these read them.
"""

from __future__ import annotations

import configparser
import importlib
import json
import re
import time
from pathlib import Path
from typing import Any

import pytest

from cpumap.cli.main import main
from cpumap.cpu.names import FeatureName
from cpumap.cpu.request import CpuRequest, FeaturePolicy
from cpumap.errors import ResolveError
from cpumap.hosts.described import DescribedHost, read_described
from cpumap.libvirt.cpu_map.load import load_cpu_map
from cpumap.libvirt.domain import parse_request
from cpumap.libvirt.rules.baseline import baseline
from cpumap.pin.consumers import CONSUMERS, Consumer, settings_for
from cpumap.runnable.check import check
from cpumap.runnable.pool import Pool, proven_pool
from cpumap.sources.platform import Platform
from cpumap.sources.recorded import RecordedSource
from cpumap.sources.recordings import find_recording

CPU_MAP = load_cpu_map()
SOURCE = RecordedSource(find_recording("7.2", "kvm"))
PLATFORM = Platform(SOURCE, CPU_MAP, "pc-q35-7.2")

OF_HOSTS = "acpi ds ds_cpl dtes64 est monitor pbe smx tm tm2 xtpr"
"""What every Intel server has, and no guest is ever given."""

OF_AMD = ("monitor", "extapic", "ibs", "skinit", "wdt", "topoext", "perfctr_nb", "svm", "npt")

ALWAYS = f"{OF_HOSTS} ht vme vmx invtsc"

GENERATIONS = {
    "westmere": ("Westmere", "pcid pdpe1gb rdtscp ss"),
    "sandybridge": ("SandyBridge", "pcid pdpe1gb osxsave ss xsaveopt"),
    "ivybridge": ("IvyBridge", "arat pcid pdpe1gb osxsave ss xsaveopt"),
    "haswell": ("Haswell-noTSX", "abm arat f16c osxsave pdpe1gb rdrand ss tsc_adjust vmx cmt"),
    "broadwell": ("Broadwell", "abm arat cmt f16c mbm_local mbm_total osxsave pdpe1gb rdrand ss"),
    "skylake": ("Skylake-Server-noTSX-IBRS", "clflushopt cmt intel-pt md-clear osxsave pku ss"),
}
COUNTS = {
    "westmere": 1,
    "sandybridge": 4,
    "ivybridge": 4,
    "haswell": 4,
    "broadwell": 4,
    "skylake": 3,
}


def _host_xml(generation: str) -> str:
    model, more = GENERATIONS[generation]
    names = dict.fromkeys(f"{ALWAYS} {more}".split())
    features = "".join(f"<feature name='{name}'/>" for name in names)
    return f"<cpu><arch>x86_64</arch><model>{model}</model><vendor>Intel</vendor>{features}</cpu>\n"


def _described(counts: dict[str, int]) -> list[DescribedHost]:
    return [
        read_described(_host_xml(generation), CPU_MAP, name=f"{generation}-{number}")
        for generation, count in counts.items()
        for number in range(count)
    ]


def _pool(counts: dict[str, int]) -> Pool:
    hosts = _described(counts)
    return proven_pool(
        PLATFORM, hosts, baseline([host.cpu for host in hosts], CPU_MAP, migratable=True)
    )


def test_twenty_hosts_of_six_generations_in_a_second() -> None:
    hosts = _described(COUNTS)
    assert len(hosts) == 20
    began = time.process_time()
    found = _pool(COUNTS)
    assert time.process_time() - began < 1
    assert found.cpu.model == "Westmere"
    for host in hosts:
        assert check(found.cpu, PLATFORM, host=host).runnable


def test_what_no_guest_is_given_is_left_out() -> None:
    never = frozenset(f"{OF_HOSTS} cmt osxsave".split())
    for counts in (COUNTS, {"skylake": 2}, {"haswell": 1, "broadwell": 1}):
        named = {feature.name for feature in _pool(counts).cpu.features}
        assert not named & never


def test_the_host_that_costs_the_pool_most() -> None:
    found = _pool(COUNTS)
    assert found.dearest is not None
    assert found.dearest.name == "westmere-0"
    assert {"avx", "xsave", "tsc-deadline", "xsaveopt"} & set(found.dearest.costs) == {
        "avx",
        "xsave",
        "xsaveopt",
    }
    assert [member.costs for member in found.members[1:]] == [()] * 19


def test_no_single_host_costs_what_two_lack() -> None:
    assert _pool({"westmere": 2, "skylake": 1}).dearest is None


def test_what_no_description_proves_is_left_out_and_what_kvm_emulates_is_added() -> None:
    named = {str(feature.name): feature.policy for feature in _pool(COUNTS).cpu.features}
    assert "vmx" not in named
    assert not [name for name in named if name.startswith("vmx-")]
    assert named["tsc-deadline"] == named["tsc_adjust"] == "require"
    assert all("vmx" in member.gives_up for member in _pool(COUNTS).members)


def test_generations_of_amd() -> None:
    more = "".join(f"<feature name='{name}'/>" for name in OF_AMD)
    hosts = [
        read_described(
            f"<cpu><arch>x86_64</arch><model>{model}</model><vendor>AMD</vendor>{more}</cpu>",
            CPU_MAP,
            name=model,
        )
        for model in ("EPYC-IBPB", "EPYC-Rome", "EPYC-Milan")
    ]
    found = proven_pool(PLATFORM, hosts, baseline([host.cpu for host in hosts], CPU_MAP))
    assert found.cpu.model in ("EPYC", "EPYC-IBPB")
    named = {feature.name: feature.policy for feature in found.cpu.features}
    assert not named.keys() & {"monitor", "extapic", "ibs", "skinit", "wdt", "perfctr_nb"}
    assert found.dearest is not None
    assert found.dearest.name == "EPYC-IBPB"
    assert "clwb" in found.dearest.costs
    for host in hosts:
        assert check(found.cpu, PLATFORM, host=host).runnable


def test_hosts_of_two_vendors_are_no_pool() -> None:
    amd = "<cpu><arch>x86_64</arch><model>EPYC</model><vendor>AMD</vendor></cpu>"
    hosts = [*_described({"haswell": 1}), read_described(amd, CPU_MAP, name="amd")]
    with pytest.raises(ResolveError, match="CPU vendors do not match"):
        baseline([host.cpu for host in hosts], CPU_MAP)


def test_what_each_host_gives_up() -> None:
    members = {member.name: member for member in _pool({"ivybridge": 1, "skylake": 1}).members}
    assert {"avx2", "avx512f", "bmi1"} <= set(members["skylake-0"].gives_up)
    assert not {"avx", "est", "f16c"} & set(members["skylake-0"].gives_up)
    assert "avx2" not in members["ivybridge-0"].gives_up


def test_a_model_that_the_qemu_lacks_is_not_chosen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = "<cpu><arch>x86_64</arch><model>SapphireRapids</model><vendor>Intel</vendor></cpu>"
    (tmp_path / "new.xml").write_text(new)
    where = ["--recorded", "7.2", "--accel", "kvm", "--machine", "pc-q35-7.2", "--format", "json"]
    assert main(["baseline", str(tmp_path / "new.xml"), *where]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["model"] in {definition.name for definition in SOURCE.definitions("pc-q35-7.2")}
    assert answer["context"]["machine"] == "pc-q35-7.2"
    assert answer["hosts"][0]["name"] == f"{tmp_path / 'new.xml'}:1"


CPU = CpuRequest(
    arch="x86_64",
    mode="custom",
    model="Westmere",
    features=(
        FeaturePolicy(FeatureName("pclmuldq"), "require"),
        FeaturePolicy(FeatureName("lahf_lm"), "disable"),
    ),
)


def _yaml(text: str) -> Any:
    return importlib.import_module("yaml").safe_load(text)


def test_kubevirt() -> None:
    assert _yaml(settings_for("kubevirt", CPU, CPU_MAP)) == {
        "spec": {
            "domain": {
                "cpu": {
                    "model": "Westmere",
                    "features": [
                        {"name": "pclmuldq", "policy": "require"},
                        {"name": "lahf_lm", "policy": "disable"},
                    ],
                }
            }
        }
    }


def test_nova() -> None:
    settings = configparser.ConfigParser()
    settings.read_string(settings_for("nova", CPU, CPU_MAP))
    assert dict(settings["libvirt"]) == {
        "cpu_mode": "custom",
        "cpu_models": "Westmere",
        "cpu_model_extra_flags": "+pclmuldq,-lahf_lm",
    }


def test_proxmox() -> None:
    assert settings_for("proxmox", CPU, CPU_MAP).splitlines() == [
        "cpu-model: pool",
        "    flags +pclmulqdq;-lahf-lm",
        "    reported-model Westmere",
    ]


def test_incus_and_lxd() -> None:
    assert _yaml(settings_for("incus", CPU, CPU_MAP)) == {
        "config": {
            "instances.vm.cpu.x86_64.baseline": "Westmere",
            "instances.vm.cpu.x86_64.flags": "pclmulqdq,-lahf-lm",
        }
    }
    assert _yaml(settings_for("lxd", CPU, CPU_MAP)) == {
        "config": {"raw.qemu": "-cpu Westmere,+pclmulqdq,-lahf-lm,enforce"}
    }


def test_arguments_are_read_back_as_the_same_cpu() -> None:
    read = parse_request(settings_for("args", CPU, CPU_MAP), name="-")
    assert read.model == "Westmere"
    said = {(setting.name, setting.value) for setting in read.settings}
    assert {("pclmulqdq", True), ("lahf-lm", False), ("enforce", True)} <= said


@pytest.mark.parametrize("consumer", CONSUMERS)
def test_nothing_else_gets_into_settings(consumer: Consumer) -> None:
    bad = CpuRequest(mode="custom", model='Westmere"\nhidden 1')
    with pytest.raises(ResolveError, match="cannot be written in settings"):
        settings_for(consumer, bad, CPU_MAP)


@pytest.mark.parametrize("consumer", CONSUMERS)
def test_a_pool_in_every_format(
    consumer: Consumer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pool_of = tmp_path / "pool.xml"
    pool_of.write_text("".join(map(_host_xml, GENERATIONS)))
    where = ["--recorded", "7.2", "--accel", "kvm", "--machine", "pc-q35-7.2"]
    assert main(["baseline", str(pool_of), *where, "--format", consumer, "--explain"]) == 0
    out, err = capsys.readouterr()
    assert re.search(r"\bWestmere\b", out)
    assert f"{pool_of}:1 costs the pool most: without it, also " in err
