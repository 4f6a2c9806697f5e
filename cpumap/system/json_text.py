"""Answers of commands as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def json_text(schema: str, answer: Mapping[str, Any]) -> str:
    """An answer of a command as JSON, with the name of its schema on top."""
    return (
        json.dumps({"schema": f"cpumap.{schema}/1", **answer}, indent=2, ensure_ascii=False) + "\n"
    )
