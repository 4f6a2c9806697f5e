"""x86_64 and i686: the same CPUs, under two names of QEMU's and two of libvirt's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from cpumap.arch.arch import Arch, Levels, ThreadFeature
from cpumap.arch.x86.realise import FLOORS, raised, realised, refusal
from cpumap.cpu.names import FeatureName, Property, PropertyName, Value
from cpumap.cpu.origin import origin
from cpumap.cpu.request import CpuRequest
from cpumap.cpu.topology import Topology

_DEFAULT_HV_VENDOR = "Microsoft Hv"


_EMPTY_UNLESS_SET = {"vendor": "", "hv-vendor-id": ""}


_LBR_FMT_UNSET = 0x3F


def _names(text: str) -> tuple[PropertyName, ...]:
    return tuple(map(PropertyName, text.split()))


def _refused(name: PropertyName, value: Value, realised: Mapping[PropertyName, Value]) -> bool:
    """Whether QEMU reads this value out but takes it from nobody (measured on 5.2 to 11.1)."""
    if name == "lbr-fmt":
        return isinstance(value, int) and value > _LBR_FMT_UNSET
    if name == "phys-bits":
        return realised.get(PropertyName("lm")) is False
    return name in _EMPTY_UNLESS_SET and value == _EMPTY_UNLESS_SET[name]


_NEVER_SEEN = frozenset(
    _names("check fill-mtrr-mask kvm-no-smi-migration x-hv-max-vps x-migrate-smi-count")
)


_SEEN_WITH = {"x-hv-synic-kvm-only": "hv-synic", "x-intel-pt-auto-level": "intel-pt"}


_LEAF_OF_TOPOEXT = 0x8000001D


def _unseen(name: PropertyName, values: Mapping[PropertyName, Value], topology: Topology) -> bool:
    """Properties that machine types change and that this guest's CPUID does not show (measured with
    probe guests on 7.2, 10.0 and 11.1: each switched, on nine models, with one thread and with
    2 cores of 2 threads).
    """
    if name in _NEVER_SEEN:
        return True
    if name in _SEEN_WITH:
        return values.get(PropertyName(_SEEN_WITH[name])) is not True
    if name == "x-vendor-cpuid-only":
        return values.get(PropertyName("vendor")) == "GenuineIntel"
    if name == "x-amd-topoext-features-only":
        xlevel = values.get(PropertyName("xlevel"))
        return isinstance(xlevel, int) and 0 < xlevel < _LEAF_OF_TOPOEXT
    return name == "x-l1-cache-per-thread" and topology.package == 1


def _words(request: CpuRequest) -> Iterable[Property]:
    """What `<cache>` and `<maxphysaddr>` set."""
    yield from _cache(request)
    yield from _phys_bits(request)


def _cache(request: CpuRequest) -> Iterable[Property]:
    if request.cache is None:
        return
    said = origin("element", f"cache {request.cache.mode}")
    host = request.mode in ("host-passthrough", "maximum")
    if request.cache.mode == "passthrough":
        yield Property(PropertyName("host-cache-info"), True, said)
    elif host:
        yield Property(PropertyName("host-cache-info"), False, said)
    yield Property(PropertyName("l3-cache"), request.cache.mode == "emulate", said)


def _phys_bits(request: CpuRequest) -> Iterable[Property]:
    wanted = request.maxphysaddr
    if wanted is None:
        return
    if wanted.mode == "passthrough":
        said = origin("element", "maxphysaddr passthrough")
        yield Property(PropertyName("host-phys-bits"), True, said)
        if wanted.limit is not None:
            said = origin("element", "maxphysaddr limit")
            yield Property(PropertyName("host-phys-bits-limit"), wanted.limit, said)
        return
    said = origin("element", "maxphysaddr emulate")
    if wanted.bits is not None:
        yield Property(PropertyName("phys-bits"), wanted.bits, said)
    else:  # the bits are then QEMU's own default, not the host's
        yield Property(PropertyName("host-phys-bits"), False, said)


X86_64 = Arch(
    name="x86_64",
    target="x86_64",
    cpu_type="x86_64-cpu",
    families=("pc-q35", "pc-i440fx"),
    default_model="qemu64",
    host_passthrough={"kvm": "host", "tcg": "max"},
    bare="base",
    expansions=frozenset({"static", "full"}),
    # old machine types switch the warnings off
    checked={PropertyName("check"): True},
    unfiltered={PropertyName("x-force-features"): True},
    enforce=True,
    vendor=PropertyName("vendor"),
    signature=_names("family model stepping"),
    migratable=PropertyName("migratable"),
    # max_x86_cpu_properties in target/i386/cpu.c
    of_host_models=frozenset(_names("host-cache-info migratable")),
    own_caches=PropertyName("legacy-cache"),
    host_caches=PropertyName("host-cache-info"),
    # Aliases in target/i386/cpu.c.
    spellings={
        "sse3": "pni",
        "pclmuldq": "pclmulqdq",
        "ffxsr": "fxsr-opt",
        "i64": "lm",
        "xd": "nx",
    },
    per_instance=frozenset(
        _names(
            "apic-id check core-id die-id enforce hotpluggable hotplugged memory module-id node-id "
            "realized socket-id start-powered-off thread-id tsc-frequency type x-force-features"
        )
    ),
    not_named=frozenset(_names("hv-passthrough")),
    defaults={PropertyName("hv-vendor-id"): _DEFAULT_HV_VENDOR},
    levels=Levels(
        names=_names("level level-func7 min-level min-xlevel min-xlevel2 xlevel xlevel2"),
        automatic=PropertyName("full-cpuid-auto-level"),
        of_features_alone=frozenset(_names("level-func7")),
        floors=FLOORS,
    ),
    # The levels that two of them decide are named themselves; the others count in a migration
    # stream, and for hv-synic.
    forgotten={
        PropertyName("kvm-no-smi-migration"): "9.2",
        PropertyName("full-cpuid-auto-level"): "11.1",
        PropertyName("x-hv-synic-kvm-only"): "11.1",
        PropertyName("x-intel-pt-auto-level"): "11.1",
        PropertyName("x-migrate-error-code"): "11.1",
    },
    forgotten_unless={PropertyName("x-hv-synic-kvm-only"): PropertyName("hv-synic")},
    # Measured on 7.2, 8.2, 10.0.2, 10.0.13 and 11.1, every model, tcg and KVM alike.
    with_threads=(
        ThreadFeature(FeatureName("ht"), PropertyName("ht"), "10.0"),
        ThreadFeature(
            FeatureName("cmp_legacy"),
            PropertyName("cmp-legacy"),
            "10.0",
            frozenset({"GenuineIntel", "CentaurHauls", "  Shanghai  "}),
        ),
    ),
    refused=_refused,
    raised=raised,
    refusal=refusal,
    realised=realised,
    unseen=_unseen,
    words=_words,
)


I686 = replace(X86_64, name="i686", target="i386", cpu_type="i386-cpu", default_model="qemu32")
