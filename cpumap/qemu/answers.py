"""What QMP commands return, as values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from cpumap.arch.arch import Arch
from cpumap.cpu.build import Build, digest_of
from cpumap.cpu.expansion import CpuModel, Definition, ExpansionType, Machine
from cpumap.cpu.vendors import vendor_among
from cpumap.errors import SourceError, UnknownNameError
from cpumap.qemu.qmp import CommandFailedError, Conversation
from cpumap.qemu.warnings import ASKED_IN_VAIN
from cpumap.system.made import made
from cpumap.system.shape import Shaped, at_top


def told(answer: Any, command: str) -> Shaped:
    """A QEMU's answer to a command, to be taken apart. Errors: `SourceError`, with the place."""
    return at_top(answer, f"QEMU's answer to {command}", SourceError)


def version_of(answer: Any) -> str:
    qemu = told(answer, "query-version").key("qemu")
    return ".".join(str(qemu.key(part).number) for part in ("major", "minor", "micro"))


def first_vcpu(session: Conversation) -> str:
    """The path of the first vCPU in QEMU's tree of objects."""
    for vcpu in told(session.execute("query-cpus-fast"), "query-cpus-fast").entries():
        return vcpu.key("qom-path").text
    raise SourceError(f"{session.label} has no vCPU")


def build_of(session: Conversation, arch: Arch) -> Build:
    """Which QEMU this is: what it calls itself, and a digest of what it offers."""
    version = session.execute("query-version")
    machines = [machine.name for machine in machines_of(session.execute("query-machines"))]
    types = session.execute("qom-list-types", implements="cpu", abstract=False)
    return Build(
        version_of(version),
        told(version, "query-version").key("package").text,
        digest_of(machines, _names(types, "qom-list-types"), _bare_properties(session, arch)),
        vendor_among(machines),
    )


def _names(answer: Any, command: str) -> list[str]:
    return [entry.key("name").text for entry in told(answer, command).entries()]


def _bare_properties(session: Conversation, arch: Arch) -> list[str]:
    """The CPU properties of the bare model; none where the architecture has no such model."""
    if arch.bare is None:
        return []
    return list(expanded_by(session, CpuModel(arch.bare), "full").props)


def machines_of(answer: Any) -> tuple[Machine, ...]:
    entries = _renamed(answer, "query-machines", _MACHINE)
    made_of = (made(Machine, entry) for entry in entries)
    return tuple(sorted((one for one in made_of if one.name != "none"), key=_name))


def definitions_of(session: Conversation, arch: Arch) -> tuple[Definition, ...]:
    answer = session.execute("query-cpu-definitions")
    found = []
    for entry in _renamed(answer, "query-cpu-definitions", _DEFINITION):
        typename = arch.typename(entry.key("name").text)
        found.append(
            made(Definition, replace(entry, value={"typename": typename, **entry.mapping}))
        )
    return tuple(sorted((_with_alias(one, arch) for one in found), key=_name))


def _with_alias(definition: Definition, arch: Arch) -> Definition:
    """What it is an alias of, where only the type says so: `power9` is of `power9_v2.0`."""
    model = arch.model_of(definition.typename)
    if not arch.any_case or model.lower() == definition.name.lower():
        return definition
    return replace(definition, alias_of=model)


_MACHINE = {
    "name": "name",
    "alias": "alias",
    "default-cpu-type": "default_cpu",
    "deprecated": "deprecated",
    "is-default": "is_default",
    "cpu-max": "cpu_max",
}
"""QMP's names of what is heeded → ours."""


_DEFINITION = {
    "name": "name",
    "typename": "typename",
    "alias-of": "alias_of",
    "migration-safe": "migration_safe",
    "static": "static",
    "deprecated": "deprecated",
    "unavailable-features": "unavailable",
}


def _renamed(answer: Any, command: str, names: Mapping[str, str]) -> Iterator[Shaped]:
    """The entries with our names, less what is not heeded."""
    for entry in told(answer, command).entries():
        values = {names[name]: value for name, value in entry.mapping.items() if name in names}
        yield replace(entry, value=values)


def _name(entry: Machine | Definition) -> str:
    return entry.name


def expansion_command(model: CpuModel, kind: ExpansionType) -> tuple[str, dict[str, object]]:
    info: dict[str, object] = {"name": model.name}
    if model.props:
        info["props"] = dict(model.props)
    return "query-cpu-model-expansion", {"type": kind, "model": info}


def expanded_by(session: Conversation, model: CpuModel, kind: ExpansionType) -> CpuModel:
    name, arguments = expansion_command(model, kind)
    try:
        answer = session.execute(name, **arguments)
    except CommandFailedError as err:
        raise (UnknownNameError(str(err)) if ASKED_IN_VAIN.search(str(err)) else err) from err
    return model_of(answer)


def model_of(answer: Any) -> CpuModel:
    """The model and properties of an expansion; QEMU leaves `props` out where there are none."""
    model = told(answer, "query-cpu-model-expansion").key("model")
    props = model.optional("props")
    return CpuModel(model.key("name").text, {} if props is None else props.values)
