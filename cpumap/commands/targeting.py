"""The options that say where a CPU will run, and what is said when it cannot stay the same there."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from cpumap.cpu import Expansion, ExplicitCpu, PropertyName
from cpumap.cpu_map import CpuMap
from cpumap.errors import Drift
from cpumap.sources import Source
from cpumap.sources.choose import started
from cpumap.sources.recorded import RecordedSource, find_recording, recordings

if TYPE_CHECKING:
    from cpumap.predict import Prediction


def add_target_options(parser: argparse.ArgumentParser) -> None:
    """--target-qemu, --target-machine, --allow-drift, --compact."""
    where = parser.add_argument_group("where the CPU will run")
    where.add_argument(
        "--target-qemu",
        metavar="PATH|RELEASE",
        help="in this QEMU, or a recorded one (default: where answers come from)",
    )
    where.add_argument("--target-machine", metavar="TYPE", help="under this machine type (default: the same)")
    where.add_argument(
        "--allow-drift",
        action="store_true",
        help="write the CPU although it cannot stay the same, and list what differs",
    )
    where.add_argument("--compact", action="store_true", help="name only what some machine type or release changes")


def targeted(
    arguments: argparse.Namespace, cpu: ExplicitCpu, expansion: Expansion, source: Source, cpu_map: CpuMap
) -> ExplicitCpu:
    """The CPU as it must be named where it will run. Errors: `Drift`, unless that is allowed; then it is only said."""
    if not (arguments.target_qemu or arguments.target_machine or arguments.compact):
        return cpu
    from cpumap.hold import hold

    with ExitStack() as closing:
        target = _target(arguments, source, closing)
        only = _changing(cpu, source, target) if arguments.compact else None
        machine = arguments.target_machine
        held, prediction = hold(cpu, expansion, source, target, cpu_map, machine=machine, only=only)
    lines = list(drift_lines(prediction))
    if lines and not arguments.allow_drift:
        place = f"QEMU {held.context.qemu}, {held.context.machine}"
        raise Drift(
            "\n  ".join([f"this CPU cannot stay the same in {place} (--allow-drift writes it all the same):", *lines])
        )
    for line in lines:
        print(f"cpumap: will differ: {line}", file=sys.stderr)
    return held


def drift_lines(prediction: Prediction) -> Iterator[str]:
    """What will differ, bit by bit, and what cannot be told."""
    for found in prediction.differences:
        what = f"MSR 0x{found.leaf:x}" if found.register == "msr" else f"CPUID 0x{found.leaf:x}.{found.subleaf:x}"
        register = "" if found.register == "msr" else f".{found.register.upper()}"
        yield f"{what}{register} bits 0x{found.xor:x}: {found.cause}"
    yield from (f"not known beforehand: {reason}" for reason in prediction.unknown)


def _target(arguments: argparse.Namespace, source: Source, closing: ExitStack) -> Source:
    wanted = arguments.target_qemu
    if not wanted:
        return source
    if Path(wanted).is_file() and not wanted.endswith(".json"):
        target = started(wanted, source.accel, cache=not arguments.no_cache)
    else:
        target = RecordedSource(find_recording(wanted, source.accel))
    closing.callback(target.close)
    return target


def _changing(cpu: ExplicitCpu, source: Source, target: Source) -> frozenset[PropertyName]:
    """What changes within the two QEMUs, and in any that is recorded."""
    from cpumap.compact import changing_properties

    known = [RecordedSource(path) for path in recordings() if path.stem.endswith(f"_{source.accel}")]
    return changing_properties(cpu, [source, target, *known])
