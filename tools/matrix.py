"""Measures in which moves a guest's CPU stays the same, and prints it as Markdown tables.

    tools/matrix.py [--only SECTION,...] [--every N] [--read] [--write docs/proof.md]

Two QEMUs run at a time. `--every 5` takes every fifth model. Exits with 1 when a move within one
QEMU changed what the guest sees, or when a move to another one did in a way that was not predicted.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import qemus
from matrix_moves import (
    BOTH,
    KINDS,
    Bench,
    Move,
    Outcome,
    Result,
    Style,
    across,
    aliases,
    everywhere,
    settings,
    topologies,
    within,
)

from cpumap.cpu.names import Accel
from cpumap.system.files import write_atomically

PAIRS = (
    ("5.2", "7.2"),
    ("7.2", "8.2-ubuntu"),
    ("8.2-ubuntu", "10.0.2"),
    ("10.0.2", "10.0"),
    ("10.0", "10.0.2"),
    ("7.2", "10.0"),
    ("10.0", "11.1"),
    ("5.2", "11.1"),
    ("7.2", "11.1"),
    ("11.1", "10.0"),
    ("10.0.2", "8.2-ubuntu"),
)
STYLES: tuple[Style, ...] = ("naive", "libvirt", "static", "ours")
TITLES = ("`-cpu Model`", "Model and every feature", "`base` and static expansion", "cpumap")
FEW = ("Haswell-v1", "EPYC-v1", "qemu64-v1")
"""Models for domain settings: Intel, AMD with caches of its own, the default."""

Counts = Counter[tuple[str, Outcome | Literal["but leaf 0xD"]]]
"""(style, outcome) → how many moves."""


class Matrix:
    """The measuring: moves in, counts out, progress on stderr."""

    def __init__(self, bench: Bench, every: int) -> None:
        self.bench = bench
        self.every = every
        self.wrong: list[tuple[Move, Outcome]] = []
        self.measured = 0
        self.causes: dict[Accel, Counter[str]] = {"tcg": Counter(), "kvm": Counter()}
        """Why moves of ours to another QEMU differ, as predicted → in how many of them."""

    def count(self, title: str, moves: Iterable[Move]) -> Counts:
        """How the moves come out, by style."""
        chosen = self._sample(list(moves))
        counts: Counts = Counter()
        started = time.monotonic()
        with ThreadPoolExecutor(2) as pool:
            for number, (move, result) in enumerate(
                zip(chosen, pool.map(self.bench.result, chosen), strict=True), 1
            ):
                counts[move.style, result.outcome] += 1
                counts[move.style, "but leaf 0xD"] += result.xsave_alone
                self._note(move, result)
                if number % 20 == 0 or number == len(chosen):
                    passed = time.monotonic() - started
                    print(
                        f"\r{title}: {number} of {len(chosen)}, {passed:.0f} s ",
                        end="",
                        file=sys.stderr,
                    )
        print(file=sys.stderr)
        self.bench.close()  # the threads are gone that had QEMUs of their own
        self.measured += len(chosen)
        return counts

    def _sample(self, moves: list[Move]) -> list[Move]:
        models = sorted({move.model for move in moves})
        models = models[:: self.every] if len(models) > len(FEW) else models
        return [move for move in moves if move.model in models]

    def _note(self, move: Move, result: Result) -> None:
        outcome = result.outcome
        if move.style == "ours":
            self.causes[move.accel].update(_kinds(found.cause for found in result.predicted))
        moved_inside = move.release == move.to_release and outcome != "same"
        bad = outcome in ("NOT PREDICTED", "refused", "unknown")
        if move.style == "ours" and outcome != "not runnable" and (moved_inside or bad):
            self.wrong.append((move, outcome))
            print(f"\n{outcome}: {move}", file=sys.stderr)


def _within(matrix: Matrix) -> Iterator[str]:
    yield from _heading(
        "Within one QEMU, oldest ↔ newest machine type: q35, and pc for cpumap (tcg)",
        ("QEMU", *TITLES),
    )
    for release in matrix.bench.binaries:
        counts = matrix.count(f"within {release}", within(matrix.bench, release, STYLES))
        yield _row(release, (_rate(counts, style) for style in STYLES))


def _aliases(matrix: Matrix) -> Iterator[str]:
    title = (
        "Names without a version (`Haswell`), which old machine types change: oldest ↔ "
        "newest pc-q35 (tcg)"
    )
    yield from _heading(title, ("QEMU", TITLES[0], TITLES[-1]))
    for release in matrix.bench.binaries:
        counts = matrix.count(f"aliases of {release}", aliases(matrix.bench, release))
        yield _row(release, (_rate(counts, style) for style in BOTH))


def _machines(matrix: Matrix) -> Iterator[str]:
    yield from _heading(
        "From the newest machine type to every one that differs (tcg)", ("QEMU", "cpumap")
    )
    for release in matrix.bench.binaries:
        counts = matrix.count(f"every machine type of {release}", everywhere(matrix.bench, release))
        yield _row(release, [_rate(counts, "ours")])


def _across(matrix: Matrix) -> Iterator[str]:
    yield from _heading(
        "To another QEMU (tcg): the newest machine type that both have; for cpumap every "
        "combination of old and new",
        (
            "QEMU",
            *TITLES,
            "cpumap, leaf 0xD set aside",
            "differs exactly as predicted",
            "not predicted",
        ),
    )
    for pair in _pairs(matrix.bench):
        counts = matrix.count(" → ".join(pair), across(matrix.bench, pair, STYLES))
        rates = [_rate(counts, style) for style in STYLES]
        aside = counts["ours", "same"] + counts["ours", "but leaf 0xD"]
        yield _row(
            " → ".join(pair), [*rates, _percent(aside, _total(counts, "ours")), *_predicted(counts)]
        )


def _topologies(matrix: Matrix) -> Iterator[str]:
    yield from _heading(
        "To another QEMU (tcg), 16 vCPUs in 2 sockets, 3 cores of 3 threads, and 2 dies of 3 "
        "cores: the newest machine "
        "type that both have",
        ("QEMU", "cpumap", "differs exactly as predicted", "not predicted"),
    )
    for pair in _pairs(matrix.bench):
        counts = matrix.count(f"{' → '.join(pair)}, topologies", topologies(matrix.bench, pair))
        yield _row(" → ".join(pair), [_rate(counts, "ours"), *_predicted(counts)])


def _kvm(matrix: Matrix) -> Iterator[str]:
    yield from _heading(
        "Under KVM, every model that this host starts",
        ("QEMU", TITLES[0], "cpumap", "as predicted", "not predicted"),
    )
    for release in matrix.bench.binaries:
        counts = matrix.count(f"within {release}, KVM", within(matrix.bench, release, BOTH, "kvm"))
        yield _row(
            f"{release}, oldest ↔ newest",
            [*(_rate(counts, style) for style in BOTH), *_predicted(counts)],
        )
    for pair in _pairs(matrix.bench):
        counts = matrix.count(f"{' → '.join(pair)}, KVM", across(matrix.bench, pair, BOTH, "kvm"))
        yield _row(
            " → ".join(pair), [*(_rate(counts, style) for style in BOTH), *_predicted(counts)]
        )

    yield from _causes(matrix, "kvm")
    yield from _settings(matrix, "kvm")


def _causes(matrix: Matrix, accel: Accel) -> Iterator[str]:
    """Why cpumap's moves to another QEMU that were measured before differ."""
    if not matrix.causes[accel]:
        return
    yield from _heading("What differs in cpumap's moves to another QEMU", ("cause", "moves"))
    for cause, count in matrix.causes[accel].most_common():
        yield _row(cause, [f"{count:,}"])


def _kinds(causes: Iterable[str]) -> set[str]:
    """The causes without the names of one move, and without what only repeats a leaf that
    differs.
    """
    found = {
        cause
        for joined in causes
        for cause in joined.split("; ")
        if "does not exist repeats" not in cause
    }
    found = {
        re.sub(r"^caches: .*", "cache tables, which no property describes", cause)
        for cause in found
    }
    return {
        re.sub(r".* has no feature .*", "a feature that the other QEMU does not have", cause)
        for cause in found
    }


def _settings(matrix: Matrix, accel: Accel = "tcg") -> Iterator[str]:
    yield from _heading(
        f"Domain settings ({accel}), on {', '.join(FEW)}, oldest ↔ newest machine type of each "
        "QEMU",
        ("setting", "cpumap"),
    )
    for kind in (kind for kind, (of, _, _) in KINDS.items() if of == accel):
        moves = (
            move
            for release in matrix.bench.binaries
            for move in settings(matrix.bench, release, kind, FEW)
        )
        yield _row(kind, [_rate(matrix.count(kind, moves), "ours")])


SECTIONS: dict[str, Callable[[Matrix], Iterator[str]]] = {
    "within": _within,
    "aliases": _aliases,
    "machines": _machines,
    "across": _across,
    "topologies": _topologies,
    "causes": lambda matrix: _causes(matrix, "tcg"),
    "settings": _settings,
    "kvm": _kvm,
}


def _pairs(bench: Bench) -> list[tuple[str, str]]:
    return [pair for pair in PAIRS if set(pair) <= bench.binaries.keys()]


def _heading(title: str, columns: Sequence[str]) -> list[str]:
    return ["", f"**{title}**", "", _row(columns[0], columns[1:]), "|" + " --- |" * len(columns)]


def _row(first: str, cells: Iterable[str]) -> str:
    return f"| {first} | {' | '.join(cells)} |"


def _rate(counts: Counts, style: Style) -> str:
    return _percent(counts[style, "same"], _total(counts, style))


def _total(counts: Counts, style: Style) -> int:
    apart = ("not runnable", "but leaf 0xD")
    return sum(
        count for (of, outcome), count in counts.items() if of == style and outcome not in apart
    )


def _percent(part: int, whole: int) -> str:
    return f"{part:,} of {whole:,} ({100 * part / whole:.1f} %)" if whole else "none"


def _predicted(counts: Counts) -> list[str]:
    missed = sum(counts["ours", outcome] for outcome in ("NOT PREDICTED", "unknown", "refused"))
    return [f"{counts['ours', 'as predicted']:,}", f"{missed:,}"]


def _measured(matrix: Matrix, name: str) -> str:
    """The section, and how long it took."""
    started, before = time.monotonic(), matrix.measured
    lines = list(SECTIONS[name](matrix))
    minutes = (time.monotonic() - started) / 60
    sample = "" if matrix.every == 1 else f" of one model in {matrix.every}"
    if matrix.measured > before:
        lines += [
            "",
            f"{matrix.measured - before:,} moves{sample}, measured in {minutes:.0f} minutes.",
        ]
    return "\n".join(lines[1:])


def _written(path: Path, name: str, section: str) -> bytes:
    begin, end = (f"<!-- matrix {name}: {edge} -->" for edge in ("begin", "end"))
    before, has_begin, rest = path.read_text().partition(begin)
    _, has_end, after = rest.partition(end)
    if not has_begin or not has_end:
        raise SystemExit(f"{path} has no {begin} … {end}")
    return f"{before}{begin}\n{section}\n{end}{after}".encode()


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--only", default=",".join(SECTIONS), help=f"of {', '.join(SECTIONS)}, separated by commas"
    )
    parser.add_argument("--every", type=int, default=1, metavar="N", help="every Nth model only")
    parser.add_argument(
        "--write",
        type=Path,
        metavar="FILE",
        help="put each section between its markers in this file",
    )
    parser.add_argument(
        "--read", action="store_true", help="measure nothing: the section is on standard input"
    )
    arguments = parser.parse_args()
    matrix = Matrix(Bench(qemus.builds()), arguments.every)
    try:
        for name in arguments.only.split(","):
            section = sys.stdin.read().strip() if arguments.read else _measured(matrix, name)
            print(section, flush=True)
            if arguments.write:
                write_atomically(arguments.write, _written(arguments.write, name, section))
    finally:
        matrix.bench.close()
    return 1 if matrix.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
