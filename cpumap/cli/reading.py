"""The FILE that a command is given."""

from __future__ import annotations

import sys
from pathlib import Path

from cpumap.system.xml_document import read_input


def read_file(name: str) -> bytes:
    """The content of a file, or of standard input for `-`. Errors: `InputError`."""
    return sys.stdin.buffer.read() if name == "-" else read_input(Path(name))
