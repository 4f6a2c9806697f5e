"""What `check` knows beside features: rules of machine types and Hyper-V, vendor, match='strict',
models of later releases, and what starts and will hurt.
"""

from __future__ import annotations

import pytest

from cpumap.errors import UnknownNameError
from cpumap.hosts.described import DescribedHost, read_described
from cpumap.libvirt.cpu_map.load import load_cpu_map
from cpumap.libvirt.domain import parse_request
from cpumap.pin.expand import expand
from cpumap.runnable.check import check
from cpumap.runnable.checked import Checked
from cpumap.sources.platform import Platform
from cpumap.sources.recorded import RecordedSource
from cpumap.sources.recordings import find_recording

CPU_MAP = load_cpu_map()
KVM = {release: RecordedSource(find_recording(release, "kvm")) for release in ("7.2", "10.0")}
TCG = RecordedSource(find_recording("10.0", "tcg"))

INTEL = """<cpu><arch>x86_64</arch><model>Skylake-Server-IBRS</model><vendor>Intel</vendor>
<feature name='vmx'/><feature name='invtsc'/></cpu>"""
AMD = """<cpu><arch>x86_64</arch><model>EPYC-Rome</model><vendor>AMD</vendor>
<feature name='topoext'/><feature name='invtsc'/><feature name='svm'/></cpu>"""


def _host(text: str) -> DescribedHost:
    return read_described(text, CPU_MAP, name="host.xml")


def _domain(
    cpu: str, *, machine: str = "pc-q35-10.0", vcpus: int = 4, more: str = "", kind: str = "kvm"
) -> str:
    return f"""<domain type='{kind}'><name>g</name><vcpu>{vcpus}</vcpu>
<os><type arch='x86_64' machine='{machine}'>hvm</type></os>{more}{cpu}</domain>"""


def _custom(model: str, inside: str = "", attributes: str = "check='partial'") -> str:
    return f"<cpu mode='custom' match='exact' {attributes}><model>{model}</model>{inside}</cpu>"


def _hyperv(*names: str) -> str:
    inside = "".join(f"<{name} state='on'/>" for name in names)
    return f"<features><hyperv mode='custom'>{inside}</hyperv></features>"


HYPERVCLOCK = "<clock offset='utc'><timer name='hypervclock' present='yes'/></clock>"


def _checked(text: str, host: str = INTEL, release: str = "10.0") -> Checked:
    platform = Platform(KVM[release], CPU_MAP)
    return check(parse_request(text, name="guest.xml"), platform, host=_host(host))


def test_more_vcpus_than_the_machine_type_has_are_refused() -> None:
    found = _checked(_domain(_custom("Nehalem"), machine="pc-i440fx-10.0", vcpus=256))
    assert "256 vCPUs are more than the 255" in found.refused
    assert _checked(_domain(_custom("Nehalem"), machine="pc-i440fx-10.0", vcpus=255)).runnable


def test_many_vcpus_on_q35_need_what_is_not_looked_at() -> None:
    found = _checked(_domain(_custom("Nehalem"), vcpus=256))
    assert found.runnable
    assert "<iommu> with eim='on'" in found.unproven


@pytest.mark.parametrize(
    ("machine", "topology", "said"),
    [
        ("pc-q35-10.0", "dies='1' clusters='2' cores='2'", "clusters > 1"),
        ("pc-i440fx-7.2", "dies='1' clusters='2' cores='2'", "clusters > 1"),
        ("microvm", "dies='2' cores='2'", "dies > 1"),
        ("pc-q35-10.0", "dies='2' clusters='1' cores='2'", ""),
    ],
)
def test_a_topology_is_one_that_the_machine_type_has(
    machine: str, topology: str, said: str
) -> None:
    inside = f"<topology sockets='1' {topology} threads='1'/>"
    found = _checked(_domain(_custom("Nehalem", inside), machine=machine))
    assert found.refused.startswith(said)
    assert found.runnable is (said == "")


@pytest.mark.parametrize(
    ("names", "more", "said"),
    [
        (("stimer",), "", "hv-stimer needs hv-vpindex, hv-synic, hv-time"),
        (("vpindex", "synic", "stimer"), "", "hv-stimer needs hv-time"),
        (("vpindex", "synic", "stimer"), HYPERVCLOCK, ""),
        (("synic",), "", "hv-synic needs hv-vpindex"),
        (("evmcs",), "", "hv-evmcs needs hv-vapic"),
        (("evmcs", "vapic"), "", "hv-evmcs needs vmx"),
        (("tlbflush", "ipi"), "", "hv-tlbflush needs hv-vpindex; hv-ipi needs hv-vpindex"),
    ],
)
def test_enlightenments_have_what_they_need(names: tuple[str, ...], more: str, said: str) -> None:
    found = _checked(_domain(_custom("Nehalem"), more=_hyperv(*names) + more))
    assert said in found.refused
    assert found.runnable is (said == "")


def test_evmcs_starts_beside_vmx() -> None:
    nested = _custom("Nehalem", "<feature policy='require' name='vmx'/>")
    assert not _checked(_domain(nested, more=_hyperv("evmcs", "vapic"))).refused


def test_tcg_ignores_enlightenments() -> None:
    text = _domain("<cpu mode='custom'><model>qemu64</model></cpu>", kind="qemu", vcpus=1)
    more = text.replace("<cpu", _hyperv("stimer") + "<cpu", 1)
    found = check(parse_request(more, name="guest.xml"), Platform(TCG, CPU_MAP))
    assert not found.refused


def test_the_rules_need_no_host_of_a_recording_under_kvm() -> None:
    request = parse_request(_domain(_custom("Haswell"), more=_hyperv("stimer")), name="guest.xml")
    assert "hv-stimer" in check(request, Platform(KVM["10.0"], CPU_MAP)).refused


def test_another_vendor_than_the_one_required() -> None:
    text = _domain(_custom("qemu64", "<vendor>Intel</vendor>"))
    found = _checked(text, AMD)
    assert found.refused == "host CPU vendor does not match required CPU vendor Intel"
    assert not _checked(text, INTEL).refused


def test_what_libvirt_does_not_compare_is_a_warning() -> None:
    found = _checked(_domain(_custom("kvm64", "<vendor>Intel</vendor>", "check='none'")), AMD)
    assert not found.refused
    assert any("vendor" in warning for warning in found.warnings)


def test_a_strict_match_is_refused_for_what_the_host_has_beyond() -> None:
    text = _domain("<cpu match='strict' check='partial'><model>Nehalem</model></cpu>")
    found = _checked(text)
    assert "does not strictly match guest CPU: Extra features:" in found.refused
    assert "avx512f" in found.refused
    assert "sse4" not in found.refused


def test_flags_of_a_cpu_string_count_like_features() -> None:
    found = check(
        parse_request("-cpu host,+svm,+sse4a,+avx,l3-cache=on", name="-"),
        Platform(KVM["7.2"], CPU_MAP),
        host=_host(INTEL),
    )
    assert [lack.property for lack in found.missing] == ["sse4a", "svm"]


def test_a_model_of_a_later_release_is_told_with_the_first_that_has_it() -> None:
    text = _domain(_custom("SapphireRapids"), machine="pc-q35-7.2")
    words = "recorded QEMU 7.2.22 has no SapphireRapids: QEMU 9.0.0 is the first recorded that has"
    assert words in _checked(text, release="7.2").refused
    with pytest.raises(UnknownNameError, match=words):
        expand(parse_request(text, name="guest.xml"), Platform(KVM["7.2"], CPU_MAP))


def test_a_tsc_that_never_changes_wants_its_frequency_named() -> None:
    invtsc = _custom("Haswell-noTSX", "<feature policy='require' name='invtsc'/>")
    named = "<clock offset='utc'><timer name='tsc' frequency='2600000000'/></clock>"
    (said,) = _checked(_domain(invtsc)).warnings
    assert said.startswith("invtsc blocks migration")
    assert not _checked(_domain(invtsc, more=named)).warnings
    (said,) = _checked(_domain(_custom("Nehalem"), more=_hyperv("reenlightenment"))).warnings
    assert said.startswith("hv-reenlightenment blocks migration")


@pytest.mark.parametrize(
    ("model", "inside", "host", "is_warned"),
    [
        ("EPYC-Rome", "<feature policy='disable' name='topoext'/>", AMD, True),
        ("EPYC-Rome", "", AMD, False),
        ("qemu64", "", AMD, True),
        ("qemu64", "", INTEL, False),
    ],
)
def test_threads_that_an_amd_cpu_does_not_show(
    model: str, inside: str, host: str, is_warned: bool
) -> None:
    topology = "<topology sockets='1' dies='1' cores='2' threads='2'/>"
    found = _checked(_domain(_custom(model, topology + inside, "check='none'")), host)
    assert any("2 threads a core" in warning for warning in found.warnings) is is_warned


def test_address_bits_of_whatever_host() -> None:
    found = _checked(_domain(_custom("Nehalem", "<maxphysaddr mode='passthrough'/>")))
    assert any("address bits" in warning for warning in found.warnings)


def test_features_that_nobody_checks_are_named() -> None:
    found = _checked(_domain(_custom("EPYC", "", "check='none'")))
    assert not found.runnable
    (said,) = [warning for warning in found.warnings if warning.startswith("check='none'")]
    assert "sse4a" in said
    assert not [w for w in _checked(_domain(_custom("EPYC"))).warnings if w.startswith("check")]


@pytest.mark.parametrize("setting", ["stepping=99", "phys-bits=99"])
def test_values_that_qemu_refuses(setting: str) -> None:
    request = parse_request(f"-cpu Nehalem,{setting}", name="-")
    with pytest.raises(UnknownNameError, match=f"'{setting.partition('=')[0]}' must be between"):
        check(request, Platform(TCG, CPU_MAP))
