"""`--pin none` against a real libvirtd: the same -cpu to the letter, and the same refusals, for
hundreds of domains.
"""

from __future__ import annotations

import random
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from cpumap.cpu.expansion import CpuModel, Definition, ExpansionType, Machine
from cpumap.cpu.names import Accel
from cpumap.errors import CpumapError, ResolveError, UnknownNameError
from cpumap.libvirt.cpu_map.load import load_cpu_map
from cpumap.libvirt.cpu_map.map import CpuMap
from cpumap.libvirt.domain import parse_request
from cpumap.libvirt.layout import QEMU_NAMESPACE, read_layout
from cpumap.libvirt.settings import ENLIGHTENMENTS, KVM_FEATURES
from cpumap.pin.as_libvirt import libvirt_cpu_args
from cpumap.sources.live import QemuSource
from cpumap.sources.platform import Platform
from cpumap.sources.source import Source

if TYPE_CHECKING:
    import libvirt

Answer = TypeVar("Answer")
pytestmark = [pytest.mark.live, pytest.mark.xdist_group("libvirt")]

X86_64, I386 = "/usr/bin/qemu-system-x86_64", "/usr/bin/qemu-system-i386"
CPU_MAP = Path("/usr/share/libvirt/cpu_map")
NEWER = ("emsr_bitmap", "xmm_input")
"""Enlightenments that libvirt 9.0 does not have yet."""


PLAIN = {
    "kind": "kvm",
    "machine": "pc",
    "arch": "x86_64",
    "emulator": X86_64,
    "vcpu": "<vcpu>2</vcpu>",
}
"""What a domain is about, unless a test says otherwise."""


def domain(
    cpu: str = "",
    features: str = "",
    timers: str = "",
    devices: str = "",
    **about: str,
) -> str:
    """A domain XML that libvirt takes, with these parts in it; of `PLAIN`, others if so wished."""
    said = {**PLAIN, **about}
    return (
        f"<domain type='{said['kind']}'><name>cpumap-args</name><memory>219100</memory>"
        f"{said['vcpu']}"
        f"<os><type arch='{said['arch']}' "
        f"machine='{said['machine']}'>hvm</type></os><features>{features}</features>{cpu}"
        f"<clock offset='utc'>{timers}</clock><devices><emulator>{said['emulator']}</emulator>"
        f"{devices}</devices></domain>"
    )


def custom(inside: str = "", model: str = "Penryn", attributes: str = "") -> str:
    return f"<cpu check='none' {attributes}><model>{model}</model>{inside}</cpu>"


CACHES = (
    *(
        f"<cache mode='{mode}'{level}/>"
        for mode in ("emulate", "passthrough", "disable")
        for level in ("", " level='3'")
    ),
    "<cache/>",
    "<cache mode='x'/>",
    "<cache mode='emulate' level='1'/>",
    "<cache mode='emulate' level='4'/>",
    "<cache mode='emulate' level='-1'/>",
    "<cache mode='disable'/><cache mode='disable'/>",
)
PHYS_BITS = (
    "<maxphysaddr mode='passthrough'/>",
    "<maxphysaddr mode='emulate' bits='36'/>",
    "<maxphysaddr mode='emulate'/>",
    "<maxphysaddr mode='passthrough' bits='36'/>",
    "<maxphysaddr/>",
    "<maxphysaddr mode='x'/>",
    "<maxphysaddr mode='emulate' bits='x'/>",
    "<maxphysaddr mode='emulate' bits='36'/><maxphysaddr mode='passthrough'/>",
    "<maxphysaddr mode='passthrough'/><cache mode='disable'/>",
)
TOPOLOGIES = (
    "<topology sockets='1' cores='2' threads='1'/>",
    "<topology sockets='1' dies='2' cores='1' threads='1'/>",
    "<topology sockets='1' cores='3' threads='1'/>",
    "<topology sockets='0' cores='2' threads='1'/>",
    "<topology sockets='1' cores='2'/>",
    "<topology sockets='x' cores='2' threads='1'/>",
    "<topology sockets='01' cores='+2' threads=' 1'/>",
    "<topology sockets='1' cores='0x2' threads='1'/>",
)
IDENTITIES = (
    "<vendor>Intel</vendor>",
    "<vendor/>",
    "<feature name='avx'/>",
    "<feature policy='x' name='avx'/>",
    "<feature policy='require'/>",
    "<feature name=''/>",
    "<feature name='avx'/><feature policy='disable' name='avx'/>",
    "<feature policy='force' name='avx'/><feature policy='forbid' name='aes'/><feature "
    "name='sse4.1'/>",
    "<feature name='nosuch'/>",
    "<feature name='pclmulqdq'/>",
    "<bogus/>",
)
PLAIN_CPUS = (
    "",
    "<cpu/>",
    "<cpu mode='x'/>",
    "<cpu mode=''/>",
    "<cpu mode='custom'/>",
    "<cpu mode='custom' match='exact' check='full'/>",
    "<cpu match='x'><model>Penryn</model></cpu>",
    "<cpu check='x'><model>Penryn</model></cpu>",
    "<cpu match='strict' check='none'><model>Penryn</model></cpu>",
    "<cpu match='exact' check='full'><model>Penryn</model></cpu>",
    "<cpu mode='host-passthrough' migratable='on'/>",
    "<cpu mode='host-passthrough' migratable='off'/>",
    "<cpu mode='host-passthrough' migratable='x'/>",
    "<cpu mode='host-passthrough' check='partial' match='exact'/>",
    "<cpu mode='host-passthrough'><model "
    "fallback='forbid'>Penryn</model><vendor>Intel</vendor></cpu>",
    "<cpu mode='host-passthrough'><model vendor_id='GenuineIntel'/></cpu>",
    "<cpu mode='host-passthrough'><feature policy='optional' name='avx'/></cpu>",
    "<cpu mode='maximum' migratable='on'/>",
    "<cpu mode='maximum' migratable='off'/>",
    "<cpu migratable='on'/>",
    "<cpu mode='host-model' migratable='on'/>",
    "<cpu><model/></cpu>",
    "<cpu><model vendor_id='GenuineIntel'/></cpu>",
    "<cpu check='none'><model vendor_id='GenuineIntel'>Penryn</model></cpu>",
    "<cpu check='none'><model vendor_id='Genuine  tel'>Penryn</model></cpu>",
    "<cpu check='none'><model vendor_id='short'>Penryn</model></cpu>",
    "<cpu check='none'><model vendor_id='Gen,ineIntel'>Penryn</model></cpu>",
    "<cpu check='none'><model fallback='x'>Penryn</model></cpu>",
    "<cpu check='none'><model fallback='forbid'>Penryn</model></cpu>",
    "<cpu check='none'><model fallback='forbid'>pentiumpro</model></cpu>",
    "<cpu check='none'><model fallback='forbid'>Nosuch</model></cpu>",
    "<cpu check='none'><model> Penryn </model></cpu>",
    "<cpu check='none'><model>Haswell-v1</model></cpu>",
    "<cpu check='none'><model>base</model></cpu>",
    "<cpu check='none'><model>Penryn</model><model>Haswell</model></cpu>",
    "<cpu/><cpu><model>Penryn</model></cpu>",
    custom("<feature name='monitor'/>", "EPYC"),
    custom("<feature policy='disable' name='avx'/>", "EPYC"),
    custom("<feature policy='disable' name='svm'/>", "Icelake-Server"),
    custom("<feature policy='disable' name='pconfig'/><feature policy='require' name='pconfig'/>"),
)
ENLIGHTENMENT_VALUES = {
    "spinlocks": (
        " retries='8191'",
        " retries='4095'",
        " retries='4094'",
        " retries='0xffffffff'",
        " retries='x'",
        "",
    ),
    "vendor_id": (" value='KVM Hv'", " value=''", " value='1234567890123'", " value='a,b'", ""),
}
STATES = (" state='on'", " state='off'", " state='x'", "")
HYPERV = (
    "<hyperv/>",
    "<hyperv mode='passthrough'/>",
    "<hyperv mode='custom'/>",
    "<hyperv mode='x'/>",
    "<hyperv mode='none'/>",
    "<hyperv mode='passthrough'><relaxed state='on'/><vendor_id state='on' value='x'/></hyperv>",
    "<hyperv><stimer state='on'><direct state='on'/></stimer></hyperv>",
    "<hyperv><stimer state='on'><direct state='off'/></stimer></hyperv>",
    "<hyperv><stimer state='off'><direct state='on'/></stimer></hyperv>",
    "<hyperv><stimer state='on'><direct/></stimer></hyperv>",
    "<hyperv><relaxed state='on'/><relaxed state='off'/></hyperv>",
    "<hyperv><relaxed state='on'/></hyperv><hyperv><vapic state='on'/></hyperv>",
    "<hyperv mode='passthrough'/><hyperv><relaxed state='on'/></hyperv>",
    "<hyperv><bogus state='on'/></hyperv>",
)
OTHER_FEATURES = (
    *(f"<{name}{state}/>" for name in ("pmu", "pvspinlock") for state in STATES),
    *(f"<apic{eoi}/>" for eoi in ("", " eoi='on'", " eoi='off'", " eoi='x'")),
    "<kvm/>",
    "<kvm><bogus state='on'/></kvm>",
    "<kvm><hidden state='on'/></kvm><kvm><poll-control state='on'/></kvm>",
    "<kvm><hidden state='on'/><hidden state='off'/></kvm>",
    "<pmu state='on'/><pmu state='off'/>",
    "<acpi/><pae/><hap state='on'/><vmport state='off'/>",
)
TIMERS = (
    *(f"<timer name='{name}'{present}/>"
      for name in ("kvmclock", "hypervclock", "tsc", "hpet", "pit", "rtc")
      for present in ("", " present='yes'", " present='no'", " present='x'")),
    "<timer/>",
    "<timer name='x'/>",
    "<timer name='kvmclock' frequency='1'/>",
    "<timer name='kvmclock' frequency='0'/>",
    "<timer name='tsc' frequency='0'/>",
    "<timer name='tsc' frequency='x'/>",
    "<timer name='tsc' frequency='0x10'/>",
    "<timer name='tsc' frequency='-1'/>",
    "<timer name='hypervclock' present='yes'/><timer name='kvmclock' present='no'/>",
    "<timer name='kvmclock' present='yes'/><timer name='kvmclock' present='no'/>",
)  # fmt: skip
PANICS = (
    *(f"<panic{model}/>" for model in ("", " model='isa'", " model='hyperv'", " model='x'")),
    "<panic model='hyperv'/><panic model='hyperv'/>",
)
VCPUS = (
    "",
    "<vcpu/>",
    "<vcpu>x</vcpu>",
    "<vcpu>0</vcpu>",
    "<vcpu> 4 </vcpu>",
    "<vcpu current='1'>4</vcpu>",
)
MACHINES = ("pc", "q35", "pc-q35-2.4", "pc-i440fx-2.4", "pc-q35-7.2")


def cpu_cases() -> Iterator[str]:
    for wrap in (
        "<cpu>{}</cpu>",
        custom("{}"),
        "<cpu mode='host-passthrough'>{}</cpu>",
        "<cpu mode='maximum'>{}</cpu>",
    ):
        yield from (wrap.format(part) for part in (*CACHES, *PHYS_BITS, *TOPOLOGIES, *IDENTITIES))
    yield from PLAIN_CPUS


def feature_cases() -> Iterator[str]:
    for tag in ENLIGHTENMENTS:
        for value in ENLIGHTENMENT_VALUES.get(tag, ("",)):
            yield from (
                f"<hyperv><{tag}{state}{value}/></hyperv>" for state in STATES if tag not in NEWER
            )
    for tag in KVM_FEATURES:
        size = " size='4096'" if tag == "dirty-ring" else ""
        yield from (f"<kvm><{tag}{state}{size}/></kvm>" for state in STATES)
    yield from (*HYPERV, *OTHER_FEATURES)


def mixed_cases(count: int) -> Iterator[str]:
    """Domains with valid parts of every kind at once, for the order in which libvirt writes
    them.
    """
    chance = random.Random(2)
    plain = [tag for tag in ENLIGHTENMENTS if tag not in (*NEWER, "stimer")]
    hyperv = [f"<{tag} state='on'{ENLIGHTENMENT_VALUES.get(tag, [''])[0]}/>" for tag in plain]
    hyperv.append("<stimer state='on'><direct state='on'/></stimer>")
    kvm = [
        f"<{tag} state='{state}'/>"
        for tag in KVM_FEATURES
        if tag != "dirty-ring"
        for state in ("on", "off")
    ]
    inside = [
        "",
        "<feature name='vmx'/><feature policy='disable' name='cx16'/>",
        *CACHES[3:4],
        *PHYS_BITS[:2],
    ]
    for _ in range(count):
        kind = chance.choice(("kvm", "qemu"))
        cpus = [
            "",
            custom("{}", chance.choice(("Penryn", "EPYC", "Icelake-Server", "486"))),
            "<cpu mode='maximum'>{}</cpu>",
        ]
        features = chance.sample(hyperv, chance.randrange(len(hyperv)))
        yield domain(
            chance.choice(cpus).format("".join(chance.sample(inside, 2))),
            f"<hyperv mode='{chance.choice(('custom', 'passthrough'))}'>"
            f"{''.join(features)}</hyperv>"
            f"<kvm>{''.join(chance.sample(kvm, 3))}</kvm><apic eoi='on'/><pvspinlock "
            "state='off'/><pmu state='off'/>",
            "".join(chance.sample(TIMERS[:24:4] + TIMERS[1:24:4] + TIMERS[2:24:4], 3)),
            chance.choice(PANICS[:3]),
            kind=kind,
            machine=chance.choice(MACHINES),
        )


def cases(cpu_map: CpuMap) -> Iterator[str]:
    for kind in ("kvm", "qemu"):
        yield from (domain(cpu, kind=kind) for cpu in cpu_cases())
        yield from (domain(features=features, kind=kind) for features in feature_cases())
        yield from (domain(timers=timers, kind=kind) for timers in TIMERS)
        yield from (domain(devices=panic, kind=kind) for panic in PANICS)
        yield from (domain(vcpu=vcpu, kind=kind) for vcpu in VCPUS)
        yield from (domain(kind=kind, machine=machine) for machine in MACHINES)
        yield from (
            domain(kind=kind, arch="i686", emulator=emulator) for emulator in (X86_64, I386)
        )
        for policy in ("require", "disable"):
            yield from (
                domain(custom(f"<feature policy='{policy}' name='{f}'/>"), kind=kind)
                for f in cpu_map.features
            )
    yield domain(kind="x")
    yield domain(arch="x")
    yield from mixed_cases(200)


class Remembering(QemuSource):
    """A QEMU that is asked everything once only."""

    def __init__(self, binary: str, accel: Accel) -> None:
        super().__init__(binary, accel)
        self.answers: dict[str, Any] = {}

    def machines(self) -> tuple[Machine, ...]:
        return self.remembered("machines", super().machines)

    def definitions(self, machine: str) -> tuple[Definition, ...]:
        return self.remembered(machine, lambda: super(Remembering, self).definitions(machine))

    def expand(self, machine: str, model: CpuModel, kind: ExpansionType) -> CpuModel:
        asked = f"{machine} {model} {kind}"
        return self.remembered(asked, lambda: super(Remembering, self).expand(machine, model, kind))

    def remembered(self, key: str, ask: Callable[[], Answer]) -> Answer:
        if key not in self.answers:
            self.answers[key] = ask()
        answer: Answer = self.answers[key]
        return answer


class Judge:
    """Both answers for a domain: libvirt's and ours, as the -cpu value or as the reason of a
    refusal.

    Our own reason is empty where reading refused: the words for bad XML are not libvirt's.
    """

    def __init__(self, connection: libvirt.virConnect, cpu_map: CpuMap) -> None:
        self.connection = connection
        self.cpu_map = cpu_map
        self.sources: dict[tuple[str, Accel], Source] = {}

    def libvirt(self, xml: str) -> tuple[str, str]:
        import libvirt

        try:
            words = shlex.split(self.connection.domainXMLToNative("qemu-argv", xml, 0))
        except libvirt.libvirtError as err:
            return "", err.get_error_message()
        return words[words.index("-cpu") + 1], ""

    def ours(self, xml: str) -> tuple[str, str]:
        try:
            request = parse_request(xml)
            key = (request.emulator or X86_64, request.accel)
            if key not in self.sources:
                self.sources[key] = Remembering(*key)
            return libvirt_cpu_args(request, Platform(self.sources[key], self.cpu_map))[1], ""
        except CpumapError as err:
            return "", str(err).partition(": ")[2] if isinstance(
                err, ResolveError | UnknownNameError
            ) else ""

    def close(self) -> None:
        for source in self.sources.values():
            source.close()


@pytest.fixture(scope="module")
def judge(libvirt_connection: libvirt.virConnect) -> Iterator[Judge]:
    judge = Judge(libvirt_connection, load_cpu_map(CPU_MAP))
    yield judge
    judge.close()


def test_same_cpu_and_same_refusals_as_libvirt(judge: Judge) -> None:
    differing = []
    seen = {"accepted": 0, "refused": 0}
    for xml in cases(judge.cpu_map):
        theirs, ours = judge.libvirt(xml), judge.ours(xml)
        seen["accepted" if theirs[0] else "refused"] += 1
        if theirs[0] != ours[0] or ours[1] not in theirs[1]:
            differing.append(f"{xml}\n  libvirt: {theirs}\n  cpumap:  {ours}")
    assert not differing, f"{len(differing)} of {sum(seen.values())} differ:\n" + "\n".join(
        differing[:20]
    )
    assert seen["accepted"] > 800 and seen["refused"] > 200, seen


DIFFERENCES = {
    "host-model needs the host": (
        domain("<cpu mode='host-model'/>"),
        ("", "mode 'host-model' depends on the host: update it against one first"),
    ),
    "match minimum needs the host": (
        domain("<cpu match='minimum' check='none'><model>Penryn</model></cpu>"),
        ("", "match 'minimum' depends on the host: update it against one first"),
    ),
    "optional needs the host": (
        domain(custom("<feature policy='optional' name='avx'/>")),
        ("", "policy 'optional' of feature 'avx' depends on the host: update it against one first"),
    ),
    "libvirt falls back on the nearest model": (
        domain(custom(model="pentiumpro")),
        (
            "",
            "CPU model pentiumpro is not supported by hypervisor"
            " (libvirt would choose the nearest one that its host's QEMU has)",
        ),
    ),
    "check partial and strict compare with the host": (
        domain("<cpu match='strict' check='partial'><model>486</model></cpu>"),
        ("486", ""),
    ),
    # Not here: more address bits than the host has. Only a libvirt that has probed its QEMU with
    # KVM refuses them.
    "the host limits the TSC frequency": (
        domain(timers="<timer name='tsc' frequency='1'/>"),
        ("qemu64,tsc-frequency=1", ""),
    ),
    "the accelerator's dirty ring is none of the CPU's": (
        domain(features="<kvm><dirty-ring state='on' size='1'/></kvm>"),
        ("qemu64", ""),
    ),
    "features that do not end in -cpu are not judged": (
        domain(features="<bogus/>"),
        ("qemu64", ""),
    ),
    "nor are timers": (domain(timers="<timer name='platform'/>"), ("qemu64", "")),
    "nor is the number of running vCPUs": (
        domain(vcpu="<vcpu current='5'>4</vcpu>"),
        ("qemu64", ""),
    ),
    "libvirt 9.0 has no emsr_bitmap": (
        domain(features="<hyperv><emsr_bitmap state='on'/><xmm_input state='on'/></hyperv>"),
        ("qemu64,hv-emsr-bitmap=on,hv-xmm-input=on", ""),
    ),
    "libvirt 9.0 passes over tlbflush's children": (
        domain(
            features="<hyperv><tlbflush state='on'><direct state='on'/><extended "
            "state='on'/></tlbflush></hyperv>"
        ),
        ("qemu64,hv-tlbflush=on,hv-tlbflush-direct=on,hv-tlbflush-ext=on", ""),
    ),
    "libvirt 9.0 passes over the limit of address bits": (
        domain(custom("<maxphysaddr mode='passthrough' limit='39'/>")),
        ("Penryn,host-phys-bits=on,host-phys-bits-limit=39", ""),
    ),
    "libvirt 9.0 passes over clusters": (
        domain("<cpu><topology sockets='1' clusters='2' cores='2' threads='1'/></cpu>"),
        ("", "CPU topology doesn't match maximum vcpu count"),
    ),
}


@pytest.mark.parametrize("cause", DIFFERENCES)
def test_known_differences(judge: Judge, cause: str) -> None:
    xml, ours = DIFFERENCES[cause]
    assert judge.ours(xml) == ours
    assert judge.libvirt(xml)[0] != ours[0]


def test_several_command_lines_count_as_one(libvirt_connection: libvirt.virConnect) -> None:
    line = f"<q:commandline xmlns:q='{QEMU_NAMESPACE}'><q:arg value='{{}}'/></q:commandline>"
    both = domain(kind="qemu").replace("<devices>", f"{line.format('-first')}<devices>")
    both = both.replace("</domain>", f"{line.format('-second')}</domain>")
    words = shlex.split(libvirt_connection.domainXMLToNative("qemu-argv", both, 0))
    given = [word for word in words if word in ("-first", "-second")]
    assert given == ["-first", "-second"]
    assert [value for _, value in read_layout(both.encode()).arguments] == given
