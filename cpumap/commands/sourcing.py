"""The options that choose a source, and the source chosen: what every command that needs QEMU shares."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cpumap.cpu import Accel, CpuRequest
from cpumap.cpu_map import CpuMap, load_cpu_map
from cpumap.errors import InputError, UnknownName
from cpumap.sources import Source


def add_source_options(parser: argparse.ArgumentParser) -> None:
    """--qemu, --qmp, --connect, --recorded, and --machine, --accel, --cpu-map."""
    group = parser.add_argument_group("where the answers come from")
    one = group.add_mutually_exclusive_group()
    one.add_argument("--qemu", metavar="PATH", help="start this QEMU binary")
    one.add_argument("--qmp", metavar="SOCKET", help="attach to the QEMU that listens there (path or HOST:PORT)")
    one.add_argument("--connect", metavar="URI", help="ask libvirt (qemu:///system, …)")
    one.add_argument(
        "--recorded", metavar="RELEASE|FILE", help="answers recorded earlier: 7.2, 10.0.13, or a file of `record`"
    )
    group.add_argument("--domain", metavar="NAME", help="with --connect: this guest's own QEMU")
    group.add_argument("--machine", metavar="TYPE", help="machine type (default: the input's own)")
    group.add_argument("--accel", choices=("kvm", "tcg"), help="accelerator (default: the input's own)")
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
    source = _chosen(arguments, request or CpuRequest(accel="tcg"))
    try:
        yield source
    finally:
        source.close()


def _chosen(arguments: argparse.Namespace, request: CpuRequest) -> Source:
    accel: Accel = arguments.accel or request.accel
    if arguments.qemu:
        return _qemu(arguments.qemu, accel)
    if arguments.qmp:
        from cpumap.qmp import Session
        from cpumap.sources.qemu import AttachedSource

        return AttachedSource(Session.attach(arguments.qmp))
    if arguments.connect:
        raise InputError("--connect is not there yet")
    if arguments.recorded:
        return _recorded(arguments.recorded, accel)
    return _default(arguments.machine or request.machine, request, accel)


def _qemu(binary: str, accel: Accel) -> Source:
    from cpumap.sources.qemu import QemuSource

    return QemuSource(binary, accel)


def _recorded(wanted: str, accel: Accel) -> Source:
    from cpumap.sources.recorded import RecordedSource, find_recording

    return RecordedSource(find_recording(wanted, accel))


def _default(machine: str | None, request: CpuRequest, accel: Accel) -> Source:
    if request.emulator and os.access(request.emulator, os.X_OK) and Path(request.emulator).is_file():
        source = _qemu(request.emulator, accel)
    else:
        source = newest_recorded(machine, accel)
    told = " (no host is known: the vendor is the model's own)" if _has_no_host(source) else ""
    print(f"cpumap: answers from {source.label}{told}", file=sys.stderr)
    return source


def _has_no_host(source: Source) -> bool:
    return source.accel == "kvm" and source.label.startswith("recorded")


def newest_recorded(machine: str | None, accel: Accel) -> Source:
    """The newest shipped recording that knows this machine type (by name or alias). Errors: `UnknownName`."""
    from cpumap.sources.recorded import RecordedSource, recordings

    for path in reversed([path for path in recordings() if path.stem.endswith(f"_{accel}")]):
        source = RecordedSource(path)
        if machine is None or any(machine in (m.name, m.alias) for m in source.machines()):
            return source
    raise UnknownName(f"no recorded QEMU has machine type {machine!r} under {accel}; name a --qemu that does")
