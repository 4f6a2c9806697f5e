"""Counts how often cpumap answers as libvirt's own code does, each release with its own CPU map.

usage: tools/libvirt_agreement.py [--count N] [--seed N] [--release 9.0]... [--kind compare]...

Wants root, for a mount that nobody else sees, and what tools/fetch-libvirts puts there. Exit 1 when
an answer differs for a reason that is not known.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.support.agreement import KNOWN_CAUSES, QUESTIONS, agreement
from tests.support.libvirt_code import libvirt_code
from tests.support.releases import LIBVIRT_RELEASES


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--release", action="append", choices=LIBVIRT_RELEASES)
    parser.add_argument("--kind", action="append", choices=tuple(QUESTIONS))
    arguments = parser.parse_args()
    unexplained = 0
    for release in arguments.release or LIBVIRT_RELEASES:
        for kind in arguments.kind or QUESTIONS:
            unexplained += count(release, kind, arguments)
    return 1 if unexplained else 0


def count(release: str, kind: str, arguments: argparse.Namespace) -> int:
    """How many answers differ for no known reason; the counts are printed."""
    counted = Counter[str]()
    with libvirt_code(release) as code:
        for found in agreement(code, kind, random.Random(arguments.seed), arguments.count):
            refused = found.ours == ("refused",)
            agreed = "both refuse" if refused else "same"
            counted[agreed if found.same else found.cause or "not known"] += 1
    print(f"libvirt {release}, {kind}:")
    for words, number in counted.most_common():
        print(f"  {number:5}  {words}")
    known = ("same", "both refuse", *KNOWN_CAUSES)
    return sum(number for words, number in counted.items() if words not in known)


if __name__ == "__main__":
    raise SystemExit(main())
