"""`check`, `host`: what can be run, and what can be enabled."""

from __future__ import annotations

import argparse

from cpumap.cli.columns import columns
from cpumap.cli.reading import read_file
from cpumap.cli.sourcing import add_source_options, open_cpu_map, read_given, source_for
from cpumap.cpu.host import UNKNOWN_MACHINE, ThisMachine
from cpumap.cpu.request import CpuRequest
from cpumap.hosts.described import read_described
from cpumap.hosts.lack import lack_text
from cpumap.hosts.this_machine import this_machine
from cpumap.libvirt.cpu_map.map import CpuMap
from cpumap.libvirt.domain import parse_request
from cpumap.qemu.arguments import cpu_arguments
from cpumap.runnable.available import Available, Kind, OptionEffect, available, listed
from cpumap.runnable.available_json import available_json
from cpumap.runnable.check import Checked, check
from cpumap.sources.platform import Platform
from cpumap.sources.source import Source
from cpumap.system.json_text import json_text
from cpumap.system.say import put, say


def add_check(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file",
        metavar="FILE",
        nargs="?",
        help="domain XML, <cpu> element or -cpu string; - is standard input; or name a domain with "
        "--connect and --domain",
    )
    parser.add_argument(
        "--host",
        metavar="FILE",
        help="on this host: `cpumap host --format json`, capabilities, domcapabilities, <cpu> or "
        "<cpudata>",
    )
    parser.add_argument(
        "--format", choices=("text", "json"), default="text", help="(default: text)"
    )
    add_source_options(parser)


def run_check(arguments: argparse.Namespace) -> int:
    data, name = read_given(arguments)
    request = parse_request(data, name=name)
    cpu_map = open_cpu_map(arguments)
    host = (
        read_described(read_file(arguments.host), cpu_map, name=arguments.host)
        if arguments.host
        else None
    )
    with source_for(arguments, request) as source:
        here = _here(source, cpu_map)
        found = check(request, Platform(source, cpu_map, arguments.machine), host=host, here=here)
    put(json_text("check", found.to_json()) if arguments.format == "json" else _checked_text(found))
    return 0 if found.runnable else 1


def _here(source: Source, cpu_map: CpuMap) -> ThisMachine:
    return this_machine(cpu_map) if source.starts_guests else UNKNOWN_MACHINE


def _checked_text(found: Checked) -> str:
    where = f"{found.context.machine}, QEMU {found.context.qemu}, {found.context.accel}"
    parts = [f"{_answer(found)}: {found.model} on {where}\n"]
    if found.missing:
        parts += ["missing:\n", columns(["", *lack_text(lack)] for lack in found.missing)]
    if found.undescribed:
        parts += ["not described:\n", columns(["", *lack_text(lack)] for lack in found.undescribed)]
    if found.forbidden:
        parts += [
            "forbidden, but there:\n",
            columns(["", *lack_text(lack)] for lack in found.forbidden),
        ]
    if found.silent:
        parts += [
            "left out by QEMU without a word:\n",
            columns(["", *lack_text(lack)] for lack in found.silent),
        ]
    if found.refused:
        parts.append(f"refused: {found.refused}\n")
    if not found.start.passes:
        parts.append(f"libvirt does not start it: {found.start}\n")
    if found.unproven:
        parts.append(f"not proven: {found.unproven}\n")
    if found.optional:
        parts.append(f"optional, left out: {', '.join(found.optional)}\n")
    return "".join(parts)


def _answer(found: Checked) -> str:
    if found.runnable:
        return "runnable"
    return "not runnable" if found.stopped else "not proven runnable"


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
    add_source_options(parser)


def run_host(arguments: argparse.Namespace) -> int:
    cpu_map = open_cpu_map(arguments)
    # Without a domain that says so, kvm is what a host is asked about.
    with source_for(arguments, CpuRequest(accel=arguments.accel or "kvm")) as source:
        here = _here(source, cpu_map)
        found = available(Platform(source, cpu_map, arguments.machine), here, made=True)
    if here.cpu is not None and not here.msrs:
        say("this CPU's MSRs cannot be read: features that they hold count as its own")
    for breach in found.breaches:
        say(f"QEMU breaks its promise: {breach}")
    kind: Kind = arguments.kind
    if arguments.format == "json":
        answer = available_json(found, cpu_map, kind, migratable=arguments.migratable)
        put(json_text("host", answer))
    else:
        put(_available_text(found, kind, arguments.migratable, cpu_map))
    return 0


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
