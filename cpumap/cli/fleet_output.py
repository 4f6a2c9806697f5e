"""What a command on a fleet shows: a bar or lines while it works, JSON, diffs, and the sum at
the end.
"""

from __future__ import annotations

import io
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from difflib import unified_diff
from pathlib import Path
from typing import Any, Literal, Self

from cpumap.fleet.convert import Outcome
from cpumap.fleet.inputs import find_documents
from cpumap.fleet.run import Converted
from cpumap.system.say import plain, plain_lines, put, put_line, put_own, say, say_line

NAMES = {"converted": "converted", "explicit": "already explicit"}


REASONS_SHOWN = 10


COLOURS = {"+": "32", "-": "31", "@": "36"}


class Display:
    """Shows groups of outcomes as they come. Data on stdout, the bar and the sum on stderr."""

    def __init__(
        self,
        form: Literal["text", "json"],
        *,
        diff: bool = False,
        quiet: bool = False,
        paths: Sequence[str] = (),
    ) -> None:
        """`quiet`: of the single documents, show only those with which something is wrong."""
        self.exit_code = 0
        self.sources: list[str] = []
        self.outcomes: Counter[str] = Counter()
        self._reasons: Counter[tuple[str, str]] = Counter()
        self._form = form
        self._diff = diff
        self._quiet = quiet
        self._paths = paths
        self._started = time.monotonic()
        self._bar: Any = None
        self._task: Any = None
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        shows_data = sys.stdout.isatty() and (self._diff or self._form == "json")
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
            if self._diff and item.content is not None and item.outcome.status == "converted":
                self._show_diff(item.source.name, item.old, item.content)
            if self._form == "json":
                self._show_json(item.outcome)
            else:
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
            }
            put(f'{opening}\n], "summary": {json.dumps(summary)}}}\n')
        seconds = time.monotonic() - self._started
        rate = sum(self.outcomes.values()) / seconds if seconds else 0
        answered = f"; answers from {', '.join(self.sources)}" if self.sources else ""
        say(f"{self._sum()} in {seconds:.1f} s, {rate:.0f} a second{answered}")
        for (status, reason), count in self._reasons.most_common(REASONS_SHOWN):
            say(f"{status}: {count} times {reason}")
        if len(self._reasons) > REASONS_SHOWN:
            say(f"and {len(self._reasons) - REASONS_SHOWN} other reasons")

    def _sum(self) -> str:
        total = sum(self.outcomes.values())
        parts = [
            f"{count} {NAMES.get(status, status)}"
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
        line = f"{NAMES.get(outcome.status, outcome.status)}: {said.removesuffix(': ')}"
        watched = self._bar is not None and sys.stdout.isatty()
        if not (self._diff or self._quiet or watched):
            put_line(line)
        elif outcome.exit_code and self._bar is None:
            say_line(line)
        elif outcome.exit_code:
            self._bar.console.print(
                plain(line), markup=False, highlight=False, emoji=False, soft_wrap=True
            )

    def _show_json(self, outcome: Outcome) -> None:
        first = sum(self.outcomes.values()) == 1
        put('{"schema": "cpumap.convert/1", "files": [\n' if first else ",\n")
        entry = {
            "file": outcome.name,
            "status": outcome.status,
            "reason": outcome.reason,
            "notes": outcome.notes,
        }
        put(json.dumps({key: value for key, value in entry.items() if value}, ensure_ascii=False))

    def _show_diff(self, name: str, old: bytes, new: bytes) -> None:
        colour = (
            sys.stdout.isatty()
            and not os.environ.get("NO_COLOR")
            and os.environ.get("TERM") != "dumb"
        )
        named = plain(name)
        for line in unified_diff(_lines(old), _lines(new), f"a/{named}", f"b/{named}"):
            text = line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n"
            # A pipe gets it for `patch`, byte for byte; a terminal would obey what is in it.
            text = plain_lines(text) if sys.stdout.isatty() else text
            code = COLOURS.get(text[0]) if colour else None
            put_own(f"\033[{code}m{text[:-1]}\033[0m\n" if code else text)

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


def _lines(data: bytes) -> list[str]:
    return list(io.StringIO(data.decode("utf-8", "backslashreplace"), newline="\n"))


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
