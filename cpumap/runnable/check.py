"""Whether a CPU can be run on a source, or on a host described: what `enforce` will say, before
anything starts.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from cpumap.arch.known import arch_of
from cpumap.cpu.bits import Bit, CpuidBits, place
from cpumap.cpu.expansion import Context, CpuModel, Expansion
from cpumap.cpu.host import UNKNOWN_MACHINE, HostCpu, ThisMachine
from cpumap.cpu.names import FeatureName, Property, PropertyName, Value
from cpumap.cpu.origin import OPTIONAL, Origin, origin
from cpumap.cpu.request import CpuRequest, FeaturePolicy
from cpumap.errors import InputError, SourceError
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
from cpumap.hosts.lack import (
    HOST,
    NOT_SAID,
    OPTION,
    QEMU,
    Lack,
    lack_json,
    lacks,
    who_lacks_nameless,
)
from cpumap.hosts.passthrough import OWN_CPU
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
from cpumap.runnable.available import available, option_effects
from cpumap.runnable.available_json import available_host
from cpumap.sources.platform import Platform
from cpumap.sources.source import Source

NOT_IN_MAX = frozenset({"ht", "kvm-hint-dedicated", "lmce", "topoext"})
"""What QEMU 5.2 to 11.1 can give although `max` has it not: a QEMU that runs cannot be asked for
these.
"""


UNTRIED = (
    "told from the model's unavailable-features and from what max has; not tried: enforce itself, "
    "values that QEMU "
    f"refuses, {', '.join(sorted(NOT_IN_MAX))}"
)


@dataclass(frozen=True, slots=True)
class Checked:
    """Whether a CPU is runnable, and what stands in the way."""

    context: Context
    model: str
    missing: tuple[Lack, ...] = ()
    """Features asked for that cannot be given: QEMU with `enforce` does not start, without it
    leaves them out.
    """
    forbidden: tuple[Lack, ...] = ()
    """Features with policy forbid that can be given: libvirt does not start the domain."""
    optional: tuple[PropertyName, ...] = ()
    """Optional features that cannot be given, and so are left out."""
    silent: tuple[Lack, ...] = ()
    """Features asked for that QEMU leaves out without a word, even with `enforce`: pdcm without
    pmu, for one.
    """
    refused: str = ""
    """QEMU's words when it makes no such CPU at all, features aside."""
    start: FullCheck = PASSES
    """What libvirt's own check finds when it starts the domain, where it makes a full one."""
    unproven: str = ""
    """What could not be tried, where no CPU could be made to look at."""
    undescribed: tuple[Lack, ...] = ()
    """Features asked for of which the host's description does not say whether guests get them."""

    @property
    def stopped(self) -> bool:
        """Whether something is known to keep the guest from having exactly this CPU."""
        found = self.missing or self.forbidden or self.silent or self.refused
        return bool(found) or not self.start.passes

    @property
    def runnable(self) -> bool:
        """Whether the guest is known to start with exactly the CPU that was asked for."""
        return not self.stopped and not self.undescribed

    @property
    def enforce_fails(self) -> bool:
        """Whether QEMU with `enforce` ends before the guest starts."""
        return bool(self.missing or self.refused)

    def to_json(self) -> dict[str, Any]:
        """JSON-ready values."""
        return {
            "runnable": self.runnable,
            "enforce-fails": self.enforce_fails,
            "context": self.context.as_json(),
            "model": self.model,
            "missing": [lack_json(lack) for lack in self.missing],
            "forbidden": [lack_json(lack) for lack in self.forbidden],
            "not-described": [lack_json(lack) for lack in self.undescribed],
            "silently-left-out": [lack_json(lack) for lack in self.silent],
            "optional-left-out": list(self.optional),
            "refused": self.refused,
            "libvirt-refuses": "" if self.start.passes else str(self.start),
            "unproven": self.unproven,
        }


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
    `UnknownNameError` for a model or machine type nobody knows, `InputError` for a recording
    without a host where one is needed, `SourceError`.
    """
    source, cpu_map = platform.source, platform.cpu_map
    unfit = topology_refused(request)
    if unfit:
        where = platform.machine_for(request).name
        arch = request.arch or arch_of(source.arch).name
        context = Context(source.version, arch, where, source.accel)
        return Checked(context, request.model or request.mode or "default", refused=unfit)
    if host is None and source.accel == "kvm" and not source.own_host:
        raise InputError(
            f"{source.label} was recorded under KVM and holds no host: name one with --host"
        )
    name = platform.machine_for(request).name
    platform = replace(platform, machine=name)
    arch = request.arch or arch_of(source.arch).name
    context = Context(source.version, arch, name, source.accel, source.build())
    if host is not None:
        host = for_accel(host, source.accel)
        request = _on_described(host, request, platform)
    elif request.mode == "host-model":
        request = _on_own_host(request, platform, here)
    known, unknown = _without_unknown(request, platform, name)
    if host is not None and request.mode in OWN_CPU:
        asked = {
            cpu_map.property_of(f.name): origin("policy", f.policy)
            for f in known.features
            if f.policy in ON
        }
        found = Checked(
            context,
            request.mode,
            _on_host(host, dict.fromkeys(lacking_on(host, asked), ""), asked, cpu_map),
        )
    else:
        found = _expanded(known, platform, context, host, here)
    missing = (*unknown, *found.missing)
    return replace(found, missing=missing, forbidden=_forbidden(known, platform, context, host))


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
        unsaid = _undescribed(host, open_on(host, asked), origins, cpu_map)
    else:
        missing = {PropertyName(name): words for name, words in expansion.unavailable.items()}
        nameless = [_nameless(bit, expansion) for bit in expansion.nameless]
    optional = tuple(sorted(name for name in missing if origins.get(name) == OPTIONAL))
    missing = {name: words for name, words in missing.items() if name not in optional}
    found = (
        _on_host(host, missing, origins, cpu_map)
        if host is not None
        else _by_option(
            lacks(missing, origins, context.accel, here, cpu_map), source, context.machine
        )
    )
    left_out = _left_out(expansion, missing, cpu_map)
    warned = tuple(
        lack for lack in left_out if lack.words or _depends(lack.property, expansion, source)
    )
    silent = tuple(lack for lack in left_out if lack not in warned)
    missed = (*found, *nameless, *warned)
    start = at_start(request, expansion, cpu_map, {*missing, *optional})
    return Checked(
        context,
        expansion.model.name,
        missed,
        optional=optional,
        silent=silent,
        start=start,
        unproven=unproven,
        undescribed=unsaid,
    )


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


def _nameless(bit: Bit, expansion: Expansion) -> Lack:
    leaf, subleaf, register, number = bit
    bits = CpuidBits(leaf, subleaf, register, 1 << number)
    who = who_lacks_nameless(expansion.context.accel)
    return Lack(
        PropertyName(""),
        FeatureName(""),
        (bits,),
        who,
        origin("model", expansion.model.name),
        place(bits),
    )


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


def _by_option(found: tuple[Lack, ...], source: Source, machine: str) -> tuple[Lack, ...]:
    """The lacks, those put down to an option of QEMU that would give the feature: kernel-irqchip
    decides over some.
    """
    if not any(lack.who == QEMU or lack.property.startswith("kvm") for lack in found):
        return found
    given = {
        name: effect.option for effect in option_effects(source, machine) for name in effect.gained
    }
    return tuple(
        replace(lack, who=f"option ({given[lack.property]} would give it)")
        if lack.property in given
        else lack
        for lack in found
    )


def _on_host(
    host: DescribedHost,
    missing: Mapping[PropertyName, str],
    origins: Mapping[PropertyName, Origin],
    cpu_map: CpuMap,
) -> tuple[Lack, ...]:
    """The lacks, put down to CPU, kernel, QEMU or an option of that host as far as its
    description lets tell.
    """
    cpu = host.cpu
    found = lacks(missing, origins, cpu.accel or "kvm", cpu.own, cpu_map)
    return tuple(replace(lack, who=f"{_on(lack, cpu)} ({host.name})") for lack in found)


def _undescribed(
    host: DescribedHost,
    names: Iterable[PropertyName],
    origins: Mapping[PropertyName, Origin],
    cpu_map: CpuMap,
) -> tuple[Lack, ...]:
    """The features that the description leaves open, as lacks of nobody that is known."""
    words = dict.fromkeys(names, "")
    found = lacks(words, origins, host.cpu.accel or "kvm", host.cpu.own, cpu_map)
    return tuple(replace(lack, who=f"{NOT_SAID} ({host.name})") for lack in found)


def _on(lack: Lack, cpu: HostCpu) -> str:
    if lack.property in cpu.options:
        return f"option ({cpu.options[lack.property]} would give it)"
    return HOST if cpu.own == UNKNOWN_MACHINE else lack.who


def _left_out(
    expansion: Expansion, missing: Collection[PropertyName], cpu_map: CpuMap
) -> tuple[Lack, ...]:
    """Features asked for that QEMU leaves out since something that they depend on is off."""
    found = []
    for prop in expansion.asked:
        is_feature = prop.name in expansion.static and prop.origin != OPTIONAL
        if (
            is_feature
            and prop.value is True
            and expansion.realised.get(prop.name) is False
            and prop.name not in missing
        ):
            bits = bits_of(prop.name, cpu_map)
            words = expansion.unmet.get(prop.name, "")
            found.append(
                Lack(prop.name, cpu_map.feature_of(prop.name), bits, OPTION, prop.origin, words)
            )
    return tuple(found)


def _depends(prop: PropertyName, expansion: Expansion, source: Source) -> bool:
    """Whether, by a recording, a feature that is off takes this one with it: QEMU warns then,
    and `enforce` fails.
    """
    off = (name for name in expansion.static if expansion.realised.get(name) is False)
    return any(prop in source.dependants(name) for name in off)


def _forbidden(
    request: CpuRequest,
    platform: Platform,
    context: Context,
    host: DescribedHost | None,
) -> tuple[Lack, ...]:
    wanted = [feature for feature in request.features if feature.policy == "forbid"]
    if not wanted:
        return ()
    cpu_map = platform.cpu_map
    if host is None:
        every = CpuModel(arch_of(platform.source.arch).maximum)
        most = platform.source.expand(context.machine, every, "static").props
        there = [
            feature for feature in wanted if most.get(cpu_map.property_of(feature.name)) is True
        ]
    else:
        there = [feature for feature in wanted if host.gives(cpu_map.property_of(feature.name))]
    return tuple(_forbidden_lack(feature, cpu_map) for feature in there)


def _forbidden_lack(feature: FeaturePolicy, cpu_map: CpuMap) -> Lack:
    prop = cpu_map.property_of(feature.name)
    return Lack(prop, feature.name, bits_of(prop, cpu_map), "nobody", origin("policy", "forbid"))
