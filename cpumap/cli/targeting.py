"""The options that say where a CPU will run, and what is said when it cannot stay the same
there.
"""

from __future__ import annotations

import argparse
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

from cpumap.cli.sourcing import found_on_path
from cpumap.cpu.expansion import Expansion
from cpumap.cpu.explicit import ExplicitCpu
from cpumap.sources.platform import Platform
from cpumap.system.say import say

if TYPE_CHECKING:
    from cpumap.move.target import Target


def add_target_options(parser: argparse.ArgumentParser, *, machine: bool = True) -> None:
    """--target-qemu, --target-machine, --allow-drift, --compact."""
    where = parser.add_argument_group("where the CPU will run")
    where.add_argument(
        "--target-qemu",
        metavar="PATH|RELEASE",
        type=found_on_path,
        help="in this QEMU, or a recorded one (default: where answers come from)",
    )
    if machine:
        where.add_argument(
            "--target-machine", metavar="TYPE", help="under this machine type (default: the same)"
        )
    where.add_argument(
        "--allow-drift",
        action="store_true",
        help="write the CPU although it cannot stay the same, and list what differs",
    )
    where.add_argument(
        "--compact", action="store_true", help="name only what some machine type or release changes"
    )


def wanted_target(arguments: argparse.Namespace) -> Target | None:
    """What the options say; None when a CPU stays where it is, everything named."""
    machine = getattr(arguments, "target_machine", None)
    if not (arguments.target_qemu or machine or arguments.compact):
        return None
    from cpumap.move.target import Target

    return Target(arguments.target_qemu, machine, arguments.compact, arguments.allow_drift)


def targeted(
    arguments: argparse.Namespace,
    cpu: ExplicitCpu,
    expansion: Expansion,
    platform: Platform,
) -> ExplicitCpu:
    """The CPU as it must be named where it will run. Errors: `DriftError`, unless that is allowed;
    then it is only said.
    """
    target = wanted_target(arguments)
    if target is None:
        return cpu
    from cpumap.move.target import opened, placed

    with ExitStack() as stack:
        place = None
        if target.qemu:
            place = stack.enter_context(
                closing(opened(target.qemu, platform.source, cache=not arguments.no_cache))
            )
        moved, told = placed(cpu, expansion, platform, target, place)
    for line in told:
        say(line)
    return moved
