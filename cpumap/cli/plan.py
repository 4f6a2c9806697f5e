"""`plan`: what an upgrade does to guests."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from cpumap.cli.columns import columns
from cpumap.cli.fleet import add_paths, fleet_answers, fleet_paths
from cpumap.cli.sourcing import add_source_options, found_on_path, host_option
from cpumap.errors import InputError
from cpumap.fleet.gravity import WORDS
from cpumap.fleet.plan import Change, Fate, Goal
from cpumap.fleet.planned import Group, Plan, needing_a_person, plan
from cpumap.qemu.arguments import property_text
from cpumap.system.files import write_atomically
from cpumap.system.json_text import json_text
from cpumap.system.say import put, say

GUESTS_NAMED = 5
"""Guests of one fate that are named in text; JSON and the report name all."""


def add_plan(parser: argparse.ArgumentParser) -> None:
    add_paths(parser, nargs="*", about="a lock, ")
    goal = parser.add_argument_group("what the upgrade changes")
    goal.add_argument(
        "--to-qemu",
        metavar="PATH|RELEASE",
        type=found_on_path,
        help="this QEMU, or a recorded one",
    )
    goal.add_argument("--to-libvirt", metavar="VERSION", help="this libvirt: 11.3, 12.8, …")
    goal.add_argument("--to-machine", metavar="NEW", help="this machine type for every guest")
    goal.add_argument(
        "--host",
        metavar="FILE",
        action="append",
        help="the host that they will run on, as for translate",
    )
    parser.add_argument("--unavailable", choices=("keep", "off"), help="as for translate")
    parser.add_argument("--all", action="store_true", help="name also the guests that stay as is")
    parser.add_argument(
        "--format", choices=("text", "json"), default="text", help="(default: text)"
    )
    parser.add_argument(
        "--report", metavar="FILE.html", type=Path, help="write a report as one HTML file"
    )
    add_source_options(parser)


def run_plan(arguments: argparse.Namespace) -> int:
    if not arguments.paths and not arguments.connect:
        raise InputError("say which guests: PATH…, or --connect URI")
    if not (arguments.to_qemu or arguments.to_libvirt or arguments.to_machine):
        raise InputError("say what changes: --to-qemu, --to-libvirt, --to-machine")
    arguments.machine, moved = None, arguments.machine
    with closing(fleet_answers(arguments, keep=False)) as answers:
        arguments.machine = moved
        host = host_option(arguments, answers.cpu_map)
        goal = Goal(arguments.to_qemu, arguments.to_libvirt, arguments.to_machine, host)
        found = plan(fleet_paths(arguments, answers), answers, goal)
    if arguments.report:
        from cpumap.fleet.report import plan_report

        write_atomically(arguments.report, plan_report(found, answers.cpu_map).encode())
    if arguments.format == "json":
        put(json_text("plan", found.as_json()))
    else:
        put("".join(f"{line}\n" for line in _lines(found, everything=arguments.all)))
    if found.host_unknown:
        say("what the target's host lacks is not judged: --host FILE describes it")
    say(f"answers from {', '.join(found.sources) or 'nobody'}")
    return 0 if found.nothing_happens else 1


def _lines(found: Plan, *, everything: bool) -> Iterator[str]:
    yield found.summary
    groups = list(found.groups) if everything else needing_a_person(found.groups)
    for group in groups:
        yield ""
        yield from _group_lines(group)


def _group_lines(group: Group) -> Iterator[str]:
    fate = group.fate
    machine = f" on {fate.before.machine}" if fate.before else ""
    yield f"{_named(group)}: {fate.model}{machine}: {fate.status}"
    if reason := fate.stopped or fate.unjudged:
        yield f"  {reason}"
    yield from (f"  {line}" for line in _change_table(fate))
    yield from (f"  not known beforehand: {reason}" for reason in fate.unknown)
    if not (fate.unjudged or fate.stopped):
        yield f"  live migration there: {fate.no_way_there or 'yes'}"
        yield f"  live migration back: {fate.no_way_back or 'yes'}"
    if not fate.unjudged:
        yield f"  to do: {fate.advice}{f' ({fate.why})' if fate.why else ''}"


def _change_table(fate: Fate) -> list[str]:
    rows = [
        [change.what, _values(change), WORDS[change.gravity], change.cause]
        for change in fate.changes
    ]
    return columns(rows).splitlines()


def _values(change: Change) -> str:
    if change.before is None and change.after is None:
        return ""
    before, after = ("-" if v is None else property_text(v) for v in (change.before, change.after))
    return f"{before} -> {after}"


def _named(group: Group) -> str:
    more = len(group.guests) - GUESTS_NAMED
    names = ", ".join(group.guests[:GUESTS_NAMED])
    return f"{names} and {more} more" if more > 0 else names
