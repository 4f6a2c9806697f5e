"""What a command on a fleet shows: a bar or lines while it works, JSON, diffs, and the sum at
the end.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

from cpumap.cli.diffs import diff_lines, folded, put_diff, stat_line
from cpumap.fleet.convert import Outcome
from cpumap.fleet.inputs import find_documents
from cpumap.fleet.run import Converted
from cpumap.system.say import plain, put, put_line, say, say_line

NAMES = {"converted": "converted", "explicit": "already explicit"}


PLANNED = {
    "converted": "to change", "explicit": "unchanged", "refused": "refused", "failed": "failed",
    "skipped": "no domain",
}  # fmt: skip
"""What a dry run says: nothing has been done."""


SAID_ALWAYS = ("converted", "explicit", "refused")
"""Said also of none: that nothing is refused is what a plan is read for."""


Diff = Literal["", "folded", "full"]


REASONS_SHOWN = 10


class Shows(NamedTuple):
    """What else is shown of each document that changes."""

    diff: Diff = ""
    stat: bool = False
    dry_run: bool = False
    """Whether nothing is written, and so nothing said to be done."""

    @property
    def data(self) -> bool:
        """Whether there is more than a line for each document."""
        return bool(self.diff) or self.stat


NOTHING_MORE = Shows()


class Display:
    """Shows groups of outcomes as they come. Data on stdout, the bar and the sum on stderr."""

    def __init__(
        self,
        form: Literal["text", "json"],
        *,
        shows: Shows = NOTHING_MORE,
        quiet: bool = False,
        paths: Sequence[str] = (),
    ) -> None:
        """`quiet`: of the single documents, show only those with which something is wrong."""
        self.exit_code = 0
        self.sources: list[str] = []
        self.outcomes: Counter[str] = Counter()
        self._reasons: Counter[tuple[str, str]] = Counter()
        self._form = form
        self._shows = shows
        self._names = PLANNED if shows.dry_run else NAMES
        self._quiet = quiet
        self._paths = paths
        self._started = time.monotonic()
        self._bar: Any = None
        self._task: Any = None
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        shows_data = sys.stdout.isatty() and (self._shows.data or self._form == "json")
        if sys.stderr.isatty() and not shows_data:
            self._open_bar()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()
        if error[0] is not None and self.outcomes:
            say(f"stopped after {self._sum()}; --resume goes on")

    def show(self, group: Sequence[Converted]) -> None:
        """Shows what became of these."""
        for item in group:
            self._count(item.outcome)
            if self._form == "json":
                self._show_json(item)
                continue
            if _is_change(item):
                self._show_change(item.source.name, item.old, item.content or b"")
            self._show_line(item.outcome)
        if self._bar is not None:
            done = sum(self.outcomes.values())
            rate = f"{done / (time.monotonic() - self._started):.0f} a second"
            self._bar.update(self._task, completed=done, rate=rate)

    def finish(self) -> None:
        """Shows the sum."""
        if self._form == "json":
            opening = (
                "" if sum(self.outcomes.values()) else '{"schema": "cpumap.convert/1", "files": ['
            )
            summary = {
                **self.outcomes,
                "seconds": round(time.monotonic() - self._started, 3),
                "sources": self.sources,
                **({"dry-run": True} if self._shows.dry_run else {}),
            }
            put(f'{opening}\n], "summary": {json.dumps(summary)}}}\n')
        say(self._last_line(time.monotonic() - self._started))
        for (status, reason), count in self._reasons.most_common(REASONS_SHOWN):
            say(f"{self._names.get(status, status)}: {count} times {reason}")
        if len(self._reasons) > REASONS_SHOWN:
            say(f"and {len(self._reasons) - REASONS_SHOWN} other reasons")

    def _last_line(self, seconds: float) -> str:
        rate = sum(self.outcomes.values()) / seconds if seconds else 0
        answered = f"; answers from {', '.join(self.sources)}" if self.sources else ""
        if not self._shows.dry_run:
            return f"{self._sum()} in {seconds:.1f} s, {rate:.0f} a second{answered}"
        known = [status for status in PLANNED if self.outcomes[status] or status in SAID_ALWAYS]
        parts = [f"{self.outcomes[status]} {PLANNED[status]}" for status in known]
        return f"plan: {', '.join(parts)}; nothing is written{answered}"

    def _sum(self) -> str:
        total = sum(self.outcomes.values())
        parts = [
            f"{count} {self._names.get(status, status)}"
            for status, count in sorted(self.outcomes.items())
        ]
        return f"{total} document{'s' * (total != 1)}" + (f": {', '.join(parts)}" if parts else "")

    def _count(self, outcome: Outcome) -> None:
        self.outcomes[outcome.status] += 1
        self.exit_code = max(self.exit_code, outcome.exit_code)
        if outcome.reason:
            self._reasons[outcome.status, _without_place(outcome)] += 1
        for note in outcome.notes:
            self._reasons["note", note] += 1

    def _show_line(self, outcome: Outcome) -> None:
        """A line for each document goes to stdout; beside a bar, a diff or other data only what
        is wrong is said.
        """
        said = (
            outcome.reason
            if outcome.reason.startswith(f"{outcome.name}:")
            else f"{outcome.name}: {outcome.reason}"
        )
        line = f"{self._names.get(outcome.status, outcome.status)}: {said.removesuffix(': ')}"
        watched = self._bar is not None and sys.stdout.isatty()
        if not (self._shows.data or self._quiet or watched):
            put_line(line)
        elif outcome.exit_code and self._bar is None:
            say_line(line)
        elif outcome.exit_code:
            self._bar.console.print(
                plain(line), markup=False, highlight=False, emoji=False, soft_wrap=True
            )

    def _show_json(self, item: Converted) -> None:
        outcome = item.outcome
        first = sum(self.outcomes.values()) == 1
        put('{"schema": "cpumap.convert/1", "files": [\n' if first else ",\n")
        entry = {
            "file": outcome.name,
            "status": outcome.status,
            "reason": outcome.reason,
            "notes": outcome.notes,
            **(self._change_json(item) if _is_change(item) else {}),
        }
        put(json.dumps({key: value for key, value in entry.items() if value}, ensure_ascii=False))

    def _change_json(self, item: Converted) -> dict[str, str]:
        """What --stat and --diff say of this document."""
        change = (item.source.name, item.old, item.content or b"")
        said: dict[str, str] = {}
        if self._shows.stat:
            said["stat"] = stat_line(*change)
        if self._shows.diff:
            lines = diff_lines(*change)
            said["diff"] = "".join(lines if self._shows.diff == "full" else folded(lines))
        return said

    def _show_change(self, name: str, old: bytes, new: bytes) -> None:
        if self._shows.stat:
            put_line(stat_line(name, old, new))
        if self._shows.diff:
            lines = diff_lines(name, old, new)
            put_diff(lines if self._shows.diff == "full" else folded(lines))

    def _open_bar(self) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        rate = TextColumn("{task.fields[rate]}")
        columns = (
            TextColumn("converting"),
            BarColumn(),
            MofNCompleteColumn(),
            rate,
            TimeRemainingColumn(),
        )
        bar = Progress(
            *columns, console=Console(stderr=True), transient=True, redirect_stdout=False
        )
        self._bar = self._stack.enter_context(bar)
        self._task = self._bar.add_task("", total=_total(self._paths), rate="")


def _is_change(item: Converted) -> bool:
    return item.content is not None and item.outcome.status == "converted"


def _without_place(outcome: Outcome) -> str:
    """The reason without the file and line that it begins with: many share it then."""
    reason = outcome.reason
    if reason.startswith(f"{outcome.name}:"):
        reason = reason.removeprefix(f"{outcome.name}:").lstrip("0123456789").removeprefix(": ")
    return reason


def _total(paths: Sequence[str]) -> int | None:
    """How many documents there are; None where that is not known before they are read."""
    if any(path == "-" or (Path(path).is_file() and not path.endswith(".xml")) for path in paths):
        return None
    return sum(1 for _ in find_documents(paths, sys.stdin.buffer))
