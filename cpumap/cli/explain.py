"""`explain`: what a feature is, who has it, and what it costs to take it away."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable, Iterator, Mapping

from cpumap.cli.sourcing import add_cpu_map_option, open_cpu_map
from cpumap.cpu.bits import place
from cpumap.errors import InputError
from cpumap.runnable.explain import Explained, Held, asked_features, explain
from cpumap.system.json_text import json_text

_KINDS = {
    "missing": "missing: the host or QEMU cannot give it",
    "extra": "extra: it is there unasked",
}


def add_explain(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "words",
        metavar="FEATURE",
        nargs="+",
        help="features in any spelling, or libvirt's message with its missing and extra features; "
        "- is standard input",
    )
    parser.add_argument(
        "--accel",
        choices=("kvm", "tcg"),
        default="kvm",
        help="whose models: the two differ (default: kvm)",
    )
    parser.add_argument(
        "--format", choices=("text", "json"), default="text", help="(default: text)"
    )
    add_cpu_map_option(parser)


def run_explain(arguments: argparse.Namespace) -> int:
    text = sys.stdin.read() if arguments.words == ["-"] else " ".join(arguments.words)
    names = asked_features(text)
    if not names:
        raise InputError("no feature named")
    found = explain(names, open_cpu_map(arguments), arguments.accel)
    if arguments.format == "json":
        sys.stdout.write(
            json_text(
                "explain", {"accel": arguments.accel, "features": [one.to_json() for one in found]}
            )
        )
    else:
        sys.stdout.write("\n".join("".join(f"{line}\n" for line in _lines(one)) for one in found))
    return 0


def _lines(one: Explained) -> Iterator[str]:
    yield f"{one.feature.name}: {one.meaning or 'no description'}"
    if one.kind:
        yield f"  {_KINDS.get(one.kind, one.kind)}"
    for bits in one.feature.bits:
        yield f"  {place(bits)}" + (f"; {one.manual}" if one.manual else "")
    spellings = dict.fromkeys(
        [one.property, *(alias.name for alias in one.feature.aliases), *one.former]
    )
    others = [name for name in spellings if name != one.feature.name]
    if others:
        yield f"  also {', '.join(others)} ({one.property} in QEMU)"
    if one.blocks_migration:
        yield "  a guest that has it cannot be migrated"
    yield f"  known to QEMU {', '.join(one.releases) or 'of no recorded release'}" + (
        f", not to {', '.join(one.unknown_to)}" if one.unknown_to and one.releases else ""
    )
    for held in one.held:
        yield from _held_lines(held)
    yield f"  without it: {_cost(one)}"
    if one.needs:
        yield f"  needs {', '.join(one.needs)}: QEMU switches it off without"


def _held_lines(held: Held) -> Iterator[str]:
    if not (held.everywhere or held.since or held.until):
        yield f"  QEMU {held.release}: no model has it"
    if held.everywhere:
        yield f"  QEMU {held.release}: {_folded(held.everywhere)}"
    for words, models in (("from", held.since), ("up to", held.until)):
        for machine, names in _by_machine(models).items():
            yield f"  QEMU {held.release}, {words} {machine}: {_folded(names)}"


def _by_machine(models: Mapping[str, str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for model, machine in models.items():
        found.setdefault(machine, []).append(model)
    return found


def _folded(models: Iterable[str]) -> str:
    """The models with the versions of one name together: `Haswell-v1,v2 EPYC-v1`."""
    versions: dict[str, list[str]] = {}
    for model in models:
        stem, dash, version = model.rpartition("-v")
        if dash and version.isdigit():
            versions.setdefault(stem, []).append(version)
        else:
            versions.setdefault(model, [])
    return " ".join(
        name + ("-v" + ",v".join(sorted(numbers, key=int)) if numbers else "")
        for name, numbers in versions.items()
    )


def _cost(one: Explained) -> str:
    """What is lost with the feature: the newest recorded QEMU's models as they are, and what
    depends on it.
    """
    newest = one.held[-1:]
    models = [
        m for held in newest for m in (*held.everywhere, *held.since) if re.search(r"-v\d+$", m)
    ]
    parts = (
        [f"{len(models)} model versions of QEMU {newest[0].release} are no longer what they are"]
        if models
        else []
    )
    parts += [f"QEMU switches off {', '.join(one.dependants)}"] if one.dependants else []
    return "; ".join(parts) or "nothing else changes"
