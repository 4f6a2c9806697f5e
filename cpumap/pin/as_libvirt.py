"""What libvirt's own QEMU driver passes as `-cpu` for a request, to the letter. Judged against
libvirt 9.0.

Where libvirt needs its host to answer (host-model, match='minimum', policy='optional'), so would
this: refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from cpumap.arch.arch import Arch
from cpumap.arch.known import DEFAULT, arch_of, must_run
from cpumap.cpu.expansion import CpuModel
from cpumap.cpu.names import FeatureName, Property
from cpumap.cpu.request import CpuRequest
from cpumap.errors import ResolveError, UnknownNameError
from cpumap.libvirt.cpu_map.entries import Words
from cpumap.libvirt.cpu_map.map import CpuMap
from cpumap.libvirt.releases import lost_by, wants_phys_bits, words_of
from cpumap.libvirt.words import NEVER_PASSED
from cpumap.pin.expand import (
    OUTSIDE_CPU_OPTION,
    default_model,
    refuse_policies,
    shown,
    topology_refused,
)
from cpumap.qemu.arguments import global_arguments, machine_arguments, property_text
from cpumap.sources.platform import Platform

HOST_MODES = frozenset({"host-passthrough", "maximum"})


PINNED_BY = {"force": True, "require": True, "disable": False, "forbid": False}


def libvirt_cpu_args(request: CpuRequest, platform: Platform) -> tuple[str, ...]:
    """`-cpu` and its value, then what `-global` options the request came with.

    The CPU map is libvirt's; QEMU is asked for the default CPU, for the models it has and for the
    features it knows. `ResolveError` with libvirt's reason for what libvirt refuses,
    `UnknownNameError` for a model or feature that is not in the map.
    """
    arch = arch_of(platform.source.arch)
    must_run(platform.source.arch, request.arch, platform.source.label, request.where)
    refuse_policies(request, arch)
    _refuse_unsupported(request, platform.cpu_map, arch)
    model = _model(request, arch, platform)
    if request.mode == "custom":
        _refuse_unknown_model(request, platform)
    pieces = [model, *_model_pieces(request, arch), *_feature_pieces(request, platform)]
    pieces += [
        _text(setting)
        for setting in request.settings
        if setting.origin.kind not in OUTSIDE_CPU_OPTION and arch.place(setting.name) == "-cpu"
    ]
    pieces += [*_cache_pieces(request), *_phys_bits_pieces(request)]
    beside = [setting for setting in request.settings if setting.origin.kind == "-global"]
    outside = {setting.name: setting.value for setting in beside}
    machine = {
        setting.name: setting.value
        for setting in request.settings
        if arch.place(setting.name) == "-machine"
    }
    outside = {name: value for name, value in outside.items() if name not in machine}
    return (
        "-cpu",
        ",".join(pieces),
        *global_arguments(arch.cpu_type, outside),
        *machine_arguments(machine),
    )


def _model(request: CpuRequest, arch: Arch, platform: Platform) -> str:
    """libvirt gives host-passthrough QEMU's `host`, and refuses it without KVM."""
    if request.mode == "host-passthrough":
        return arch.host_passthrough["kvm"]
    if request.mode == "maximum":
        return arch.maximum
    return request.model or default_model(platform.machine_for(request), arch)


def _refuse_unsupported(request: CpuRequest, cpu_map: CpuMap, arch: Arch) -> None:
    """The refusals of libvirt's QEMU driver that depend on the request alone."""
    for reason in (
        topology_refused(request),
        _cache_refused(request),
        _phys_bits_refused(request, cpu_map.words or words_of()),
    ):
        if reason:
            raise _refusal(request, reason)
    for feature in request.features:
        if not cpu_map.has_feature(feature.name):
            raise UnknownNameError(
                f"unknown CPU feature: {feature.name}", _feature_place(request, feature.line)
            )
    if request.mode == "host-passthrough" and request.accel == "tcg":
        raise _refusal(
            request,
            f"CPU mode 'host-passthrough' for {request.arch or DEFAULT.name} qemu domain on "
            f"{request.arch or DEFAULT.name} host is not supported by hypervisor",
        )
    _refuse_host_dependent(request, arch)


def _refuse_host_dependent(request: CpuRequest, arch: Arch) -> None:
    if request.mode == "host-model":
        raise _refusal(
            request, "mode 'host-model' depends on the host: update it against one first"
        )
    if request.mode != "custom" or (arch.any_feature and arch.policies == "dropped"):
        return
    if request.match == "minimum":
        raise _refusal(request, "match 'minimum' depends on the host: update it against one first")
    for feature in request.features:
        if feature.policy == "optional" and feature.name not in NEVER_PASSED:
            raise _refusal(
                request,
                f"policy 'optional' of feature '{feature.name}' depends on the host: update it "
                "against one first",
            )


def _cache_refused(request: CpuRequest) -> str:
    cache = request.cache
    if cache is None:
        return ""
    if cache.mode == "emulate":
        return (
            "" if cache.level == 3 else "CPU cache mode 'emulate' can only be used with level='3'"
        )
    if cache.mode == "passthrough" and request.mode not in HOST_MODES:
        return (
            "CPU cache mode 'passthrough' can only be used with 'host-passthrough' / 'maximum' CPUs"
        )
    return "" if cache.level is None else f"unsupported CPU cache level for mode '{cache.mode}'"


def _phys_bits_refused(request: CpuRequest, words: Words) -> str:
    wanted = request.maxphysaddr
    if wanted is None:
        return ""
    if wanted.mode == "emulate" and wanted.bits is None and wants_phys_bits(words):
        return "if using CPU maximum physical address mode='emulate', bits= must be specified too"
    if wanted.mode == "passthrough" and wanted.bits is not None:
        return (
            "CPU maximum physical address bits number specification cannot be used with "
            "mode='passthrough'"
        )
    return ""


def _refuse_unknown_model(request: CpuRequest, platform: Platform) -> None:
    if not platform.cpu_map.has_model(request.model or ""):
        raise UnknownNameError(f"Unknown CPU model {request.model}", request.where)
    machine = platform.machine_for(request).name
    if _is_passed(str(request.model), platform, machine):
        return
    raise _refusal(
        request,
        f"CPU model {request.model} is not supported by hypervisor"
        + (
            ""
            if request.fallback == "forbid"
            else " (libvirt would choose the nearest one that its host's QEMU has)"
        ),
    )


def _is_passed(model: str, platform: Platform, machine: str) -> bool:
    """Whether libvirt hands the model to this QEMU. Where QEMU heeds no case it knows `POWER9`,
    and exact models; an alias in QEMU's own spelling it refuses (measured on 9.0).
    """
    known = {found.name: found for found in platform.source.definitions(machine)}
    if not arch_of(platform.source.arch).any_case:
        return model in known
    if model in known:
        return known[model].alias_of is None
    return model.lower() in {name.lower() for name in known}


def _model_pieces(request: CpuRequest, arch: Arch) -> Iterator[str]:
    if arch.migratable is None:
        return
    if request.mode == "host-passthrough" or (
        request.mode == "maximum" and request.migratable is not None
    ):
        yield f"{arch.migratable}={'off' if request.migratable is False else 'on'}"
    if request.vendor_id and request.mode not in HOST_MODES:
        yield f"vendor={request.vendor_id}"


def _feature_pieces(request: CpuRequest, platform: Platform) -> Iterator[str]:
    """The features in the request's order, then those which the model has lost since it was
    published.
    """
    cpu_map = platform.cpu_map
    states = {
        feature.name: PINNED_BY[feature.policy]
        for feature in request.features
        if feature.policy in PINNED_BY and feature.name not in NEVER_PASSED
    }
    if request.mode == "custom" and request.model is not None and not cpu_map.any_name:
        mentioned = {feature.name for feature in request.features}
        lost = lost_by(request.model, cpu_map.words or words_of())
        gone = {*cpu_map.model(request.model).removed, *lost}
        states |= dict.fromkeys(sorted(gone - mentioned), False)
    if _vector_length_on(states) and "sve" not in states:
        states[FeatureName("sve")] = True
    for name, on in states.items():
        if on or cpu_map.any_name or _known(name, request, platform):
            yield f"{cpu_map.property_of(name)}={'on' if on else 'off'}"


def _vector_length_on(states: Mapping[FeatureName, bool]) -> bool:
    """Whether a vector length of aarch64 is asked for; libvirt adds `sve` then."""
    return any(on and re.fullmatch(r"sve\d+", name) for name, on in states.items())


def _known(name: FeatureName, request: CpuRequest, platform: Platform) -> bool:
    """Whether the QEMU has this feature at all: its full expansion of any model says."""
    machine = platform.machine_for(request).name
    source = platform.source
    arch = arch_of(source.arch)
    model = arch.bare or arch.default_model or source.definitions(machine)[0].name
    return platform.cpu_map.property_of(name) in shown(source, machine, CpuModel(model))


def _text(setting: Property) -> str:
    """The setting as libvirt writes it: it has its own ways for spinlocks and crash."""
    if setting.name == "hv-spinlocks" and isinstance(setting.value, int):
        return f"{setting.name}=0x{setting.value:x}"
    if setting.name == "hv-crash" and setting.value is True:
        return setting.name
    return f"{setting.name}={property_text(setting.value)}"


def _cache_pieces(request: CpuRequest) -> Iterator[str]:
    if request.cache is None:
        return
    host = request.mode in HOST_MODES
    match request.cache.mode:
        case "emulate":
            yield from ("l3-cache=on", "host-cache-info=off")[: 1 + host]
        case "passthrough":
            yield from ("host-cache-info=on", "l3-cache=off")
        case "disable":
            yield from ("host-cache-info=off", "l3-cache=off")[1 - host :]


def _phys_bits_pieces(request: CpuRequest) -> Iterator[str]:
    """`limit` is an attribute that libvirt 9.0 passed over; later releases write it like this."""
    wanted = request.maxphysaddr
    if wanted is None:
        return
    if wanted.mode == "emulate":
        yield "host-phys-bits=off" if wanted.bits is None else f"phys-bits={wanted.bits}"
        return
    yield "host-phys-bits=on"
    if wanted.limit is not None:
        yield f"host-phys-bits-limit={wanted.limit}"


def _feature_place(request: CpuRequest, line: int) -> str:
    return f"{request.where.rpartition(':')[0]}:{line}" if line else request.where


def _refusal(request: CpuRequest, reason: str) -> ResolveError:
    return ResolveError(f"{request.where}: {reason}" if request.where else reason)
