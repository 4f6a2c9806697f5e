"""host-passthrough and maximum on a described host: that host's own CPU, by its properties."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from cpumap.arch.arch import Arch
from cpumap.arch.known import arch_of
from cpumap.cpu.expansion import CpuModel
from cpumap.cpu.frozen import Frozen
from cpumap.cpu.host import HostCpu, MadeCpu
from cpumap.cpu.names import Property, PropertyName, Value
from cpumap.cpu.origin import Origin, origin
from cpumap.cpu.request import CpuRequest
from cpumap.errors import ResolveError
from cpumap.sources.source import Source

ASK = "`cpumap host --format json > HOST.json` there does, for --host HOST.json"


_HOST_BITS = (PropertyName("host-phys-bits"), PropertyName("host-phys-bits-limit"))


_PHYS_BITS = PropertyName("phys-bits")


class OwnCpu(Frozen):
    """A request for the host's own CPU as one for its properties, and what these leave open."""

    request: CpuRequest
    notes: tuple[str, ...]


class _Place(Frozen):
    """Where the CPU is to be."""

    source: Source
    machine: str
    arch: Arch
    bare: Mapping[PropertyName, Value]
    """The properties of the model without features there."""
    on: str
    """The model that the host's properties are named on."""


def named_on(
    host: HostCpu, request: CpuRequest, source: Source, machine: str, *, model: bool = False
) -> OwnCpu:
    """The request as one for every property of the host's own CPU, on the model without features.

    With `model`, they are named on the model that is nearest to the host, where the source's QEMU
    has it. Errors: `ResolveError` where the description does not say what that CPU is.
    """
    arch = arch_of(source.arch)
    if arch.bare is None:
        raise ResolveError(f"{source.arch} has no model that a host's CPU could be named on")
    made = _made(host, request, source)
    bare = source.expand(machine, CpuModel(arch.bare), "full").props
    known = {definition.name for definition in source.definitions(machine)}
    on = host.model if model and host.model in known else arch.bare
    place = _Place(source, machine, arch, bare, on or arch.bare)
    of_host = {prop.name: prop for prop in _properties(made, host, place)}
    notes = tuple(_notes(made, host, request, place))
    return OwnCpu(_without_host_words(request, of_host, place), notes)


def _made(host: HostCpu, request: CpuRequest, source: Source) -> MadeCpu:
    """The host's own CPU, migratable unless the request says otherwise. Errors: `ResolveError`."""
    wished = True if request.migratable is None else request.migratable
    for setting in request.settings:
        wished = setting.value is True if setting.name == "migratable" else wished
    for made in host.made if host.accel == source.accel else ():
        if made.migratable == wished:
            return made
    mode = request.mode if request.mode == "maximum" else "host-passthrough"
    raise ResolveError(
        f"{request.where}: {mode} means the host's CPU under {source.accel}, which"
        f" {host.where or 'the description'} does not describe: {ASK}"
    )


def _properties(made: MadeCpu, host: HostCpu, place: _Place) -> Iterator[Property]:
    """What the host's CPU has other than one without features; everything where it is named on a
    model, which has more.
    """
    said = _said(host)
    same = _is_same(host, place)
    plain = {_plain(name, place.arch) for name in made.properties}
    for name, here in place.bare.items():
        if name not in made.properties and _plain(name, place.arch) in plain:
            continue  # a second spelling
        value = made.properties.get(name, here)
        if not _is_named(name, value, place.arch, made):
            continue
        if not same and value == made.bare.get(name):
            value = here  # not the host's doing: the machine type's
        if name in _HOST_BITS:
            value = type(here)(0)
        if value != here or place.on != place.arch.bare:
            yield Property(name, value, said)


def _is_named(name: PropertyName, value: Value, arch: Arch, made: MadeCpu) -> bool:
    unnamed = arch.per_instance | arch.not_named | arch.of_host_models
    return name not in unnamed and not arch.refused(name, value, made.properties)


def _plain(name: PropertyName, arch: Arch) -> str:
    """The name that all spellings of a property have."""
    return (arch.spellings or {}).get(name, name).replace("_", "-").replace(".", "-")


def _said(host: HostCpu) -> Origin:
    return origin("host", host.where.rpartition("/")[2] or "described")


def _is_same(host: HostCpu, place: _Place) -> bool:
    return (host.machine, host.qemu) == (place.machine, place.source.version)


def _without_host_words(
    request: CpuRequest, of_host: Mapping[PropertyName, Property], place: _Place
) -> CpuRequest:
    """The request for these properties, less what only host models understand."""
    settings = tuple(s for s in request.settings if s.name not in place.arch.of_host_models)
    said = request.maxphysaddr
    bits = of_host.get(_PHYS_BITS)
    named = dict(of_host)
    if said is not None and said.mode == "passthrough" and bits is not None and said.limit:
        named[_PHYS_BITS] = replace(bits, value=min(int(bits.value), said.limit))
    passthrough = request.cache is not None and request.cache.mode == "passthrough"
    return replace(
        request,
        mode="custom",
        model=place.on,
        migratable=None,
        settings=settings,
        of_host=tuple(named.values()),
        cache=None if passthrough else request.cache,
        maxphysaddr=None if said is not None and said.mode == "passthrough" else said,
    )


def _notes(made: MadeCpu, host: HostCpu, request: CpuRequest, place: _Place) -> Iterator[str]:
    """What no property carries, what the description lacks, and what that costs."""
    if made.without:
        yield (
            f"QEMU {host.qemu} does not start {made.model} on the host of {host.where} unless"
            f" {', '.join(made.without)} is off: so it is here"
        )
    if not _is_same(host, place):
        yield (
            f"the host was described with QEMU {host.qemu}, {host.machine}: what machine types"
            f" decide is that of QEMU {place.source.version}, {place.machine}"
        )
    yield from _gaps(made, place)
    if _has_host_caches(made, request):
        yield (
            "the guest had the caches of its host (host-cache-info), which no property describes:"
            " it will see QEMU's own in CPUID, and may tune itself for other sizes"
        )
    if made.properties.get(PropertyName("invtsc")) is True:
        yield (
            "the frequency of the host's time stamp counter is not described: a guest with invtsc"
            " does not migrate unless tsc-frequency is named"
        )


def _gaps(made: MadeCpu, place: _Place) -> Iterator[str]:
    """The features that the QEMU of the description has no property for, or that of the guest."""
    features = {name for name, value in place.bare.items() if isinstance(value, bool)}
    lost = sorted(
        name
        for name, value in made.properties.items()
        if value is True and name not in place.bare and name not in place.arch.of_host_models
    )
    if lost:
        yield (
            f"{place.source.label} has no property for {', '.join(lost)}: the guest is without,"
            " although the host has it"
        )
    spelled = {_plain(name, place.arch) for name in made.properties}
    static = place.source.expand(place.machine, CpuModel(str(place.arch.bare)), "static").props
    unsaid = sorted(
        name
        for name in features & static.keys()
        if _plain(name, place.arch) not in spelled
        and _is_named(name, place.bare[name], place.arch, made)
    )
    if unsaid:
        yield f"not described, and so off: {', '.join(unsaid)}"


def _has_host_caches(made: MadeCpu, request: CpuRequest) -> bool:
    asked = {setting.name: setting.value for setting in request.settings}
    name = PropertyName("host-cache-info")
    if request.cache is not None:
        return request.cache.mode == "passthrough"
    return asked.get(name, made.properties.get(name)) is True


def described_bits(host: HostCpu, request: CpuRequest) -> CpuRequest:
    """The request with `<maxphysaddr mode='passthrough'/>` as the host's address bits, where they
    are described; unchanged where not.
    """
    said = request.maxphysaddr
    if said is None or said.mode != "passthrough" or host.phys_bits is None:
        return request
    bits = min(host.phys_bits, said.limit or host.phys_bits)
    there = origin("element", "maxphysaddr passthrough")
    named = (Property(_HOST_BITS[0], False, there), Property(_PHYS_BITS, bits, there))
    return replace(request, maxphysaddr=None, settings=(*request.settings, *named))
