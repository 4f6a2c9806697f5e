"""The models that a hypervisor can run, with what blocks each, and the nearest of them."""

from __future__ import annotations

import json

import pytest

from cpumap.cpu.host import HostCpu
from cpumap.cpu.names import FeatureName
from cpumap.errors import ResolveError
from cpumap.hosts.read import read_host
from cpumap.libvirt.cpu_map.load import load_cpu_map
from cpumap.libvirt.domain import parse_request
from cpumap.libvirt.rules.baseline import baseline
from cpumap.libvirt.rules.usable import on_hypervisor, usable_on, usable_on_all

MAP = load_cpu_map()
RTM, PCID = FeatureName("rtm"), FeatureName("pcid")

CAPABILITIES = """<domainCapabilities><arch>x86_64</arch><cpu>
  <mode name='host-model' supported='yes'><model fallback='forbid'>Haswell</model></mode>
  <mode name='custom' supported='yes'>
    <model usable='yes'>IvyBridge</model>
    <model usable='no'>Haswell</model>
    <blockers model='Haswell'><feature name='rtm'/></blockers>
    <model usable='no'>Penryn</model>
    <model usable='no'>Broadwell</model>
    <blockers model='Broadwell'><feature name='a-feature-of-tomorrow'/></blockers>
  </mode></cpu></domainCapabilities>"""

SAVED = {
    "schema": "cpumap.host/1",
    "arch": "x86_64",
    "model": "Haswell",
    "vendor": "Intel",
    "features": {},
    "usable-models": ["IvyBridge", "Penryn"],
    "unavailable": {"Haswell": ["pcid"]},
}


def test_domain_capabilities_say_what_blocks_a_model() -> None:
    host = read_host(CAPABILITIES, MAP)
    assert usable_on(host, MAP) == {"IvyBridge": (), "Haswell": (RTM,)}


def test_a_saved_host_says_it_in_the_names_of_its_qemu() -> None:
    host = read_host(json.dumps(SAVED), MAP)
    assert usable_on(host, MAP) == {"IvyBridge": (), "Penryn": (), "Haswell": (PCID,)}


def test_what_several_hosts_can_run() -> None:
    hosts = [read_host(CAPABILITIES, MAP), read_host(json.dumps(SAVED), MAP)]
    assert usable_on_all(hosts, MAP) == {"Haswell": (RTM, PCID), "IvyBridge": ()}
    assert usable_on_all([HostCpu(model="Haswell")], MAP) is None


def test_a_baseline_disables_what_blocks_its_model() -> None:
    host = read_host("<cpu><arch>x86_64</arch><model>Haswell</model></cpu>", MAP)
    common = baseline([host], MAP, models={"Haswell": (RTM,), "Penryn": ()})
    assert common.model == "Haswell"
    assert [(f.name, f.policy) for f in common.features] == [(RTM, "disable")]


GUEST = "<cpu match='exact'><model fallback='{}'>Haswell</model>{}</cpu>"


def test_fallback_takes_the_nearest_model() -> None:
    asked = parse_request(GUEST.format("allow", "<feature policy='forbid' name='avx2'/>"))
    meant = on_hypervisor(asked, MAP, {"IvyBridge": (), "Penryn": ()})
    policies = {str(feature.name): feature.policy for feature in meant.features}
    assert meant.model == "IvyBridge"
    assert (policies["avx2"], policies["fma"]) == ("forbid", "require")
    assert on_hypervisor(asked, MAP, {"Haswell": (RTM,)}) == asked


def test_fallback_forbidden() -> None:
    with pytest.raises(ResolveError, match="CPU model Haswell is not supported by hypervisor"):
        on_hypervisor(parse_request(GUEST.format("forbid", "")), MAP, {"IvyBridge": ()})


def test_other_modes_have_no_model_to_replace() -> None:
    for mode in ("host-passthrough", "maximum"):
        asked = parse_request(f"<cpu mode='{mode}'/>")
        assert on_hypervisor(asked, MAP, {"IvyBridge": ()}) == asked


@pytest.mark.parametrize("shown", [("acpi", "aes", "avx"), ("avx", "acpi", "aes")])
def test_a_host_model_shown_by_the_alphabet_is_taken_in_the_maps_order(
    shown: tuple[str, ...],
) -> None:
    features = "".join(f"<feature policy='require' name='{name}'/>" for name in shown)
    document = CAPABILITIES.replace("Haswell</model></mode>", f"Haswell</model>{features}</mode>")
    taken = [feature.name for feature in read_host(document, MAP).features]
    names = [FeatureName(name) for name in shown]
    by_alphabet = list(shown) == sorted(shown)
    assert taken == (sorted(names, key=list(MAP.features).index) if by_alphabet else names)
