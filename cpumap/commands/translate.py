"""`translate`: one domain XML becomes one explicit CPU."""

from __future__ import annotations

import argparse
import sys

from cpumap.commands.reading import read_file
from cpumap.commands.sourcing import add_source_options, open_cpu_map, open_source
from cpumap.cpu import CpuRequest, ExplicitCpu
from cpumap.cpu_map import CpuMap
from cpumap.domain import cpu_children, parse_request
from cpumap.errors import InputError
from cpumap.expansion import expand
from cpumap.render import (
    KEPT,
    args_text,
    beyond_cpu_xml,
    cpu_xml,
    domain_xml,
    explicit_arguments,
    explicit_json,
    json_text,
    readconfig,
)
from cpumap.resolve import Choices, resolve
from cpumap.sources import Source


def add_translate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="domain XML, <cpu> element or -cpu string; - is standard input")
    parser.add_argument(
        "--pin",
        choices=("model", "custom", "none"),
        default="model",
        help="model: the versioned model and everything named; custom: the same on `base`; "
        "none: what libvirt itself would pass (default: model)",
    )
    parser.add_argument(
        "--format",
        choices=("args", "xml", "cpu-xml", "readconfig", "json"),
        default="args",
        help="QEMU arguments, the domain XML, its <cpu> alone, a -readconfig file, or JSON (default: args)",
    )
    parser.add_argument(
        "--style", choices=("plus", "onoff"), default="plus", help="features as +f,-f or as f=on,f=off (default: plus)"
    )
    parser.add_argument(
        "--unavailable",
        choices=("keep", "off"),
        help="features of the model that cannot be given here: keep them (and leave enforce out), or switch them off "
        "(default: off under KVM, keep under tcg)",
    )
    add_source_options(parser)


def run_translate(arguments: argparse.Namespace) -> int:
    document = read_file(arguments.file)
    request = parse_request(document, name=arguments.file)
    cpu_map = open_cpu_map(arguments)
    with open_source(arguments, request) as source:
        if arguments.pin == "none":
            raise InputError("--pin none is not there yet")
        cpu = _explicit(arguments, request, source, cpu_map)
    for note in cpu.notes:
        print(f"cpumap: {note}", file=sys.stderr)
    sys.stdout.buffer.write(_rendered(arguments, cpu, cpu_map, document))
    return 0


def _explicit(arguments: argparse.Namespace, request: CpuRequest, source: Source, cpu_map: CpuMap) -> ExplicitCpu:
    choices = Choices(pin=arguments.pin, unavailable=arguments.unavailable)
    return resolve(request, expand(request, source, cpu_map, machine=arguments.machine), choices)


def _rendered(arguments: argparse.Namespace, cpu: ExplicitCpu, cpu_map: CpuMap, document: bytes) -> bytes:
    match arguments.format:
        case "xml":
            return domain_xml(cpu, cpu_map, document, arguments.file)
        case "json":
            return json_text("translate", explicit_json(cpu, cpu_map, arguments.style)).encode()
        case "readconfig":
            return readconfig(cpu).encode()
        case "cpu-xml":
            _say_beyond(cpu, cpu_map)
            return cpu_xml(cpu, cpu_map, cpu_children(document, KEPT, name=arguments.file)).encode()
        case _:
            return args_text(explicit_arguments(cpu, arguments.style)).encode()


def _say_beyond(cpu: ExplicitCpu, cpu_map: CpuMap) -> None:
    count = len(beyond_cpu_xml(cpu, cpu_map))
    if count:
        print(f"cpumap: {count} properties have no words in <cpu>; --format xml keeps them as -global", file=sys.stderr)
