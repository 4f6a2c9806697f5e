"""libvirtds of several releases as the judges of `update`, `baseline` and a host's model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import libvirt
import pytest

from cpumap.cpu.host import UNKNOWN_MACHINE
from cpumap.cpu.request import CpuRequest
from cpumap.hosts.read import read_host
from cpumap.libvirt.cpu_map.load import load_cpu_map
from cpumap.libvirt.cpu_map.map import CpuMap
from cpumap.libvirt.domain import parse_request
from cpumap.libvirt.rules.baseline import baseline
from cpumap.libvirt.rules.update import update
from cpumap.runnable.available import available
from cpumap.runnable.available_json import available_host
from cpumap.sources.live import QemuSource
from cpumap.sources.platform import Platform
from tests.live.test_libvirt_releases import QEMU_OF
from tests.support.libvirt_code import CPU_MAP
from tests.support.libvirt_releases import EMULATOR, ReleasedDaemon, root_of

pytestmark = pytest.mark.live

DOMAIN = """<domain type='qemu'><name>asked</name><memory>65536</memory>
<os><type arch='x86_64' machine='q35'>hvm</type></os>{cpu}
<devices><emulator>{emulator}</emulator></devices></domain>"""

RELATIVE = (
    "<cpu mode='host-model'/>",
    "<cpu mode='host-model'><feature name='invtsc' policy='require'/>"
    "<feature name='monitor' policy='optional'/></cpu>",
    "<cpu match='minimum'><model>Opteron_G3</model><feature name='avx2' policy='disable'/></cpu>",
    "<cpu match='exact'><model>EPYC</model><feature name='avx512f' policy='optional'/></cpu>",
    "<cpu match='exact'><model>Icelake-Server</model><feature name='mpx' policy='require'/></cpu>",
    "<cpu match='exact'><model>Skylake-Server</model><feature name='cmt' policy='require'/></cpu>",
)

HOSTS = (
    "<cpu><arch>x86_64</arch><model>Haswell</model><vendor>Intel</vendor>"
    "<feature name='cmt'/><feature name='invtsc'/></cpu>",
    "<cpu><arch>x86_64</arch><model>Skylake-Server</model><vendor>Intel</vendor></cpu>",
)


def map_of(daemon: ReleasedDaemon) -> CpuMap:
    return load_cpu_map(root_of(daemon.release) / CPU_MAP)


def test_updates(released_libvirtd: ReleasedDaemon) -> None:
    connection, cpu_map = released_libvirtd.open(), map_of(released_libvirtd)
    host = read_host(connection.getDomainCapabilities(EMULATOR, None, "q35", "qemu"), cpu_map)
    for cpu in RELATIVE:
        asked = DOMAIN.format(cpu=cpu, emulator=EMULATOR)
        theirs = updated_by(connection, asked)
        assert essence(update(host, parse_request(asked), cpu_map)) == essence(theirs), cpu
    connection.close()


def updated_by(connection: Any, domain: str) -> CpuRequest:
    defined = connection.defineXML(domain)
    try:
        flags = libvirt.VIR_DOMAIN_XML_UPDATE_CPU | libvirt.VIR_DOMAIN_XML_INACTIVE
        return parse_request(defined.XMLDesc(flags))
    finally:
        defined.undefine()


def essence(cpu: CpuRequest) -> tuple[object, ...]:
    features = [(f.name, f.policy) for f in cpu.features]
    return cpu.mode, cpu.match, cpu.model, cpu.vendor, cpu.fallback, features


def test_baselines(released_libvirtd: ReleasedDaemon) -> None:
    connection, cpu_map = released_libvirtd.open(), map_of(released_libvirtd)
    for count in (1, 2):
        hosts = list(HOSTS[:count])
        ours = baseline([read_host(host, cpu_map) for host in hosts], cpu_map)
        theirs = parse_request(connection.baselineCPU(hosts, 0))
        assert essence(ours) == essence(theirs), hosts
    connection.close()


def test_the_model_that_stands_for_a_host(
    released_libvirtd: ReleasedDaemon, qemus: dict[str, Path]
) -> None:
    connection, cpu_map = released_libvirtd.open(), map_of(released_libvirtd)
    theirs = read_host(connection.getDomainCapabilities(EMULATOR, None, "q35", "qemu"), cpu_map)
    connection.close()
    source = QemuSource(str(qemus[QEMU_OF[released_libvirtd.release]]), "tcg")
    try:
        found = available(Platform(source, cpu_map), UNKNOWN_MACHINE, options=False)
    finally:
        source.close()
    ours = available_host(found, cpu_map)
    assert (ours.model, ours.vendor) == (theirs.model, theirs.vendor)
