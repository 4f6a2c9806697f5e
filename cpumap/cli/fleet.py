"""`convert`: stored configs, rewritten."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from cpumap.cli.fleet_output import Display, Shows
from cpumap.cli.sourcing import add_source_options, host_option, open_cpu_map
from cpumap.cli.targeting import add_target_options, wanted_target
from cpumap.errors import InputError
from cpumap.fleet.calls import Work, convert
from cpumap.fleet.convert import Answers
from cpumap.fleet.inputs import Input
from cpumap.fleet.run import cores
from cpumap.fleet.write import Destination
from cpumap.libvirt.words import libvirt_map
from cpumap.pin.resolve import Choices
from cpumap.sources.choose import Wanted
from cpumap.system.files import write_atomically
from cpumap.system.say import say, say_once

if TYPE_CHECKING:
    from cpumap.fleet.report import ConvertReport


LIBVIRT_SOCKETS = ("/run/libvirt/libvirt-sock", "/run/libvirt/virtqemud-sock")


LIBVIRT_OWN = "/etc/libvirt/qemu"


MACHINE_HELP = (
    "move to this machine type and keep the CPU that the old one gave: NEW for every domain, "
    "or OLD=NEW[,OLD=NEW…] for some"
)


def add_convert(parser: argparse.ArgumentParser) -> None:
    add_paths(parser, nargs="*")
    where = parser.add_argument_group("where the new documents go").add_mutually_exclusive_group()
    where.add_argument(
        "--output-dir", metavar="DIR", type=Path, help="below this directory, the old ones stay"
    )
    where.add_argument(
        "--in-place", action="store_true", help="each replaces the old one, atomically"
    )
    parser.add_argument(
        "--backup-dir", metavar="DIR", type=Path, help="with --in-place: keep the old ones below it"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="say what would be done and do nothing"
    )
    add_diff_options(parser)
    parser.add_argument(
        "--resume", action="store_true", help="finish what an interrupted run left undone"
    )
    parser.add_argument(
        "--pin",
        choices=("model", "custom"),
        help="as for translate (default: model)",
    )
    parser.add_argument("--unavailable", choices=("keep", "off"), help="as for translate")
    parser.add_argument("--deprecated", choices=("keep", "off"), help="as for translate")
    parser.add_argument(
        "--host", metavar="FILE", action="append", help="the host to run on, as for translate"
    )
    add_fleet_options(parser)
    add_target_options(parser, machine=False)
    add_source_options(parser, machine=MACHINE_HELP)
    add_libvirt_options(parser)


def add_diff_options(parser: argparse.ArgumentParser) -> None:
    """--diff, --diff=full, --stat."""
    parser.add_argument(
        "--diff",
        action="store_const",
        const="folded",
        default="",
        help="print what changes, as a diff in which the long lists are only counted",
    )
    # An option of its own, since `--diff PATH` must not take the path for its value.
    parser.add_argument(
        "--diff=full",
        dest="diff",
        action="store_const",
        const="full",
        help="print every line that changes, as `patch` takes it",
    )
    parser.add_argument(
        "--stat", action="store_true", help="print how much changes, a line for each document"
    )


def add_paths(parser: argparse.ArgumentParser, nargs: str = "+", about: str = "") -> None:
    """PATH…, as every command takes it that reads a fleet."""
    parser.add_argument(
        "paths",
        metavar="PATH",
        nargs=nargs,
        help=f"{about}a domain XML, a directory (every *.xml in it, at any depth; autostart and "
        "networks are left "
        "alone), a tar archive, or - for a list of these, or an archive, on standard input; with "
        "--connect a domain's name (none: every domain)",
    )


def add_libvirt_options(parser: argparse.ArgumentParser) -> None:
    """--all, --live, --restore: what `convert` takes beside --connect."""
    group = parser.add_argument_group(
        "with --connect: domains that libvirt keeps; PATH is then a domain's name"
    )
    group.add_argument("--all", action="store_true", help="every domain")
    group.add_argument(
        "--live", action="store_true", help="of a running guest, the CPU that its QEMU gives it now"
    )
    group.add_argument(
        "--restore", metavar="BACKUP", type=Path, help="define again what --backup-dir has kept"
    )


def add_fleet_options(
    parser: argparse.ArgumentParser, formats: Sequence[str] = ("text", "json")
) -> None:
    """--jobs, --scheduler, --format, --report."""
    parser.add_argument(
        "--jobs", metavar="N", type=_jobs, default=cores(), help="processes (default: one per core)"
    )
    parser.add_argument(
        "--scheduler", metavar="ADDRESS", help="a Dask cluster to do it on: tcp://HOST:8786"
    )
    parser.add_argument("--format", choices=tuple(formats), default="text", help="(default: text)")
    parser.add_argument(
        "--report", metavar="FILE.html", type=Path, help="write a report as one HTML file"
    )


def _jobs(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def run_convert(arguments: argparse.Namespace) -> int:
    if arguments.connect:
        from cpumap.cli.convert_libvirt import run_convert_libvirt

        return run_convert_libvirt(arguments)
    if not arguments.paths or arguments.all or arguments.live or arguments.restore:
        raise InputError(
            "say what to convert: PATH…; --all, --live and --restore go with --connect"
        )
    destination = _destination(arguments)
    _warn_of_libvirt(arguments)
    with closing(fleet_answers(arguments, keep=arguments.report is not None)) as answers:
        answers.target = wanted_target(arguments)
        answers.host = host_option(arguments, answers.cpu_map)
        answers.on_model = arguments.pin == "model"
        shows = Shows(arguments.diff, arguments.stat, dry_run=destination is None)
        display = Display(arguments.format, shows=shows, paths=arguments.paths)
        report = _report(answers, planned=destination is None) if arguments.report else None
        outcomes = convert(
            arguments.paths,
            answers,
            destination,
            work=Work(arguments.jobs, arguments.scheduler, display.show),
            resume=arguments.resume,
        )
        with display, closing(outcomes):
            for outcome in outcomes:
                if report is not None:
                    report.add([outcome])
        display.sources = answers.labels
        display.finish()
        if report is not None:
            write_atomically(arguments.report, report.html().encode())
    return display.exit_code


def fleet_answers(arguments: argparse.Namespace, *, keep: bool) -> Answers:
    """What answers the fleet's questions, as the options say."""
    wanted = Wanted(
        arguments.qemu,
        arguments.qmp,
        arguments.recorded,
        arguments.accel,
        tell=say_once,
        cache=not arguments.no_cache,
    )
    choices = Choices(
        pin=getattr(arguments, "pin", None) or "model",
        unavailable=getattr(arguments, "unavailable", None),
        deprecated=getattr(arguments, "deprecated", None) or "keep",
    )
    words = libvirt_map(arguments.cpu_map, libvirt=arguments.libvirt)
    answers = Answers(
        wanted, open_cpu_map(arguments), words, choices, _moves(arguments.machine), keep=keep
    )
    if arguments.connect:
        from cpumap.sources.libvirt import Hypervisor

        answers.hypervisor = Hypervisor(arguments.connect)
    return answers


def fleet_paths(
    arguments: argparse.Namespace, answers: Answers, *, everything: bool = True
) -> list[str | Input]:
    """The fleet's documents: those of the paths, or with --connect the domains of these names.

    No name means every domain, if `everything` is meant then.
    """
    if answers.hypervisor is None:
        return list(arguments.paths)
    every = [domain.name for domain in answers.hypervisor.domains()] if everything else []
    return [
        Input(name, f"{name}.xml", data=answers.hypervisor.xml(name))
        for name in arguments.paths or every
    ]


def _moves(text: str | None) -> dict[str, str]:
    """`NEW`, or `OLD=NEW` pairs between commas."""
    moves = {}
    for pair in text.split(",") if text else ():
        old, is_pair, new = pair.partition("=")
        if not (old and (new or not is_pair)):
            raise InputError(f"--machine takes NEW or OLD=NEW, not {pair!r}")
        moves[old if is_pair else "*"] = new if is_pair else old
    return moves


def _destination(arguments: argparse.Namespace) -> Destination | None:
    """Where to write; None for a dry run. Errors: `InputError` for options that do not go
    together.
    """
    output, backup = arguments.output_dir, arguments.backup_dir
    if backup is not None and not arguments.in_place:
        raise InputError("--backup-dir goes with --in-place")
    for directory in filter(None, (output, backup)):
        for path in arguments.paths:
            if Path(path).is_dir() and directory.resolve().is_relative_to(Path(path).resolve()):
                raise InputError(f"{directory} is inside {path}, which is converted")
    looks = arguments.diff or arguments.stat
    if arguments.dry_run or (looks and output is None and not arguments.in_place):
        return None
    if output is None and not arguments.in_place:
        raise InputError(
            "say where the new documents go: --output-dir DIR or --in-place, or --dry-run"
        )
    return Destination(output, backup)


def _warn_of_libvirt(arguments: argparse.Namespace) -> None:
    own = [path for path in arguments.paths if os.path.realpath(path).startswith(LIBVIRT_OWN)]
    if own and any(_answers(path) for path in LIBVIRT_SOCKETS):
        say(
            f"{own[0]} belongs to the libvirtd that runs here: it does not read what is "
            "changed there, and "
            "may overwrite it. --connect qemu:///system converts its domains through it"
        )


def _answers(path: str) -> bool:
    import socket

    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except OSError:
            return False
    return True


def _report(answers: Answers, *, planned: bool) -> ConvertReport:
    from cpumap.fleet.report import ConvertReport

    return ConvertReport(answers, planned)
