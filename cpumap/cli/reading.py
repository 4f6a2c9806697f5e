"""The FILE that a command is given."""

from __future__ import annotations

import sys
from pathlib import Path

from cpumap.system.xml_document import read_bounded, read_input


def read_file(name: str) -> bytes:
    """The content of a file, or of standard input for `-`. Errors: `InputError`."""
    if name == "-":
        return read_bounded(sys.stdin.buffer, "<stdin>")
    return read_input(Path(name))
