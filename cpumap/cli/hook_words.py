"""The words that a hook is called with. Some of them are chosen by whoever names a domain."""

from __future__ import annotations

from collections.abc import Sequence

KINDS = ("libvirt", "vdsm", "kubevirt")


def cut(words: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """The words of `hook` for argparse, and those after the hook's kind, as they are.

    argparse passes over a `--` wherever it stands, also where it is a domain's name.
    """
    if "--" not in words:
        return words, []
    at = words.index("--")
    if words[at + 1 : at + 2] and words[at + 1] in KINDS:
        return [*words[:at], words[at + 1]], words[at + 2 :]
    if words[at - 1] in KINDS:
        return words[:at], words[at:]
    return words, []
