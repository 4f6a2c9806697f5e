"""A host that is not here: what QEMU can enable on it, as far as a description of it says."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

from cpumap.arch.known import arch_of, must_run
from cpumap.cpu.bits import qemu_words
from cpumap.cpu.expansion import CpuModel, Expansion
from cpumap.cpu.host import HostCpu
from cpumap.cpu.names import Accel, PropertyName
from cpumap.cpu.request import OWN_CPU, CpuRequest
from cpumap.hosts.giving import not_described, own_properties
from cpumap.hosts.passthrough import described_bits, named_on
from cpumap.hosts.read import read_host
from cpumap.libvirt.cpu_map.map import CpuMap
from cpumap.libvirt.cpu_map.places import bits_of
from cpumap.libvirt.rules.update import on_host
from cpumap.sources.machines import find_machine
from cpumap.sources.platform import Platform
from cpumap.sources.source import Source

_OF_KVM = ("kvm", "hv-")


_VENDOR = PropertyName("vendor")


@dataclass(frozen=True, slots=True)
class DescribedHost:
    """A host's CPU, and what guests can be given there."""

    cpu: HostCpu
    properties: frozenset[PropertyName]
    by_qemu: bool
    """Whether a QEMU said so; else this is the host's own CPU, with what KVM emulates on any
    host.
    """
    name: str
    """What it was read from."""
    undescribed: frozenset[PropertyName] = frozenset()
    """What the description of the host's own CPU leaves open."""

    def leaves_open(self, prop: PropertyName) -> bool:
        """Whether the description says neither that guests can be given this feature nor that they
        cannot.
        """
        if self.by_qemu and self.cpu.made:
            return prop not in self.properties and prop not in self.cpu.made[0].bare
        return prop in self.undescribed

    def gives(self, prop: PropertyName) -> bool:
        """Whether a guest there can be given this feature."""
        return prop in self.properties or (not self.by_qemu and prop.startswith(_OF_KVM))


def read_described(data: bytes | str, cpu_map: CpuMap, *, name: str = "<stdin>") -> DescribedHost:
    """The host of a `cpumap host --format json`, or of anything `cpumap.hosts.read.read_host`
    takes. Raises `InputError`.
    """
    return described(read_host(data, cpu_map, name=name), cpu_map, name)


def described(cpu: HostCpu, cpu_map: CpuMap, name: str) -> DescribedHost:
    """The host with this CPU; what a QEMU said of it counts before what the CPU map makes of it."""
    if cpu.properties is not None:
        return DescribedHost(cpu, cpu.properties, True, name)
    own = own_properties(cpu, cpu_map)
    return DescribedHost(cpu, own, False, name, not_described(cpu, cpu_map))


def request_on(
    host: DescribedHost,
    request: CpuRequest,
    cpu_map: CpuMap,
    known: Collection[PropertyName] | None = None,
) -> CpuRequest:
    """The request with host-model, match='minimum' and optional features resolved against the host,
    as libvirt does.

    What only QEMU or KVM gives (no CPU map has it in a model) is judged by what QEMU said of the
    host. What a QEMU has no property for is left out of what the host adds; `known` are its
    properties.
    """
    must_run(host.cpu.arch, request.arch, f"the host of {host.name}", request.where)
    features = tuple(
        replace(
            feature,
            policy="require" if host.gives(cpu_map.property_of(feature.name)) else "disable",
        )
        if feature.policy == "optional"
        else feature
        for feature in request.features
    )
    updated = on_host(host.cpu, replace(request, features=features), cpu_map)
    own = {feature.name for feature in request.features}
    kept = (
        f
        for f in updated.features
        if known is None or f.name in own or cpu_map.property_of(f.name) in known
    )
    return replace(updated, features=tuple(kept))


def for_accel(host: DescribedHost, accel: Accel) -> DescribedHost:
    """The host as QEMU's accelerator gives it to guests, where its description says that of this
    accelerator; else as it is.
    """
    if host.cpu.accel == accel:
        return host
    for other in host.cpu.also:
        if other.accel == accel and other.properties is not None:
            return replace(host, cpu=other, properties=other.properties)
    return host


def meant_on(
    host: DescribedHost, request: CpuRequest, platform: Platform, *, model: bool = False
) -> tuple[CpuRequest, tuple[str, ...]]:
    """What the request means on the host with the platform's QEMU, and what a person should know of
    that.

    Beside what `request_on` does, host-passthrough and maximum become every property of the host's
    own CPU, on the nearest `model` if so wished. Errors: `ResolveError` where the description does
    not say what that is.
    """
    source = platform.source
    name = platform.machine_for(request).name
    request = described_bits(host.cpu, request)
    if request.mode in OWN_CPU:
        own = named_on(host.cpu, request, source, name, model=model)
        request, notes = own.request, own.notes
    else:
        notes = ()
    return request_on(host, request, platform.cpu_map, known_to(source, name)), notes


def known_to(source: Source, machine: str | None) -> frozenset[PropertyName]:
    """The CPU properties that the source's QEMU has under this machine type, on any model."""
    name = find_machine(source, machine).name
    model = arch_of(source.arch).bare or source.definitions(name)[0].name
    if "full" not in arch_of(source.arch).expansions:
        most = CpuModel(arch_of(source.arch).maximum)
        return frozenset(source.realise(name, most).properties)
    return frozenset(source.expand(name, CpuModel(model), "full").props)


def expansion_on(
    host: DescribedHost, expansion: Expansion, cpu_map: CpuMap, request: CpuRequest
) -> Expansion:
    """The expansion of the request with, as unavailable, what this host cannot give of it, in
    QEMU's way of naming a bit; what the description leaves open is noted.

    Under KVM a model takes the vendor of its host, unless another is asked for.
    """
    vendor = cpu_map.vendors.get(host.cpu.vendor or "")
    if expansion.context.accel == "kvm" and vendor is not None:
        expansion = _with_vendor(expansion, vendor.string)
    asked = frozenset(asked_of(expansion, request))
    names = lacking_on(host, asked)
    lacking = {str(name): qemu_words(name, bits_of(name, cpu_map)) for name in names}
    unsaid = open_on(host, asked)
    notes = expansion.notes
    if unsaid:
        notes += (
            f"{host.name} does not describe whether guests are given {_some(unsaid)}: kept, and"
            " QEMU does not start where it is lacking",
        )
    return replace(expansion, unavailable=lacking, own_host=False, notes=notes)


_NAMED = 6
"""Features named in a note; the others are counted, since `check` lists them."""


def _some(names: list[PropertyName]) -> str:
    more = len(names) - _NAMED
    return f"{', '.join(names[:_NAMED])}{f' and {more} more' if more > 0 else ''}"


def _with_vendor(expansion: Expansion, vendor: str) -> Expansion:
    if any(prop.name == _VENDOR for prop in expansion.asked):
        return expansion
    shown = [
        {**props, _VENDOR: vendor}
        for props in (expansion.static, expansion.full, expansion.realised)
    ]
    return replace(expansion, static=shown[0], full=shown[1], realised=shown[2])


def asked_of(expansion: Expansion, request: CpuRequest) -> Iterable[PropertyName]:
    """The features that the CPU of the expansion has, in canonical names, less those that QEMU
    turns on by itself for the request's threads: no host has to give these.
    """
    context, vendor = expansion.context, expansion.realised.get(_VENDOR)
    threads = arch_of(context.arch).turned_on(context.qemu, request.topology, vendor)
    by_itself = {feature.prop for feature in threads}
    return (
        name
        for name in expansion.static
        if expansion.realised.get(name) is True and name not in by_itself
    )


def lacking_on(host: DescribedHost, asked: Iterable[PropertyName]) -> list[PropertyName]:
    """Those of the features that the host is known not to give."""
    return sorted(name for name in asked if not host.gives(name) and not host.leaves_open(name))


def open_on(host: DescribedHost, asked: Iterable[PropertyName]) -> list[PropertyName]:
    """Those of the features of which the host's description says nothing."""
    return sorted(name for name in asked if not host.gives(name) and host.leaves_open(name))
