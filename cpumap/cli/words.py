"""The words of a command line before argparse has them, and what was probably meant by one that
nobody knows.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

LOUDNESS = ("-v", "--verbose", "-q", "--quiet")


def in_order(words: Sequence[str], commands: Collection[str]) -> list[str]:
    """The words with the command first: `-v` and `-q` may stand before it, and `help COMMAND`
    is `COMMAND --help`.
    """
    ahead = 0
    while ahead < len(words) and words[ahead] in LOUDNESS:
        ahead += 1
    rest = list(words[ahead:])
    if rest[:1] == ["help"]:
        return [*rest[1:2], "--help"]
    if rest and rest[0] in commands:
        return [rest[0], *words[:ahead], *rest[1:]]
    return rest


def did_you_mean(word: str, known: Collection[str]) -> str:
    """`; did you mean …?`, or nothing where nothing is like it."""
    from difflib import get_close_matches

    near = get_close_matches(word, known, n=2, cutoff=0.7)
    return f"; did you mean {' or '.join(near)}?" if near else ""
