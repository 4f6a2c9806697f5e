"""A place whose files cpumap runs on a document's word."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cpumap.system.trust import reason_not_to_run

CANDIDATES = (Path.home(), Path("/var/lib"), Path("/opt"))


@contextmanager
def place_of_our_own() -> Iterator[Path]:
    """A new, empty directory which, up to /, nobody but root and the caller can write."""
    for candidate in CANDIDATES:
        try:
            place = Path(tempfile.mkdtemp(dir=candidate, prefix=".cpumap-test-"))
        except OSError:
            continue
        try:
            if _is_ours(place):
                yield place
                return
        finally:
            shutil.rmtree(place)
    raise AssertionError(f"no directory of our own among {', '.join(map(str, CANDIDATES))}")


def _is_ours(place: Path) -> bool:
    probe = place / "probe"
    probe.touch(0o755)
    reason = reason_not_to_run(str(probe))
    probe.unlink()
    return not reason
