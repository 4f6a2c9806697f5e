"""`record`: writes down one QEMU's models and machine types."""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from pathlib import Path

from cpumap.cli.progress import progress_bar
from cpumap.errors import InputError
from cpumap.sources.live import QemuSource
from cpumap.sources.record import record, recording_text
from cpumap.sources.recorded import RecordedSource
from cpumap.sources.recordings import recording_name, recording_of, user_directory
from cpumap.sources.source import Source
from cpumap.system.files import write_atomically
from cpumap.system.say import say


def add_record(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--qemu", metavar="PATH", required=True, help="the QEMU binary to record")
    parser.add_argument(
        "--accel", choices=("tcg", "kvm"), default="tcg", help="accelerator (default: tcg)"
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE|DIR",
        type=Path,
        help="where to write (default: VERSION_ARCH_ACCEL.json among your own recordings, where "
        "--recorded finds it)",
    )

    parser.add_argument(
        "--reference",
        metavar="FILE",
        type=Path,
        help="with --accel kvm: a recording of the same QEMU under tcg, for what no host changes "
        "(default: cpumap's "
        "own, if it has one, else it is asked anew)",
    )


def run_record(arguments: argparse.Namespace) -> int:
    with ExitStack() as closing, progress_bar() as progress:
        source = closing.enter_context(QemuSource(arguments.qemu, arguments.accel))
        stored = record(source, _reference(arguments, source, closing), progress)
    name = recording_name(source.build(), source.arch, source.accel)
    path = arguments.output or user_directory()
    path = path / name if path.is_dir() or not path.suffix else path
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, recording_text(stored).encode())
    say(f"{path}: {len(stored['like'])} models, {len(stored['machines'])} machine types")
    return 0


def _reference(arguments: argparse.Namespace, source: QemuSource, closing: ExitStack) -> Source:
    if source.accel == "tcg":
        return source
    build = source.build()
    path = arguments.reference or recording_of(build, "tcg", source.arch)
    recorded = RecordedSource(path) if path else None
    if recorded and recorded.accel == "tcg" and recorded.build().is_same(build):
        return recorded
    if arguments.reference:
        raise InputError(f"{arguments.reference} is not a recording of QEMU {build} under tcg")
    return closing.enter_context(QemuSource(arguments.qemu, "tcg"))
