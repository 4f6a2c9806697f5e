"""`verify`, `diff`: whether a guest's CPU stays the same, and what differs because of what."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path

from cpumap.arch.known import arch_of
from cpumap.cli.columns import bit_lines, columns
from cpumap.cli.reading import read_file
from cpumap.cli.sourcing import (
    accel_of,
    add_source_options,
    found_on_path,
    kept_by_libvirt,
    open_cpu_map,
    read_given,
    source_for,
    start_qemu,
)
from cpumap.cpu.bits import register_words
from cpumap.cpu.expansion import Expansion
from cpumap.cpu.explicit import ExplicitCpu
from cpumap.cpu.machine_type import of_family
from cpumap.cpu.request import CpuRequest
from cpumap.errors import UnknownNameError
from cpumap.libvirt.cpu_map.map import CpuMap
from cpumap.libvirt.domain import parse_request
from cpumap.move.target import opened
from cpumap.pin.compact import changing_properties
from cpumap.pin.expand import expand
from cpumap.pin.resolve import Choices, resolve
from cpumap.proof.diff import CpuDifference, diff
from cpumap.proof.difference import PropertyDifference
from cpumap.proof.verify import JudgedPlace, Judgement, Verification, verify
from cpumap.proof.verify_of_machine import verify_of_machine
from cpumap.proof.verify_realised import verify_realised
from cpumap.proof.verify_static import verify_static
from cpumap.qemu.cpu_option import parse_cpu_option
from cpumap.runnable.check import at_start, unavailable_in
from cpumap.sources.live import QemuSource
from cpumap.sources.machines import find_machine
from cpumap.sources.platform import Platform
from cpumap.sources.source import Source
from cpumap.system.files import write_atomically
from cpumap.system.json_text import json_text
from cpumap.system.say import put, say


def add_verify(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file",
        metavar="FILE",
        nargs="?",
        help="domain XML, <cpu> element or -cpu string; - is standard input; or name a domain with "
        "--connect and --domain",
    )
    where = parser.add_argument_group("where it has to be the same")
    where.add_argument(
        "--target-qemu",
        metavar="PATH",
        type=found_on_path,
        help="in this QEMU (default: the one the answers come from)",
    )
    one = where.add_mutually_exclusive_group()
    one.add_argument(
        "--target-machine", metavar="TYPE", help="under this machine type (default: the same)"
    )
    one.add_argument(
        "--all-machines", action="store_true", help="under every versioned machine type"
    )
    parser.add_argument(
        "--pin", choices=("model", "custom"), default="model", help="as in translate"
    )
    parser.add_argument("--unavailable", choices=("keep", "off"), help="as in translate")
    parser.add_argument(
        "--compact", action="store_true", help="name only what some machine type changes"
    )
    parser.add_argument(
        "--format", choices=("text", "json"), default="text", help="(default: text)"
    )
    add_source_options(parser)


def run_verify(arguments: argparse.Namespace) -> int:
    data, name = read_given(arguments)
    request = parse_request(data, name=name)
    cpu_map = open_cpu_map(arguments)
    with ExitStack() as stack:
        source = stack.enter_context(start_qemu(arguments, request))
        target = source
        if arguments.target_qemu:
            target = stack.enter_context(QemuSource(arguments.target_qemu, source.accel))
        expansion = expand(request, Platform(source, cpu_map, arguments.machine))
        cpu = resolve(
            request, expansion, Choices(pin=arguments.pin, unavailable=arguments.unavailable)
        )
        machines = _targets(arguments, target, expansion.context.machine)
        places = [(target, name) for name in machines]
        report = _verified(arguments, cpu, expansion, Platform(source, cpu_map), source, places)
        stopped = _stopped(request, target, cpu_map, machines)
    if arguments.format == "json":
        put(json_text("verify", {**report.as_json(), "libvirt-refuses": stopped}))
    else:
        lines = [f"libvirt does not start it on {where}: {why}\n" for where, why in stopped.items()]
        put(_report_text(report) + "".join(lines))
    return 0 if report.holds and not stopped else 1


def _stopped(
    request: CpuRequest, target: Source, cpu_map: CpuMap, machines: Iterable[str]
) -> dict[str, str]:
    """Machine type → what libvirt's full check of the document, as it is, finds there."""
    found: dict[str, str] = {}
    arch = arch_of(target.arch)
    if not arch.cpuid or arch.of_machine is not None:
        return found  # libvirt checks none
    for machine in machines:
        try:
            there = expand(request, Platform(target, cpu_map, machine))
        except UnknownNameError:
            continue  # the judges say so
        start = at_start(request, there, cpu_map, unavailable_in(there))
        if not start.passes:
            found[machine] = str(start)
    return found


def _verified(
    arguments: argparse.Namespace,
    cpu: ExplicitCpu,
    expansion: Expansion,
    platform: Platform,
    source: QemuSource,
    places: list[tuple[QemuSource, str]],
) -> Verification:
    if arch_of(cpu.context.arch).explicit == "static":
        for note in cpu.notes:
            say(note)
        return verify_static(cpu, expansion, platform, places)
    if arch_of(cpu.context.arch).of_machine is not None:
        return verify_of_machine(cpu, expansion, platform, source, places)
    if not arch_of(cpu.context.arch).cpuid:
        return verify_realised(cpu, expansion, platform, places)
    sources = [platform.source, *(target for target, _ in places[:1])]
    only = changing_properties(cpu, sources) if arguments.compact else None
    return verify(cpu, expansion, platform, places, only=only)


def _targets(arguments: argparse.Namespace, target: Source, machine: str) -> list[str]:
    if not arguments.all_machines:
        return [find_machine(target, arguments.target_machine or machine).name]
    return _versioned(target)


def _versioned(target: Source) -> list[str]:
    """The machine types whose defaults are those of a release or of a distribution."""
    families = arch_of(target.arch).families
    return [machine.name for machine in of_family(target.machines(), *families)]


def _report_text(report: Verification) -> str:
    lines = [f"source: QEMU {report.qemu}, {report.machine}, {report.accel}"]
    for place in report.places:
        lines += _place_lines(place)
    lines.append("holds" if report.holds else "does not hold")
    return "\n".join(lines) + "\n"


def _place_lines(place: JudgedPlace) -> Iterator[str]:
    verdicts = ", ".join(
        f"{judgement.judge}: {judgement.verdict}" for judgement in place.judgements
    )
    yield f"QEMU {place.qemu}, {place.machine}: {verdicts}"
    yield from (f"  not known beforehand: {reason}" for reason in place.prediction.unknown)
    for judgement in place.judgements:
        yield from (f"  {line}" for line in _judgement_lines(judgement))


def _judgement_lines(judgement: Judgement) -> Iterator[str]:
    if judgement.reason:
        yield f"{judgement.judge}: {judgement.reason.splitlines()[-1]}"
    yield from _property_lines(judgement.properties)
    yield from bit_lines(judgement.bits)
    for missed in judgement.missed:
        where = register_words((missed.leaf, missed.subleaf, missed.register))
        yield f"{where} was expected to differ: {missed.cause}"


def _property_lines(properties: Iterable[PropertyDifference]) -> list[str]:
    rows = [[prop.name, f"{_value(prop.a)} -> {_value(prop.b)}", prop.cause] for prop in properties]
    return columns(rows).splitlines()


def _value(value: object) -> str:
    if value is None:
        return "not there"
    return (
        {True: "on", False: "off"}.get(value, str(value)) if isinstance(value, bool) else str(value)
    )


def add_diff(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "a",
        metavar="A",
        help="MODEL[,prop=value…] or FILE, with @machine if not the source's default; with "
        "--connect also a domain's name",
    )
    parser.add_argument(
        "b", metavar="B", nargs="?", help="the same; default: A itself, with --target-qemu"
    )
    parser.add_argument(
        "--target-qemu",
        metavar="PATH|RELEASE",
        type=found_on_path,
        help="the QEMU of B, or a recorded one (default: that of A)",
    )
    parser.add_argument(
        "--all-machines", action="store_true", help="A against itself under every machine type"
    )
    parser.add_argument(
        "--guest", action="store_true", help="also what a guest sees; starts QEMU, tcg unfiltered"
    )
    parser.add_argument(
        "--format", choices=("text", "json"), default="text", help="(default: text)"
    )
    parser.add_argument(
        "--report", metavar="FILE.html", type=Path, help="write a report as one HTML file"
    )
    add_source_options(parser)


def run_diff(arguments: argparse.Namespace) -> int:
    cpu_map = open_cpu_map(arguments)
    request = _named(arguments.a, arguments)
    with ExitStack() as stack:
        started = start_qemu if arguments.guest else source_for
        source: Source = stack.enter_context(started(arguments, request))
        target = _target(arguments, source, stack)
        found = list(_differences(arguments, request, source, target, cpu_map))
    if arguments.report:
        from cpumap.fleet.report import diff_report

        write_atomically(arguments.report, diff_report(found, cpu_map).encode())
    if arguments.format == "json":
        put(json_text("diff", {"differences": [difference.as_json() for difference in found]}))
    else:
        put("".join(_difference_text(difference) for difference in found))
    return 0 if all(difference.same for difference in found) else 1


def _target(arguments: argparse.Namespace, source: Source, stack: ExitStack) -> Source:
    if not arguments.target_qemu:
        return source
    if arguments.guest:
        return stack.enter_context(QemuSource(arguments.target_qemu, source.accel))
    return stack.enter_context(
        closing(opened(arguments.target_qemu, source, cache=not arguments.no_cache))
    )


def _differences(
    arguments: argparse.Namespace,
    request: CpuRequest,
    source: Source,
    target: Source,
    cpu_map: CpuMap,
) -> Iterator[CpuDifference]:
    a = expand(request, Platform(source, cpu_map, request.machine))
    if arguments.all_machines:
        requests = [replace(request, machine=name) for name in _versioned(target)]
    else:
        requests = [_named(arguments.b or arguments.a, arguments)]
    for other in requests:
        try:
            b = expand(other, Platform(target, cpu_map, other.machine))
        except UnknownNameError:
            if not arguments.all_machines:
                raise
            continue
        yield diff(a, source, b, target, cpu_map, guests=arguments.guest)


def _named(words: str, arguments: argparse.Namespace) -> CpuRequest:
    """A model or a file, at a machine type where one is given."""
    name, at, machine = words.rpartition("@")
    name = name if at else words
    if Path(name).is_file() or name == "-":
        request = parse_request(read_file(name), name=name)
    elif arguments.connect and _is_domain(name, arguments.connect):
        request = parse_request(kept_by_libvirt(arguments.connect, name), name=name)
    else:
        request = replace(parse_cpu_option(name, name="MODEL"), accel=accel_of(arguments))
    chosen = (machine if at else None) or arguments.machine or request.machine
    return replace(request, machine=chosen, accel=arguments.accel or request.accel)


def _is_domain(name: str, uri: str) -> bool:
    """Whether the libvirt there keeps a domain of this name."""
    from cpumap.sources.libvirt import Hypervisor

    with Hypervisor(uri) as hypervisor:
        return any(domain.name == name for domain in hypervisor.domains())


def _difference_text(difference: CpuDifference) -> str:
    lines = [f"{difference.a}  |  {difference.b}: {'the same' if difference.same else 'differ'}"]
    lines += [f"  {line}" for line in _property_lines(difference.properties)]
    lines += [f"  {line}" for line in bit_lines(difference.bits or ())]
    return "\n".join(lines) + "\n"
