"""What `measure` has kept of QEMUs among the user's own recordings."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from cpumap.cpu.build import Build
from cpumap.sources.recorded import RecordedSource
from cpumap.sources.recordings import recording_name, user_directory


def readings_kept(build: Build, arch: str = "x86_64") -> Mapping[str, Any]:
    """The readings of this very QEMU; empty where it was not measured. Errors: `SourceError`.

    They were taken under tcg; what they say of caches and topology is so under KVM too.
    """
    path = user_directory() / recording_name(build, arch, "tcg")
    try:
        changed = path.stat().st_mtime_ns
    except OSError:
        return {}
    return _read(path, changed, build)


@cache
def _read(path: Path, _: int, build: Build) -> Mapping[str, Any]:
    source = RecordedSource(path)
    return source.readings() if source.build().is_same(build) else {}
