"""The options that choose a source, and the source chosen: what every command that needs QEMU
shares.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from cpumap.arch.known import ARCHES, arch_of
from cpumap.cpu.names import Accel
from cpumap.cpu.request import CpuRequest
from cpumap.errors import InputError
from cpumap.libvirt.cpu_map.load import load_cpu_map
from cpumap.libvirt.cpu_map.map import CpuMap
from cpumap.libvirt.releases import words_of
from cpumap.libvirt.words import meant_for
from cpumap.sources.choose import Wanted, choose_source, connected_source, may_run
from cpumap.sources.source import Source
from cpumap.system.say import say, say_once
from cpumap.system.trust import program

if TYPE_CHECKING:
    from cpumap.hosts.described import DescribedHost
    from cpumap.sources.live import QemuSource


def add_source_options(
    parser: argparse.ArgumentParser,
    *,
    machine: str = "machine type (default: the input's own)",
    several: bool = False,
) -> None:
    """--qemu, --qmp, --connect, --recorded, and --machine (with this help), --accel, --cpu-map;
    with `several`, --connect may be said more than once.
    """
    group = parser.add_argument_group("where the answers come from")
    one = group.add_mutually_exclusive_group()
    one.add_argument(
        "--qemu", metavar="PATH|NAME", type=found_on_path, help="start this QEMU binary"
    )
    one.add_argument(
        "--qmp", metavar="SOCKET", help="attach to the QEMU that listens there (path or HOST:PORT)"
    )
    one.add_argument(
        "--connect",
        metavar="URI",
        action="append" if several else "store",
        help="ask libvirt (qemu:///system, …)" + ("; may be repeated" if several else ""),
    )
    one.add_argument(
        "--recorded",
        metavar="RELEASE|VENDOR|FILE",
        help="answers recorded earlier: 7.2, 10.0.13, ubuntu, 8.2-ubuntu, or a file of `record` "
        "(`models --recorded list` shows what there is)",
    )
    group.add_argument(
        "--arch",
        choices=[arch.name for arch in ARCHES],
        help="architecture of the CPU, where the input does not say (default: x86_64)",
    )
    group.add_argument("--domain", metavar="NAME", help="with --connect: this guest's own QEMU")
    group.add_argument("--machine", metavar="TYPE", help=machine)
    group.add_argument(
        "--accel", choices=("kvm", "tcg"), help="accelerator (default: the input's own)"
    )
    group.add_argument(
        "--no-cache", action="store_true", help="start QEMU even for what the cache answers"
    )
    add_cpu_map_option(group)


def found_on_path(name: str) -> str:
    """The program of this name on PATH; the word as it is, where it is a path or there is none."""
    return name if os.sep in name else program(name) or name


def add_cpu_map_option(parser: argparse._ActionsContainer) -> None:
    """--cpu-map."""
    parser.add_argument(
        "--cpu-map",
        metavar="DIR",
        help="a cpu_map directory or cpu_map.xml (default: the one shipped)",
    )
    parser.add_argument(
        "--libvirt",
        metavar="VERSION",
        help="the libvirt that is meant, where versions differ: 9.0, 11.3, … (default: the one "
        "installed here, else the newest known)",
    )


def open_cpu_map(arguments: argparse.Namespace) -> CpuMap:
    """The CPU map of --cpu-map as it is, or the one shipped as the libvirt that is meant sees
    it.
    """
    cpu_map = load_cpu_map(arguments.cpu_map)
    if arguments.cpu_map and not arguments.libvirt:
        return cpu_map
    return meant_for(cpu_map, words_of(arguments.libvirt))


def accel_of(arguments: argparse.Namespace) -> Accel:
    """The accelerator of --accel; tcg where no domain says which is meant, and that is said."""
    accel: Accel | None = arguments.accel
    if accel is None and not arguments.qmp:
        say_once("the answer is for tcg, since nothing names an accelerator: --accel kvm|tcg")
    return accel or "tcg"


@contextmanager
def source_for(
    arguments: argparse.Namespace, request: CpuRequest | None = None
) -> Iterator[Source]:
    """The source that the options name; without any, the domain's emulator, the QEMU on PATH or a
    recording, said on stderr.
    """
    request = _believed(arguments, request or CpuRequest(accel=accel_of(arguments)))
    request = replace(request, arch=request.arch or arguments.arch)
    wanted = Wanted(
        arguments.qemu,
        arguments.qmp,
        arguments.recorded,
        arguments.accel,
        arguments.machine,
        tell=say_once,
        cache=not arguments.no_cache,
    )
    if arguments.connect:
        with _connected(arguments, wanted, request) as source:
            yield source
        return
    source = choose_source(wanted, request)
    if not (arguments.qemu or arguments.qmp or arguments.recorded):
        say(f"answers from {source.label}")
    vendor = arch_of(source.arch).vendor
    has_host = source.own_host or getattr(arguments, "host", None)
    if vendor and source.accel == "kvm" and not has_host:
        say("no host is known: the vendor is the model's own")
    try:
        yield source
    finally:
        source.close()


def start_qemu(arguments: argparse.Namespace, request: CpuRequest) -> QemuSource:
    """A QEMU that runs guests, to see a CPU with their eyes. Errors: `InputError` when none is
    named that is here.
    """
    from cpumap.sources.live import QemuSource

    emulator = _believed(arguments, request).emulator
    own = emulator if emulator and may_run(emulator, say_once) else None
    binary = arguments.qemu or own
    if (
        arguments.qmp
        or arguments.recorded
        or (arguments.connect and urlsplit(arguments.connect).netloc)
        or not binary
        or not os.access(binary, os.X_OK)
    ):
        raise InputError(
            f"{arguments.command} starts guests: name a QEMU binary that is here with --qemu PATH"
        )
    return QemuSource(binary, arguments.accel or request.accel)


def _believed(arguments: argparse.Namespace, request: CpuRequest) -> CpuRequest:
    """The request; where a document came on standard input, without the emulator that it names."""
    words = vars(arguments).values()
    came = any(word == "-" or (isinstance(word, list) and "-" in word) for word in words)
    return replace(request, emulator=None) if came else request


@contextmanager
def _connected(
    arguments: argparse.Namespace, wanted: Wanted, request: CpuRequest
) -> Iterator[Source]:
    """The running guest's own QEMU, or the one that this libvirt would start."""
    from cpumap.sources.libvirt import Hypervisor

    with Hypervisor(arguments.connect, write=bool(arguments.domain)) as hypervisor:
        runs = arguments.domain and hypervisor.domain(arguments.domain).active
        source = (
            hypervisor.guest(arguments.domain)
            if runs
            else connected_source(hypervisor, wanted, request)
        )
        say(f"answers from {source.label}")
        try:
            yield source
        finally:
            source.close()


def read_domain(arguments: argparse.Namespace) -> tuple[bytes, bytes]:
    """The definition that libvirt keeps of --domain, and the one by which it runs, or would
    start.
    """
    from cpumap.sources.libvirt import Hypervisor

    with Hypervisor(arguments.connect, write=True) as hypervisor:
        stored = hypervisor.xml(arguments.domain)
        runs = hypervisor.domain(arguments.domain).active
        return stored, hypervisor.xml(arguments.domain, live=True) if runs else stored


def read_given(arguments: argparse.Namespace) -> tuple[bytes, str]:
    """The document of FILE, or the definition that libvirt keeps of --domain; and its name.

    Errors: `InputError` where neither is named, or --domain without --connect.
    """
    from cpumap.cli.reading import read_file

    if arguments.file is not None:
        return read_file(arguments.file), arguments.file
    if not (arguments.connect and arguments.domain):
        raise InputError("say which: FILE, or --connect URI --domain NAME")
    return kept_by_libvirt(arguments.connect, arguments.domain), arguments.domain


def kept_by_libvirt(uri: str, name: str) -> bytes:
    """The definition that this libvirt keeps of the domain."""
    from cpumap.sources.libvirt import Hypervisor

    with Hypervisor(uri) as hypervisor:
        return hypervisor.xml(name)


def host_option(arguments: argparse.Namespace, cpu_map: CpuMap) -> DescribedHost | None:
    """The host that --host describes; of several, what all of them have."""
    if not arguments.host:
        return None
    from cpumap.cli.reading import read_file
    from cpumap.hosts.described import read_described

    hosts = [read_described(read_file(name), cpu_map, name=name) for name in arguments.host]
    if len(hosts) == 1:
        return hosts[0]
    from cpumap.hosts.pool import pool

    return pool(hosts, cpu_map)


def host_of_libvirt(
    arguments: argparse.Namespace, request: CpuRequest, cpu_map: CpuMap
) -> DescribedHost:
    """The CPU that host-model means to the libvirt of --connect."""
    from cpumap.fleet.libvirt import host_model_of
    from cpumap.sources.libvirt import Hypervisor

    with Hypervisor(arguments.connect) as hypervisor:
        return host_model_of(hypervisor, request, cpu_map)
