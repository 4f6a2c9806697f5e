"""Whether a CPU can be run on a source, or on a host described: what `enforce` will say, before
anything starts.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from cpumap.arch.known import arch_of, must_compare
from cpumap.cpu.expansion import Context, CpuModel, Expansion
from cpumap.cpu.host import UNKNOWN_MACHINE, ThisMachine
from cpumap.cpu.names import Property, PropertyName, Value
from cpumap.cpu.origin import OPTIONAL, Origin, origin
from cpumap.cpu.request import OWN_CPU, CpuRequest
from cpumap.errors import SourceError
from cpumap.hosts.described import (
    DescribedHost,
    asked_of,
    for_accel,
    known_to,
    lacking_on,
    meant_on,
    open_on,
    request_on,
)
from cpumap.hosts.lack import QEMU, Lack, lacks
from cpumap.libvirt.cpu_map.map import CpuMap
from cpumap.libvirt.cpu_map.places import bits_of
from cpumap.libvirt.rules.full_check import (
    PASSES,
    FullCheck,
    check_of,
    expected_features,
    full_check,
)
from cpumap.libvirt.rules.update import update
from cpumap.pin.expand import (
    ON,
    OUTSIDE_CPU_OPTION,
    expand,
    requested_properties,
    topology_refused,
)
from cpumap.runnable.available import available
from cpumap.runnable.available_json import available_host
from cpumap.runnable.checked import Checked
from cpumap.runnable.lacking import (
    by_option,
    forbidden_there,
    lacks_on_host,
    nameless_lack,
    not_described_on,
    off_beneath,
    taken_along,
)
from cpumap.runnable.on_host import MostOf, strict_refused, vendor_refused
from cpumap.runnable.rules import refused_by_rule, refused_when_realised, unproven_by_rule
from cpumap.runnable.warnings import warned_of_cpu, warned_of_start
from cpumap.sources.platform import Platform

NOT_IN_MAX = frozenset({"ht", "kvm-hint-dedicated", "lmce", "topoext"})
"""What QEMU 5.2 to 11.1 can give although `max` has it not: a QEMU that runs cannot be asked for
these.
"""


UNTRIED = (
    "told from the model's unavailable-features and from what max has; not tried: enforce itself, "
    "values that QEMU "
    f"refuses, {', '.join(sorted(NOT_IN_MAX))}"
)


def check(
    request: CpuRequest,
    platform: Platform,
    *,
    host: DescribedHost | None = None,
    here: ThisMachine = UNKNOWN_MACHINE,
) -> Checked:
    """Whether this platform, or `host` with its QEMU, can run the CPU.

    host-model, match='minimum' and optional features are resolved against `host` first, as libvirt
    does; host-model without one means the host that the source runs on.
    `here` is the machine that the source runs on, for who lacks a feature. Errors:
    `UnknownNameError` for a model or machine type nobody knows, `SourceError`. A recording made
    under KVM holds no host: without `host`, nothing is proven runnable on it.
    """
    must_compare(arch_of(platform.source.arch).name, request.where)
    found = check_features(request, platform, host=host, here=here)
    if found.refused:
        return found
    most = MostOf(platform, found.context.machine, host)
    refused = vendor_refused(request, most) or strict_refused(request, most)
    if not refused:
        return found
    if check_of(request) == "none":
        unlooked = f"check='none': libvirt does not look at it, but {refused}"
        return replace(found, warnings=(*found.warnings, unlooked))
    return replace(found, refused=refused)


def check_features(
    request: CpuRequest,
    platform: Platform,
    *,
    host: DescribedHost | None = None,
    here: ThisMachine = UNKNOWN_MACHINE,
) -> Checked:
    """As `check`, but for the host's vendor, and for what the host has beyond the CPU."""
    source = platform.source
    machine = platform.machine_for(request)
    name = machine.name
    arch = request.arch or arch_of(source.arch).name
    context = Context(source.version, arch, name, source.accel, source.build())
    unfit = topology_refused(request) or refused_by_rule(request, machine, source)
    if unfit:
        return Checked(context, request.model or request.mode or "default", refused=unfit)
    hostless = host is None and source.accel == "kvm" and not source.own_host
    platform = replace(platform, machine=name)
    if host is not None:
        host = for_accel(host, source.accel)
        request = _on_described(host, request, platform)
    elif request.mode == "host-model":
        request = _on_own_host(request, platform, here)
    known, unknown = _without_unknown(request, platform, name)
    if host is not None and request.mode in OWN_CPU:
        found = _own_of_described(known, platform, context, host)
    else:
        found = _expanded(known, platform, context, host, here)
    missing = (*unknown, *found.missing)
    found = replace(
        found,
        missing=missing,
        forbidden=forbidden_there(known, platform, context, host),
        unproven="; ".join(
            filter(
                None,
                (
                    f"{source.label} was recorded under KVM and holds no host (--host FILE)"
                    if hostless
                    else "",
                    found.unproven,
                    unproven_by_rule(request, machine),
                ),
            )
        ),
        hostless=hostless,
    )
    return replace(found, warnings=(*found.warnings, *warned_of_start(request, found)))


def _own_of_described(
    request: CpuRequest, platform: Platform, context: Context, host: DescribedHost
) -> Checked:
    """The host's own CPU, of which nothing says what it is, with what is asked for beside it: by
    `<feature>` or in a `-cpu` string.
    """
    cpu_map = platform.cpu_map
    bare = CpuModel(arch_of(platform.source.arch).bare_model)
    features = platform.source.expand(context.machine, bare, "static").props
    asked = {
        prop.name: prop.origin
        for prop in requested_properties(request, cpu_map, arch_of(platform.source.arch))
        if prop.value is True and (prop.origin.kind == "policy" or prop.name in features)
    }
    lacking = dict.fromkeys(lacking_on(host, asked), "")
    return Checked(
        context,
        request.mode or "",
        lacks_on_host(host, lacking, asked, cpu_map),
        undescribed=not_described_on(host, open_on(host, asked), asked, cpu_map),
    )


def _on_described(host: DescribedHost, request: CpuRequest, platform: Platform) -> CpuRequest:
    """What the request means on the host; its own CPU stays that where nothing says what it is."""
    if request.mode in OWN_CPU and not host.cpu.made:
        name = platform.machine_for(request).name
        return request_on(host, request, platform.cpu_map, known_to(platform.source, name))
    return meant_on(host, request, platform)[0]


def _on_own_host(request: CpuRequest, platform: Platform, here: ThisMachine) -> CpuRequest:
    """host-model on the host that the source runs on."""
    found = available(platform, here, options=False)
    cpu = available_host(found, platform.cpu_map, "best", migratable=True)
    return update(replace(cpu, where=platform.source.label), request, platform.cpu_map)


def _without_unknown(
    request: CpuRequest, platform: Platform, machine: str
) -> tuple[CpuRequest, tuple[Lack, ...]]:
    """The request less what this QEMU has no property for, and that as lacks: QEMU would not
    start with it.
    """
    cpu_map = platform.cpu_map
    arch = arch_of(platform.source.arch)
    bare = known_to(platform.source, machine) | arch.of_host_models
    asked = [
        prop
        for prop in requested_properties(request, cpu_map, arch)
        if prop.name not in bare and prop.value is not False and _is_somebodys(prop, cpu_map)
    ]
    gone = {prop.name for prop in asked}
    features = tuple(f for f in request.features if cpu_map.property_of(f.name) not in gone)
    settings = tuple(prop for prop in request.settings if prop.name not in gone)
    found = tuple(_unknown(prop, cpu_map) for prop in asked if prop.origin != OPTIONAL)
    return replace(request, features=features, settings=settings), found


def _is_somebodys(prop: Property, cpu_map: CpuMap) -> bool:
    """Whether the name is one that libvirt has; any other is a mistake of whoever wrote it,
    which `expand` refuses.
    """
    if prop.origin.kind == "policy":
        return cpu_map.feature_of(prop.name) in cpu_map.features
    return prop.origin.kind not in ("-cpu", *OUTSIDE_CPU_OPTION)


def _unknown(prop: Property, cpu_map: CpuMap) -> Lack:
    return Lack(
        prop.name, cpu_map.feature_of(prop.name), bits_of(prop.name, cpu_map), QEMU, prop.origin
    )


def _expanded(
    request: CpuRequest,
    platform: Platform,
    context: Context,
    host: DescribedHost | None,
    here: ThisMachine,
) -> Checked:
    source, cpu_map = platform.source, platform.cpu_map
    try:
        expansion, unproven = _expansion(request, platform)
    except SourceError as err:
        if not source.makes_cpus:
            raise
        # A QEMU that does not run at all does not say what its models lack either.
        missing = _of_definition(request, platform, context.machine)
        origins = dict.fromkeys(missing, origin("model", request.model or ""))
        found = lacks(missing, origins, context.accel, here, cpu_map)
        return Checked(context, request.model or request.mode or "", found, refused=str(err))
    origins = _origins(expansion)
    unsaid: tuple[Lack, ...] = ()
    if host is not None:
        asked = frozenset(asked_of(expansion, request))
        missing, nameless = dict.fromkeys(lacking_on(host, asked), ""), []
        unsaid = not_described_on(host, open_on(host, asked), origins, cpu_map)
    else:
        missing = {PropertyName(name): words for name, words in expansion.unavailable.items()}
        nameless = [nameless_lack(bit, expansion) for bit in expansion.nameless]
    optional = tuple(sorted(name for name in missing if origins.get(name) == OPTIONAL))
    missing = {name: words for name, words in missing.items() if name not in optional}
    found = (
        lacks_on_host(host, missing, origins, cpu_map)
        if host is not None
        else by_option(
            lacks(missing, origins, context.accel, here, cpu_map), source, context.machine
        )
    )
    unmet = off_beneath(expansion, missing, cpu_map)
    warned = tuple(
        lack for lack in unmet if lack.words or taken_along(lack.property, expansion, source)
    )
    silent = tuple(lack for lack in unmet if lack not in warned)
    missed = (*found, *nameless, *warned)
    start = at_start(request, expansion, cpu_map, {*missing, *optional})
    return Checked(
        context,
        expansion.model.name,
        missed,
        optional=optional,
        silent=silent,
        refused=refused_when_realised(expansion),
        start=start,
        unproven=unproven,
        undescribed=unsaid,
        warnings=tuple(warned_of_cpu(request, expansion, host)),
    )


def unavailable_in(expansion: Expansion) -> frozenset[PropertyName]:
    """What this CPU asks for and is not given."""
    return frozenset(PropertyName(name) for name in expansion.unavailable)


def at_start(
    request: CpuRequest,
    expansion: Expansion,
    cpu_map: CpuMap,
    lacking: Collection[PropertyName] = (),
) -> FullCheck:
    """What libvirt's full check finds when this QEMU has started the guest without what is
    `lacking`; nothing where libvirt makes none.

    What QEMU turns on for the guest's own topology is on.
    """
    if not request.by_libvirt or request.mode != "custom" or check_of(request) != "full":
        return PASSES
    realised = expansion.realised
    on = {
        cpu_map.feature_of(name): True
        for name, value in realised.items()
        if value is True and name not in lacking
    }
    vendor = realised.get(PropertyName("vendor"))
    arch = arch_of(expansion.context.arch)
    for turned in arch.turned_on(expansion.context.qemu, request.topology, vendor):
        on[turned.name] = True
    gone = {cpu_map.feature_of(name) for name in lacking}
    expected = dict.fromkeys(gone, True) | expected_features(request)
    for feature in request.features:
        if feature.policy == "optional" and feature.name in gone:
            expected[feature.name] = False
    return full_check(expected, on, cpu_map, request.model)


def _expansion(request: CpuRequest, platform: Platform) -> tuple[Expansion, str]:
    """The expansion, and what nobody could try of it.

    A QEMU that runs makes no other CPU than its own, but says what is unavailable of each model,
    MSR bits too, and by its `max` what can be added to one.
    """
    expansion = expand(request, platform, must_realise=False)
    source = platform.source
    if source.makes_cpus:
        return expansion, ""
    unproven = ""
    if not _is_shown(expansion):
        unproven = f"{source.label} makes no other CPU than its own: {UNTRIED}"
        expansion = replace(expansion, realised=expansion.full)
    arch = arch_of(source.arch)
    every: dict[PropertyName, Value] = {arch.migratable: False} if arch.migratable else {}
    most = source.expand(expansion.context.machine, CpuModel(arch.maximum, every), "static").props
    added = (p.name for p in expansion.asked if p.value is True and most.get(p.name) is False)
    missing = [
        *expansion.definition.unavailable,
        *(name for name in added if name not in NOT_IN_MAX),
    ]
    said = {name: "" for name in missing if expansion.full.get(PropertyName(name)) is True}
    words = {name: text for name, text in expansion.unavailable.items() if text != name}
    return replace(expansion, unavailable={**said, **words}), unproven


def _is_shown(expansion: Expansion) -> bool:
    """Whether the realised CPU is the one asked for, and not the one that the QEMU happens to
    run.
    """
    realised = expansion.realised
    own = realised.get(PropertyName("type")) == expansion.definition.typename
    return own and all(realised.get(prop.name) == prop.value for prop in expansion.asked)


def _of_definition(
    request: CpuRequest, platform: Platform, machine: str
) -> dict[PropertyName, str]:
    """What QEMU says, without making the CPU, that its model needs and does not get here."""
    disabled = {
        platform.cpu_map.property_of(f.name) for f in request.features if f.policy not in ON
    }
    names = next(
        (d.unavailable for d in platform.source.definitions(machine) if d.name == request.model), ()
    )
    return {PropertyName(name): "" for name in names if name not in disabled}


def _origins(expansion: Expansion) -> dict[PropertyName, Origin]:
    own = origin("model", expansion.model.name)
    asked = {prop.name: prop.origin for prop in expansion.asked}
    return {name: asked.get(name, own) for name in expansion.realised}
