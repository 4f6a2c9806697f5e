"""`record`: writes down one QEMU's models and machine types. `measure`: and what guests read."""

from __future__ import annotations

import argparse
import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from cpumap.cli.progress import progress_bar
from cpumap.cli.sourcing import found_on_path
from cpumap.errors import InputError
from cpumap.proof.measure import measure
from cpumap.sources.live import QemuSource
from cpumap.sources.record import record, recording_text
from cpumap.sources.record_realised import record_realised
from cpumap.sources.record_static import record_static
from cpumap.sources.recorded import RecordedSource
from cpumap.sources.recordings import recording_name, recording_of, user_directory
from cpumap.sources.source import Source
from cpumap.system.files import write_atomically
from cpumap.system.say import say


def add_record(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--qemu",
        metavar="PATH",
        type=found_on_path,
        required=True,
        help="the QEMU binary to record",
    )
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
        "--guest",
        action="store_true",
        help="with what guests read, as `measure` has it; takes some minutes",
    )
    parser.add_argument(
        "--reference",
        metavar="FILE",
        type=Path,
        help="with --accel kvm: a recording of the same QEMU under tcg, for what no host changes "
        "(default: cpumap's "
        "own, if it has one, else it is asked anew)",
    )


def add_measure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--qemu",
        metavar="PATH",
        type=found_on_path,
        action="append",
        required=True,
        help="a QEMU binary; twice for two. Guests run under tcg; what is said of caches and "
        "topology is so under KVM too",
    )
    parser.add_argument(
        "--model",
        metavar="NAME",
        action="append",
        help="of the models with cache tables of their own only this one, or these (default: all)",
    )


def run_record(arguments: argparse.Namespace) -> int:
    if arguments.guest and arguments.accel != "tcg":
        raise InputError("--guest looks at guests under tcg: record that too, with --accel tcg")
    with ExitStack() as closing, progress_bar() as progress:
        source = closing.enter_context(QemuSource(arguments.qemu, arguments.accel))
        if source.kind.explicit == "static":
            stored = record_static(source, progress)
        elif not source.kind.expansions:
            stored = record_realised(source, progress)
        else:
            stored = record(source, _reference(arguments, source, closing), progress)
        if arguments.guest:
            stored["measured"] = measure(source, progress)
    name = recording_name(source.build(), source.arch, source.accel)
    path = arguments.output or user_directory()
    _write(path / name if path.is_dir() or not path.suffix else path, stored)
    return 0


def run_measure(arguments: argparse.Namespace) -> int:
    for binary in arguments.qemu:
        with QemuSource(binary, "tcg") as source, progress_bar() as progress:
            path = user_directory() / recording_name(source.build(), source.arch, "tcg")
            stored = _kept(path, source) or record(source, source, progress)
            stored["measured"] = measure(source, progress, arguments.model)
        _write(path, stored)
    return 0


def _kept(path: Path, source: QemuSource) -> dict[str, Any] | None:
    """The user's recording of this very QEMU, to be added to."""
    if not path.exists() or not RecordedSource(path).build().is_same(source.build()):
        return None
    stored: dict[str, Any] = json.loads(path.read_bytes())
    return stored


def _write(path: Path, stored: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, recording_text(stored).encode())
    guests = sum(map(len, stored.get("measured", {}).values()))
    said = f", {guests} readings of guests" if guests else ""
    say(f"{path}: {len(stored['like'])} models, {len(stored['machines'])} machine types{said}")


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
