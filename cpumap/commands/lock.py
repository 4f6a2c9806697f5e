"""`lock` and `audit`: a fleet's CPUs written down, and what has drifted since."""

from __future__ import annotations

import argparse
import sys
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cpumap.commands.fleet import add_fleet_options, add_paths, fleet_answers
from cpumap.commands.fleet_output import Display
from cpumap.commands.reading import read_file
from cpumap.commands.sourcing import add_source_options
from cpumap.convert_inputs import found
from cpumap.convert_run import convert_all, executor_for
from cpumap.cpu_map import load_cpu_map
from cpumap.described import read_described
from cpumap.files import write_atomically
from cpumap.lock import Audited, Lock, Locking, audit, blocked_by, feature_names, guests_of, lock_text, read_lock
from cpumap.render import json_text, property_text

GUESTS_NAMED = 3
"""Guests that share a drift and are named in text; JSON names all."""


def add_lock(parser: argparse.ArgumentParser) -> None:
    add_paths(parser)
    parser.add_argument("-o", "--output", metavar="FILE", type=Path, help="where to write (default: standard output)")
    parser.add_argument("--unavailable", choices=("keep", "off"), help="as for translate")
    add_fleet_options(parser)
    add_source_options(parser)


def run_lock(arguments: argparse.Namespace) -> int:
    moved, arguments.machine = arguments.machine, None
    with closing(fleet_answers(arguments, keep=True)) as answers:
        locking = Locking(answers)
        display = Display("text", quiet=True)
        inputs = found(arguments.paths, sys.stdin.buffer)
        with display, executor_for(inputs, arguments.jobs, arguments.scheduler) as (executor, everything, jobs):
            for group in convert_all(everything, executor, answers, jobs=jobs):
                locking.add(group)
                display.show(group)
        display.sources = answers.labels
        display.finish()
        text = lock_text(locking.lock())
    if arguments.output:
        write_atomically(arguments.output, text.encode())
    else:
        sys.stdout.write(text)
    arguments.machine = moved
    return display.exit_code


def add_audit(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("lock", metavar="LOCK", type=Path, help="a file of `cpumap lock`")
    parser.add_argument(
        "--host",
        metavar="FILE",
        action="append",
        default=[],
        help="also: which guests could run on this host, as `host --format json`, virsh capabilities or "
        "domcapabilities describe it; may be given again",
    )
    parser.add_argument("--unavailable", choices=("keep", "off"), help="as for translate")
    parser.add_argument("--format", choices=("text", "json"), default="text", help="(default: text)")
    parser.add_argument("--report", metavar="FILE.html", type=Path, help="write a report as one HTML file")
    add_source_options(parser, machine="what if the guests had this machine type (default: their own)")


def run_audit(arguments: argparse.Namespace) -> int:
    lock = read_lock(arguments.lock)
    machine, arguments.machine = arguments.machine, None
    with closing(fleet_answers(arguments, keep=False)) as answers:
        audited = [audit(cpu, key, answers, answers.choices, machine) for key, cpu in lock.cpus.items()]
        labels = answers.labels
    blocked = _matrix(arguments, lock)
    _write(arguments, lock, audited, blocked, labels)
    if arguments.report:
        from cpumap.report import audit_report

        write_atomically(arguments.report, audit_report(lock, audited, blocked, labels, answers).encode())
    return (
        0 if all(entry.holds for entry in audited) and not any(map(any, (b.values() for b in blocked.values()))) else 1
    )


def _matrix(arguments: argparse.Namespace, lock: Lock) -> dict[str, dict[str, tuple[str, ...]]]:
    """Host → CPU entry → the features that keep it from running there."""
    if not arguments.host:
        return {}
    cpu_map = load_cpu_map(arguments.cpu_map)
    features = feature_names(cpu_map)
    hosts = {name: read_described(read_file(name), cpu_map, name=name) for name in arguments.host}
    return {
        name: {key: blocked_by(cpu, host, features) for key, cpu in lock.cpus.items()} for name, host in hosts.items()
    }


def _write(
    arguments: argparse.Namespace,
    lock: Lock,
    audited: list[Audited],
    blocked: dict[str, dict[str, tuple[str, ...]]],
    labels: list[str],
) -> None:
    guests = guests_of(lock, [entry.key for entry in audited])
    if arguments.format == "json":
        sys.stdout.write(json_text("audit", _json(audited, blocked, guests, labels)))
        return
    for entry in audited:
        for line in _lines(entry, lock, guests[entry.key]):
            print(line)
    for host, entries in blocked.items():
        for key, missing in entries.items():
            verdict = f"not on {host} without {', '.join(missing)}" if missing else f"runs on {host}"
            print(f"{_named(guests[key])}: {verdict}")
    drifted = sum(len(guests[entry.key]) for entry in audited if not entry.holds)
    print(f"cpumap: {drifted} of {len(lock.guests)} guests drift; answers from {', '.join(labels)}", file=sys.stderr)


def _json(
    audited: list[Audited],
    blocked: dict[str, dict[str, tuple[str, ...]]],
    guests: dict[str, list[str]],
    labels: list[str],
) -> dict[str, Any]:
    cpus = [{**asdict(entry), "holds": entry.holds, "guests": guests[entry.key]} for entry in audited]
    hosts = {
        host: {guest: entries[key] for key in entries for guest in guests[key]} for host, entries in blocked.items()
    }
    return {"sources": labels, "cpus": cpus, "hosts": hosts}


def _lines(entry: Audited, lock: Lock, guests: list[str]) -> list[str]:
    cpu = lock.cpus[entry.key]
    head = f"{_named(guests)}: {cpu.request.model or cpu.model} on {cpu.context.machine}"
    if entry.refused:
        return [f"{head}: {entry.refused}"]
    if entry.holds:
        return [f"{head}: holds"]
    drifts = []
    for drift in entry.drifts:
        before, after = ("-" if v is None else property_text(v) for v in (drift.locked, drift.now))
        drifts.append(f"  {drift.name}: {before} → {after}{f'  ({drift.place})' if drift.place else ''}: {drift.cause}")
    return [f"{head}: drifts in {len(entry.drifts)} properties", *drifts]


def _named(guests: list[str]) -> str:
    more = f" and {len(guests) - GUESTS_NAMED} more" if len(guests) > GUESTS_NAMED else ""
    return ", ".join(guests[:GUESTS_NAMED]) + more
