"""What QMP commands return, as values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from cpumap.arch.arch import Arch
from cpumap.cpu.build import Build, digest_of
from cpumap.cpu.expansion import CpuModel, Definition, ExpansionType, Machine
from cpumap.cpu.vendors import vendor_among
from cpumap.errors import UnknownNameError
from cpumap.qemu.qmp import CommandFailedError, Conversation
from cpumap.qemu.warnings import ASKED_IN_VAIN


def version_of(answer: Mapping[str, Any]) -> str:
    qemu = answer["qemu"]
    return f"{qemu['major']}.{qemu['minor']}.{qemu['micro']}"


def build_of(session: Conversation, arch: Arch) -> Build:
    """Which QEMU this is: what it calls itself, and a digest of what it offers."""
    version = session.execute("query-version")
    machines = [machine.name for machine in machines_of(session.execute("query-machines"))]
    types = session.execute("qom-list-types", implements="cpu", abstract=False)
    return Build(
        version_of(version),
        version.get("package", ""),
        digest_of(machines, [entry["name"] for entry in types], _bare_properties(session, arch)),
        vendor_among(machines),
    )


def _bare_properties(session: Conversation, arch: Arch) -> list[str]:
    """The CPU properties of the bare model; none where the architecture has no such model."""
    if arch.bare is None:
        return []
    return list(expanded_by(session, CpuModel(arch.bare), "full").props)


def machines_of(answer: Iterable[Mapping[str, Any]]) -> tuple[Machine, ...]:
    return tuple(
        Machine(
            name=entry["name"],
            alias=entry.get("alias"),
            default_cpu=entry.get("default-cpu-type"),
            deprecated=entry.get("deprecated", False),
            is_default=entry.get("is-default", False),
            cpu_max=entry["cpu-max"],
        )
        for entry in sorted(answer, key=lambda entry: str(entry["name"]))
        if entry["name"] != "none"
    )


def definitions_of(session: Conversation, arch: Arch) -> tuple[Definition, ...]:
    return tuple(
        Definition(
            name=entry["name"],
            typename=entry.get("typename", arch.typename(entry["name"])),
            alias_of=entry.get("alias-of"),
            migration_safe=entry.get("migration-safe", False),
            static=entry.get("static", False),
            deprecated=entry.get("deprecated", False),
            unavailable=tuple(entry.get("unavailable-features", ())),
        )
        for entry in sorted(
            session.execute("query-cpu-definitions"), key=lambda entry: str(entry["name"])
        )
    )


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


def model_of(answer: Mapping[str, Any]) -> CpuModel:
    """The model and properties of an expansion; QEMU leaves `props` out where there are none."""
    model = answer["model"]
    return CpuModel(model["name"], model.get("props", {}))
