"""What an explicit CPU looks like written down: arguments, XML, a -readconfig file, JSON. Decides nothing."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from cpumap.cpu import ExplicitCpu, Property, PropertyName, Value
from cpumap.cpu_map import CpuMap

Style = Literal["plus", "onoff"]
Format = Literal["args", "xml", "cpu-xml", "readconfig", "json"]

_ANY_CPU = "x86_64-cpu"
"""The type that all CPU models of qemu-system-x86_64 inherit from."""

KEPT = ("topology", "numa", "cache")
"""Children of `<cpu>` that say something else than which CPU, or say it as well as properties do."""

_VENDOR = PropertyName("vendor")


def cpu_arguments(
    model: str,
    typename: str,
    properties: Mapping[PropertyName, Value],
    *,
    plus: frozenset[PropertyName] = frozenset(),
    enforce: bool = False,
) -> list[str]:
    """QEMU's arguments for a CPU: `-cpu`, its value, and a `-global` for each value that holds a comma.

    QEMU's option parser splits `-cpu` at commas and knows no escape there; `-global` takes the rest of the word.
    `plus` are the properties to write `+f` or `-f`.
    """
    inside = [_option(name, value, plus) for name, value in properties.items() if not _has_comma(value)]
    arguments = ["-cpu", ",".join([model, *inside, *(["enforce"] if enforce else [])])]
    outside = {name: value for name, value in properties.items() if _has_comma(value)}
    return [*arguments, *global_arguments(typename, outside)]


def global_arguments(typename: str, properties: Mapping[PropertyName, Value]) -> list[str]:
    """QEMU's `-global` arguments that set these properties on every CPU of the type."""
    return [
        word for name, value in properties.items() for word in ("-global", f"{typename}.{name}={property_text(value)}")
    ]


def explicit_arguments(cpu: ExplicitCpu, style: Style = "plus") -> list[str]:
    """QEMU's arguments for an explicit CPU, `enforce` with them unless it must be left out."""
    plus = cpu.features if style == "plus" else frozenset()
    return cpu_arguments(cpu.model, cpu.typename, cpu.values, plus=plus, enforce=cpu.enforce)


def args_text(arguments: Sequence[str]) -> str:
    """One line for a shell."""
    return shlex.join(arguments) + "\n"


def cpu_xml(cpu: ExplicitCpu, cpu_map: CpuMap, kept: Sequence[str] = ()) -> str:
    """The CPU as libvirt's `<cpu>` element; `kept` are child elements (`<topology>`, `<numa>`) to keep as they were.

    What this element cannot say is what `beyond_cpu_xml` gives.
    """
    features = {cpu_map.feature_of(prop.name): prop.value for prop in cpu.properties if _is_feature(cpu, prop, cpu_map)}
    return _filled(
        "cpu.xml.j2",
        cpu=cpu,
        model=libvirt_model(cpu),
        vendor_id=cpu.values.get(_VENDOR),
        features=dict(sorted(features.items())),
        kept=kept,
    )


def domain_xml(cpu: ExplicitCpu, cpu_map: CpuMap, document: bytes, name: str, machine: str | None = None) -> bytes:
    """The domain document with this CPU in it, every byte outside `<cpu>` and `<qemu:commandline>` as it was.

    What `<cpu>` has no words for goes to `<qemu:commandline>` as `-global`. A CPU that stands on a model which libvirt
    does not have stays as it was in `<cpu>`, and a full `-cpu` follows libvirt's own: QEMU takes the last. `machine` is
    a new machine type for the domain.
    """
    from cpumap.domain import cpu_children
    from cpumap.domain_edit import replace_cpu
    from cpumap.errors import DomainError
    from cpumap.xml_document import Document

    parsed = Document.parse(document, name, DomainError)
    element, arguments = domain_parts(cpu, cpu_map, cpu_children(parsed, KEPT))
    return replace_cpu(document, element, arguments, name=name, machine=machine, parsed=parsed)


def domain_parts(cpu: ExplicitCpu, cpu_map: CpuMap, kept: Sequence[str] = ()) -> tuple[bytes | None, list[str]]:
    """What makes a domain have this CPU: its `<cpu>` element (None: the one it has) and QEMU arguments beside it."""
    if not stands_on_libvirt_model(cpu):
        return None, explicit_arguments(cpu)
    outside = {prop.name: prop.value for prop in beyond_cpu_xml(cpu, cpu_map)}
    return cpu_xml(cpu, cpu_map, kept).encode(), global_arguments(_ANY_CPU, outside)


def stands_on_libvirt_model(cpu: ExplicitCpu) -> bool:
    """Whether a `<model>` element can name what the CPU stands on."""
    return cpu.model not in ("base", "custom")


def beyond_cpu_xml(cpu: ExplicitCpu, cpu_map: CpuMap) -> tuple[Property, ...]:
    """The properties that a `<cpu>` element of this CPU map has no words for, in the order named."""
    return tuple(p for p in cpu.properties if not _is_feature(cpu, p, cpu_map) and p.name != _VENDOR)


def libvirt_model(cpu: ExplicitCpu) -> str:
    """The model name that libvirt knows: the one the request had, else the unversioned one."""
    return cpu.request.model or cpu.model.rpartition("-v")[0] or cpu.model


def _is_feature(cpu: ExplicitCpu, prop: Property, cpu_map: CpuMap) -> bool:
    return prop.name in cpu.features and cpu_map.feature_of(prop.name) in cpu_map.features


def readconfig(cpu: ExplicitCpu) -> str:
    """A file for QEMU's `-readconfig`; its first comment is the `-cpu` to use with it.

    Config files have no group for the CPU, so each property is a `[global]` of the CPU's type.
    """
    values = {name: property_text(value) for name, value in cpu.values.items()}
    if cpu.enforce:
        values[PropertyName("enforce")] = "on"
    return _filled("readconfig.cfg.j2", cpu=cpu, values=values)


def json_text(schema: str, answer: Mapping[str, Any]) -> str:
    """An answer of a command as JSON, with the name of its schema on top."""
    return json.dumps({"schema": f"cpumap.{schema}/1", **answer}, indent=2, ensure_ascii=False) + "\n"


def explicit_json(cpu: ExplicitCpu, cpu_map: CpuMap, style: Style = "plus") -> dict[str, Any]:
    """The CPU as a JSON object: context, model, arguments, each property with its origin, and the notes."""
    context = cpu.context
    return {
        "context": {
            "qemu": context.qemu,
            "arch": context.arch,
            "machine": context.machine,
            "accel": context.accel,
        },
        "model": cpu.model,
        "typename": cpu.typename,
        "enforce": cpu.enforce,
        "args": explicit_arguments(cpu, style),
        "properties": [
            {"name": prop.name, "value": prop.value, "origin": prop.origin, **_feature_name(cpu, prop, cpu_map)}
            for prop in cpu.properties
        ],
        "notes": list(cpu.notes),
    }


def _feature_name(cpu: ExplicitCpu, prop: Property, cpu_map: CpuMap) -> dict[str, str]:
    return {"feature": cpu_map.feature_of(prop.name)} if prop.name in cpu.features else {}


def _has_comma(value: Value) -> bool:
    return isinstance(value, str) and "," in value


def _option(name: PropertyName, value: Value, plus: frozenset[PropertyName]) -> str:
    if name in plus:
        return f"{'+' if value else '-'}{name}"
    return f"{name}={property_text(value)}"


def property_text(value: Value) -> str:
    """A property's value as QEMU's command line spells it."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value)


def _filled(name: str, **values: object) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    from cpumap.data import template_path

    environment = Environment(
        loader=FileSystemLoader(template_path()),
        undefined=StrictUndefined,
        autoescape=name.endswith((".xml.j2", ".html.j2")),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["qemu_quoted"] = _qemu_quoted
    return environment.get_template(name).render(values)


def _qemu_quoted(text: str) -> str:
    """A string as QEMU's config file reader takes it: in quotes, without escapes; it cannot hold a quote itself."""
    if '"' in text or "\n" in text:
        raise ValueError(f"cannot be written in a -readconfig file: {text!r}")
    return f'"{text}"'
