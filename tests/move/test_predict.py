"""Predictions and adaptations, from recorded QEMUs: nothing is started."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from cpumap.cpu.bits import bit_numbers
from cpumap.cpu.build import Build
from cpumap.cpu.expansion import CpuModel, Expansion
from cpumap.cpu.explicit import ExplicitCpu
from cpumap.cpu.machine_type import release
from cpumap.cpu.names import PropertyName
from cpumap.cpu.request import CpuRequest
from cpumap.cpu.topology import Topology
from cpumap.libvirt.cpu_map.load import load_cpu_map
from cpumap.libvirt.cpu_map.map import CpuMap
from cpumap.move.adapt import Adapted, adapt, era_of, has_cache_table
from cpumap.move.hold import hold
from cpumap.move.predict import Evidence, Prediction, predict
from cpumap.move.xsave import Components
from cpumap.pin.compact import changing_properties
from cpumap.pin.expand import default_request, expand
from cpumap.pin.resolve import resolve
from cpumap.proof.diff import diff
from cpumap.proof.difference import REALIZE, bit_names, guest_differences, meanings
from cpumap.proof.guest import GuestCpu
from cpumap.qemu.arguments import smp_option
from cpumap.sources.platform import Platform
from cpumap.sources.recorded import RecordedSource
from cpumap.sources.recordings import find_recording
from cpumap.system.data import data_path

OLD, NEW = "5.2", "7.2"


@pytest.fixture(scope="module")
def cpu_map() -> CpuMap:
    return load_cpu_map()


@pytest.fixture(scope="module")
def old() -> RecordedSource:
    return RecordedSource(find_recording(OLD, "tcg"))


@pytest.fixture(scope="module")
def new() -> RecordedSource:
    return RecordedSource(find_recording(NEW, "tcg"))


def explicit(
    source: RecordedSource, model: str, machine: str, cpu_map: CpuMap
) -> tuple[ExplicitCpu, Expansion]:
    name, _, level = model.partition(",level=")
    props = {PropertyName("level"): int(level)} if level else {}
    request = default_request(CpuModel(name, props), machine, CpuRequest(accel="tcg"))
    expansion = expand(request, Platform(source, cpu_map))
    return resolve(request, expansion), expansion


def predicted(prediction: Prediction) -> dict[str, int]:
    return {f"{d.leaf:x}.{d.subleaf:x}.{d.register}": d.xor for d in prediction.differences}


def test_upgrade_names_what_only_the_target_has(
    old: RecordedSource, new: RecordedSource, cpu_map: CpuMap
) -> None:
    cpu, _ = explicit(old, "Haswell", "pc-q35-5.2", cpu_map)
    moved = adapt(cpu, old, new, "pc-q35-7.2")
    assert moved.cpu.context.machine == "pc-q35-7.2" and moved.cpu.context.qemu == new.version
    assert cpu.values.items() <= moved.cpu.values.items()
    added = {n: v for n, v in moved.cpu.values.items() if n not in cpu.values}
    assert added[PropertyName("x-vendor-cpuid-only")] is False, (
        "as on pc-q35-5.2, not as on pc-q35-7.2"
    )
    assert added[PropertyName("avx512-fp16")] is False
    assert moved.unnamed == ()


def test_downgrade_leaves_out_what_the_target_does_not_know(
    old: RecordedSource, new: RecordedSource, cpu_map: CpuMap
) -> None:
    cpu, _ = explicit(new, "Haswell", "pc-q35-7.2", cpu_map)
    moved = adapt(cpu, new, old, "pc-q35-5.2")
    unnamed = {prop.name: prop for prop in moved.unnamed}
    vendor_only, fp16 = (
        unnamed[PropertyName(name)] for name in ("x-vendor-cpuid-only", "avx512-fp16")
    )
    assert vendor_only.value != vendor_only.as_if
    assert fp16.value == fp16.as_if
    assert not set(unnamed) & set(moved.cpu.values)


def test_a_model_that_the_target_lacks_stands_on_base(
    old: RecordedSource, new: RecordedSource, cpu_map: CpuMap
) -> None:
    cpu, _ = explicit(new, "EPYC-Milan-v1", "pc-q35-7.2", cpu_map)
    moved = adapt(cpu, new, old, "pc-q35-5.2")
    assert (moved.cpu.model, moved.cpu.typename) == ("base", "base-x86_64-cpu")
    assert cpu.values[PropertyName("legacy-cache")] is False
    assert moved.cpu.values[PropertyName("legacy-cache")] is True, (
        "base would refuse to have no legacy cache"
    )


def test_the_machine_type_of_another_release(new: RecordedSource) -> None:
    of = {version: era_of(new, Build(version)) for version in ("5.2.0", "5.3.0", "1.0.0", "11.1.3")}
    assert of == {
        "5.2.0": "pc-q35-5.2",
        "5.3.0": "pc-q35-5.2",
        "1.0.0": "pc-q35-2.4",
        "11.1.3": "pc-q35-7.2",
    }


def test_has_cache_table(new: RecordedSource) -> None:
    assert has_cache_table(new, "EPYC-v1")
    assert not has_cache_table(new, "Haswell-v1")


@pytest.mark.parametrize(
    "model, ebx", [("Haswell", 0x340), ("Skylake-Server-v1", 0x988), ("n270-v1", None)]
)
def test_leaf_0xd_of_tcg(
    old: RecordedSource, new: RecordedSource, cpu_map: CpuMap, model: str, ebx: int | None
) -> None:
    cpu, expansion = explicit(old, model, "pc-q35-5.2", cpu_map)
    _, prediction = hold(cpu, expansion, old, Platform(new, cpu_map, "pc-q35-7.2"))
    wanted = {"d.1.ebx": ebx} if ebx else {}
    assert predicted(prediction) == wanted
    assert prediction.unknown == () and prediction.holds is (ebx is None)


def test_one_release_predicts_nothing(new: RecordedSource, cpu_map: CpuMap) -> None:
    cpu, expansion = explicit(new, "EPYC", "pc-q35-2.4", cpu_map)
    _, prediction = hold(cpu, expansion, new, Platform(new, cpu_map, "pc-q35-7.2"))
    assert prediction.holds


def moved_to(version: str, moved: Adapted, vendor: str = "") -> Adapted:
    """As if the target were another QEMU."""
    build = Build(version, offers="another", vendor=vendor)
    context = replace(moved.cpu.context, qemu=version, build=build)
    return replace(moved, cpu=replace(moved.cpu, context=context))


def test_what_was_not_measured_is_unknown(
    old: RecordedSource, new: RecordedSource, cpu_map: CpuMap
) -> None:
    cpu, expansion = explicit(old, "Haswell", "pc-q35-5.2", cpu_map)
    moved = adapt(cpu, old, new, "pc-q35-7.2")
    for target in (moved_to("99.0.0", moved), moved_to("9.1.0", moved, "RHEL")):
        prediction = predict(cpu, expansion.realised, target, cpu_map)
        assert prediction.unknown and not prediction.holds
    clusters = predict(
        cpu, expansion.realised, moved_to("10.0.0", moved), cpu_map, Topology(clusters=2)
    )
    assert any("clusters" in reason for reason in clusters.unknown)


@pytest.mark.parametrize(
    ("model", "version", "topology", "known"),
    [
        ("Haswell", "8.2.4", Topology(), True),
        ("Haswell", "8.2.4", Topology(dies=2), False),
        ("Haswell", "8.2.4", Topology(cores=3), True),
        ("n270", "8.2.4", Topology(), False),
        ("Haswell", "10.0.20", Topology(cores=3), True),
        ("Haswell", "10.0.7", Topology(cores=4, threads=2), True),
        ("Haswell", "10.0.7", Topology(cores=3), False),
        ("EPYC-v1", "10.0.7", Topology(cores=3), True),
        ("qemu64,level=28", "8.2.4", Topology(), False),
    ],
)
def test_between_measured_releases_only_what_an_entry_touches_is_unknown(
    new: RecordedSource,
    cpu_map: CpuMap,
    model: str,
    version: str,
    topology: Topology,
    known: bool,
) -> None:
    """Dates: dies and n270's address bits change between 8.1.0 and 9.0.0, Intel's leaf 1 with three
    cores between 10.0.2 and 10.0.13; leaf 0x1C is undefined until 8.1.0 at least.
    """
    cpu, expansion = explicit(new, model, "pc-q35-7.2", cpu_map)
    moved = moved_to(version, adapt(cpu, new, new, "pc-q35-7.2"))
    prediction = predict(cpu, expansion.realised, moved, cpu_map, topology)
    assert (not prediction.unknown and not any(d.undefined for d in prediction.differences)) is (
        known
    ), prediction
    assert any(f"QEMU {version} was not measured" in note for note in prediction.notes)


def test_two_builds_of_one_version(new: RecordedSource, cpu_map: CpuMap) -> None:
    """Debian's and upstream's are one code; of a distribution's, another build may be more."""
    cpu, expansion = explicit(new, "Haswell", "pc-q35-7.2", cpu_map)
    rebuilt = moved_to(new.version, adapt(cpu, new, new, "pc-q35-7.2"))
    assert predict(cpu, expansion.realised, rebuilt, cpu_map) == Prediction()
    theirs = replace(new.build(), version="9.1.0", vendor="RHEL")
    here = replace(cpu, context=replace(cpu.context, qemu="9.1.0", build=theirs))
    other = moved_to("9.1.0", rebuilt, "RHEL")
    assert predict(here, expansion.realised, other, cpu_map).unknown


def under_kvm(
    model: str,
    release: str,
    old: RecordedSource,
    new: RecordedSource,
    cpu_map: CpuMap,
    of_host: Components | None,
) -> Prediction:
    """What is said of the model's move under KVM from 5.2, or else from 7.2, to another release."""
    here, machine = (old, "pc-q35-5.2") if release == "7.2" else (new, "pc-q35-7.2")
    cpu, expansion = explicit(here, model, machine, cpu_map)
    moved = adapt(cpu, here, new, "pc-q35-7.2")
    context = replace(moved.cpu.context, accel="kvm", qemu=VERSIONS[release], build=None)
    source = replace(cpu, context=replace(cpu.context, accel="kvm"))
    target = replace(moved, cpu=replace(moved.cpu, context=context))
    return predict(source, expansion.realised, target, cpu_map, evidence=Evidence(of_host))


def test_a_feature_in_an_msr_that_the_other_qemu_does_not_have(cpu_map: CpuMap) -> None:
    newer, older = (RecordedSource(find_recording(release, "kvm")) for release in ("11.1", "10.0"))
    cpu, expansion = explicit(newer, "SapphireRapids-v7", "pc-q35-10.0", cpu_map)
    msrs = [
        d
        for d in hold(cpu, expansion, newer, Platform(older, cpu_map))[1].differences
        if d.register == "msr"
    ]
    assert [(d.leaf, d.xor, d.cause) for d in msrs] == [
        (0x10A, 1 << 62, "QEMU 10.0.13 has no feature its-no")
    ]


VERSIONS = {"7.2": "7.2.22", "10.0": "10.0.13", "11.1": "11.1.3"}


HOST: Components = {2: (0x100, 0x240), 9: (8, 0xA80)}


Expected = tuple[str, str, Components | None, dict[str, int] | None]


@pytest.mark.parametrize(
    "expected",
    [
        ("qemu64", "7.2", None, {}),
        ("Haswell", "7.2", None, {"d.1.ebx": 0x340}),
        ("Skylake-Client", "7.2", None, None),
        ("Skylake-Server", "10.0", None, {}),
        ("Haswell", "11.1", None, None),
        ("Haswell", "11.1", HOST, {"d.9.eax": 8, "d.9.ebx": 0xA80}),
        ("qemu64", "11.1", HOST, {}),
    ],
)
def test_xsave_under_kvm(
    old: RecordedSource,
    new: RecordedSource,
    cpu_map: CpuMap,
    expected: Expected,
) -> None:
    model, release, of_host, known = expected
    prediction = under_kvm(model, release, old, new, cpu_map, of_host)
    said = {where: xor for where, xor in predicted(prediction).items() if where.startswith("d.")}
    reasons = [reason for reason in prediction.unknown if "XSAVE" in reason]
    assert (known is None and reasons) or (said == known and not reasons)


def test_cores_that_are_no_power_of_two(
    old: RecordedSource, new: RecordedSource, cpu_map: CpuMap
) -> None:
    cpu, expansion = explicit(old, "Haswell", "pc-q35-5.2", cpu_map)
    moved = moved_to("10.0.13", adapt(cpu, old, new, "pc-q35-7.2"))
    three = predicted(predict(cpu, expansion.realised, moved, cpu_map, Topology(cores=3)))
    assert three["1.0.ebx"] == 0x70000, "3 logical processors become 4"
    assert {three[f"4.{subleaf}.eax"] for subleaf in range(4)} == {0x4000000}
    four = predicted(predict(cpu, expansion.realised, moved, cpu_map, Topology(cores=4)))
    assert "1.0.ebx" not in four and "4.0.eax" not in four


def test_caches_that_no_property_describes(
    new: RecordedSource, old: RecordedSource, cpu_map: CpuMap
) -> None:
    cpu, expansion = explicit(new, "EPYC-Milan-v1", "pc-q35-7.2", cpu_map)
    _, prediction = hold(cpu, expansion, new, Platform(old, cpu_map, "pc-q35-5.2"))
    found = predicted(prediction)
    assert "8000001d.0.ebx" in found and "80000006.0.ecx" in found
    causes = {d.cause for d in prediction.differences if d.leaf == 0x80000006}
    assert causes == {
        "caches: QEMU 7.2.22 has EPYC-Milan-v1 AuthenticAMD, QEMU 5.2.0 legacy AuthenticAMD"
    }


def test_every_rule_gives_a_cause_and_its_dates() -> None:
    facts = json.loads(data_path("x86_64", "drift.json").read_bytes())
    kinds = {"bits": "bits", "undefined": "place", "note": "bits"}
    for rule in facts["rules"]:
        assert rule["cause"] and rule["when"]
        needed = kinds.get(rule.get("effect", "bits"))
        assert needed is None or rule[needed]
    dated = [*facts["rules"], *facts["topology"].values()]
    dated += [facts["xsave"]["tcg"][name] for name in ("compacted", "never", "all_shown")]
    for entry in [*dated, *facts["xsave"]["kvm"].values()]:
        dates = [entry[name] for name in ("without", "with", "still", "gone") if name in entry]
        assert sorted(map(release, dates)) == list(map(release, dates)) and len(dates) in (2, 4)
        if "by" not in entry:
            assert set(dates) <= set(facts["measured"])
        builds = {name for name in facts["measured_builds"] if _in_gap(name, dates)}
        assert builds <= set(entry.get("builds", {})), entry


def _in_gap(build: str, dates: list[str]) -> bool:
    """Whether the dates alone do not say of this distribution's QEMU what it does."""
    version = release(build.partition("-")[0])
    return any(
        release(dates[at]) < version < release(dates[at + 1]) for at in range(0, len(dates), 2)
    )


def test_compact_names_what_machine_types_have_otherwise(
    new: RecordedSource, cpu_map: CpuMap
) -> None:
    cpu, _ = explicit(new, "Haswell", "pc-q35-2.4", cpu_map)
    names = changing_properties(cpu, [new])
    assert {"cpuid-0xb", "stepping", "l3-cache", "x-vendor-cpuid-only"} <= names
    assert "family" not in names and len(names) < len(cpu.properties) / 4


def test_diff_says_because_of_what(new: RecordedSource, cpu_map: CpuMap) -> None:
    _, a = explicit(new, "Haswell", "pc-q35-2.4", cpu_map)
    _, b = explicit(new, "Haswell-v4", "pc-q35-7.2", cpu_map)
    causes = {prop.name: prop.cause for prop in diff(a, new, b, new, cpu_map).properties}
    assert causes[PropertyName("hle")] == "model: Haswell-v1 is not Haswell-v4"
    assert causes[PropertyName("cpuid-0xb")] == "machine type: pc-q35-2.4 is not pc-q35-7.2"
    assert "" not in causes.values()
    assert diff(a, new, a, new, cpu_map).same


def test_diff_between_qemus(old: RecordedSource, new: RecordedSource, cpu_map: CpuMap) -> None:
    _, a = explicit(old, "Haswell", "pc-q35-5.2", cpu_map)
    _, b = explicit(new, "Haswell", "pc-q35-5.2", cpu_map)
    found = diff(a, old, b, new, cpu_map)
    assert {prop.cause for prop in found.properties} <= {
        f"QEMU: {old.version} is not {new.version}",
        REALIZE,
    }
    assert "avx512-fp16" not in {prop.name for prop in found.properties}, (
        "unknown to one, off in the other"
    )
    assert found.as_json()["bits"] is None


def test_a_difference_is_named(cpu_map: CpuMap) -> None:
    a, b = GuestCpu({(7, 0): (0, 0, 0, 0)}), GuestCpu({(7, 0): (0, 1 << 5 | 1 << 3, 0, 0)})
    (found,) = guest_differences(a, b, cpu_map)
    assert (found.leaf, found.register, found.bits, found.names) == (
        7,
        "ebx",
        (3, 5),
        ("bmi1", "avx2"),
    )
    assert not found.predicted
    assert meanings(0x80000008, 0, "eax", (0,), bit_names(cpu_map)) == ("address bits",)
    assert tuple(bit_numbers(0x90)) == (4, 7)


def test_smp_option_is_spelled_out() -> None:
    assert smp_option(Topology()) == "1,sockets=1,dies=1,cores=1,threads=1"
    assert (
        smp_option(Topology(sockets=2, dies=2, cores=3, threads=2))
        == "24,sockets=2,dies=2,cores=3,threads=2"
    )


def test_a_lost_feature_in_a_subleaf_that_nobody_sees(cpu_map: CpuMap) -> None:
    """Old machine types raise no level for it: leaf 7 ends at subleaf 0, so `lam` does not show."""
    newer, older = (RecordedSource(find_recording(name, "tcg")) for name in ("10.0", "ubuntu"))
    for machine, shows in (("pc-q35-2.4", False), ("pc-q35-8.2", True)):
        cpu, expansion = explicit(newer, "SierraForest-v2", machine, cpu_map)
        _, prediction = hold(cpu, expansion, newer, Platform(older, cpu_map, machine))
        assert any(where.startswith("7.1.") for where in predicted(prediction)) is shows
