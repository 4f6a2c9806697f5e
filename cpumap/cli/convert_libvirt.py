"""`convert --connect`: the domains that libvirt keeps, pinned where they are."""

from __future__ import annotations

import argparse
from collections.abc import Iterable

from cpumap.cli.diffs import folded, put_diff
from cpumap.cli.sourcing import host_option, open_cpu_map
from cpumap.cli.targeting import wanted_target
from cpumap.errors import InputError
from cpumap.fleet.libvirt import Converter, Result, restore
from cpumap.libvirt.words import libvirt_map
from cpumap.pin.resolve import Choices
from cpumap.sources.choose import Wanted
from cpumap.sources.libvirt import Hypervisor
from cpumap.system.json_text import json_text
from cpumap.system.say import flush, put, put_line, say, say_once


def run_convert_libvirt(arguments: argparse.Namespace) -> int:
    """Converts, or restores, the domains named."""
    _check(arguments)
    reads_only = (arguments.dry_run or arguments.diff) and not arguments.live
    with Hypervisor(arguments.connect, write=not reads_only) as hypervisor:
        if arguments.restore:
            return _show(restore(hypervisor, arguments.restore), arguments)
        names = [d.name for d in hypervisor.domains()] if arguments.all else arguments.paths
        with _converter(hypervisor, arguments) as converter:
            return _show((converter.convert(name) for name in names), arguments)


def _check(arguments: argparse.Namespace) -> None:
    dry = arguments.dry_run or arguments.diff
    if arguments.restore:
        return
    if arguments.all == bool(arguments.paths):
        raise InputError("with --connect: name the domains, or say --all")
    if not dry and arguments.backup_dir is None:
        raise InputError(
            "with --connect: --backup-dir DIR keeps the old definitions; or --dry-run, or --diff"
        )
    if arguments.in_place or arguments.output_dir or arguments.machine:
        raise InputError("--in-place, --output-dir and --machine are for files, not for --connect")
    elsewhere = arguments.host or arguments.target_qemu or arguments.compact
    if arguments.live and elsewhere:
        raise InputError("--live takes the CPU as it is here: no --host, --target-qemu, --compact")


def _converter(hypervisor: Hypervisor, arguments: argparse.Namespace) -> Converter:
    cpu_map = open_cpu_map(arguments)
    return Converter(
        hypervisor,
        cpu_map,
        libvirt_map(arguments.cpu_map, libvirt=arguments.libvirt),
        Choices(pin=arguments.pin or "model", unavailable=arguments.unavailable),
        Wanted(
            arguments.qemu,
            arguments.qmp,
            arguments.recorded,
            arguments.accel,
            tell=say_once,
            cache=not arguments.no_cache,
        ),
        arguments.live,
        None if arguments.dry_run or arguments.diff else arguments.backup_dir,
        wanted_target(arguments),
        host_option(arguments, cpu_map),
    )


def _show(results: Iterable[Result], arguments: argparse.Namespace) -> int:
    """Prints each result as it comes; the worst exit code."""
    code, shown = 0, []
    for result in results:
        code = max(code, result.exit_code)
        shown.append(result)
        if arguments.diff:
            lines = result.diff.splitlines(keepends=True)
            put_diff(lines if arguments.diff == "full" else folded(lines))
        for line in (*([result.reason] if result.reason else []), *result.notes):
            say(f"{result.name}: {line}")
        if arguments.format == "text" and not arguments.diff:
            put_line(f"{_word(result, arguments)}  {result.name}")
            flush()
    if arguments.format == "json":
        put(json_text("convert", {"domains": [_json(result) for result in shown]}))
    return code


def _word(result: Result, arguments: argparse.Namespace) -> str:
    if result.status != "converted":
        return result.status
    return "restored" if arguments.restore else "to change" if arguments.dry_run else "converted"


def _json(result: Result) -> dict[str, object]:
    return {
        "name": result.name,
        "status": result.status,
        "reason": result.reason,
        "notes": list(result.notes),
    }
