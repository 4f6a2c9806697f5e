"""libvirt as the judge: the same verdicts, baselines and updates from the same CPU map."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from cpumap.arch.x86.own_cpu import own_data
from cpumap.cpu.host import HostCpu
from cpumap.cpu.request import CpuRequest
from cpumap.errors import CpumapError
from cpumap.hosts.read import read_cpus, read_host
from cpumap.libvirt.cpu_map.load import load_cpu_map
from cpumap.libvirt.cpu_map.map import CpuMap
from cpumap.libvirt.domain import parse_request
from cpumap.libvirt.rules.baseline import baseline
from cpumap.libvirt.rules.compare import compare, features_of_cpu
from cpumap.libvirt.rules.decode import host_of
from cpumap.libvirt.rules.update import update

if TYPE_CHECKING:
    import libvirt

pytestmark = [pytest.mark.live, pytest.mark.xdist_group("libvirt")]

LIBVIRTS = Path("/usr/share/libvirt/cpu_map")
QEMU = "/usr/bin/qemu-system-x86_64"
MACHINE = "pc-q35-7.2"
VERDICTS = {0: "incompatible", 1: "identical", 2: "superset"}
Ask = Callable[[list[str], int], str]
POLICIES = ("force", "require", "optional", "disable", "forbid")


@pytest.fixture(scope="module")
def cpu_map() -> CpuMap:
    return load_cpu_map(LIBVIRTS)


@pytest.fixture(scope="module")
def hosts(
    libvirt_connection: libvirt.virConnect, cpu_map: CpuMap
) -> list[tuple[HostCpu, Callable[[str, int], int]]]:
    """Each host that libvirt knows of here, and how to ask it for a comparison."""
    connection: Any = libvirt_connection
    found = [(read_host(connection.getCapabilities(), cpu_map), connection.compareCPU)]
    for kind in ("kvm", "qemu"):
        capabilities = connection.getDomainCapabilities(QEMU, "x86_64", MACHINE, kind)
        found.append((read_host(capabilities, cpu_map), _hypervisor(connection, kind)))
    return found


def _hypervisor(connection: Any, kind: str) -> Callable[[str, int], int]:
    return lambda xml, flags: connection.compareHypervisorCPU(
        QEMU, "x86_64", MACHINE, kind, xml, flags
    )


def features(chosen: list[str], policies: tuple[str, ...], seed: random.Random) -> Iterator[str]:
    for name in chosen:
        policy = f" policy='{seed.choice(policies)}'" if policies else ""
        yield f"<feature{policy} name='{name}'/>"


def guest(host: HostCpu, cpu_map: CpuMap, seed: random.Random) -> str:
    """A guest's `<cpu>`, half of them near to what the host has."""
    near = seed.random() < 0.5 and host.model is not None
    model = str(host.model) if near else seed.choice(list(cpu_map.models))
    pool = sorted(features_of_cpu(host, cpu_map)) if near else list(cpu_map.features)
    match = seed.choice(["", " match='exact'", " match='minimum'", " match='strict'"])
    vendor = seed.choice(["", "", "<vendor>Intel</vendor>", "<vendor>AMD</vendor>"])
    inside = "".join(features(seed.sample(pool, seed.choice([0, 0, 1, 2, 5])), POLICIES, seed))
    return f"<cpu{match}><model>{model}</model>{vendor}{inside}</cpu>"


def host_xml(cpu_map: CpuMap, seed: random.Random, model: str | None = None) -> str:
    name = model or seed.choice(list(cpu_map.models))
    vendor = seed.choice(["", f"<vendor>{cpu_map.models[name].vendor or 'Intel'}</vendor>"])
    inside = "".join(
        features(seed.sample(list(cpu_map.features), seed.choice([0, 0, 1, 3, 10])), (), seed)
    )
    return f"<cpu><arch>x86_64</arch><model>{name}</model>{vendor}{inside}</cpu>"


def test_comparisons(
    hosts: list[tuple[HostCpu, Callable[[str, int], int]]], cpu_map: CpuMap
) -> None:
    import libvirt

    seed = random.Random(2024)
    seen = set()
    for _ in range(400):
        host, ask = seed.choice(hosts)
        xml = (
            guest(host, cpu_map, seed)
            if seed.random() < 0.8
            else host_xml(cpu_map, seed, host.model)
        )
        (cpu,) = read_cpus(xml, cpu_map)
        ours = compare(host, cpu, cpu_map)
        assert ours.verdict == VERDICTS[ask(xml, 0)], xml
        if ours.verdict == "incompatible":
            with pytest.raises(libvirt.libvirtError) as raised:
                ask(xml, libvirt.VIR_CONNECT_COMPARE_CPU_FAIL_INCOMPATIBLE)
            assert str(raised.value).endswith(ours.reason), xml
        seen.add(ours.verdict)
    assert {"superset", "incompatible"} <= seen


def test_a_host_is_identical_to_itself(
    hosts: list[tuple[HostCpu, Callable[[str, int], int]]], cpu_map: CpuMap
) -> None:
    for host, ask in hosts:
        named = "".join(f"<feature policy='{f.policy}' name='{f.name}'/>" for f in host.features)
        xml = f"<cpu match='exact'><model>{host.model}</model>{named}</cpu>"
        assert (
            compare(host, parse_request(xml), cpu_map).verdict
            == VERDICTS[ask(xml, 0)]
            == "identical"
        )


def cpu_xml(cpu: CpuRequest) -> str:
    vendor = [f"  <vendor>{cpu.vendor}</vendor>"] if cpu.vendor else []
    named = [f"  <feature policy='{f.policy}' name='{f.name}'/>" for f in cpu.features]
    model = f"  <model fallback='{cpu.fallback}'>{cpu.model}</model>"
    return "\n".join(["<cpu mode='custom' match='exact'>", model, *vendor, *named, "</cpu>", ""])


def test_baselines(libvirt_connection: libvirt.virConnect, cpu_map: CpuMap) -> None:
    """The same `<cpu>`, byte for byte; or both refuse."""
    seed = random.Random(2025)
    same = refused = improved = 0
    for _ in range(400):
        model = seed.choice(list(cpu_map.models)) if seed.random() < 0.4 else None
        inputs = [host_xml(cpu_map, seed, model) for _ in range(seed.choice([1, 2, 2, 3]))]
        named, migratable = seed.choice(
            [(False, False), (True, False), (False, True), (True, True)]
        )
        theirs = _baseline(libvirt_connection.baselineCPU, inputs, named + 2 * migratable)
        try:
            cpus = [read_host(xml, cpu_map) for xml in inputs]
            ours = cpu_xml(baseline(cpus, cpu_map, features=named, migratable=migratable))
        except CpumapError:
            ours = None
        if ours == theirs:
            same, refused = same + (ours is not None), refused + (ours is None)
        else:
            assert _mixes_vendors(cpus, cpu_map), (inputs, ours, theirs)
            improved += 1
    assert same > 250 and refused > 10 and improved > 0


def _mixes_vendors(cpus: list[HostCpu], cpu_map: CpuMap) -> bool:
    """Whether libvirt overlooks the vendor of the first CPU's model, since that CPU names none."""
    vendors = [cpu.vendor or cpu_map.models[str(cpu.model)].vendor for cpu in cpus]
    return cpus[0].vendor is None and vendors[0] is not None and vendors[0] not in vendors[1:]


def _baseline(ask: Ask, inputs: list[str], flags: int) -> str | None:
    import libvirt

    try:
        answer: str = ask(inputs, flags)
    except libvirt.libvirtError:
        return None
    return answer


def test_this_host_is_decoded_as_libvirt_does(
    libvirt_connection: libvirt.virConnect, cpu_map: CpuMap
) -> None:
    theirs = read_host(libvirt_connection.getCapabilities(), cpu_map)
    ours = host_of(own_data()[0], cpu_map)
    assert (ours.model, ours.vendor, ours.identity) == (
        theirs.model,
        theirs.vendor,
        theirs.identity,
    )
    assert [f.name for f in ours.features] == [f.name for f in theirs.features]


DOMAIN = """<domain type='qemu'><name>cpumap-{name}</name><memory>65536</memory>
<os><type arch='x86_64' machine='pc-q35-7.2'>hvm</type></os>{cpu}
<devices><emulator>/usr/bin/qemu-system-x86_64</emulator></devices></domain>"""

RELATIVE = [
    "<cpu mode='host-model'/>",
    "<cpu mode='host-model'><feature name='avx2' policy='disable'/><feature name='monitor' "
    "policy='optional'/></cpu>",
    "<cpu match='minimum'><model>Opteron_G3</model><feature name='avx2' policy='disable'/></cpu>",
    "<cpu match='minimum'><model>Opteron_G3</model><feature name='lahf_lm' policy='forbid'/>"
    "<feature name='bmi1' policy='force'/></cpu>",
    "<cpu match='exact'><model>Haswell</model><feature name='avx512f' policy='optional'/>"
    "<feature name='monitor' policy='optional'/></cpu>",
    "<cpu mode='host-passthrough'/>",
    "<cpu match='exact'><model>Haswell</model></cpu>",
]


@pytest.mark.parametrize("cpu", RELATIVE)
def test_updates(libvirt_connection: libvirt.virConnect, cpu_map: CpuMap, cpu: str) -> None:
    import libvirt

    # a name of its own: a run that was killed may have left one behind
    domain = DOMAIN.format(cpu=cpu, name=uuid4())
    defined = libvirt_connection.defineXML(domain)
    try:
        flags = libvirt.VIR_DOMAIN_XML_UPDATE_CPU | libvirt.VIR_DOMAIN_XML_INACTIVE
        theirs = parse_request(defined.XMLDesc(flags))
    finally:
        defined.undefine()
    capabilities = libvirt_connection.getDomainCapabilities(QEMU, "x86_64", MACHINE, "qemu")
    ours = update(read_host(capabilities, cpu_map), parse_request(domain), cpu_map)
    assert _essence(ours) == _essence(theirs)


def _essence(cpu: CpuRequest) -> tuple[object, ...]:
    return cpu.mode, cpu.model, cpu.vendor, cpu.fallback, [(f.name, f.policy) for f in cpu.features]
