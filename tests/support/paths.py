"""Where things are in the source tree."""

from __future__ import annotations

from pathlib import Path

TREE = Path(__file__).resolve().parent.parent.parent
"""The top of the source tree."""
