"""What changes in a document, for a person: as a unified diff in which long lists are folded, or in
one line.
"""

from __future__ import annotations

import io
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from difflib import unified_diff

from cpumap.system.say import colours, plain, plain_lines, put_own

COLOURS = {"+": "32", "-": "31", "@": "36"}


LONG = 4
"""Lines of a list that are still shown one by one."""


_FEATURE = re.compile(r"[-+]\s*<feature policy=.(\w+). name=.([^'\"]+).\s*/>")


_GLOBAL = re.compile(r"\+\s*<qemu:arg value=.(-global.|[\w-]+-cpu\.|driver=)")


_OPTION = re.compile(r"\+\s*<qemu:arg value=.-global.\s*/>")


def diff_lines(name: str, old: bytes, new: bytes) -> Iterator[str]:
    """The unified diff, each line with its end: `patch` takes it."""
    named = plain(name)
    for line in unified_diff(_lines(old), _lines(new), f"a/{named}", f"b/{named}"):
        yield line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n"


def folded(lines: Iterable[str]) -> Iterator[str]:
    """The diff with a count instead of each long list of features or properties that is added; a
    feature that the old document names too stays.
    """
    every = list(lines)
    named = {found[2] for line in every if line[0] == "-" and (found := _FEATURE.match(line))}
    listed: list[str] = []
    for line in every:
        found = _FEATURE.match(line) if line[0] == "+" else None
        if found and found[2] in named:
            yield line  # the list goes on after it
        elif found or _GLOBAL.match(line):
            listed.append(line)
        else:
            yield from _counted(listed)
            listed = []
            yield line
    yield from _counted(listed)


def _counted(listed: list[str]) -> Iterator[str]:
    if len(listed) <= LONG:
        yield from listed
        return
    policies = Counter(found[1] for line in listed if (found := _FEATURE.match(line)))
    indent = re.split(r"\S", listed[0][1:], maxsplit=1)[0]
    if policies:
        counts = ", ".join(f"{count} {policy}" for policy, count in sorted(policies.items()))
        yield f"+{indent}[features named: {counts}]\n"
    # Each property is two arguments: -global, and what it is.
    properties = sum(1 for line in listed if _OPTION.match(line))
    if properties:
        yield f"+{indent}[properties as -global: {properties}]\n"


def put_diff(lines: Iterable[str]) -> None:
    """Writes a diff to stdout; a terminal gets it in colours, and without control characters."""
    terminal, coloured = sys.stdout.isatty(), colours(sys.stdout)
    for line in lines:
        # A pipe gets it for `patch`, byte for byte; a terminal would obey what is in it.
        text = plain_lines(line) if terminal else line
        code = COLOURS.get(text[0]) if coloured else None
        put_own(f"\033[{code}m{text[:-1]}\033[0m\n" if code else text)


def stat_line(name: str, old: bytes, new: bytes) -> str:
    """How many lines come and go, as `git diff --stat` says it, and what of features."""
    lines = [line for line in diff_lines(name, old, new) if not line.startswith(("---", "+++"))]
    added = [line for line in lines if line[0] == "+"]
    removed = sum(1 for line in lines if line[0] == "-")
    features = sum(1 for line in added if _FEATURE.match(line))
    named = f" ({features} features named)" if features else ""
    return f"{plain(name)} | +{len(added)} -{removed}{named}"


def _lines(data: bytes) -> list[str]:
    return list(io.StringIO(data.decode("utf-8", "backslashreplace"), newline="\n"))
