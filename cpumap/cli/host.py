"""`host`: what can be enabled, and what the host's own CPU is."""

from __future__ import annotations

import argparse
import os
from contextlib import closing

from cpumap.arch.known import arch_of
from cpumap.cli.columns import columns
from cpumap.cli.sourcing import add_source_options, open_cpu_map, source_for
from cpumap.cpu.expansion import CpuModel
from cpumap.cpu.host import UNKNOWN_MACHINE
from cpumap.cpu.names import Accel
from cpumap.cpu.request import CpuRequest
from cpumap.errors import InputError
from cpumap.hosts.facts import machine_json
from cpumap.hosts.this_machine import this_machine
from cpumap.libvirt.cpu_map.map import CpuMap
from cpumap.qemu.arguments import args_text, cpu_arguments
from cpumap.runnable.available import Available, Kind, OptionEffect, available, listed
from cpumap.runnable.available_json import available_json
from cpumap.sources.choose import started
from cpumap.sources.machines import find_machine
from cpumap.sources.platform import Platform
from cpumap.sources.source import Source
from cpumap.system.json_text import json_text
from cpumap.system.say import put, say


def add_host(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--kind",
        choices=("all", "match", "best"),
        default="all",
        help="all: everything that can be enabled, emulated features too; match: what the host's "
        "own CPU has of it; "
        "best: the best predefined model, and what to add to it (default: all)",
    )
    parser.add_argument(
        "--migratable", action="store_true", help="leave out features that block migration"
    )
    parser.add_argument(
        "--format", choices=("text", "json"), default="text", help="(default: text)"
    )
    add_source_options(parser, several=True)


def run_host(arguments: argparse.Namespace) -> int:
    places: list[str | None] = [*arguments.connect] if arguments.connect else [None]
    for place in places:
        one = argparse.Namespace(**{**vars(arguments), "connect": place})
        if len(places) > 1:
            say(f"{place}:")
        _tell(one)
    return 0


def _tell(arguments: argparse.Namespace) -> None:
    cpu_map = open_cpu_map(arguments)
    with source_for(arguments, CpuRequest(accel=_accel(arguments))) as source:
        if arch_of(source.arch).explicit == "static":
            put(_static_host(arguments, source))
            return
        if not arch_of(source.arch).cpuid:
            raise InputError(
                f"QEMU does not say what hosts of {source.arch} can give", source.label
            )
        here = this_machine(cpu_map) if source.starts_guests else UNKNOWN_MACHINE
        platform = Platform(source, cpu_map, arguments.machine)
        found = available(platform, here, made=True)
        facts = machine_json() if source.starts_guests else None
        other = _other(arguments, source, cpu_map)
    if here.cpu is not None and not here.msrs:
        say("this CPU's MSRs cannot be read: features that they hold count as its own")
    for breach in found.breaches:
        say(f"QEMU breaks its promise: {breach}")
    kind: Kind = arguments.kind
    if arguments.format != "json":
        put(_available_text(found, kind, arguments.migratable, cpu_map))
        return
    every = [
        available_json(one, cpu_map, kind, migratable=arguments.migratable)
        for one in (found, *other)
    ]
    put(json_text("host", {**every[0], "machine": facts, "also": every[1:]}))


def _accel(arguments: argparse.Namespace) -> Accel:
    """Without a domain that says so, kvm is what a host is asked about, where there is KVM."""
    if arguments.accel:
        named: Accel = arguments.accel
        return named
    if arguments.qmp or arguments.connect or arguments.recorded:
        return "kvm"
    if os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "kvm"
    say("/dev/kvm is missing or closed to this user: the answer is tcg's")
    return "tcg"


def _other(arguments: argparse.Namespace, source: Source, cpu_map: CpuMap) -> tuple[Available, ...]:
    """What the same QEMU can enable under tcg, unless one accelerator was named."""
    if arguments.format != "json" or arguments.accel or source.accel == "tcg" or not source.binary:
        return ()
    with closing(started(source.binary, "tcg", cache=not arguments.no_cache)) as other:
        place = Platform(other, cpu_map, arguments.machine)
        return (available(place, UNKNOWN_MACHINE, options=False, made=True),)


def _static_host(arguments: argparse.Namespace, source: Source) -> str:
    """The host's CPU, as QEMU's model for it expands: a base model and features."""
    arch = arch_of(source.arch)
    machine = find_machine(source, arguments.machine).name
    model = source.expand(machine, CpuModel(arch.host_passthrough[source.accel]), "static")
    if arguments.format == "json":
        return json_text(
            "host", {"arch": arch.name, "model": model.name, "features": dict(model.props)}
        )
    if arguments.kind == "best":
        plus = frozenset(model.props)
        return args_text(cpu_arguments(model.name, "", model.props, plus=plus))
    full = source.expand(machine, model, "full").props
    return columns([name] for name, value in sorted(full.items()) if value is True)


def _available_text(found: Available, kind: Kind, migratable: bool, cpu_map: CpuMap) -> str:
    if kind == "best":
        plus = frozenset(found.best.props)
        words = cpu_arguments(found.best.name, "", found.best.props, plus=plus, enforce=True)
        return " ".join(words) + "\n"
    names = sorted(listed(found, kind, migratable=migratable))
    emulated = found.emulated or frozenset()
    notes = [
        [
            cpu_map.feature_of(name),
            "; ".join(
                [
                    *(["emulated"] if name in emulated else []),
                    *(["blocks migration"] if name in found.blocking else []),
                ]
            ),
        ]
        for name in names
    ]
    for option in found.options:
        for line in _option_lines(option):
            say(line)
    return columns(notes)


def _option_lines(effect: OptionEffect) -> list[str]:
    if effect.refused:
        return [f"{effect.option}: not possible here: {effect.refused}"]
    lines = [f"adds {', '.join(sorted(effect.gained))}"] if effect.gained else []
    lines += [f"takes away {', '.join(sorted(effect.lost))}"] if effect.lost else []
    lines += [f"{name} becomes {value}" for name, value in effect.values.items()]
    return [f"{effect.option}: {'; '.join(lines)}"] if lines else []
