"""`translate`: one domain XML becomes one explicit CPU."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import TYPE_CHECKING

from cpumap.cli.reading import read_file
from cpumap.cli.sourcing import (
    add_source_options,
    host_of_libvirt,
    host_option,
    open_cpu_map,
    read_domain,
    source_for,
)
from cpumap.cli.targeting import add_target_options, targeted
from cpumap.cpu.expansion import Expansion
from cpumap.cpu.explicit import ExplicitCpu
from cpumap.cpu.request import OWN_CPU, CpuRequest
from cpumap.errors import InputError, SourceError
from cpumap.libvirt.cpu_map.map import CpuMap
from cpumap.libvirt.domain import read_document, request_of
from cpumap.libvirt.words import libvirt_map
from cpumap.pin.resolve import Choices, resolve
from cpumap.pin.translate import expand_on, write
from cpumap.pin.write import beyond_cpu_xml
from cpumap.qemu.arguments import args_text
from cpumap.sources.platform import Platform
from cpumap.system.json_text import json_text
from cpumap.system.say import put, put_bytes, say
from cpumap.system.xml_document import Document

if TYPE_CHECKING:
    from cpumap.hosts.described import DescribedHost


def add_translate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file",
        metavar="FILE",
        nargs="?",
        help="domain XML, <cpu> element or -cpu string; - is standard input",
    )
    parser.add_argument(
        "--pin",
        choices=("model", "custom", "none"),
        help="model: the versioned model and everything named; custom: the same on `base`; "
        "none: what libvirt itself would pass (default: model)",
    )
    parser.add_argument(
        "--format",
        choices=("args", "xml", "cpu-xml", "readconfig", "json"),
        default="args",
        help="QEMU arguments, the domain XML, its <cpu> alone, a -readconfig file, or JSON "
        "(default: args)",
    )
    parser.add_argument(
        "--style",
        choices=("plus", "onoff"),
        default="plus",
        help="features as +f,-f or as f=on,f=off (default: plus)",
    )
    parser.add_argument(
        "--unavailable",
        choices=("keep", "off"),
        help="features of the model that cannot be given here: keep them (and leave enforce out), "
        "or switch them off "
        "(default: off under KVM, keep under tcg)",
    )
    parser.add_argument(
        "--deprecated",
        choices=("keep", "off"),
        default="keep",
        help="features that machines to come will not have (s390x): keep them, or switch them off "
        "(default: keep)",
    )
    parser.add_argument(
        "--host",
        metavar="FILE",
        action="append",
        help="the host to run on: `cpumap host --format json`, capabilities, domcapabilities, "
        "<cpu> or <cpudata>; "
        "host-model, match='minimum' and optional features mean its CPU, and what it lacks is "
        "unavailable",
    )
    parser.add_argument(
        "--summary",
        action="store_true",
        help="instead of the CPU: what it says beyond what libvirt would pass, grouped by why",
    )
    add_target_options(parser)
    add_source_options(parser)


def run_translate(arguments: argparse.Namespace) -> int:
    name = arguments.file or arguments.domain or "-"
    document, running = _input(arguments, name)
    request = request_of(running)
    cpu_map = open_cpu_map(arguments)
    host = _host(arguments, request, cpu_map)
    if arguments.pin == "none":
        return _as_libvirt_does(arguments, request, cpu_map, host)
    choices = Choices(
        pin=arguments.pin or "model",
        unavailable=arguments.unavailable,
        deprecated=arguments.deprecated,
    )
    with source_for(arguments, request) as source:
        platform = Platform(source, cpu_map, arguments.machine)
        meant, expansion = _expanded(arguments, host, request, platform)
        cpu = targeted(arguments, resolve(meant, expansion, choices), expansion, platform)
        if arguments.summary:
            put(_summary(arguments, cpu, request, platform))
            return 0
    for note in cpu.notes:
        say(note)
    words = cpu_map if arguments.cpu_map else libvirt_map(libvirt=arguments.libvirt)
    if arguments.format == "cpu-xml":
        _say_beyond(cpu, words)
    text = write(cpu, document, format=arguments.format, style=arguments.style, cpu_map=words)
    put_bytes(text)
    return 0


def _expanded(
    arguments: argparse.Namespace,
    host: DescribedHost | None,
    request: CpuRequest,
    platform: Platform,
) -> tuple[CpuRequest, Expansion]:
    """The expansion on the host that was named, else on that of a live source, which is asked what
    it has where the request does not say it, or where QEMU does not start its own CPU there.
    """
    on_model = arguments.pin == "model"
    source = platform.source
    if host is None and request.mode == "host-model" and source.own_host and source.makes_cpus:
        host = _asked(request, platform)
    try:
        return expand_on(host, request, platform, on_model=on_model)
    except SourceError:
        if host is not None or request.mode not in OWN_CPU or not source.starts_guests:
            raise
        host = _asked(request, platform)
        if not host.cpu.made:
            raise
    return expand_on(host, request, platform, on_model=on_model)


def _asked(request: CpuRequest, platform: Platform) -> DescribedHost:
    """The host of the source, under the request's machine type."""
    from cpumap.runnable.compare import own_host

    machine = platform.machine_for(request).name
    return own_host(replace(platform, machine=machine), made=request.mode in OWN_CPU)


def _summary(
    arguments: argparse.Namespace, cpu: ExplicitCpu, request: CpuRequest, platform: Platform
) -> str:
    from cpumap.cli.summary import summary

    for note in cpu.notes:
        say(note)
    return summary(cpu, replace(request, machine=arguments.machine or request.machine), platform)


def _input(arguments: argparse.Namespace, name: str) -> tuple[Document, Document]:
    """The document to rewrite, and the one to read the CPU from: of a running guest, libvirt has
    both.
    """
    if arguments.domain and not arguments.connect:
        raise InputError("--domain goes with --connect")
    if arguments.file is None and arguments.domain is None:
        raise InputError("say which: FILE, or --connect URI --domain NAME")
    if arguments.file is None:
        stored, running = read_domain(arguments)
        return read_document(stored, name=name), read_document(running, name=name)
    document = read_document(read_file(arguments.file), name=name)
    return document, document


def _host(
    arguments: argparse.Namespace, request: CpuRequest, cpu_map: CpuMap
) -> DescribedHost | None:
    """The host that was named, or the one of the libvirt that was, where the request needs one."""
    if arguments.host:
        return host_option(arguments, cpu_map)
    if arguments.connect and request.mode == "host-model":
        return host_of_libvirt(arguments, request, cpu_map)
    return None


def _as_libvirt_does(
    arguments: argparse.Namespace, request: CpuRequest, cpu_map: CpuMap, host: DescribedHost | None
) -> int:
    if arguments.format not in ("args", "json"):
        raise InputError(
            f"--pin none is what libvirt passes to QEMU: it has no --format {arguments.format}"
        )
    from cpumap.pin.as_libvirt import libvirt_cpu_args

    if host is not None:
        from cpumap.hosts.described import request_on

        request = request_on(host, request, cpu_map)
    with source_for(arguments, request) as source:
        words = libvirt_cpu_args(
            replace(request, machine=arguments.machine or request.machine),
            Platform(source, cpu_map),
        )
    put(
        args_text(words)
        if arguments.format == "args"
        else json_text("translate", {"args": list(words)})
    )
    return 0


def _say_beyond(cpu: ExplicitCpu, cpu_map: CpuMap) -> None:
    count = len(beyond_cpu_xml(cpu, cpu_map))
    if count:
        say(f"{count} properties have no words in <cpu>; --format xml keeps them as -global")
