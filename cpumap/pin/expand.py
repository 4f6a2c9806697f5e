"""What a requested CPU is on one QEMU: asks a `Source`. Feature names become property names here
and nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from cpumap.arch.arch import Arch
from cpumap.arch.known import arch_of
from cpumap.cpu.expansion import Context, CpuModel, Definition, Expansion, Machine, Realised
from cpumap.cpu.machine_type import machine_type, release
from cpumap.cpu.names import Property, PropertyName, Value
from cpumap.cpu.origin import OPTIONAL, OriginKind, origin
from cpumap.cpu.request import OWN_CPU, CpuRequest, FeaturePolicy
from cpumap.errors import CannotRealiseError, ResolveError, UnknownNameError
from cpumap.libvirt.cpu_map.map import CpuMap
from cpumap.libvirt.releases import lost_by, words_of
from cpumap.libvirt.words import NEVER_PASSED
from cpumap.sources.newer import too_new
from cpumap.sources.platform import Platform
from cpumap.sources.source import Source

ON = frozenset({"force", "require", "optional"})


OUTSIDE_CPU_OPTION: frozenset[OriginKind] = frozenset({"-global", "qemu:commandline"})
"""Origins of settings that QEMU is given beside `-cpu`."""


_NEEDS_HOST = (
    "means the host's CPU: `cpumap host --format json > HOST.json` there describes it, for "
    "--host HOST.json"
)


NEWER_TYPE = "type"
"""What QEMU says is unavailable of a model newer than the machine that it runs on: no features
that are left out can help.
"""


def expand(request: CpuRequest, platform: Platform, *, must_realise: bool = True) -> Expansion:
    """What this QEMU makes of the request under its machine type.

    A running QEMU can make no other CPU than it has: where that need not be, its full expansion is
    taken instead, which leaves address bits and microcode revision to QEMU, and what is lacking is
    known for the model alone. Errors: `UnknownNameError` for a model, feature or machine type
    nobody knows, `ResolveError` for one that needs a host to be known and for what libvirt refuses
    to define, `SourceError` when QEMU fails.
    """
    refuse_topology(request)
    source, cpu_map = platform.source, platform.cpu_map
    arch = arch_of(source.arch)
    where = platform.machine_for(request)
    definitions = {definition.name: definition for definition in source.definitions(where.name)}
    refuse_policies(request, arch)
    _refuse_under_kvm(request, where, arch, source)
    name, below = _model(request, where, definitions, platform)
    if name not in definitions:
        raise UnknownNameError(
            f"{name!r} is whatever its host has: {source.label} cannot say what that is",
            request.where,
        )
    definition = definitions[name]
    bare = _bare(request, source, where.name, name)
    properties = [*below, *requested_properties(request, cpu_map, arch)]
    asked = tuple(_known(properties, bare, request, source))
    _refuse_contradiction(arch, asked, request)
    # asked under the very name: old machine types change Haswell, and not the Haswell-v1 that it
    # stands for
    model = CpuModel(name, {prop.name: prop.value for prop in asked})
    full = shown(source, where.name, model)
    static = _static(source, where.name, model)
    if arch.explicit == "static":
        realised = Realised(full, _lacking(arch, full, definition, definitions.values()))
    else:
        try:
            realised = source.realise(where.name, model)
        except CannotRealiseError:
            if must_realise:
                raise
            realised = Realised(
                full, {n: n for n in definition.unavailable if full.get(PropertyName(n)) is True}
            )
    return Expansion(
        context=Context(
            source.version, request.arch or arch.name, where.name, source.accel, source.build()
        ),
        model=replace(model, name=_versioned(definition, definitions)),
        definition=definition,
        asked=asked,
        static=static.props,
        static_model=static.name,
        full=full,
        realised=realised.properties,
        unavailable=realised.filtered,
        unmet=realised.unmet,
        fallen=_fallen(source, where.name, model, realised),
        nameless=realised.nameless,
        own_host=source.own_host,
    )


def _fallen(
    source: Source, machine: str, model: CpuModel, realised: Realised
) -> frozenset[PropertyName]:
    """What QEMU switches off with the unavailable features: those which depend on them."""
    if arch_of(source.arch).explicit == "static":
        return frozenset()  # QEMU makes what was asked for, or nothing
    gone = [PropertyName(name) for name in realised.filtered]
    if not gone or not source.makes_cpus:
        return frozenset()
    less = replace(model, props={**model.props, **dict.fromkeys(gone, False)})
    after = source.realise(machine, less).properties
    was_on = {name for name, value in realised.properties.items() if value is True}
    return frozenset(name for name in was_on.difference(gone) if after.get(name) is False)


def refuse_policies(request: CpuRequest, arch: Arch) -> None:
    """Errors: `ResolveError` for what libvirt refuses where it knows no names of the architecture's
    CPUs, in its words (measured on 9.0).
    """
    if not (arch.any_feature and request.by_libvirt and request.mode == "custom"):
        return
    at = f"{request.where}: " if request.where else ""
    if request.match == "minimum" and arch.policies == "refused":
        raise ResolveError(f"{at}libvirt refuses this: match mode minimum not supported")
    for feature in request.features:
        line = f"{request.where.rpartition(':')[0]}:{feature.line}: " if at else ""
        if arch.libvirt_features is not None and feature.name not in arch.libvirt_features:
            raise UnknownNameError(f"{line}libvirt knows no {arch.name} CPU feature {feature.name}")
        if feature.policy in ("optional", "forbid") and arch.policies == "refused":
            raise ResolveError(
                f"{line}libvirt refuses policy '{feature.policy}': only cpu feature policies "
                f"'require' and 'disable' are supported for {feature.name}"
            )


def _refuse_under_kvm(request: CpuRequest, machine: Machine, arch: Arch, source: Source) -> None:
    """Errors: `ResolveError` for a model that KVM takes under later machine types only."""
    known = machine_type(machine.name).release
    is_old = arch.models_under_kvm and known and known < release(arch.models_under_kvm)
    if is_old and source.accel == "kvm" and request.mode not in ("host-passthrough", "maximum"):
        at = f"{request.where}: " if request.where else ""
        raise ResolveError(
            f"{at}KVM takes no CPU model under {machine.name}: machine types before "
            f"{arch.models_under_kvm} have host-passthrough only"
        )


def _refuse_contradiction(arch: Arch, asked: Iterable[Property], request: CpuRequest) -> None:
    """Errors: `ResolveError` where a group and a feature of it are asked for differently: QEMU's
    command line and its QMP read them in different orders.
    """
    clash = arch.groups.contradiction({prop.name: prop.value for prop in asked})
    if clash:
        raise ResolveError(f"{request.where}: different values are asked for {clash}".lstrip(": "))


def _lacking(
    arch: Arch,
    full: Mapping[PropertyName, Value],
    definition: Definition,
    definitions: Iterable[Definition],
) -> dict[str, str]:
    """The features of the CPU that QEMU says of any model it cannot give, by their names; the
    model's own type may be among them.
    """
    never = arch.groups.singles(
        PropertyName(name) for entry in definitions for name in entry.unavailable
    )
    type_lacks = {NEWER_TYPE: NEWER_TYPE} if NEWER_TYPE in definition.unavailable else {}
    lacking = arch.groups.named(arch.groups.on(full) & never)
    return {**{name: name for name in sorted(lacking)}, **type_lacks}


def _bare(
    request: CpuRequest, source: Source, machine: str, name: str
) -> Mapping[PropertyName, Value]:
    """The properties of the model by itself. Errors: `ResolveError` for a host's own CPU that a
    recording cannot know.
    """
    try:
        return shown(source, machine, CpuModel(name))
    except UnknownNameError as err:
        if source.own_host or request.mode not in OWN_CPU:
            raise
        raise ResolveError(f"{request.where}: {request.mode} {_NEEDS_HOST}") from err


def refuse_topology(request: CpuRequest) -> None:
    """Errors: `ResolveError` with libvirt's reason where the topology is not that of the vCPUs."""
    reason = topology_refused(request) or _threads_refused(request)
    if reason:
        raise ResolveError(f"{request.where}: {reason}" if request.where else reason)


def _threads_refused(request: CpuRequest) -> str:
    """Why several threads of a core cannot be held; empty where they can, or there are none."""
    if request.topology is None or request.topology.threads == 1 or request.arch is None:
        return ""
    arch = arch_of(request.arch, request.where)
    unknown = f"what several threads of a core change for {arch.name} was not measured"
    return "" if arch.threads_measured else unknown


def topology_refused(request: CpuRequest) -> str:
    """Why libvirt refuses the topology; empty where it does not (measured on 9.0)."""
    topology = request.topology
    if topology is None or topology.count == request.vcpus:
        return ""
    return "CPU topology doesn't match maximum vcpu count"


def requested_properties(request: CpuRequest, cpu_map: CpuMap, arch: Arch) -> Iterable[Property]:
    """What the request sets on top of its model, in QEMU's names; a later one of the same name
    wins.

    As in QEMU, what is set by `-global` gives way to everything that stands in `-cpu`.
    """
    yield from request.of_host
    outside = [setting for setting in request.settings if setting.origin.kind in OUTSIDE_CPU_OPTION]
    yield from outside
    if request.vendor_id:
        yield Property(PropertyName("vendor"), request.vendor_id, origin("element", "vendor_id"))
    if request.migratable is not None:
        yield Property(
            PropertyName("migratable"), request.migratable, origin("element", "migratable")
        )
    if request.by_libvirt and request.mode == "custom" and request.model:
        for name in lost_by(request.model, cpu_map.words or words_of()):
            yield Property(cpu_map.property_of(name), False, origin("removed by libvirt"))
    for feature in request.features:
        if request.by_libvirt and feature.name in NEVER_PASSED:
            continue
        if feature.policy == "optional" and arch.any_feature:
            continue  # libvirt passes nothing on
        yield Property(
            cpu_map.property_of(feature.name),
            feature.policy in ON,
            origin("policy", feature.policy),
        )
    yield from (setting for setting in request.settings if setting not in outside)
    yield from arch.words(request)


def shown(source: Source, machine: str, model: CpuModel) -> Mapping[PropertyName, Value]:
    """Every property that QEMU shows of a model: its full expansion, or the realised CPU where
    QEMU expands no model of this architecture.
    """
    if "full" in arch_of(source.arch).expansions:
        return source.expand(machine, model, "full").props
    return source.realise(machine, model).properties


def _static(source: Source, machine: str, model: CpuModel) -> CpuModel:
    """The static expansion; nothing where QEMU has none."""
    if "static" in arch_of(source.arch).expansions:
        return source.expand(machine, model, "static")
    return CpuModel("")


def _model(
    request: CpuRequest,
    machine: Machine,
    definitions: Mapping[str, Definition],
    platform: Platform,
) -> tuple[str, list[Property]]:
    """QEMU's model for the request, and what the CPU map puts on it where QEMU does not know the
    model itself.
    """
    if request.mode == "host-model":
        raise ResolveError(f"{request.where}: host-model {_NEEDS_HOST}")
    arch = arch_of(platform.source.arch)
    if request.mode in OWN_CPU:
        own = arch.host_passthrough[platform.source.accel]
        return own if request.mode == "host-passthrough" else arch.maximum, []
    name = request.model or _labelled_default(request) or default_model(machine, arch)
    if arch.any_case:
        name = next((known for known in definitions if known.lower() == name.lower()), name)
    if name in definitions:
        return name, []
    return _compiled(name, request, definitions, platform)


def _labelled_default(request: CpuRequest) -> str | None:
    """The model that Proxmox gives a guest which names none; None under any other machine type.

    Source: Proxmox VE's administration guide, `qm`, the option cpu.
    """
    label = machine_type(request.machine or "").label
    return "kvm64" if label.startswith("+pve") else None


def default_model(machine: Machine, arch: Arch) -> str:
    """The CPU of a guest that names none: the machine type's, whatever the guest's architecture
    (libvirt asks no more either). Errors: `ResolveError` where nobody says.
    """
    if machine.default_cpu:
        return arch.model_of(machine.default_cpu)
    if arch.default_model is None:
        raise ResolveError(f"{machine.name} has no default CPU: name a model")
    return arch.default_model


def _compiled(
    name: str,
    request: CpuRequest,
    definitions: Mapping[str, Definition],
    platform: Platform,
) -> tuple[str, list[Property]]:
    """A model that only the CPU map has, on the nearest model it inherits from that QEMU has, or
    on `base`.
    """
    source, cpu_map = platform.source, platform.cpu_map
    try:
        model = cpu_map.model(name, request.where)
    except UnknownNameError as err:
        message = too_new(name, source) or (
            f"CPU model {name!r} is known neither to {source.label} nor to the CPU map "
            f"{cpu_map.path}"
        )
        raise UnknownNameError(message, request.where) from err
    parent = model.base
    while parent and parent not in definitions:
        parent = cpu_map.model(parent).base
    arch = arch_of(source.arch)
    stands_on = parent or arch.bare
    if stands_on is None:
        raise UnknownNameError(f"{source.label} has no CPU model {name!r}", request.where)
    below = cpu_map.model(parent).features if parent else frozenset()
    there = origin("CPU map model", name)
    found = [
        Property(cpu_map.property_of(feature), True, there)
        for feature in sorted(model.features - below)
    ]
    found += [
        Property(cpu_map.property_of(feature), False, there)
        for feature in sorted(below - model.features)
    ]
    if model.vendor and model.vendor in cpu_map.vendors:
        found.append(Property(PropertyName("vendor"), cpu_map.vendors[model.vendor].string, there))
    for signature in model.signatures[:1]:
        stepping = min(signature.steppings) if signature.steppings else 0
        numbers = {"family": signature.family, "model": signature.model, "stepping": stepping}
        found += [Property(PropertyName(key), number, there) for key, number in numbers.items()]
    return parent or "base", found


def _versioned(definition: Definition, definitions: Mapping[str, Definition]) -> str:
    """The model's versioned name; machine types up to 4.0 say of no name that it is an alias,
    and mean version 1.
    """
    target = definition.alias_of or f"{definition.name}-v1"
    return target if target in definitions else definition.name


def _known(
    asked: Iterable[Property],
    bare: Mapping[PropertyName, Value],
    request: CpuRequest,
    source: Source,
) -> Iterable[Property]:
    """The last of each name. What QEMU does not know is left out when it is to be off, and
    refused otherwise.
    """
    policies: dict[str, FeaturePolicy] = {feature.name: feature for feature in request.features}
    arch = arch_of(source.arch)
    for prop in {prop.name: prop for prop in asked}.values():
        if prop.name in bare:
            yield replace(prop, value=_typed(prop.value, bare[prop.name]))
        elif arch.knows(prop.name, bare):
            yield prop
        elif prop.value is not False and prop.origin != OPTIONAL:
            line = policies[prop.name].line if prop.name in policies else 0
            where = f"{request.where.rpartition(':')[0]}:{line}" if line else request.where
            message = f"{source.label} has no CPU property {prop.name!r} ({prop.origin})"
            if prop.origin.kind == "CPU map model":
                message = too_new(str(request.model), source) or message
            raise UnknownNameError(message, where)


def _typed(value: Value, like: Value) -> Value:
    """The value in the type that QEMU gives the property: on a command line, `off` is a word or
    a switch.
    """
    if isinstance(value, bool) and isinstance(like, str):
        return "on" if value else "off"
    if isinstance(like, str):
        return str(value)
    return value


def default_request(
    model: CpuModel, machine: str | None, request: CpuRequest | None = None
) -> CpuRequest:
    """A request for just this model, for commands that take a model name and no domain."""
    settings = tuple(Property(name, value, origin("-cpu")) for name, value in model.props.items())
    return replace(
        request or CpuRequest(), machine=machine, mode="custom", model=model.name, settings=settings
    )
