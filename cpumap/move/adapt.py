"""An explicit CPU for another QEMU release: what that release names differently, lacks, or has
more of.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from cpumap.arch.known import arch_of, must_run
from cpumap.cpu.build import Build
from cpumap.cpu.expansion import Context, CpuModel
from cpumap.cpu.explicit import ExplicitCpu
from cpumap.cpu.machine_type import nearest, of_family, release
from cpumap.cpu.names import Property, PropertyName, Value
from cpumap.cpu.origin import Origin, origin
from cpumap.errors import UnknownNameError
from cpumap.pin.resolve import canonical_names
from cpumap.sources.machines import find_machine
from cpumap.sources.source import Source

LEGACY_CACHE = PropertyName("legacy-cache")


@dataclass(frozen=True, slots=True)
class Unnamed:
    """A property that the source's CPU has and that the target cannot be told."""

    name: PropertyName
    value: Value
    as_if: Value | None
    """The value that the target behaves by; None when nobody knows."""
    feature: bool = False
    """Whether it is a bit of CPUID or of an MSR."""


@dataclass(frozen=True, slots=True)
class Adapted:
    """An explicit CPU in the target's names, and what could not be said there."""

    cpu: ExplicitCpu
    unnamed: tuple[Unnamed, ...] = ()
    guessed: tuple[PropertyName, ...] = ()
    """Properties that only the target has, whose value for such a CPU nobody knows: it is what the
    target's machine type has.
    """


def adapt(cpu: ExplicitCpu, source: Source, target: Source, machine: str | None = None) -> Adapted:
    """The same CPU for the target's machine type (None: the one it has now).

    Properties that only the target has are off when they are features, and otherwise what the
    target itself gives on the machine type of the source's release. Errors: `UnknownNameError` for
    a machine type the target does not have.
    """
    must_run(target.arch, cpu.context.arch, target.label, cpu.request.where)
    arch = arch_of(target.arch)
    place = find_machine(target, machine or cpu.context.machine)
    where = Context(target.version, cpu.context.arch, place.name, target.accel, target.build())
    moved = replace(cpu, context=where, came_from=cpu.context)
    if target.build().is_same(source.build()):
        return Adapted(moved)
    known = {definition.name for definition in target.definitions(place.name)}
    model = cpu.model if cpu.model in known else arch.bare
    if model is None:
        raise UnknownNameError(f"{target.label} has no CPU model {cpu.model!r}")
    ours = {prop.name: prop for prop in cpu.properties}
    era = era_of(target, source.build())
    theirs = _target_properties(model, source, target, era or place.name)
    kept = {name: prop for name, prop in ours.items() if name in theirs}
    values = {name: prop.value for name, prop in theirs.items()}
    added = {
        n: prop
        for n, prop in theirs.items()
        if n not in ours and not arch.refused(n, prop.value, values)
    }
    if kept.get(LEGACY_CACHE, _NOTHING).value is False and not has_cache_table(target, model):
        kept[LEGACY_CACHE] = Property(
            LEGACY_CACHE, True, Origin("no cache table", model, str(release(target.version).series))
        )
    named = {**kept, **added}
    static = target.expand(place.name, CpuModel(model), "static").props
    return Adapted(
        replace(
            moved,
            model=model,
            typename=arch.typename(model),
            properties=tuple(prop for _, prop in sorted(named.items())),
            features=frozenset(name for name in named if isinstance(static.get(name), bool)),
        ),
        tuple(
            _unnamed(
                (prop for name, prop in ours.items() if name not in theirs),
                cpu.model,
                source,
                target,
            )
        ),
        () if era else tuple(n for n, p in sorted(added.items()) if p.origin.kind == "as on"),
    )


_NOTHING = Property(PropertyName(""), "")


def era_of(target: Source, source: Build) -> str | None:
    """The target's machine type of the source's release, or of the nearest that it still or already
    has; None where it has none, as RHEL's QEMU, whose types are its own.
    """
    for family in arch_of(target.arch).families:
        if found := nearest(target.machines(), family, release(source.version).series):
            return found
    return None


def has_cache_table(source: Source, model: str) -> bool:
    """Whether the model has caches of its own in this QEMU: legacy-cache is off by default only
    then.
    """
    newest = newest_machine(source)
    return source.expand(newest, CpuModel(model), "full").props.get(LEGACY_CACHE) is False


def newest_machine(source: Source) -> str:
    """The machine type of the source's own release; of a QEMU that has none of upstream's types,
    its newest.
    """
    own = era_of(source, source.build())
    return own or of_family(source.machines(), *arch_of(source.arch).families)[-1].name


def _target_properties(
    model: str, source: Source, target: Source, era: str
) -> Mapping[PropertyName, Property]:
    """Every property of the model that the target can be told, with the value for a CPU that
    does not name it.
    """
    arch = arch_of(target.arch)
    full = target.expand(era, CpuModel(model), "full").props
    static = target.expand(era, CpuModel(model), "static").props
    found = {}
    left_out = arch.per_instance | arch.of_host_models | arch.not_named
    for name in canonical_names(full, static, arch) - left_out:
        if name in static and isinstance(static[name], bool):
            found[name] = Property(
                name, False, origin("not in QEMU", str(release(source.version).series))
            )
        else:
            found[name] = Property(name, full[name], origin("as on", era))
    return found


def _unnamed(
    properties: Iterable[Property], model: str, source: Source, target: Source
) -> Iterable[Unnamed]:
    era = era_of(source, target.build())
    machine = era or newest_machine(source)
    full = source.expand(machine, CpuModel(model), "full").props if era else {}
    static = source.expand(machine, CpuModel(model), "static").props
    for prop in properties:
        is_feature = prop.name in static and isinstance(prop.value, bool)
        yield Unnamed(
            prop.name, prop.value, False if is_feature else full.get(prop.name), is_feature
        )
