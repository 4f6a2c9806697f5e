"""Where recordings are, those shipped and the user's own, and which one a name means."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from cpumap.arch.known import ARCHES, arch_of, is_known
from cpumap.cpu.build import Build
from cpumap.cpu.frozen import Frozen
from cpumap.cpu.machine_type import Release, release
from cpumap.cpu.names import Accel
from cpumap.errors import UnknownNameError
from cpumap.system.data import data_path

_NAME = re.compile(
    r"(?P<release>\d+(?:\.\d+)*)(?:-(?P<whose>[^_]+))?_(?P<arch>[a-z0-9]+(?:_64)?)_(?P<accel>tcg|kvm)"
)


_WANTED = re.compile(r"(?P<release>\d+(?:\.\d+)*)?-?(?P<whose>[a-z].*)?", re.IGNORECASE)


class Recording(Frozen):
    """A recording's file, and what its name says: `8.2.2-ubuntu_x86_64_kvm.json`."""

    path: Path
    release: Release
    whose: str
    """The vendor, in small letters, and what else tells it from others; empty: upstream's types."""
    arch: str
    accel: str

    @property
    def name(self) -> str:
        """As `--recorded` takes it: `10.0.13`, `8.2.2-ubuntu`."""
        return f"{self.release}-{self.whose}" if self.whose else str(self.release)

    @property
    def vendor(self) -> str:
        """The vendor alone, in small letters."""
        return self.whose.partition("-")[0]


def recording_name(build: Build, arch: str, accel: str) -> str:
    """The file name of a recording of this QEMU."""
    whose = f"-{build.vendor.lower()}" if build.vendor else ""
    return f"{build.version}{whose}_{arch}_{accel}.json"


def user_directory() -> Path:
    """Where the user's own recordings are kept."""
    from platformdirs import user_data_path

    return user_data_path("cpumap") / "recordings"


def shipped(accel: str | None = None, arch: str = "x86_64") -> list[Recording]:
    """The recordings that come with cpumap, the oldest QEMU first."""
    return _recordings(data_path(arch, "expansions"), accel, arch)


def upstream(accel: str | None = None, arch: str = "x86_64") -> list[Recording]:
    """Those shipped of QEMUs that have upstream's machine types alone."""
    return [found for found in shipped(accel, arch) if not found.whose]


def recordings(accel: str | None = None, arch: str = "x86_64") -> list[Recording]:
    """Those shipped and the user's, the oldest QEMU first; of one name the user's comes last."""
    mine = _recordings(user_directory(), accel, arch)
    return sorted([*shipped(accel, arch), *mine], key=lambda found: found.release)


def _recordings(directory: Path, accel: str | None, arch: str) -> list[Recording]:
    if not directory.is_dir():
        return []
    found = []
    for path in sorted(directory.iterdir()):
        recording = _parsed(path)
        any_accel = is_known(arch) and arch_of(arch).of_any_accel
        if recording and recording.arch == arch and (any_accel or accel in (None, recording.accel)):
            found.append(recording)
    return sorted(found, key=lambda recording: recording.release)


def _parsed(path: Path) -> Recording | None:
    match = _NAME.fullmatch(path.stem)
    if path.suffix != ".json" or match is None:
        return None
    whose = (match["whose"] or "").lower()
    return Recording(path, release(match["release"]), whose, match["arch"], match["accel"])


def find_recording(wanted: str, accel: Accel, arch: str = "x86_64") -> Path:
    """The recording that a release (`7.2`, `10.0.13`), a vendor (`ubuntu`, `8.2-ubuntu`) or a file
    name means. Errors: `UnknownNameError`.

    A release alone never means a vendor's QEMU, whose machine types and defaults are its own. The
    user's recordings are looked at where none that is shipped fits.
    """
    if "/" in wanted or wanted.endswith(".json"):
        return Path(wanted)
    match = _WANTED.fullmatch(wanted) if wanted else None
    for known in (shipped, recordings):
        for found in reversed(known(accel, arch)):
            if match and _is_meant(found, match["release"], match["whose"]):
                return found.path
    have = ", ".join(dict.fromkeys(found.name for found in recordings(accel, arch)))
    elsewhere = _other_architectures(arch, match)
    other = f"; it is recorded for {' and '.join(elsewhere)}" if elsewhere else ""
    raise UnknownNameError(
        f"no recording of QEMU {wanted} for {arch} and {accel}; there are {have or 'none'}{other}"
    )


def _other_architectures(arch: str, match: re.Match[str] | None) -> list[str]:
    """The other architectures for which what was wanted is recorded."""
    if match is None:
        return []
    found = []
    for other in dict.fromkeys(known.target for known in ARCHES if known.target != arch):
        kept = recordings(None, other)
        if any(_is_meant(one, match["release"], match["whose"]) for one in kept):
            found.append(other)
    return found


def _is_meant(found: Recording, wanted: str | None, whose: str | None) -> bool:
    of_release = wanted is None or f"{found.release}.".startswith(f"{wanted}.")
    whose = (whose or "").lower()
    return of_release and whose in (found.whose, found.vendor)


def recording_of(build: Build, accel: Accel, arch: str = "x86_64") -> Path | None:
    """The recording of this version and vendor; None where there is none."""
    whose = build.vendor.lower()
    for found in reversed(recordings(accel, arch)):
        if str(found.release) == build.version and found.vendor == whose:
            return found.path
    return None


def knowing(known: Iterable[Recording], wanted: Release | None, vendor: str) -> list[Recording]:
    """The recordings to look for a machine type in, the best first.

    For a type of a release: that release's, its newest point release first, then the next ones.
    For a type without a release, such as `q35`: the newest first. Of a vendor's QEMUs only for a
    vendor's type.
    """
    of_vendor = [found for found in known if found.vendor == vendor.lower()]
    if wanted is None:
        return of_vendor[::-1]
    own = [found for found in of_vendor if found.release.series == wanted.series]
    later = [found for found in of_vendor if found.release.series > wanted.series]
    return [*reversed(own), *later]
