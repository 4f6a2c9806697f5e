"""`check`: what can be run."""

from __future__ import annotations

import argparse

from cpumap.cli.columns import columns
from cpumap.cli.sourcing import (
    add_source_options,
    host_option,
    open_cpu_map,
    read_given,
    source_for,
)
from cpumap.cpu.host import UNKNOWN_MACHINE, ThisMachine
from cpumap.hosts.lack import lack_text
from cpumap.hosts.this_machine import this_machine
from cpumap.libvirt.cpu_map.map import CpuMap
from cpumap.libvirt.domain import parse_request
from cpumap.runnable.check import check
from cpumap.runnable.checked import Checked
from cpumap.sources.platform import Platform
from cpumap.sources.source import Source
from cpumap.system.json_text import json_text
from cpumap.system.say import put


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
        action="append",
        help="on this host: `cpumap host --format json`, capabilities, domcapabilities, <cpu> or "
        "<cpudata>; may be repeated: on all of them",
    )
    parser.add_argument(
        "--format", choices=("text", "json"), default="text", help="(default: text)"
    )
    add_source_options(parser)


def run_check(arguments: argparse.Namespace) -> int:
    data, name = read_given(arguments)
    request = parse_request(data, name=name)
    cpu_map = open_cpu_map(arguments)
    host = host_option(arguments, cpu_map)
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
    parts += [f"warning: {warning}\n" for warning in found.warnings]
    if found.optional:
        parts.append(f"optional, left out: {', '.join(found.optional)}\n")
    return "".join(parts)


def _answer(found: Checked) -> str:
    if found.runnable:
        return "runnable"
    return "not runnable" if found.stopped else "not proven runnable"
