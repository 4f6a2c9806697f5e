"""Random domains, and whether their explicit CPU is the one that libvirt's own `-cpu` gives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random

from cpumap.arch.known import PER_INSTANCE, arch_of
from cpumap.cpu.expansion import CpuModel
from cpumap.cpu.names import Value
from cpumap.cpu.request import machine_topology
from cpumap.errors import CpumapError, SourceError
from cpumap.libvirt.cpu_map.load import load_cpu_map
from cpumap.libvirt.domain import read_document, request_of
from cpumap.pin.as_libvirt import libvirt_cpu_args
from cpumap.pin.resolve import Choices
from cpumap.pin.translate import explicit_cpu, write
from cpumap.pin.write import explicit_arguments
from cpumap.qemu.arguments import smp_option
from cpumap.qemu.qmp import Session
from cpumap.sources.live import QemuSource
from cpumap.sources.platform import Platform
from cpumap.sources.realised import read_realised

OURS = {"enforce": "an explicit CPU says that QEMU must not start with less"}
"""Properties that may differ, each with the cause."""

POLICIES = ("force", "require", "require", "disable", "disable", "forbid")
TOPOLOGIES = ((1, 1, 1), (1, 2, 1), (2, 2, 1), (1, 4, 2), (1, 3, 1), (2, 3, 2), (4, 1, 1))
"""Sockets, cores, threads."""
VENDORS = ("", "", "", " vendor_id='GenuineIntel'", " vendor_id='AuthenticAMD'")
INSIDE = (
    "<cache mode='emulate' level='3'/>",
    "<cache mode='disable'/>",
    "<maxphysaddr mode='emulate' bits='40'/>",
)
SETTINGS = (
    "<pmu state='off'/>",
    "<pmu state='on'/>",
    "<hyperv><relaxed state='on'/><spinlocks state='on' retries='8191'/></hyperv>",
    "<hyperv><vendor_id state='on' value='nobody'/></hyperv>",
    "<kvm><hidden state='on'/></kvm>",
    "<kvm><poll-control state='on'/><hint-dedicated state='on'/></kvm>",
    "<pvspinlock state='off'/>",
)
TIMERS = (
    "<timer name='kvmclock' present='no'/>",
    "<timer name='hypervclock' present='yes'/>",
    "<timer name='tsc' frequency='2000000000'/>",
)
TIMEOUT = 120
"""Seconds for each answer of a QEMU."""


@dataclass(frozen=True)
class Compared:
    """One domain, and what came of it."""

    document: str
    form: str
    """How the explicit CPU was written: `args`, or a document for libvirt."""
    refused: str = ""
    """Why there is no explicit CPU, or none of libvirt's."""
    unlike: Mapping[str, tuple[Value | None, Value | None]] | None = None
    """Property → libvirt's value and ours."""


def comparisons(qemu: QemuSource, chance: Random, count: int) -> Iterator[Compared]:
    """So many random domains on this QEMU, each compared."""
    platform = Platform(qemu, load_cpu_map())
    machines = [
        machine.name
        for machine in qemu.machines()
        if machine.name.startswith(("pc-q35-", "pc-i440fx-"))
    ]
    for _ in range(count):
        document = random_domain(platform, chance.choice(machines), chance)
        yield compared(document, chance.choice(("args", "xml")), platform)


def random_domain(platform: Platform, machine: str, chance: Random) -> str:
    """A domain of one of QEMU's models, with features, that libvirt and QEMU know."""
    cpu_map = platform.cpu_map
    there = {definition.name for definition in platform.source.definitions(machine)}
    model = chance.choice(sorted(there & cpu_map.models.keys()))
    known = platform.source.expand(machine, CpuModel(model), "full").props
    can = [name for name in sorted(cpu_map.features) if cpu_map.property_of(name) in known]
    names = chance.sample(can, chance.choice((0, 1, 3, 8)))
    features = "".join(
        f"<feature policy='{chance.choice(POLICIES)}' name='{name}'/>" for name in names
    )
    sockets, cores, threads = chance.choice(TOPOLOGIES)
    inside = chance.choice(INSIDE) if chance.random() < 0.2 else ""
    settings = "".join(chance.sample(SETTINGS, chance.choice((0, 1, 2))))
    timers = "".join(chance.sample(TIMERS, chance.choice((0, 0, 1))))
    return f"""\
<domain type='qemu'>
  <name>compared</name>
  <vcpu>{sockets * cores * threads}</vcpu>
  <os><type arch='x86_64' machine='{machine}'>hvm</type></os>
  <features>{settings}</features>
  <cpu mode='custom' match='exact' check='none'>
    <model{chance.choice(VENDORS)}>{model}</model>
    <topology sockets='{sockets}' cores='{cores}' threads='{threads}'/>
    {inside}{features}
  </cpu>
  <clock offset='utc'>{timers}</clock>
  <devices/>
</domain>
"""


def compared(document: str, form: str, platform: Platform) -> Compared:
    """What QEMU makes of the CPU as libvirt asks for it, and as cpumap does."""
    parsed = read_document(document, name="compared.xml")
    request = request_of(parsed)
    smp = smp_option(machine_topology(request))
    machine = str(request.machine)
    try:
        theirs = realised(platform, machine, smp, libvirt_cpu_args(request, platform))
        cpu = explicit_cpu(request, platform, choices=Choices(unavailable="keep"))
    except CpumapError as err:
        return Compared(document, form, refused=str(err))
    arguments: Sequence[str] = explicit_arguments(cpu)
    if form == "xml":
        written = write(cpu, parsed, format="xml", cpu_map=platform.cpu_map)
        arguments = libvirt_cpu_args(request_of(read_document(written)), platform)
    try:
        ours = realised(platform, machine, smp, arguments)
    except SourceError as err:
        return Compared(document, form, unlike={"(starts)": ("yes", str(err))})
    names = (theirs.keys() | ours.keys()) - {*map(str, PER_INSTANCE), *OURS}
    unlike = {
        name: (theirs.get(name), ours.get(name))
        for name in sorted(names)
        if theirs.get(name) != ours.get(name)
    }
    return Compared(document, form, unlike=unlike)


def realised(
    platform: Platform, machine: str, smp: str, arguments: Sequence[str]
) -> dict[str, Value]:
    """Every property of the first vCPU; nothing is taken away that tcg cannot give."""
    words = list(arguments)
    place = words.index("-cpu") + 1
    words[place] += ",x-force-features=on"
    start = ["-machine", f"{machine},accel=tcg", "-smp", smp, *words]
    with Session.start(platform.source.binary, start, timeout=TIMEOUT) as session:
        found = read_realised(session, arch_of(platform.source.arch))
        return {str(name): value for name, value in found.properties.items()}
