"""A recording, of whichever kind its architecture has."""

from __future__ import annotations

from pathlib import Path

from cpumap.cpu.names import Accel
from cpumap.errors import SourceError
from cpumap.sources import recorded_realised, recorded_static
from cpumap.sources.recorded import SCHEMA, RecordedSource, read_recording
from cpumap.sources.recorded_realised import RecordedRealised
from cpumap.sources.recorded_static import RecordedStatic
from cpumap.sources.source import Source
from cpumap.system.data import data_path
from cpumap.system.shape import at_top


def open_recording(path: Path, accel: Accel | None = None) -> Source:
    """The source over a file of `cpumap record`. Errors: `SourceError`.

    With `accel`, the answers are for that accelerator, where one recording has them for all.
    """
    stored = read_recording(path, (SCHEMA, recorded_static.SCHEMA, recorded_realised.SCHEMA))
    if stored["schema"] == recorded_realised.SCHEMA:
        if not path.is_relative_to(data_path()):
            from cpumap.sources.recorded_shape import require_realised

            require_realised(at_top(stored, str(path), SourceError))
        return RecordedRealised(stored, path)
    if stored["schema"] == recorded_static.SCHEMA:
        if not path.is_relative_to(data_path()):  # what is shipped is ours
            from cpumap.sources.recorded_shape import require_static

            require_static(at_top(stored, str(path), SourceError))
        return RecordedStatic(stored, path, accel)
    return RecordedSource(path, stored)
