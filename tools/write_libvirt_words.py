"""Writes what a libvirt has words for into data/libvirt-X.Y.json: facts read from its CPU map.

usage: tools/write_libvirt_words.py [ROOT...]

Each ROOT is a directory in which that libvirt is installed, `/` for the machine's own; default:
every root of tools/fetch-libvirts.
"""

from __future__ import annotations

import json
import os
import sys
import textwrap
from collections.abc import Iterable
from pathlib import Path

TREE = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(TREE))

from cpumap.libvirt.cpu_map.load import load_cpu_map  # noqa: E402 - the tree is on the path now
from cpumap.libvirt.releases import installed_release, words_in  # noqa: E402

ROOTS = Path(os.environ.get("CPUMAP_LIBVIRTS") or Path.home() / ".cache/cpumap-libvirts")


def text(root: Path, release: str) -> str:
    """The words of the libvirt in this root, as the file's text."""
    words = words_in(load_cpu_map(root / "usr/share/libvirt/cpu_map"), release)
    removed = sorted(words.removed.items())
    lost = [f"  {json.dumps(name)}: {json.dumps(features)}" for name, features in removed]
    parts = (
        f' "features": {_listed(words.features)}',
        f' "models": {_listed(words.models)}',
        ' "removed": {\n' + ",\n".join(lost) + "\n }",
    )
    return "{\n" + ",\n".join(parts) + "\n}\n"


def _listed(names: Iterable[str]) -> str:
    # Names have no spaces, so that the text can be wrapped at them.
    joined = ", ".join(json.dumps(name) for name in sorted(names))
    lines = textwrap.wrap(joined, 116, break_long_words=False, break_on_hyphens=False)
    return "[\n" + "\n".join(f"  {line}" for line in lines) + "\n ]"


def main(roots: Iterable[Path]) -> None:
    for root in roots:
        release = installed_release(root)
        if release is None:
            raise SystemExit(f"{root}: no libvirt there")
        path = TREE / "data" / f"libvirt-{release}.json"
        path.write_text(text(root, release))
        print(path)


if __name__ == "__main__":
    main(map(Path, sys.argv[1:]) if sys.argv[1:] else sorted(ROOTS.glob("libvirt-*")))
