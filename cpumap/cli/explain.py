"""`explain`: what a feature is, who has it, and what it costs to take it away."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Mapping

from cpumap.cli.reading import read_file
from cpumap.cli.sourcing import add_cpu_map_option, open_cpu_map
from cpumap.cpu.bits import place
from cpumap.cpu.names import model_version
from cpumap.errors import InputError
from cpumap.runnable.explain import Explanation, explain
from cpumap.runnable.explain_feature import Explained, ModelsWith
from cpumap.runnable.explain_names import ExplainedMachine, ExplainedModel
from cpumap.runnable.messages import Advice
from cpumap.system.json_text import json_text
from cpumap.system.say import put


def add_explain(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "words",
        metavar="WORDS",
        nargs="+",
        help="features in any spelling, CPU models, machine types, or lines of a log of QEMU, "
        "libvirt, KubeVirt or Nova as they are; - is standard input",
    )
    parser.add_argument(
        "--accel",
        choices=("kvm", "tcg"),
        default="kvm",
        help="whose models: the two differ (default: kvm)",
    )
    parser.add_argument(
        "--recorded",
        metavar="RELEASE",
        help="look at this recorded QEMU only (default: at all that are shipped)",
    )
    parser.add_argument(
        "--format", choices=("text", "json"), default="text", help="(default: text)"
    )
    add_cpu_map_option(parser)


def run_explain(arguments: argparse.Namespace) -> int:
    text = " ".join(arguments.words)
    if text == "-":
        text = read_file("-").decode(errors="replace")
    found = explain(text, open_cpu_map(arguments), arguments.accel, arguments.recorded)
    if arguments.format == "json":
        put(json_text("explain", {"accel": arguments.accel, **found.to_json()}))
    else:
        put("\n".join("".join(f"{line}\n" for line in part) for part in _parts(found)))
    if found.says_something:
        return 0
    unknown = f": {', '.join(found.unknown)}" if found.unknown else ""
    raise InputError(f"no feature, CPU model or machine type in this{unknown}")


def _parts(found: Explanation) -> Iterator[list[str]]:
    """What is known, one thing after the other; then what is not."""
    yield from (list(_lines(one)) for one in found.features)
    yield from (list(_model_lines(one)) for one in found.models)
    yield from (list(_machine_lines(one)) for one in found.machines)
    yield from ([story.says, f"  what to do: {story.do}"] for story in found.stories)
    if found.linux:
        flags = ", ".join(found.linux)
        yield [f"{flags}: flags of Linux's own, no features that a guest's CPU is made of"]
    if found.unknown and found.says_something:
        yield [f"unknown, to the CPU map and to every recorded QEMU: {', '.join(found.unknown)}"]


def _model_lines(one: ExplainedModel) -> Iterator[str]:
    yield f"{one.name}: a CPU model" + ("" if one.has else " of libvirt's CPU map")
    yield from _advice_says(one.advice)
    for model in one.has:
        gone = ", deprecated" if model.deprecated else ""
        for target, machines in model.aliases:
            means = f"stands for {target}" if target != one.name else "is what it is"
            yield f"  QEMU {model.release}: {means}, {machines}{gone}"
    if one.unknown_to:
        yield f"  not known to QEMU {', '.join(one.unknown_to)}"
    if not one.in_map:
        yield "  not in the CPU map: libvirt has no such model"
    yield f"  what to do: {one.advice.do}"


def _machine_lines(one: ExplainedMachine) -> Iterator[str]:
    yield f"{one.name}: a machine type of QEMU {', '.join(one.has)}"
    if one.stands_for:
        yield f"  stands for {', '.join(one.stands_for)}"
    if one.deprecated_in:
        yield f"  deprecated in QEMU {', '.join(one.deprecated_in)}"
    if one.unknown_to:
        yield f"  not known to QEMU {', '.join(one.unknown_to)}"
    yield f"  what to do: {one.advice.do}"


def _advice_says(advice: Advice) -> Iterator[str]:
    if advice.says:
        yield f"  {advice.kind.replace('-', ' ')}: {advice.says}"


def _lines(one: Explained) -> Iterator[str]:
    yield f"{one.feature.name}: {one.meaning or 'no description'}"
    yield from _advice_says(one.advice)
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
        yield from _held_lines(held, one)
    yield f"  without it: {_cost(one)}"
    if one.needs:
        yield f"  needs {', '.join(one.needs)}: QEMU switches it off without"
    if one.requires:
        yield f"  wants {', '.join(one.requires)} on beside it, else QEMU refuses it"
    if one.story:
        yield f"  {one.story}"
    yield f"  what to do: {one.advice.do}"


def _held_lines(held: ModelsWith, one: Explained) -> Iterator[str]:
    where = f"QEMU {held.release}" + (f", with {one.nested} on" if one.nested else "")
    if not (held.everywhere or held.since or held.until):
        none = "no model has it of its own" if one.property.startswith("hv-") else "no model has it"
        yield f"  {where}: {none}"
    if held.everywhere:
        yield f"  {where}: {_folded(held.everywhere)}"
    for words, models in (("from", held.since), ("up to", held.until)):
        for machine, names in _by_machine(models).items():
            yield f"  {where}, {words} {machine}: {_folded(names)}"


def _by_machine(models: Mapping[str, str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for model, machine in models.items():
        found.setdefault(machine, []).append(model)
    return found


def _folded(models: Iterable[str]) -> str:
    """The models with the versions of one name together: `Haswell-v1,v2 EPYC-v1`."""
    versions: dict[str, list[int]] = {}
    for model in models:
        name, version = model_version(model)
        numbers = versions.setdefault(name, [])
        if version is not None:
            numbers.append(version)
    return " ".join(
        name + ("-v" + ",v".join(map(str, sorted(numbers))) if numbers else "")
        for name, numbers in versions.items()
    )


def _cost(one: Explained) -> str:
    """What is lost with the feature: the newest recorded QEMU's models as they are, and what
    depends on it.
    """
    newest = one.held[-1:]
    models = [
        m
        for held in newest
        for m in (*held.everywhere, *held.since)
        if model_version(m)[1] is not None
    ]
    parts = (
        [f"{len(models)} model versions of QEMU {newest[0].release} are no longer what they are"]
        if models
        else []
    )
    parts += [f"QEMU switches off {', '.join(one.dependants)}"] if one.dependants else []
    return "; ".join(parts) or "no model changes, and no other feature"
