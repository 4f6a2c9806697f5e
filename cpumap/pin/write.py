"""What an explicit CPU looks like written down: arguments, XML, a -readconfig file, JSON.
Decides nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, get_args

from cpumap.arch.arch import Arch
from cpumap.arch.known import arch_of
from cpumap.cpu.expansion import Context
from cpumap.cpu.explicit import ExplicitCpu
from cpumap.cpu.machine_type import release as _release
from cpumap.cpu.names import FeatureName, Property, PropertyName, Value
from cpumap.cpu.request import Check
from cpumap.libvirt.cpu_edit import ExplicitElement
from cpumap.libvirt.cpu_map.map import CpuMap
from cpumap.libvirt.layout import Layout
from cpumap.libvirt.releases import known_to_any
from cpumap.libvirt.words import map_for
from cpumap.qemu.arguments import (
    cpu_arguments,
    global_arguments,
    machine_arguments,
    property_text,
)
from cpumap.system.templates import filled

if TYPE_CHECKING:
    from cpumap.system.xml_document import Document

Style = Literal["plus", "onoff"]


Format = Literal["args", "xml", "cpu-xml", "readconfig", "json"]
FORMATS: tuple[Format, ...] = get_args(Format)


KEPT = ("topology", "numa", "cache")
"""Children of `<cpu>` that say something else than which CPU, or say it as well as properties
do.
"""


_VENDOR = PropertyName("vendor")


def explicit_arguments(cpu: ExplicitCpu, style: Style = "plus") -> list[str]:
    """QEMU's arguments for an explicit CPU, `enforce` with them unless it must be left out."""
    arch = arch_of(cpu.context.arch)
    plus = cpu.features if style == "plus" and arch.plus_minus else frozenset()
    inside = {n: value for n, value in cpu.values.items() if arch.place(n) == "-cpu"}
    outside = {n: value for n, value in cpu.values.items() if n not in inside}
    beside, machine = _placed(outside, arch)
    return [
        *cpu_arguments(cpu.model, cpu.typename, inside, plus=plus, enforce=cpu.enforce),
        *global_arguments(cpu.typename, beside),
        *machine_arguments(machine),
    ]


def _placed(
    outside: Mapping[PropertyName, Value], arch: Arch
) -> tuple[dict[PropertyName, Value], dict[PropertyName, Value]]:
    """Of what is not said in `-cpu`: what `-global` says, and what is an option of `-machine`."""
    machine = {n: value for n, value in outside.items() if arch.place(n) == "-machine"}
    return {n: value for n, value in outside.items() if n not in machine}, machine


def cpu_xml(cpu: ExplicitCpu, cpu_map: CpuMap, kept: Sequence[str] = ()) -> str:
    """The CPU as libvirt's `<cpu>` element; `kept` are child elements (`<topology>`, `<numa>`) to
    keep as they were.

    What this element cannot say is what `beyond_cpu_xml` gives.
    """
    return explicit_element(cpu, cpu_map).text(kept)


def explicit_element(cpu: ExplicitCpu, cpu_map: CpuMap) -> ExplicitElement:
    """What a `<cpu>` is to say of the CPU; features are in the order of their names."""
    cpu_map = map_for(cpu_map, arch_of(cpu.context.arch))
    features = {
        cpu_map.feature_of(prop.name): prop.value is True
        for prop in cpu.properties
        if _is_feature(cpu, prop, cpu_map)
    }
    check = _check(cpu, cpu_map)
    if check == "full":  # what is required under any other check, hosts must offer
        features |= dict.fromkeys(features.keys() & _turned_on(cpu, cpu.context), True)
    vendor = cpu.values.get(_VENDOR)
    return ExplicitElement(
        check,
        libvirt_model(cpu, cpu_map) or cpu.model,
        str(vendor) if vendor else None,
        tuple(sorted(features.items())),
    )


def _check(cpu: ExplicitCpu, cpu_map: CpuMap) -> Check:
    """The strictest check that lets the guest start wherever it was written for.

    A full check compares every feature that libvirt knows. It fails where a feature that the model
    of libvirt's does not have is not named; where QEMU turns one on that
    the element says is off, which some releases do for several threads and others do not; and where
    a libvirt that knows more features than this CPU map meets one that is named beside the element.
    """
    if not cpu.enforce:
        return "none"
    if not cpu.whole:
        return "partial"
    here = _turned_on(cpu, cpu.context)
    places = [_later(cpu), here if cpu.came_from is None else _turned_on(cpu, cpu.came_from)]
    everywhere = all(place == here for place in places)
    return "full" if everywhere and not _on_beside(cpu, cpu_map) else "partial"


def _turned_on(cpu: ExplicitCpu, where: Context) -> frozenset[FeatureName]:
    """The features that are off in this CPU, and that QEMU turns on there: a package has several
    threads.
    """
    values, topology = cpu.values, cpu.request.topology
    turned = arch_of(where.arch).turned_on(where.qemu, topology, values.get(_VENDOR))
    return frozenset(feature.name for feature in turned if values.get(feature.prop) is not True)


def _later(cpu: ExplicitCpu) -> frozenset[FeatureName]:
    """The same of the QEMU that the guest has after the next upgrade."""
    release = max((f.since for f in arch_of(cpu.context.arch).with_threads), default="0")
    newer = max(release, cpu.context.qemu, key=_release)
    return _turned_on(cpu, replace(cpu.context, qemu=newer))


def _on_beside(cpu: ExplicitCpu, cpu_map: CpuMap) -> bool:
    """Whether a feature is on that this CPU map has no word for, and that some libvirt has."""
    beside = [
        prop.name
        for prop in cpu.properties
        if prop.value is True and prop.name in cpu.features and not _is_feature(cpu, prop, cpu_map)
    ]
    return bool(beside) and not known_to_any().isdisjoint(map(cpu_map.feature_of, beside))


def domain_xml(
    cpu: ExplicitCpu, cpu_map: CpuMap, document: Document, machine: str | None = None
) -> bytes:
    """The domain document with this CPU in it, every byte outside `<cpu>` and `<qemu:commandline>`
    as it was.

    What `<cpu>` has no words for goes to `<qemu:commandline>` as `-global`. For a CPU on `base`, on
    a model that libvirt does not have, or unlike what the rest of the document says, a full `-cpu`
    follows libvirt's own, and QEMU takes the last: `<cpu>` then says what the guest has as far as
    libvirt has words for it, and else stays as it was, as it does where the guest had a `-cpu` of
    its own. `machine` is a new machine type.
    """
    from cpumap.libvirt.edit import replace_cpu

    content = document.text()
    layout = Layout(content, document)
    element, arguments = domain_parts(cpu, cpu_map)
    return replace_cpu(
        content, element, arguments, name=document.name, machine=machine, layout=layout
    )


def domain_parts(cpu: ExplicitCpu, cpu_map: CpuMap) -> tuple[ExplicitElement | None, list[str]]:
    """What makes a domain have this CPU: what its `<cpu>` says (None: what it does) and QEMU
    arguments beside it.

    The arguments are for the type that all CPU models of one QEMU inherit from, `x86_64-cpu`.
    """
    cpu_map = map_for(cpu_map, arch_of(cpu.context.arch))
    cpu = lasting(cpu)
    if _is_own_option(cpu):
        return None, explicit_arguments(cpu)
    arch = arch_of(cpu.context.arch)
    model = libvirt_model(cpu, cpu_map)
    element = explicit_element(cpu, cpu_map) if model else None
    if model is None or cpu.model in arch.without_features or _is_overruled(cpu):
        return element, explicit_arguments(cpu)
    outside = {prop.name: prop.value for prop in beyond_cpu_xml(cpu, cpu_map)}
    beside, machine = _placed(outside, arch)
    generic = cpu.typename.removeprefix(f"{cpu.model}-")
    return element, [*global_arguments(generic, beside), *machine_arguments(machine)]


def _is_own_option(cpu: ExplicitCpu) -> bool:
    """Whether the guest has a `-cpu` of its own: nothing that libvirt says of the CPU is heeded
    then, and so nothing of it is changed.
    """
    return cpu.request.mode is not None and not cpu.request.by_libvirt


def _is_overruled(cpu: ExplicitCpu) -> bool:
    """Whether the document sets something, outside `<cpu>`, to another value than the guest is to
    have: libvirt's own `-cpu` would say it, and beat any `-global`.
    """
    values = cpu.values
    return any(
        property_text(values.get(setting.name, False)) != property_text(setting.value)
        for setting in cpu.request.settings
        if setting.origin.kind == "element"
    )


def lasting(cpu: ExplicitCpu) -> ExplicitCpu:
    """The CPU without what later QEMUs would refuse, as it is written into documents that
    outlive a QEMU.
    """
    arch, values = arch_of(cpu.context.arch), cpu.values
    needed = {
        name for name, other in (arch.forgotten_unless or {}).items() if values.get(other) is True
    }
    gone = (arch.forgotten or {}).keys() - needed
    return replace(cpu, properties=tuple(prop for prop in cpu.properties if prop.name not in gone))


def beyond_cpu_xml(cpu: ExplicitCpu, cpu_map: CpuMap) -> tuple[Property, ...]:
    """The properties that a `<cpu>` element of this CPU map has no words for, in the order
    named.
    """
    cpu_map = map_for(cpu_map, arch_of(cpu.context.arch))
    return tuple(
        p for p in cpu.properties if not _is_feature(cpu, p, cpu_map) and p.name != _VENDOR
    )


def libvirt_model(cpu: ExplicitCpu, cpu_map: CpuMap) -> str | None:
    """The name that libvirt has for the model of this CPU; None when it has none.

    The request's own model is libvirt's, unless it came with a `-cpu` option. A model's first
    version is the one that libvirt means by the name without a version.
    """
    if cpu_map.any_name:
        return cpu.model
    named, unversioned = cpu.request.model, cpu.model.removesuffix("-v1")
    if named is None:
        bare = arch_of(cpu.context.arch).without_features
        default = cpu.request.mode is None and cpu.model not in bare
        return unversioned if default else None
    return next((name for name in (named, unversioned) if name in cpu_map.models), None)


def _is_feature(cpu: ExplicitCpu, prop: Property, cpu_map: CpuMap) -> bool:
    return prop.name in cpu.features and cpu_map.has_feature(cpu_map.feature_of(prop.name))


def readconfig(cpu: ExplicitCpu) -> str:
    """A file for QEMU's `-readconfig`; its first comment is the `-cpu` to use with it.

    Config files have no group for the CPU, so each property is a `[global]` of the CPU's type.
    """
    arch = arch_of(cpu.context.arch)
    values = {name: property_text(value) for name, value in cpu.values.items()}
    machine = {n: value for n, value in values.items() if arch.place(n) == "-machine"}
    values = {n: value for n, value in values.items() if n not in machine}
    if cpu.enforce:
        values[PropertyName("enforce")] = "on"
    return filled("readconfig.cfg.j2", cpu=cpu, values=values, machine=machine)


def explicit_json(cpu: ExplicitCpu, cpu_map: CpuMap, style: Style = "plus") -> dict[str, Any]:
    """The CPU as a JSON object: context, model, arguments, each property with its origin, and
    the notes.
    """
    cpu_map = map_for(cpu_map, arch_of(cpu.context.arch))
    return {
        "context": cpu.context.as_json(),
        "model": cpu.model,
        "typename": cpu.typename,
        "enforce": cpu.enforce,
        "args": explicit_arguments(cpu, style),
        "properties": [
            {
                "name": prop.name,
                "value": prop.value,
                "origin": str(prop.origin),
                **_feature_name(cpu, prop, cpu_map),
            }
            for prop in cpu.properties
        ],
        "notes": list(cpu.notes),
    }


def _feature_name(cpu: ExplicitCpu, prop: Property, cpu_map: CpuMap) -> dict[str, str]:
    return {"feature": cpu_map.feature_of(prop.name)} if prop.name in cpu.features else {}
