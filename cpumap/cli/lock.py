"""`lock` and `audit`: a fleet's CPUs written down, and what has drifted since."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from cpumap.cli.columns import bit_lines
from cpumap.cli.fleet import add_fleet_options, add_paths, fleet_answers, fleet_paths
from cpumap.cli.fleet_output import Display
from cpumap.cli.reading import read_file
from cpumap.cli.sourcing import add_source_options, host_option
from cpumap.errors import InputError
from cpumap.fleet.audit import Audited, Drift
from cpumap.fleet.calls import Findings, Work, audit, lock
from cpumap.fleet.convert import Answers
from cpumap.fleet.gravity import WORDS
from cpumap.fleet.lock import Lock, blocked_by, feature_names, lock_text, read_lock
from cpumap.hosts.described import read_described
from cpumap.libvirt.cpu_map.load import load_cpu_map
from cpumap.move.predict import NOTHING
from cpumap.move.target import drift_lines
from cpumap.qemu.arguments import property_text
from cpumap.system.files import write_atomically
from cpumap.system.json_text import json_text
from cpumap.system.say import plain_lines, put, put_line, say

GUESTS_NAMED = 3
"""Guests that share a drift and are named in text; JSON names all."""


def add_lock(parser: argparse.ArgumentParser) -> None:
    add_paths(parser, nargs="*")
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        type=Path,
        help="where to write (default: standard output)",
    )
    parser.add_argument("--unavailable", choices=("keep", "off"), help="as for translate")
    parser.add_argument("--deprecated", choices=("keep", "off"), help="as for translate")
    parser.add_argument(
        "--host",
        metavar="FILE",
        action="append",
        help="the host that the guests run on, as for translate",
    )
    parser.add_argument(
        "--guest", action="store_true", help="also what a guest reads of each CPU, started here"
    )
    add_fleet_options(parser)
    add_source_options(parser)


def run_lock(arguments: argparse.Namespace) -> int:
    if not arguments.paths and not arguments.connect:
        raise InputError("say what to lock: PATH…, or --connect URI")
    moved, arguments.machine = arguments.machine, None
    with closing(fleet_answers(arguments, keep=True)) as answers:
        answers.host = host_option(arguments, answers.cpu_map)
        with _shown(arguments, answers) as display:
            work = _work(arguments, display)
            paths = fleet_paths(arguments, answers)
            locked = lock(paths, answers, work=work, guests=arguments.guest)
    text = lock_text(locked)
    if arguments.output:
        write_atomically(arguments.output, text.encode())
    else:
        put(text)
    arguments.machine = moved
    if not (locked.guests or locked.refused):
        say("no guest is there: the lock is empty")
        return max(display.exit_code, 1)
    return display.exit_code


@contextmanager
def _shown(arguments: argparse.Namespace, answers: Answers) -> Iterator[Display]:
    """Shows with which guests of the paths something is wrong, where there are paths."""
    display = Display("text", quiet=True)
    if not (arguments.paths or arguments.connect):
        yield display
        return
    with display:
        yield display
    display.sources = answers.labels
    display.finish()


def _work(arguments: argparse.Namespace, display: Display) -> Work:
    return Work(arguments.jobs, arguments.scheduler, display.show)


def add_audit(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("lock", metavar="LOCK", type=Path, help="a file of `cpumap lock`")
    add_paths(
        parser,
        nargs="*",
        about="the fleet, to read its definitions again, named as when it was locked: ",
    )
    parser.add_argument(
        "--host",
        metavar="FILE",
        action="append",
        default=[],
        help="also: which guests could run on this host, as `host --format json`, virsh "
        "capabilities or "
        "domcapabilities describe it; may be given again",
    )
    parser.add_argument("--unavailable", choices=("keep", "off"), help="as for translate")
    parser.add_argument("--deprecated", choices=("keep", "off"), help="as for translate")
    parser.add_argument(
        "--guest", action="store_true", help="have a guest read each CPU, as at `lock --guest`"
    )
    parser.add_argument(
        "--metrics",
        metavar="FILE.prom",
        type=Path,
        help="also what `--format prometheus` says, for the node exporter's textfile collector",
    )
    add_fleet_options(parser, ("text", "json", "prometheus"))
    add_source_options(
        parser, machine="what if the guests had this machine type (default: their own)"
    )


def run_audit(arguments: argparse.Namespace) -> int:
    locked = read_lock(arguments.lock)
    if arguments.guest and not any(cpu.guest for cpu in locked.cpus.values()):
        raise InputError(
            "no guest was asked when this was locked: `lock --guest` does", str(arguments.lock)
        )
    machine, arguments.machine = arguments.machine, None
    with (
        closing(fleet_answers(arguments, keep=bool(arguments.paths))) as answers,
        _shown(arguments, answers) as display,
    ):
        found = audit(
            locked,
            answers,
            fleet_paths(arguments, answers),
            work=_work(arguments, display),
            machine=machine,
            guests=arguments.guest,
        )
    found = replace(found, blocked=_matrix(arguments, locked))
    _write(arguments, found)
    if arguments.metrics:
        from cpumap.fleet.metrics import metrics

        write_atomically(arguments.metrics, plain_lines(metrics(found)).encode())
    if arguments.report:
        from cpumap.fleet.report import audit_report

        html = audit_report(found.lock, found.audited, found.blocked, found.sources, answers)
        write_atomically(arguments.report, html.encode())
    blocked = any(missing for entries in found.blocked.values() for missing in entries.values())
    return 0 if found.holds and not blocked and found.lock.guests else 1


def _matrix(arguments: argparse.Namespace, lock: Lock) -> dict[str, dict[str, tuple[str, ...]]]:
    """Host → CPU entry → the features that keep it from running there."""
    if not arguments.host:
        return {}
    cpu_map = load_cpu_map(arguments.cpu_map)
    features = feature_names(cpu_map)
    hosts = {name: read_described(read_file(name), cpu_map, name=name) for name in arguments.host}
    return {
        name: {key: blocked_by(cpu, host, features) for key, cpu in lock.cpus.items()}
        for name, host in hosts.items()
    }


def _write(arguments: argparse.Namespace, found: Findings) -> None:
    if arguments.format == "json":
        put(json_text("audit", _json(found)))
        return
    if arguments.format == "prometheus":
        from cpumap.fleet.metrics import metrics

        put(metrics(found))
        return
    _put_text(found)


def _put_text(found: Findings) -> None:
    for entry in found.audited:
        for line in _lines(entry, found.lock):
            put_line(line)
    for title, guests in (("not there any more", found.gone), ("not in the lock", found.new)):
        if guests:
            put_line(f"{_named(guests)}: {title}")
    for host, entries in found.blocked.items():
        for key, missing in entries.items():
            verdict = (
                f"not on {host} without {', '.join(missing)}" if missing else f"runs on {host}"
            )
            put_line(f"{_named(found.guests(key))}: {verdict}")
    for guest, reason in sorted(found.lock.refused.items()):
        put_line(f"{guest}: no CPU was locked: {reason}")
    if not found.lock.guests:
        say("the lock holds no CPU of any guest")
    drifted = sum(len(entry.case.guests) for entry in found.audited if not entry.holds)
    sources = ", ".join(found.sources)
    say(f"{drifted} of {len(found.lock.guests)} guests drift; answers from {sources}")


def _json(found: Findings) -> dict[str, Any]:
    hosts = {
        host: {guest: entries[key] for key in entries for guest in found.guests(key)}
        for host, entries in found.blocked.items()
    }
    cpus = [_entry_json(entry) for entry in found.audited]
    return {
        "summary": _totals(found),
        "sources": found.sources,
        "cpus": cpus,
        "gone": found.gone,
        "new": found.new,
        "not-locked": dict(found.lock.refused),
        "hosts": hosts,
    }


def _totals(found: Findings) -> dict[str, int]:
    """How many guests there are of each kind."""
    totals = {"guests": len(found.lock.guests), "holds": 0, "drifts": 0, "unknown": 0, "refused": 0}
    for entry in found.audited:
        totals[entry.state] += len(entry.case.guests)
    listed = {"gone": found.gone, "new": found.new, "not-locked": found.lock.refused}
    return {**totals, **{name: len(guests) for name, guests in listed.items()}}


def _entry_json(entry: Audited) -> dict[str, Any]:
    facts = asdict(replace(entry, prediction=NOTHING))
    case = {
        "key": entry.case.key,
        "guests": entry.case.guests,
        "edited": entry.case.edited is not None,
    }
    predicted = [asdict(bit) for bit in entry.prediction.differences]
    about = {"holds": entry.holds, "predicted": predicted, "unknown": entry.prediction.unknown}
    return {
        **case,
        **{name: facts[name] for name in ("context", "drifts", "refused", "seen")},
        **about,
    }


def _lines(entry: Audited, lock: Lock) -> Iterator[str]:
    cpu = lock.cpus[entry.case.key]
    head = f"{_named(entry.case.guests)}: {cpu.request.model or cpu.model} on {cpu.context.machine}"
    if entry.refused:
        yield f"{head}: {entry.refused}"
        return
    yield f"{head}: {_verdict(entry)}"
    for drift in entry.drifts:
        before, after = ("-" if v is None else property_text(v) for v in (drift.locked, drift.now))
        yield (
            f"  {drift.name}: {before} → "
            f"{after}{f'  ({drift.place})' if drift.place else ''}: {drift.cause}{_grave(drift)}"
        )
    if entry.seen is None:
        yield from (f"  {line}" for line in drift_lines(entry.prediction))
    yield from (f"  {line}" for line in bit_lines(entry.seen or ()))


def _verdict(entry: Audited) -> str:
    if entry.seen is not None:
        return (
            f"a guest reads {len(entry.seen)} registers otherwise"
            if entry.seen
            else "holds, seen by a guest"
        )
    count = sum(drift.matters for drift in entry.drifts)
    if entry.holds:
        return f"holds; {len(entry.drifts)} properties no guest reads" if entry.drifts else "holds"
    if count:
        return f"drifts in {count} properties"
    return "drifts" if entry.prediction.differences else "not known to hold"


def _grave(drift: Drift) -> str:
    return "" if drift.gravity == "guest" else f" [{WORDS[drift.gravity]}]"


def _named(guests: Sequence[str]) -> str:
    more = f" and {len(guests) - GUESTS_NAMED} more" if len(guests) > GUESTS_NAMED else ""
    return ", ".join(guests[:GUESTS_NAMED]) + more
