"""Domain XML that holds: through a real libvirtd, a pinned guest has the CPU that it had before,
and was meant to have.

Guests are started paused, without disks. Each definition is started as it was and as translated,
and four things are compared: the command line that libvirt writes, the CPU that QEMU realises, what
libvirt's live XML says of it, and the definition read back.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from lxml import etree

from cpumap.arch.x86.x86 import X86_64
from cpumap.cpu.expansion import Realised
from cpumap.cpu.explicit import ExplicitCpu
from cpumap.cpu.names import Accel
from cpumap.libvirt.cpu_map.load import load_cpu_map
from cpumap.libvirt.domain import parse_request
from cpumap.libvirt.words import libvirt_map
from cpumap.pin.resolve import Choices, Pin
from cpumap.pin.translate import explicit_cpu, write
from cpumap.pin.write import lasting
from cpumap.qemu.arguments import property_text
from cpumap.qemu.cpu_option import parse_cpu_option
from cpumap.qemu.qmp import Session
from cpumap.sources.attached import AttachedSource
from cpumap.sources.libvirt import Hypervisor
from cpumap.sources.live import QemuSource
from cpumap.sources.platform import Platform
from tests.support import libvirtd
from tests.support.definitions import Case, model

pytestmark = [pytest.mark.live, pytest.mark.xdist_group("libvirt")]

HYPERV = "".join(
    f"<{name} state='on'/>" for name in ("relaxed", "vapic", "runtime", "reset", "frequencies")
)
ALL_FEATURES = (
    "<feature policy='require' name='pclmuldq'/><feature policy='force' name='aes'/>"
    "<feature policy='disable' name='cx16'/><feature policy='forbid' name='monitor'/>"
)


BOTH: tuple[Pin, ...] = ("model", "custom")
CASES = {
    "default": Case(pins=BOTH),
    "default-i440fx-old": Case(machine="pc-i440fx-2.4"),
    "default-kvm": Case(kind="kvm", pins=BOTH),
    "default-i686": Case(arch="i686", machine="pc-i440fx-7.2"),
    "penryn": Case("<cpu><model>Penryn</model></cpu>", pins=BOTH),
    "penryn-old": Case(model("Penryn"), machine="pc-q35-2.4"),
    "haswell": Case(model("Haswell"), pins=BOTH),
    "haswell-i440fx": Case(model("Haswell"), machine="pc-i440fx-7.2"),
    "haswell-i440fx-old": Case(model("Haswell"), machine="pc-i440fx-2.4"),
    "haswell-notsx": Case(model("Haswell-noTSX-IBRS")),
    "skylake-server": Case(model("Skylake-Server-IBRS"), machine="pc-q35-4.0"),
    "icelake": Case(model("Icelake-Server"), machine="pc-q35-5.2"),
    "cascadelake": Case(
        model("Cascadelake-Server-noTSX", "<feature policy='require' name='vmx'/>")
    ),
    "epyc": Case(model("EPYC"), machine="pc-q35-3.1", pins=BOTH),
    "epyc-rome": Case(model("EPYC-Rome"), machine="pc-i440fx-6.2"),
    "opteron": Case(model("Opteron_G3")),
    "32-bit": Case(model("coreduo")),
    "486": Case(model("486"), machine="pc-i440fx-7.2"),
    "policies": Case(model("Westmere", ALL_FEATURES), pins=BOTH),
    "policies-off": Case(
        model(
            "Haswell",
            "<feature policy='disable' name='rtm'/><feature policy='disable' name='hle'/>",
        )
    ),
    "vendor-id": Case(model("Nehalem", attributes=" vendor_id='KVMKVMKVM001'"), pins=BOTH),
    "cache-emulate": Case(
        model("SandyBridge", "<cache mode='emulate' level='3'/>"), machine="pc-q35-2.5"
    ),
    "cache-disable": Case(model("SandyBridge", "<cache mode='disable'/>"), pins=BOTH),
    "maxphysaddr": Case(model("IvyBridge", "<maxphysaddr mode='emulate' bits='39'/>"), pins=BOTH),
    "hyperv": Case(
        "<cpu><model>Penryn</model></cpu>", features=f"<hyperv>{HYPERV}</hyperv>", pins=BOTH
    ),
    "hyperv-vendor": Case(
        "<cpu><model>Conroe</model></cpu>",
        features="<hyperv><relaxed state='on'/><vendor_id state='on' value='somebody'/>"
        "<spinlocks state='on' retries='8191'/></hyperv>",
        kind="kvm",
    ),
    "kvm-hidden": Case(
        "<cpu><model>Conroe</model></cpu>",
        features="<kvm><hidden state='on'/></kvm><pmu state='off'/>",
        kind="kvm",
    ),
    "kvm-timers": Case(
        "<cpu><model>kvm64</model></cpu>",
        clock="<timer name='kvmclock' present='no'/>",
        features="<apic eoi='on'/><pvspinlock state='off'/>",
        kind="kvm",
        machine="pc-q35-2.12",
    ),
    "topology-cores": Case(
        model("Penryn", "<topology sockets='1' cores='4' threads='1'/>"), vcpu=4
    ),
    "topology-threads": Case(
        model("EPYC-Milan", "<topology sockets='2' cores='2' threads='2'/>"), vcpu=8
    ),
    "topology-dies": Case(
        model("Haswell", "<topology sockets='1' dies='2' cores='2' threads='1'/>"),
        vcpu=4,
        pins=BOTH,
    ),
    "sockets": Case(model("Penryn"), vcpu=4, machine="pc-q35-6.0"),
    "numa": Case(
        model(
            "Westmere",
            "<topology sockets='2' cores='1' threads='1'/><numa><cell id='0' cpus='0' "
            "memory='65536' unit='KiB'/>"
            "<cell id='1' cpus='1' memory='65536' unit='KiB'/></numa>",
        ),
        vcpu=2,
    ),
    "maximum": Case("<cpu mode='maximum'/>"),
    "maximum-migratable": Case("<cpu mode='maximum' migratable='off'/>"),
    "5.2": Case(
        model("Haswell", "<topology sockets='1' cores='2' threads='1'/>"),
        "pc-q35-5.2",
        release="5.2",
        vcpu=2,
    ),
    "10.0": Case(
        model("Penryn", "<topology sockets='1' cores='2' threads='1'/>"),
        "pc-q35-10.0",
        release="10.0",
        vcpu=2,
    ),
    "10.0-epyc-old": Case(model("EPYC"), "pc-i440fx-5.2", release="10.0", pins=BOTH),
    "10.0-maximum": Case("<cpu mode='maximum'/>", "pc-q35-9.0", release="10.0"),
    "11.1": Case(
        model("Haswell", "<topology sockets='1' cores='2' threads='2'/>"),
        "pc-q35-11.1",
        release="11.1",
        vcpu=4,
    ),
    "own-cpu": Case(
        model("Haswell"),
        features="<pmu state='on'/>",
        arguments=("-cpu", "Penryn,vendor=GenuineIntel,+ssse3,+popcnt,vmware-cpuid-freq=on,check"),
        pins=BOTH,
    ),
    "own-cpu-kvm": Case(
        "<cpu mode='host-passthrough' check='none'><cache mode='passthrough'/></cpu>",
        features="<hyperv><relaxed state='on'/><spinlocks state='on' retries='8191'/></hyperv>"
        "<kvm><hidden state='on'/></kvm>",
        kind="kvm",
        clock="<timer name='kvmclock' present='no'/>",
        vcpu=4,
        arguments=("-cpu", "Penryn,kvm=on,vendor=GenuineIntel,+ssse3"),
    ),
    "own-cpu-twice": Case(
        arguments=("-cpu", "EPYC", "--cpu", "Nehalem,level=10", "--global", "x86_64-cpu.level=9"),
    ),
    "own-cpu-globals": Case(
        "<cpu mode='maximum'/>",
        arguments=(
            "-global",
            "driver=Opteron_G3-x86_64-cpu,property=xlevel,value=0x8000001a",
            "-cpu",
            "Opteron_G3",
        ),
    ),
    "own-globals": Case(
        model("Opteron_G3"),
        arguments=(
            "--global",
            "driver=Opteron_G3-x86_64-cpu,property=xlevel,value=0x8000001a",
            "-global",
            "x86_64-cpu.level=9",
        ),
    ),
    "own-cpu-libvirt-lacks": Case(
        model("Westmere"), "pc-q35-11.1", release="11.1", arguments=("-cpu", "base,+avx,level=13")
    ),
    "11.1-custom": Case(model("Penryn"), "pc-i440fx-9.2", release="11.1", pins=("custom",)),
}


@dataclass
class Started:
    """What a guest was when it ran."""

    realised: Realised
    live: Any
    """libvirt's live XML, parsed."""
    options: dict[str, list[str]]
    """The values of -cpu and -global on the command line that libvirt wrote."""


@dataclass
class Host:
    """A libvirtd of the test's own, and QEMUs to ask beside it."""

    daemon: libvirtd.Daemon
    hypervisor: Hypervisor
    qemus: Mapping[str, Path]
    sources: dict[tuple[str, Accel], QemuSource] = field(default_factory=dict)

    @property
    def monitor(self) -> Path:
        return self.daemon.root / "qmp"

    def source(self, emulator: str, accel: Accel) -> QemuSource:
        if (emulator, accel) not in self.sources:
            self.sources[emulator, accel] = QemuSource(emulator, accel)
        return self.sources[emulator, accel]

    def translated(self, document: bytes, pin: Pin) -> tuple[ExplicitCpu, bytes]:
        """The explicit CPU of the document, and the document with it."""
        request = parse_request(document)
        source = self.source(request.emulator or "", request.accel)
        cpu = explicit_cpu(request, Platform(source, load_cpu_map()), choices=Choices(pin=pin))
        return cpu, write(cpu, document, format="xml")

    def stored(self, document: bytes) -> bytes:
        """The document as libvirt keeps it."""
        name = self.hypervisor.define(document)
        try:
            return self.hypervisor.xml(name)
        finally:
            self.hypervisor.undefine(name)

    def start(self, document: bytes) -> Started:
        """What the guest is once it is there, paused; it is gone afterwards."""
        self.monitor.unlink(missing_ok=True)
        name = self.hypervisor.define(document)
        try:
            self.hypervisor.start(name, paused=True)
            guest = AttachedSource(Session.attach(str(self.monitor)))
            realised, live = guest.running(), etree.fromstring(self.hypervisor.xml(name, live=True))
            guest.close()
            self.hypervisor.destroy(name)
        finally:
            self.hypervisor.undefine(name)
        return Started(realised, live, self.daemon.options(name))


@pytest.fixture(scope="module")
def host(qemus: Mapping[str, Path]) -> Iterator[Host]:
    with libvirtd.private() as daemon, Hypervisor(daemon.uri, write=True) as hypervisor:
        host = Host(daemon, hypervisor, qemus)
        yield host
        for source in host.sources.values():
            source.close()


@pytest.mark.parametrize("name", CASES)
def test_guest_keeps_its_cpu(host: Host, name: str) -> None:
    case = CASES[name]
    emulator = host.daemon.emulator(host.qemus[case.release])
    stored = host.stored(case.xml(f"cpu-{name}", emulator, host.monitor).encode())
    before = host.start(stored)
    for pin in case.pins:
        cpu, document = host.translated(stored, pin)
        after = host.start(document)
        assert guest_visible(after.realised) == guest_visible(before.realised)
        assert said(after.options) == meant(cpu)
        assert_live_is_meant(after, document)
        readback = host.stored(document)
        assert policies(etree.fromstring(readback)) == policies(etree.fromstring(document))
        assert host.translated(document, pin)[1] == document, (
            "a second translation changes something"
        )


def guest_visible(realised: Realised) -> dict[str, object]:
    passing = X86_64.per_instance | X86_64.of_host_models
    return {str(name): value for name, value in realised.properties.items() if name not in passing}


def meant(cpu: ExplicitCpu) -> dict[str, str]:
    """The properties named, each spelled with `-`; ht is QEMU's own where a package has several
    threads.
    """
    return {
        re.sub("[._]", "-", n): property_text(value)
        for n, value in lasting(cpu).values.items()
        if n != "ht"
    }


def said(options: dict[str, list[str]]) -> dict[str, str]:
    """What QEMU was told: the last -cpu, and every -global."""
    words = [
        "-cpu",
        options["-cpu"][-1],
        *(word for value in options["-global"] for word in ("-global", value)),
    ]
    passing = {"ht", "enforce", "check", "migratable"}
    settings = [
        setting
        for setting in parse_cpu_option(shlex.join(words)).settings
        if setting.name not in passing
    ]
    return {re.sub("[._]", "-", setting.name): property_text(setting.value) for setting in settings}


def policies(domain: Any) -> dict[str, str]:
    return {element.get("name"): element.get("policy") for element in domain.findall("cpu/feature")}


OF_THREADS = ("ht", "cmp_legacy")
"""What QEMU 10.0 and newer set for several threads, whatever was asked: libvirt then tells it."""


def assert_live_is_meant(started: Started, document: bytes) -> None:
    """libvirt's live XML says what was written, and `disable` for what QEMU could not give this
    guest.
    """
    names = libvirt_map()
    has = {
        str(names.feature_of(name)): value for name, value in started.realised.properties.items()
    }
    expected = {
        name: "disable" if policy == "require" and has.get(name) is False else policy
        for name, policy in policies(etree.fromstring(document)).items()
        if name not in OF_THREADS
    }
    told = {name: said for name, said in policies(started.live).items() if name not in OF_THREADS}
    if expected:
        assert told == expected
        assert started.live.find("cpu").get("check") == "full"
