"""`expand`, `dump`, `models`, `machines`: what a QEMU says of its CPUs."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from cpumap.arch.arch import Arch
from cpumap.arch.known import arch_of
from cpumap.arch.x86.cpuid import CpuidData
from cpumap.arch.x86.cpuid_formats import cpudata_text
from cpumap.cli.columns import columns
from cpumap.cli.sourcing import accel_of, add_source_options, open_cpu_map, source_for, start_qemu
from cpumap.cpu.expansion import CpuModel, Definition, Expansion, Machine
from cpumap.cpu.request import CpuRequest
from cpumap.errors import InputError
from cpumap.pin.expand import expand
from cpumap.pin.resolve import Choices, resolve
from cpumap.pin.write import readconfig
from cpumap.qemu.cpu_option import parse_cpu_option
from cpumap.sources.machines import find_machine
from cpumap.sources.platform import Platform
from cpumap.sources.recordings import Recording, recordings
from cpumap.system.json_text import json_text
from cpumap.system.say import put, say

_SHOWN = 5
"""How many of very many names a line has."""


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL[,prop=value…]", help="as after QEMU's -cpu")
    add_source_options(parser)


def _add_format(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--format", choices=("text", "json"), default="text", help="(default: text)"
    )


def _request(arguments: argparse.Namespace) -> CpuRequest:
    """The model named on the command line, which says no accelerator."""
    return replace(parse_cpu_option(arguments.model, name="MODEL"), accel=accel_of(arguments))


def add_expand(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--type",
        choices=("static", "full", "guest"),
        default="full",
        help="static: on the model `base`, the same everywhere; full: every property; guest: the "
        "CPUID and MSRs that "
        "a guest reads, as <cpudata>, which `decode` takes (starts --qemu PATH; tcg unfiltered) "
        "(default: full)",
    )
    _add_model(parser)


def run_expand(arguments: argparse.Namespace) -> int:
    request = _request(arguments)
    if arguments.type == "guest":
        put(cpudata_text(_seen_by_a_guest(arguments, request)))
        return 0
    with source_for(arguments, request) as source:
        expansion = expand(
            request,
            Platform(source, open_cpu_map(arguments), arguments.machine),
            must_realise=False,
        )
    static = arguments.type == "static"
    arch = arch_of(expansion.context.arch)
    if static and "static" not in arch.expansions:
        raise InputError(f"QEMU has no static expansion of {arch.name} CPUs", arguments.model)
    props = expansion.static if static else expansion.full
    put(
        json_text(
            "expand",
            {
                "context": expansion.context.as_json(),
                "model": {
                    "name": expansion.static_model if static else expansion.model.name,
                    "props": dict(sorted(props.items())),
                },
                **_deprecated(expansion),
                "static": static or expansion.definition.static,
                "migration-safe": static or expansion.definition.migration_safe,
            },
        )
    )
    return 0


def _deprecated(expansion: Expansion) -> dict[str, list[str]]:
    """In QMP's name (CpuModelExpansionInfo), where the architecture has such features."""
    arch = arch_of(expansion.context.arch)
    if not arch.deprecated:
        return {}
    on = arch.groups.on(expansion.full)
    return {"deprecated-props": sorted(arch.deprecated & on)}


def _seen_by_a_guest(arguments: argparse.Namespace, request: CpuRequest) -> CpuidData:
    from cpumap.proof.verify import look

    with start_qemu(arguments, request) as source:
        expansion = expand(request, Platform(source, open_cpu_map(arguments), arguments.machine))
        return look(source, expansion.context.machine, _as_named(expansion)).data()


def _as_named(expansion: Expansion) -> CpuModel:
    """Under the name asked for: old machine types change Haswell, and not the Haswell-v1 that it
    stands for.
    """
    return replace(expansion.model, name=expansion.definition.name)


def add_dump(parser: argparse.ArgumentParser) -> None:
    _add_model(parser)


def run_dump(arguments: argparse.Namespace) -> int:
    request = _request(arguments)
    with source_for(arguments, request) as source:
        expansion = expand(
            request,
            Platform(source, open_cpu_map(arguments), arguments.machine),
            must_realise=False,
        )
    # Where QEMU has no model without features, there is only the model itself to stand on.
    bare = arch_of(expansion.context.arch).bare is not None
    cpu = resolve(request, expansion, Choices(pin="custom" if bare else "model"))
    for note in cpu.notes:
        say(note)
    put(readconfig(cpu))
    return 0


def add_models(parser: argparse.ArgumentParser) -> None:
    _add_format(parser)
    add_source_options(parser)


ROW = ("release", "arch", "accel", "file")
"""What is said of a recording."""


def run_models(arguments: argparse.Namespace) -> int:
    if arguments.recorded == "list":
        rows = [_recording_row(found) for found in recordings()]
        listed = [dict(zip(ROW, row, strict=True)) for row in rows]
        put(
            json_text("models", {"recordings": listed})
            if arguments.format == "json"
            else columns(rows)
        )
        return 0
    with source_for(arguments) as source:
        machine = find_machine(source, arguments.machine)
        definitions = source.definitions(machine.name)
    if arguments.format == "json":
        answer = {
            "machine": machine.name,
            "models": [_definition_json(definition) for definition in definitions],
        }
        put(json_text("models", answer))
    else:
        put(columns(_definition_row(definition, source.arch) for definition in definitions))
    return 0


def _recording_row(found: Recording) -> tuple[str, ...]:
    """How `--recorded` takes it, for what, and where it is."""
    return found.name, found.arch, found.accel, str(found.path)


def _definition_json(definition: Definition) -> dict[str, Any]:
    """In QMP's names (CpuDefinitionInfo)."""
    return {
        "name": definition.name,
        "typename": definition.typename,
        **({"alias-of": definition.alias_of} if definition.alias_of else {}),
        "migration-safe": definition.migration_safe,
        "static": definition.static,
        "deprecated": definition.deprecated,
        "unavailable-features": list(definition.unavailable),
    }


def _definition_row(definition: Definition, arch: str) -> list[str]:
    said = [f"alias of {definition.alias_of}"] if definition.alias_of else []
    said += ["deprecated"] if definition.deprecated else []
    said += (
        [f"not runnable here without {_listed(definition.unavailable, arch)}"]
        if definition.unavailable
        else []
    )
    return [definition.name, "; ".join(said)]


def _listed(names: Sequence[str], arch: str) -> str:
    """The names; of an architecture with hundreds of features the first few."""
    shown = _SHOWN if arch_of(arch).groups.members else len(names)
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return f"{', '.join(names[:shown])}{more}"


def add_machines(parser: argparse.ArgumentParser) -> None:
    _add_format(parser)
    add_source_options(parser)


def run_machines(arguments: argparse.Namespace) -> int:
    with source_for(arguments) as source:
        arch = arch_of(source.arch)
        machines = source.machines()
    if arguments.machine:
        machines = (find_machine(source, arguments.machine),)
    if arguments.format == "json":
        put(json_text("machines", {"machines": [_machine_json(machine) for machine in machines]}))
    else:
        put(columns(_machine_row(machine, arch) for machine in machines))
    return 0


def _machine_json(machine: Machine) -> dict[str, Any]:
    """In QMP's names (MachineInfo)."""
    return {
        "name": machine.name,
        **({"alias": machine.alias} if machine.alias else {}),
        **({"default-cpu-type": machine.default_cpu} if machine.default_cpu else {}),
        "is-default": machine.is_default,
        "deprecated": machine.deprecated,
        "cpu-max": machine.cpu_max,
    }


def _machine_row(machine: Machine, arch: Arch) -> list[str]:
    said = [f"alias {machine.alias}"] if machine.alias else []
    said += ["default"] if machine.is_default else []
    said += ["deprecated"] if machine.deprecated else []
    return [
        machine.name,
        arch.model_of(machine.default_cpu or ""),
        "; ".join(said),
    ]
