"""What a description says, what it leaves open, and that what was written for a host is accepted
there again.
"""

from __future__ import annotations

import pytest

from cpumap.cpu.names import FeatureName, PropertyName
from cpumap.cpu.request import CpuRequest, FeaturePolicy
from cpumap.cpu.topology import Topology
from cpumap.hosts.described import DescribedHost, read_described
from cpumap.libvirt.cpu_map.load import load_cpu_map
from cpumap.libvirt.domain import parse_request
from cpumap.pin.translate import explicit_cpu, write
from cpumap.runnable.check import check
from cpumap.runnable.checked import Checked
from cpumap.sources.platform import Platform
from cpumap.sources.recorded import RecordedSource
from cpumap.sources.recordings import find_recording

CPU_MAP = load_cpu_map()
RELEASES = ("7.2", "10.0")

XEON = """<capabilities><host><cpu><arch>x86_64</arch><model>Cascadelake-Server</model>
<vendor>Intel</vendor><feature name='vmx'/><feature name='ss'/><feature name='ht'/>
<feature name='est'/><feature name='tm2'/><feature name='smx'/><feature name='cmt'/>
<feature name='invtsc'/><feature name='arch-capabilities'/><feature name='rdctl-no'/>
</cpu></host></capabilities>"""

ROME = """<cpu><arch>x86_64</arch><model>EPYC-Rome</model><vendor>AMD</vendor>
<feature name='ht'/><feature name='cmp_legacy'/><feature name='topoext'/>
<feature name='skinit'/><feature name='wdt'/><feature name='osxsave'/></cpu>"""

SKYLAKE = """<domainCapabilities><domain>kvm</domain><arch>x86_64</arch>
<cpu><mode name='host-model' supported='yes'><model fallback='forbid'>Skylake-Client-IBRS</model>
<vendor>Intel</vendor><feature policy='require' name='hypervisor'/>
<feature policy='require' name='ss'/></mode></cpu></domainCapabilities>"""

HOSTS = {"xeon": XEON, "rome": ROME, "skylake": SKYLAKE}


def _host(name: str) -> DescribedHost:
    return read_described(HOSTS[name], CPU_MAP, name=f"{name}.xml")


def _platform(release: str) -> Platform:
    return Platform(RecordedSource(find_recording(release, "kvm")), CPU_MAP)


def _on_xeon(model: str, *features: str) -> Checked:
    asked = tuple(FeaturePolicy(FeatureName(name), "require") for name in features)
    request = CpuRequest(machine="pc-q35-7.2", mode="custom", model=model, features=asked)
    return check(request, _platform("7.2"), host=_host("xeon"))


def test_registers_that_a_description_does_not_show_are_not_described() -> None:
    """Capabilities list no VMX capability; which others a register has is said with one of them."""
    found = _on_xeon("Cascadelake-Server", "vmx")
    assert not found.runnable
    assert not found.stopped
    open_names = {lack.feature for lack in found.undescribed}
    assert "vmx-ept" in open_names
    assert all(name.startswith("vmx-") for name in open_names)
    assert {lack.who for lack in found.undescribed} == {"not described (xeon.xml)"}
    assert not _host("xeon").leaves_open(PropertyName("mds-no"))
    assert _host("rome").leaves_open(PropertyName("mds-no"))


@pytest.mark.parametrize("name", ["est", "tm2", "smx"])
def test_what_only_hosts_have_is_not_proven(name: str) -> None:
    found = _on_xeon("Skylake-Server", name)
    assert [lack.feature for lack in found.undescribed] == [name]
    assert not found.runnable


def test_what_is_not_described_stays_on_and_is_said() -> None:
    request = CpuRequest(
        machine="pc-q35-7.2",
        mode="custom",
        model="Cascadelake-Server",
        features=(FeaturePolicy(FeatureName("vmx"), "require"),),
    )
    cpu = explicit_cpu(request, _platform("7.2"), host=_host("xeon"))
    assert cpu.values[PropertyName("vmx-ept")] is True
    assert cpu.values[PropertyName("mpx")] is False  # which the CPU map's Cascadelake lacks
    assert any("does not describe whether guests are given vmx-" in note for note in cpu.notes)


@pytest.mark.parametrize("policy", ["require", "optional"])
def test_what_libvirt_passes_to_no_guest_is_no_lack(policy: str) -> None:
    guest = (
        "<domain type='kvm'><name>g</name><vcpu>1</vcpu>"
        "<os><type arch='x86_64' machine='pc-q35-7.2'>hvm</type></os><cpu mode='custom'>"
        f"<model>Skylake-Server</model><feature policy='{policy}' name='cmt'/></cpu></domain>"
    )
    found = check(parse_request(guest), _platform("7.2"), host=_host("xeon"))
    assert found.runnable, found


GUESTS = {
    "model": "<cpu mode='custom' match='exact'><model>{model}</model>{topology}</cpu>",
    "host-model": "<cpu mode='host-model'>{topology}</cpu>",
    "minimum": "<cpu mode='custom' match='minimum'><model>{model}</model>{topology}</cpu>",
    "optional": "<cpu mode='custom' match='exact'><model>{model}</model>{topology}"
    "<feature policy='optional' name='pcid'/><feature policy='optional' name='svm'/></cpu>",
}
MODELS = {"xeon": "Skylake-Server", "rome": "EPYC", "skylake": "Haswell-noTSX"}


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("kind", GUESTS)
def test_what_was_written_for_a_host_is_accepted_there_again(
    kind: str, host: str, release: str
) -> None:
    """The document is the same again, and `check` says the same before and after: of threads, QEMU
    makes `ht` by itself.
    """
    topology = "<topology sockets='1' cores='2' threads='2'/>"
    cpu = GUESTS[kind].format(model=MODELS[host], topology=topology)
    guest = (
        "<domain type='kvm'><name>g</name><vcpu>4</vcpu><os>"
        f"<type arch='x86_64' machine='pc-q35-7.2'>hvm</type></os>{cpu}<devices/></domain>"
    )
    first = _written(guest, host, release)
    assert _written(first, host, release) == first
    before, after = (
        check(parse_request(text), _platform(release), host=_host(host)) for text in (guest, first)
    )
    assert _said(before) == _said(after)


def _written(guest: str, host: str, release: str) -> str:
    cpu = explicit_cpu(parse_request(guest), _platform(release), host=_host(host))
    return write(cpu, guest, format="xml").decode()


def _said(found: Checked) -> tuple[bool, list[str], list[str]]:
    missing, unsaid = found.missing, found.undescribed
    return found.stopped, [one.feature for one in missing], [one.feature for one in unsaid]


def test_threads_are_the_topologys() -> None:
    request = CpuRequest(
        machine="pc-q35-7.2",
        mode="custom",
        model="Haswell-noTSX",
        topology=Topology(cores=2, threads=2),
        vcpus=4,
    )
    assert check(request, _platform("10.0"), host=_host("skylake")).runnable
