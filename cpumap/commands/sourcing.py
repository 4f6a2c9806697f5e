"""The options that choose a source, and the source chosen: what every command that needs QEMU shares."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from cpumap.cpu import CpuRequest
from cpumap.cpu_map import CpuMap, load_cpu_map
from cpumap.errors import InputError
from cpumap.sources import Source
from cpumap.sources.choose import Wanted, choose_source
from cpumap.sources.recorded import RecordedSource


def add_source_options(
    parser: argparse.ArgumentParser, *, machine: str = "machine type (default: the input's own)"
) -> None:
    """--qemu, --qmp, --connect, --recorded, and --machine (with this help), --accel, --cpu-map."""
    group = parser.add_argument_group("where the answers come from")
    one = group.add_mutually_exclusive_group()
    one.add_argument("--qemu", metavar="PATH", help="start this QEMU binary")
    one.add_argument("--qmp", metavar="SOCKET", help="attach to the QEMU that listens there (path or HOST:PORT)")
    one.add_argument("--connect", metavar="URI", help="ask libvirt (qemu:///system, …)")
    one.add_argument(
        "--recorded", metavar="RELEASE|FILE", help="answers recorded earlier: 7.2, 10.0.13, or a file of `record`"
    )
    group.add_argument("--domain", metavar="NAME", help="with --connect: this guest's own QEMU")
    group.add_argument("--machine", metavar="TYPE", help=machine)
    group.add_argument("--accel", choices=("kvm", "tcg"), help="accelerator (default: the input's own)")
    group.add_argument("--no-cache", action="store_true", help="start QEMU even for what the cache answers")
    add_cpu_map_option(group)


def add_cpu_map_option(parser: argparse._ActionsContainer) -> None:
    """--cpu-map."""
    parser.add_argument(
        "--cpu-map", metavar="DIR", help="a cpu_map directory or cpu_map.xml (default: the one shipped)"
    )


def open_cpu_map(arguments: argparse.Namespace) -> CpuMap:
    """The CPU map of --cpu-map, or the one shipped."""
    return load_cpu_map(arguments.cpu_map)


@contextmanager
def open_source(arguments: argparse.Namespace, request: CpuRequest | None = None) -> Iterator[Source]:
    """The source that the options name; without any, the domain's emulator or a recording, said on stderr."""
    wanted = Wanted(
        arguments.qemu,
        arguments.qmp,
        arguments.recorded,
        arguments.accel,
        arguments.machine,
        cache=not arguments.no_cache,
    )
    if arguments.connect:
        raise InputError("--connect is not there yet")
    source = choose_source(wanted, request or CpuRequest(accel="tcg"))
    if not (arguments.qemu or arguments.qmp or arguments.recorded):
        print(f"cpumap: answers from {source.label}", file=sys.stderr)
    if source.accel == "kvm" and isinstance(source, RecordedSource) and not getattr(arguments, "host", None):
        print("cpumap: no host is known: the vendor is the model's own", file=sys.stderr)
    try:
        yield source
    finally:
        source.close()


def is_here(source: Source) -> bool:
    """Whether the source is a QEMU started on this machine, so that this machine's CPU and kernel are its host."""
    if isinstance(source, RecordedSource):
        return False
    from cpumap.sources.qemu import AttachedSource

    return not isinstance(source, AttachedSource)
