"""Comparing, baselines, decoding and updating, from the CPU map alone."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpumap.cpu.host import HostCpu, Identity
from cpumap.cpu.names import FeatureName
from cpumap.cpu.request import CpuRequest, FeaturePolicy
from cpumap.errors import InputError, ResolveError, UnknownNameError
from cpumap.hosts.read import read_cpus, read_host
from cpumap.libvirt.cpu_map.load import load_cpu_map
from cpumap.libvirt.domain import parse_request
from cpumap.libvirt.rules.baseline import baseline
from cpumap.libvirt.rules.compare import compare, features_of_cpu
from cpumap.libvirt.rules.decode import decode
from cpumap.libvirt.rules.update import update
from tests.support.cpuid_words import data_of, with_identity

MAP = load_cpu_map()
MODELS = sorted(name for name, model in MAP.models.items() if model.decode_guest)
FEATURES = sorted(MAP.features)


def policies(*names: str) -> tuple[FeaturePolicy, ...]:
    return tuple(FeaturePolicy(FeatureName(name), "require") for name in names)


HOST = HostCpu(model="Haswell-noTSX", vendor="Intel", features=policies("invtsc"))


def guest(inside: str, attributes: str = "match='exact'") -> CpuRequest:
    return parse_request(f"<cpu mode='custom' {attributes}>{inside}</cpu>")


# Guest's match, what its <cpu> holds, the verdict against HOST, and what is said of it.
VERDICTS = [
    ("exact", "<model>Haswell-noTSX</model><feature policy='require' "
              "name='invtsc'/>", "identical", ""),
    ("exact", "<model>Haswell-noTSX</model>", "superset", ""),
    ("strict", "<model>Haswell-noTSX</model>", "incompatible", "match guest CPU: Extra features: "
                                                               "invtsc"),
    ("strict", "<model>Haswell-noTSX</model><feature policy='optional' "
               "name='invtsc'/>", "identical", ""),
    ("minimum", "<model>Penryn</model>", "superset", ""),
    ("exact", "<model>Haswell</model>", "incompatible", "does not provide required features: hle, "
                                                        "rtm"),
    ("exact", "<model>Haswell</model><feature policy='disable' "
              "name='hle'/>", "incompatible", "features: rtm"),
    (
        "exact",
        "<model>Haswell</model><feature policy='force' name='hle'/><feature policy='optional' "
        "name='rtm'/>",
        "superset",
        "",
    ),
    ("exact", "<model>Penryn</model><feature policy='forbid' "
              "name='avx2'/>", "incompatible", "features: avx2"),
    ("exact", "<model>Penryn</model><vendor>AMD</vendor>", "incompatible", "required CPU vendor "
                                                                           "AMD"),
]  # fmt: skip


@pytest.mark.parametrize(("match", "inside", "verdict", "reason"), VERDICTS)
def test_verdicts(match: str, inside: str, verdict: str, reason: str) -> None:
    comparison = compare(HOST, guest(inside, f"match='{match}'"), MAP)
    assert comparison.verdict == verdict
    assert comparison.reason.endswith(reason)
    assert bool(comparison.reason) == (verdict == "incompatible")
    assert json.loads(json.dumps(comparison.to_json()))["verdict"] == verdict


def test_another_architecture_is_incompatible() -> None:
    assert (
        compare(HOST, HostCpu(arch="ppc64", model="POWER8"), MAP).reason
        == "CPU arch ppc64 does not match host arch"
    )
    assert compare(HOST, HostCpu(arch="i686", model="pentium3"), MAP).verdict == "superset"


@pytest.mark.parametrize(
    ("inside", "message"),
    [
        ("<model>Nothing</model>", "in.xml:1: CPU model 'Nothing' is not in the CPU map"),
        (
            "<model>Penryn</model><feature name='nothing'/>",
            "in.xml:2: CPU feature 'nothing' is not in the CPU map",
        ),
    ],
)
def test_unknown_names_are_refused_with_their_line(inside: str, message: str) -> None:
    (cpu,) = read_cpus(f"<cpu>\n{inside}</cpu>", MAP, name="in.xml")
    with pytest.raises(UnknownNameError) as raised:
        compare(HOST, cpu, MAP)
    assert str(raised.value).startswith(message)


hosts = st.builds(
    lambda model, more: HostCpu(
        model=model, vendor=MAP.models[model].vendor, features=policies(*sorted(more))
    ),
    st.sampled_from(MODELS),
    st.sets(st.sampled_from(FEATURES), max_size=6),
)


@given(hosts)
def test_a_cpu_is_identical_to_itself(host: HostCpu) -> None:
    assert compare(host, host, MAP).verdict == "identical"


@settings(deadline=None, max_examples=40)
@given(st.lists(hosts, min_size=1, max_size=4))
def test_a_baseline_runs_on_every_input(cpus: list[HostCpu]) -> None:
    try:
        common = baseline(cpus, MAP)
    except ResolveError:
        assert len({MAP.models[cpu.model or ""].vendor for cpu in cpus} - {None}) > 1
        return
    for host in cpus:
        assert compare(host, common, MAP).verdict != "incompatible"
    backwards = baseline(cpus[::-1], MAP)
    assert features_of_cpu(backwards, MAP) == features_of_cpu(common, MAP)
    named = baseline(cpus, MAP, features=True)
    assert features_of_cpu(named, MAP) == features_of_cpu(common, MAP)
    assert {f.name for f in named.features} >= MAP.models[named.model or ""].features
    migratable = features_of_cpu(baseline(cpus, MAP, migratable=True), MAP)
    assert migratable == MAP.migratable(features_of_cpu(common, MAP))


@settings(deadline=None, max_examples=40)
@given(hosts, st.sampled_from(["host", "guest"]))
def test_decoding_loses_nothing(host: HostCpu, side: str) -> None:
    features = features_of_cpu(host, MAP)
    vendor = MAP.vendors[host.vendor].string if host.vendor else "GenuineIntel"
    data = with_identity(data_of(features, MAP), vendor, Identity(6, 1, 1))
    decoded = decode(data, MAP, "host" if side == "host" else "guest")
    assert features_of_cpu(decoded, MAP) == features
    if side == "host":
        assert all(feature.policy == "require" for feature in decoded.features)


def test_the_signature_decides_among_models() -> None:
    features = MAP.models["Haswell-noTSX"].features
    data = with_identity(data_of(features, MAP), "GenuineIntel", Identity(6, 58, 0))
    assert decode(data, MAP).model == "IvyBridge"
    data = with_identity(data_of(features, MAP), "GenuineIntel", Identity(6, 60, 0))
    assert decode(data, MAP).model == "Haswell-noTSX"
    assert decode(data, MAP, "guest", ["Penryn", "SandyBridge"]).model == "SandyBridge"
    with pytest.raises(ResolveError):
        decode(data, MAP, "host", ["EPYC"])


def test_tsx_of_the_first_haswells_is_taken_as_absent() -> None:
    data = data_of(MAP.models["Haswell"].features, MAP)
    assert (
        decode(with_identity(data, "GenuineIntel", Identity(6, 60, 3)), MAP).model
        == "Haswell-noTSX"
    )
    assert decode(with_identity(data, "GenuineIntel", Identity(6, 63, 4)), MAP).model == "Haswell"


def test_vendors_must_match_in_a_baseline() -> None:
    with pytest.raises(ResolveError, match="CPU vendors do not match: Intel and AMD"):
        baseline([HOST, HostCpu(model="EPYC", vendor="AMD")], MAP)
    with pytest.raises(
        ResolveError, match="CPU vendor AMD of model EPYC differs from vendor Intel"
    ):
        baseline([HostCpu(model="EPYC", vendor="Intel")], MAP)
    with pytest.raises(InputError, match="at least one"):
        baseline([], MAP)


def test_update() -> None:
    taken = update(
        HOST,
        parse_request("<cpu mode='host-model'><feature policy='disable' name='aes'/></cpu>"),
        MAP,
    )
    assert (taken.mode, taken.match, taken.model, taken.vendor) == (
        "custom",
        "exact",
        "Haswell-noTSX",
        "Intel",
    )
    # HOST has invtsc, and a guest is made of its migratable copy.
    assert [(f.name, f.policy) for f in taken.features] == [("aes", "disable")]
    own = update(
        HOST,
        parse_request("<cpu mode='host-model'><feature policy='require' name='invtsc'/></cpu>"),
        MAP,
    )
    assert [(f.name, f.policy) for f in own.features] == [("invtsc", "require")]
    optional = "<feature policy='optional' name='{}'/>"
    asked = guest("<model>Penryn</model>" + optional.format("avx2") + optional.format("avx512f"))
    judged = update(HOST, asked, MAP)
    assert [(f.name, f.policy) for f in judged.features] == [
        ("avx2", "require"),
        ("avx512f", "disable"),
    ]
    assert (judged.model, judged.match) == ("Penryn", "exact")
    for untouched in (
        guest("<model>Penryn</model>"),
        parse_request("<cpu mode='host-passthrough'/>"),
    ):
        assert update(HOST, untouched, MAP) == untouched


CAPABILITIES = """<capabilities><host><cpu>
  <arch>x86_64</arch><model>EPYC</model><vendor>AMD</vendor>
  <signature family='23' model='1' stepping='2'/><feature name='ht'/>
</cpu></host></capabilities>"""

DOMAIN_CAPABILITIES = """<domainCapabilities><arch>x86_64</arch><cpu>
  <mode name='host-model' supported='yes'><model fallback='forbid'>EPYC</model><vendor>AMD</vendor>
    <feature policy='require' name='ht'/><feature policy='disable' name='npt'/></mode>
  <mode name='custom' supported='yes'><model usable='yes'>EPYC</model>
    <model usable='no'>Penryn</model></mode>
</cpu></domainCapabilities>"""


def test_hosts_are_read_in_every_form() -> None:
    host = read_host(CAPABILITIES, MAP, name="in")
    assert (host.model, host.vendor, host.identity) == ("EPYC", "AMD", Identity(23, 1, 2))
    model = read_host(DOMAIN_CAPABILITIES, MAP)
    assert (model.model, model.fallback, model.usable) == ("EPYC", "forbid", ("EPYC",))
    assert [(f.name, f.policy) for f in model.features] == [("ht", "require"), ("npt", "disable")]
    saved = json.dumps(
        {
            "schema": "cpumap.host/1",
            "arch": "x86_64",
            "model": "EPYC",
            "vendor": "AMD",
            "signature": [23, 1, 2],
            "features": {feature.name: feature.policy == "require" for feature in host.features},
            "usable-models": None,
        }
    )
    assert features_of_cpu(read_host(saved, MAP), MAP) == features_of_cpu(host, MAP)
    assert (
        len(read_cpus(saved + "\n" + saved, MAP)) == len(read_cpus(f"[{saved},{saved}]", MAP)) == 2
    )
    several = (
        "<?xml version='1.0'?>" + CAPABILITIES + "\n<?xml version='1.0'?>" + DOMAIN_CAPABILITIES
    )
    assert [cpu.model for cpu in read_cpus(several + "<cpu><model>Penryn</model></cpu>", MAP)] == [
        "EPYC", "EPYC", "Penryn"
    ]  # fmt: skip
    bare = read_host("<cpu><arch>x86_64</arch><model>Penryn</model><feature name='ht'/></cpu>", MAP)
    assert bare.features[0].name == "ht"


BAD_HOSTS = [
    ("<capabilities/>", "in:1: no <host><cpu>"),
    ("<domainCapabilities/>", "in:1: these domain capabilities describe no host-model CPU"),
    ("<cpu mode='custom'>\n<arch>x86_64</arch><model>n</model></cpu>", "in:1: attribute mode is "
                                                                       "only"),
    ("<cpu><arch>x86_64</arch>\n<feature/></cpu>", "in:2: <feature> without name="),
    ("<cpu><arch>x86_64</arch>\n<feature name='a'/><feature "
     "name='a'/></cpu>", "in:2: CPU feature 'a' specified more"),
    ("<cpu><arch>x86_64</arch><model>n</model><feature policy='disable' "
     "name='a'/></cpu>", "in:1: a host CPU cannot"),
    ("{}", "in: not a saved host: its schema is not"),
    ("{", "in:1: not JSON"),
    ('{"schema": "cpumap.host/1", "arch": 1}', "in: not a saved host: "),
    ("<cpu><model>a</model></cpu><cpu>", "in:1: not well-formed XML"),
    ("<cpu mode='host-passthrough'/>", "in:1: a CPU without a model says nothing of a host"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "message"), BAD_HOSTS)
def test_bad_hosts(text: str, message: str) -> None:
    with pytest.raises(InputError) as raised:
        read_host(text, MAP, name="in")
    assert str(raised.value).startswith(message)
