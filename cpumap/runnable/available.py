"""What can be enabled on a source: asked of QEMU, since CPUID knows nothing of kernel, KVM or
QEMU.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from cpumap.arch.known import arch_of, must_compare
from cpumap.cpu.bits import CpuidBits
from cpumap.cpu.expansion import Context, CpuModel, Definition
from cpumap.cpu.host import UNKNOWN_MACHINE, MadeCpu, ThisMachine
from cpumap.cpu.names import PropertyName, Value, model_version
from cpumap.errors import SourceError
from cpumap.libvirt.cpu_map.map import CpuMap
from cpumap.libvirt.cpu_map.places import bits_of
from cpumap.runnable.made import made_cpus
from cpumap.sources.machines import find_machine
from cpumap.sources.platform import Platform
from cpumap.sources.source import Source

Kind = Literal["all", "match", "best"]


_FATAL = tuple(
    frozenset(map(PropertyName, names))
    for names in ((), ("lmce",), ("arch-capabilities",), ("arch-capabilities", "lmce"))
)
"""Features over which QEMU ends, rather than filters them, under a KVM that does not have them (5.2
to 11.1).

lmce needs a family of 6 or more to count; arch-capabilities is a register that KVM may show and not
let be written.
"""


_MIGRATABLE = PropertyName("migratable")


_HOST_PHYS_BITS = PropertyName("host-phys-bits")


_PHYS_BITS = PropertyName("phys-bits")


_VENDOR = PropertyName("vendor")


_NUMBERS = tuple(map(PropertyName, ("family", "model", "stepping")))


@dataclass(frozen=True, slots=True)
class OptionEffect:
    """What an option of the machine or the CPU does to what can be enabled."""

    option: str
    """`kernel-irqchip=off`."""
    gained: frozenset[PropertyName] = frozenset()
    lost: frozenset[PropertyName] = frozenset()
    values: Mapping[PropertyName, Value] = field(default_factory=dict)
    """Properties that are no features: `phys-bits`."""
    refused: str = ""
    """QEMU's words, when it does not start so."""


@dataclass(frozen=True, slots=True)
class Available:
    """What can be enabled in one Context, on one host."""

    context: Context
    features: frozenset[PropertyName]
    """Everything that can be enabled, emulated features too."""
    emulated: frozenset[PropertyName] | None
    """Of `features`: those that the host's own CPU has not; None when the host's CPU is not
    known.
    """
    blocking: frozenset[PropertyName]
    """Of `features`: those that QEMU leaves out of a CPU which is to be migratable."""
    vendor: str
    family: int
    model: int
    stepping: int
    phys_bits: int | None
    """Physical address bits with host-phys-bits=on; None when no CPU can be made to ask."""
    models: Mapping[str, tuple[str, ...]]
    """Every predefined model → the properties that keep it from running here."""
    best: CpuModel
    """The predefined model with the fewest features to add, and these features."""
    options: tuple[OptionEffect, ...] = ()
    breaches: tuple[str, ...] = ()
    """Where QEMU does not keep its promise that `host` (tcg: `max`) is all that can be had, with
    nothing filtered.
    """
    here: ThisMachine = UNKNOWN_MACHINE
    """What CPU and kernel have by themselves, to tell on another machine who of them lacks a
    feature.
    """
    made: tuple[MadeCpu, ...] = ()
    """The host's own CPU as QEMU makes it; empty unless it was asked for."""


def available(
    platform: Platform, here: ThisMachine, *, options: bool = True, made: bool = False
) -> Available:
    """What can be enabled on this platform under its machine type.

    `here` is the machine the source runs on. With `options`, a KVM source that can be started with
    other options is asked under these as well; with `made`, for its own CPU. Errors:
    `SourceError`, also from a recording made under KVM, which holds no host.
    """
    source, cpu_map = platform.source, platform.cpu_map
    must_compare(arch_of(source.arch).name)
    name = find_machine(source, platform.machine).name
    shown = _shown(source, name)
    features, refused = _features(source, name, shown) if source.makes_cpus else (shown, ())
    limit, breaches = _promise(source, name)
    definitions = source.definitions(name)
    blocking = (shown - _shown(source, name, migratable=True)) | cpu_map_blocking(cpu_map)
    best = _best(source, name, definitions, features - blocking, str(limit[_VENDOR]), cpu_map)
    family, model, stepping = (int(limit[number]) for number in _NUMBERS)
    return Available(
        context=Context(source.version, source.arch, name, source.accel, source.build()),
        features=features,
        emulated=None if here.cpu is None else frozenset(_emulated(features, here, cpu_map)),
        blocking=blocking & features,
        vendor=str(limit[_VENDOR]),
        family=family,
        model=model,
        stepping=stepping,
        phys_bits=_phys_bits(source, name),
        models={d.name: d.unavailable for d in definitions if _is_predefined(d.name, source)},
        best=best,
        options=tuple(option_effects(source, name)) if options else (),
        breaches=(*refused, *breaches),
        here=here,
        made=made_cpus(source, name, _FATAL) if made else (),
    )


def cpu_map_blocking(cpu_map: CpuMap) -> frozenset[PropertyName]:
    """The properties that the CPU map says block migration."""
    return frozenset(cpu_map.property_of(feature) for feature in cpu_map.blocking)


def _shown(
    source: Source, machine: str, *, migratable: bool = False, **props: Value
) -> frozenset[PropertyName]:
    """The features that QEMU's `max` has."""
    asked = {
        PropertyName(name): value for name, value in {"migratable": migratable, **props}.items()
    }
    return _switched_on(
        source.expand(machine, CpuModel(arch_of(source.arch).maximum, asked), "static").props
    )


def _switched_on(properties: Mapping[PropertyName, Value]) -> frozenset[PropertyName]:
    return frozenset(name for name, value in properties.items() if value is True)


def _features(
    source: Source, machine: str, shown: frozenset[PropertyName]
) -> tuple[frozenset[PropertyName], tuple[str, ...]]:
    """What is left of a CPU that asks for everything, which is more than `max` has; and what QEMU
    refused on the way.

    `max` leaves out what does not suit every guest: kvm-hint-dedicated, topoext, lmce.
    """
    static = source.expand(machine, CpuModel(arch_of(source.arch).bare_model), "static").props
    everything = frozenset(name for name, value in static.items() if isinstance(value, bool))
    refused: list[str] = []
    for without in _FATAL:
        try:
            given = _given(source, machine, everything - without)
        except SourceError as err:
            refused.append(f"a CPU that asks for everything{_but(without)} does not start: {err}")
            continue
        return given, tuple(refused if any(name in shown for name in without) else ())
    return shown, tuple(refused)


def _but(without: frozenset[PropertyName]) -> str:
    return f" but {' and '.join(sorted(without))}" if without else ""


def _given(source: Source, machine: str, asked: frozenset[PropertyName]) -> frozenset[PropertyName]:
    """What remains of the features: first without those that are filtered, then without those
    that depended on them.
    """
    while True:
        props: dict[PropertyName, Value] = {
            PropertyName("family"): 6,
            **dict.fromkeys(sorted(asked), True),
        }
        realised = source.realise(machine, CpuModel(arch_of(source.arch).bare_model, props))
        given = frozenset(
            n for n in asked if realised.properties[n] is True and n not in realised.filtered
        )
        if given == asked:
            return given
        asked = given


def _emulated(
    features: Iterable[PropertyName], here: ThisMachine, cpu_map: CpuMap
) -> Iterator[PropertyName]:
    """A feature held in an MSR that could not be read counts as the host's: KVM reads most of
    them from the host.
    """
    for name in features:
        bits = bits_of(name, cpu_map)
        readable = not bits or here.msrs or any(isinstance(bit, CpuidBits) for bit in bits)
        if readable and cpu_map.feature_of(name) not in (here.cpu or ()):
            yield name


def _phys_bits(source: Source, machine: str) -> int | None:
    props: dict[PropertyName, Value] = {PropertyName("lm"): True, _HOST_PHYS_BITS: True}
    try:
        return int(
            source.realise(machine, CpuModel(arch_of(source.arch).bare_model, props)).properties[
                _PHYS_BITS
            ]
        )
    except SourceError:
        return None


def _is_predefined(model: str, source: Source) -> bool:
    """Whether QEMU says what the model is: neither the host, nor everything, nor nothing."""
    arch = arch_of(source.arch)
    return model not in arch.host_models | arch.without_features


def _best(
    source: Source,
    machine: str,
    definitions: Iterable[Definition],
    features: frozenset[PropertyName],
    vendor: str,
    cpu_map: CpuMap,
) -> CpuModel:
    """The model, runnable here and not another vendor's, that the fewest features must be added to.

    Of several, a versioned name, since no machine type changes what that means; then the first by
    name.
    """
    candidates = []
    for definition in definitions:
        if definition.unavailable or definition.alias_of:
            continue
        if not _is_predefined(definition.name, source):
            continue
        if _other_vendor(definition.name, vendor, cpu_map):
            continue
        own = _switched_on(source.expand(machine, CpuModel(definition.name), "static").props)
        unversioned = model_version(definition.name)[1] is None
        candidates.append(
            (len(features - own), unversioned, definition.name, sorted(features - own))
        )
    if not candidates:
        return CpuModel(arch_of(source.arch).bare_model, dict.fromkeys(sorted(features), True))
    _, _, name, extra = min(candidates)
    return CpuModel(name, dict.fromkeys(extra, True))


def _other_vendor(model: str, vendor: str, cpu_map: CpuMap) -> bool:
    """Whether the CPU map says that the model is another vendor's: under KVM, QEMU gives it the
    host's.
    """
    entry = cpu_map.models.get(model) or cpu_map.models.get(model_version(model)[0])
    if entry is None or entry.vendor is None:
        return False
    return cpu_map.vendors[entry.vendor].string != vendor


def option_effects(source: Source, machine: str) -> Iterator[OptionEffect]:
    """What QEMU's own options change under KVM, each as it is asked; nothing for a QEMU that cannot
    be started anew.

    QEMU takes machine options behind the machine type, so that is how they are given.
    """
    if source.accel != "kvm" or not source.starts_guests:
        return
    shown = _shown(source, machine)
    for setting in ("on", "split", "off"):
        option = f"kernel-irqchip={setting}"
        try:
            other = _shown(source, f"{machine},{option}")
        except SourceError as err:
            yield OptionEffect(option, refused=str(err))
            continue
        yield OptionEffect(option, other - shown, shown - other)
    without = _shown(source, machine, pmu=False)
    yield OptionEffect("pmu=off", without - shown, shown - without)
    for value in (True, False):
        props: dict[PropertyName, Value] = {PropertyName("lm"): True, _HOST_PHYS_BITS: value}
        bits = source.realise(machine, CpuModel(arch_of(source.arch).bare_model, props)).properties[
            _PHYS_BITS
        ]
        yield OptionEffect(f"host-phys-bits={'on' if value else 'off'}", values={_PHYS_BITS: bits})


def _promise(source: Source, machine: str) -> tuple[Mapping[PropertyName, Value], list[str]]:
    """The properties of the CPU that is to be all QEMU can give, and each case in which QEMU
    filters or refuses it.
    """
    model = arch_of(source.arch).host_passthrough[source.accel]
    properties = source.expand(machine, CpuModel(model, {_MIGRATABLE: False}), "full").props
    breaches: list[str] = []
    for migratable in (True, False) if source.makes_cpus else ():
        asked = f"-cpu {model},migratable={'on' if migratable else 'off'}"
        try:
            realised = source.realise(machine, CpuModel(model, {_MIGRATABLE: migratable}))
        except SourceError as err:
            breaches.append(f"{asked} does not start: {err}")
            continue
        properties = realised.properties
        if realised.filtered:
            breaches.append(f"{asked}: QEMU filters {', '.join(sorted(realised.filtered))}")
    return properties, breaches


def listed(found: Available, kind: Kind, *, migratable: bool = False) -> frozenset[PropertyName]:
    """The features of this kind: all, those of the host's own CPU, or those of the best model with
    its additions.

    Errors: `SourceError` for `match` where the host's CPU is not known.
    """
    if kind == "match" and found.emulated is None:
        raise SourceError(
            "the host's own CPU cannot be looked at from here, so nobody can say what matches it"
        )
    left_out = (found.emulated or frozenset()) if kind == "match" else frozenset()
    blocking = found.blocking if migratable or kind == "best" else frozenset()
    return found.features - left_out - blocking
