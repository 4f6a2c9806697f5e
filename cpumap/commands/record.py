"""`record`: writes down one QEMU's models and machine types."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from cpumap.commands.progress import progress_bar
from cpumap.data import data_path
from cpumap.files import write_atomically
from cpumap.record import record, recording_text
from cpumap.sources.qemu import QemuSource


def add_record(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--qemu", metavar="PATH", required=True, help="the QEMU binary to record")
    parser.add_argument("--accel", choices=("tcg", "kvm"), default="tcg", help="accelerator (default: tcg)")
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE|DIR",
        type=Path,
        help="where to write (default: VERSION_ARCH_ACCEL.json among cpumap's own recordings)",
    )


def run_record(arguments: argparse.Namespace) -> int:
    with QemuSource(arguments.qemu, arguments.accel) as source, QemuSource(arguments.qemu, "tcg") as reference:
        with progress_bar() as progress:
            stored = record(source, reference, progress)
        name = f"{source.version}_{source.arch}_{source.accel}.json"
    path = arguments.output or data_path("expansions")
    path = path / name if path.is_dir() or not path.suffix else path
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, recording_text(stored).encode())
    print(f"cpumap: {path}: {len(stored['like'])} models, {len(stored['machines'])} machine types", file=sys.stderr)
    return 0
