"""Counts how often an explicit CPU is, property by property, the one that libvirt's `-cpu` gives.

usage: tools/compare_live.py [--count N] [--seed N] QEMU...

Domains are random, and the same for a seed: models, features, machine types, topologies, vendors,
settings. Each is realised twice under tcg: as libvirt asks for it, and as cpumap writes it, in
arguments or in a document. Exit 1 when a property differs.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from cpumap.sources.live import QemuSource
from tests.support.live_comparison import TIMEOUT, Compared, comparisons


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=125, help="domains on each QEMU")
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("qemus", metavar="QEMU", nargs="+")
    arguments = parser.parse_args()
    failed = 0
    for path in arguments.qemus:
        with QemuSource(path, timeout=TIMEOUT) as qemu:
            chance = Random(f"{arguments.seed} {qemu.version}")
            counted = Counter(map(told, comparisons(qemu, chance, arguments.count)))
        print(f"{qemu.label}: {dict(counted)}", flush=True)
        failed += counted["differs"]
    return 1 if failed else 0


def told(found: Compared) -> str:
    """Whether it is the same; what is not is printed."""
    if found.refused:
        print(f"refused: {found.refused}", file=sys.stderr)
        return "refused"
    if not found.unlike:
        return "same"
    print(f"{found.document}{found.form}: (libvirt's, ours) {dict(found.unlike)}", flush=True)
    return "differs"


if __name__ == "__main__":
    raise SystemExit(main())
