"""libvirt's check at start, foreseen; and the check that a document is written with.

The verdicts are those of libvirt 11.3 with QEMU 10.0 and of 9.0 with 7.2, which were asked.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cpumap import Choices, parse_request, translate
from cpumap.cli.main import main
from cpumap.cpu.names import FeatureName
from cpumap.libvirt.cpu_map.load import load_cpu_map
from cpumap.libvirt.rules.full_check import check_of, expected_features, full_check

MAP = load_cpu_map()

DOMAIN = """<domain type='qemu'>
  <name>guest</name>
  <vcpu>{vcpus}</vcpu>
  <os><type arch='x86_64' machine='pc-q35-7.2'>hvm</type></os>
  <cpu mode='custom' match='exact' check='partial'>
    <model fallback='forbid'>{model}</model>
    <topology sockets='1' dies='{dies}' cores='{cores}' threads='{threads}'/>
  </cpu>
</domain>
"""


def domain(model: str, cores: int = 1, threads: int = 1, dies: int = 1) -> str:
    vcpus = cores * threads * dies
    return DOMAIN.format(model=model, vcpus=vcpus, cores=cores, threads=threads, dies=dies)


def named(**features: bool) -> dict[FeatureName, bool]:
    return {FeatureName(name): on for name, on in features.items()}


def test_what_is_on_and_not_named_is_extra() -> None:
    found = full_check(named(fpu=True, ht=False), named(fpu=True, ht=True, cmp_legacy=True), MAP)
    assert found.extra == ("cmp_legacy", "ht") or found.extra == ("ht", "cmp_legacy")
    assert not found.passes


def test_what_is_named_and_off_is_missing() -> None:
    found = full_check(named(fpu=True, aes=True), named(fpu=True), MAP)
    assert (found.extra, found.missing) == ((), ("aes",))
    assert str(found) == "guest CPU doesn't match specification: missing features: aes"


def test_a_feature_of_the_model_need_not_be_named() -> None:
    on = dict.fromkeys(MAP.model("Westmere").features, True)
    assert full_check({}, on, MAP, "Westmere").passes
    assert full_check(named(aes=False), on, MAP, "Westmere").extra == ("aes",)


def test_no_libvirt_looks_at_what_qemu_has_no_property_for() -> None:
    assert full_check(named(osxsave=True, cmt=True), {}, MAP).passes


@pytest.mark.parametrize(
    ("cpu", "check"),
    [
        ("<cpu mode='custom' match='exact'><model>Haswell</model></cpu>", "partial"),
        ("<cpu mode='custom' match='strict'><model>Haswell</model></cpu>", "full"),
        ("<cpu mode='custom' match='exact' check='none'><model>Haswell</model></cpu>", "none"),
        ("<cpu mode='host-model'/>", "partial"),
        ("<cpu mode='host-passthrough'/>", "none"),
    ],
)
def test_a_check_that_is_not_named(cpu: str, check: str) -> None:
    assert check_of(parse_request(cpu)) == check


def test_what_a_definition_names() -> None:
    features = "<feature policy='require' name='aes'/><feature policy='disable' name='hle'/>"
    cpu = f"<cpu mode='custom'><model>Haswell</model>{features}</cpu>"
    assert expected_features(parse_request(cpu)) == {"aes": True, "hle": False}


def written(model: str, qemu: str, **topology: int) -> str:
    """The document pinned on a recorded QEMU, with nothing in it that tcg cannot give."""
    document = domain(model, **topology)
    return translate(document, format="xml", recorded=qemu, choices=Choices(unavailable="off"))


def checked(document: str) -> str:
    found = re.search("<cpu [^>]*check='([a-z]+)'", document)
    assert found
    return found[1]


def policies(document: str) -> dict[str, str]:
    pairs = re.findall("<feature policy='([a-z]+)' name='(ht|cmp_legacy)'/>", document)
    return {name: policy for policy, name in pairs}


@pytest.mark.parametrize("model", ["Westmere", "qemu64", "core2duo", "EPYC"])
@pytest.mark.parametrize("qemu", ["7.2", "10.0", "11.1"])
def test_one_thread_is_checked_in_full(model: str, qemu: str) -> None:
    assert checked(written(model, qemu)) == "full"


@pytest.mark.parametrize("model", ["Westmere", "qemu64"])
@pytest.mark.parametrize("topology", [{"cores": 4}, {"cores": 2, "threads": 2}, {"dies": 2}])
def test_what_a_later_qemu_turns_on_is_not_checked_before_it(
    model: str, topology: dict[str, int]
) -> None:
    document = written(model, "7.2", **topology)
    assert checked(document) == "partial"
    assert policies(document) == {"ht": "disable", "cmp_legacy": "disable"}


@pytest.mark.parametrize(
    ("model", "cmp_legacy"),
    [("Westmere", "disable"), ("qemu64", "require"), ("EPYC", "require"), ("Dhyana", "require")],
)
@pytest.mark.parametrize("qemu", ["10.0", "11.1"])
def test_what_qemu_turns_on_is_named_as_on(model: str, cmp_legacy: str, qemu: str) -> None:
    document = written(model, qemu, cores=4)
    assert checked(document) == "full"
    assert policies(document) == {"ht": "require", "cmp_legacy": cmp_legacy}


@pytest.mark.parametrize(("source", "target"), [("7.2", "10.0"), ("10.0", "7.2"), ("7.2", "11.1")])
def test_a_document_for_another_qemu_starts_on_both(
    source: str, target: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "guest.xml"
    path.write_text(domain("Westmere", cores=4))
    words = ["translate", "--recorded", source, "--target-qemu", target, "--unavailable", "off"]
    main([*words, "--allow-drift", "--format", "xml", str(path)])
    assert checked(capfd.readouterr().out) == "partial"


@pytest.mark.parametrize("qemu", ["7.2", "10.0", "11.1"])
def test_what_falls_with_an_unavailable_feature_is_named_off(qemu: str) -> None:
    """Real QEMUs: `arch-capabilities` off takes `rdctl-no` with it, and libvirt missed it."""
    document = written("Cascadelake-Server-noTSX", qemu)
    assert re.search("policy='disable' name='arch-capabilities'", document)
    assert not re.search("policy='require' name='(rdctl-no|mds-no|ibrs-all)'", document)
