"""Which libvirt is meant, and what it has words for: the one named, the one installed here, else
the newest that is known.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from cpumap.cpu.names import FeatureName
from cpumap.errors import InputError, ResolveError
from cpumap.libvirt.cpu_map.entries import Model, Words
from cpumap.libvirt.cpu_map.load import cpu_map_at
from cpumap.libvirt.cpu_map.map import CpuMap
from cpumap.system.data import data_path

KNOWN = ("9.0", "11.3", "12.8")
"""The releases whose words ship, oldest first (tools/write_libvirt_words.py)."""

INSTALLED = Path("/usr/share/libvirt/cpu_map")
"""Where libvirt's own CPU map is, on a machine that has libvirt."""

_BLIND_TO_THREADS = (12, 8)

VARIABLE = "CPUMAP_LIBVIRT"
"""The environment variable that names a release where no option does."""

_BITS_WANTED, _BITS_OPTIONAL = (9, 0), (11, 3)

_LIBRARY = "libvirt.so.0"
_LIBRARIES = ("usr/lib64", "usr/lib", "usr/lib/*-linux-gnu", "usr/local/lib*")


def words_of(release: str | None = None) -> Words:
    """What this libvirt has words for; None: the one that is meant where none is named.

    Of a release between two known ones, the features and models are those of the older, which the
    newer has too; what models have lost in between is not known. Raises `InputError` for what is no
    version, and for a release older than any known one.
    """
    return _words(release or os.environ.get(VARIABLE) or _default())


def looks_at_threads(words: Words | None) -> bool:
    """Whether this libvirt compares the features that QEMU turns on for several threads, `ht` and
    `cmp_legacy`: 9.0 and 11.3 do, 12.8 does not, and of those between it is not known.
    """
    return words is None or _number(words.release) < _BLIND_TO_THREADS


def known_to_any() -> frozenset[FeatureName]:
    """The features that some known libvirt has words for: no release has forgotten any."""
    return _stored(KNOWN[-1]).features


def installed_release(root: Path = Path("/")) -> str | None:
    """The release of the libvirt installed below `root` (`9.0`), by its library's file name."""
    for directory in _LIBRARIES:
        for link in root.glob(f"{directory}/{_LIBRARY}"):
            found = re.fullmatch(r"libvirt\.so\.0\.(\d+)(\d{3})\.\d+", link.resolve().name)
            if found:
                return f"{found[1]}.{int(found[2])}"
    return None


def has_installed(words: Words) -> bool:
    """Whether these are the words of the libvirt installed here."""
    return (INSTALLED / "index.xml").is_file() and words.release == installed_release()


def lost_by(model: str, words: Words) -> tuple[FeatureName, ...]:
    """What this libvirt switches off in a model of its own unless the domain names it.

    The model had it once; a domain of today never has, whatever QEMU's model says. Raises
    `ResolveError` where that is not known of this release.
    """
    if model in words.disputed:
        raise ResolveError(
            f"libvirt {words.release} is between two that differ in what {model} has lost: name "
            f"one of {', '.join(KNOWN)} with --libvirt"
        )
    return words.removed.get(model, ())


def lost_features(model: Model, cpu_map: CpuMap) -> tuple[FeatureName, ...]:
    """What the libvirt that is meant, else the map, says the model has lost. Errors as
    `lost_by`.
    """
    return model.removed if cpu_map.words is None else lost_by(model.name, cpu_map.words)


def wants_phys_bits(words: Words) -> bool:
    """Whether `<maxphysaddr mode='emulate'>` must say `bits`: for 9.0 it must.

    9.0, 11.3 and 12.8 were asked. Raises `ResolveError` for a release in between.
    """
    number = _number(words.release)
    if _BITS_WANTED < number < _BITS_OPTIONAL:
        raise ResolveError(
            f"whether libvirt {words.release} takes <maxphysaddr mode='emulate'> without bits is "
            "not known"
        )
    return number <= _BITS_WANTED


@lru_cache
def _default() -> str:
    return installed_release() or KNOWN[-1]


@lru_cache
def _words(release: str) -> Words:
    number = _number(release)
    name = f"{number[0]}.{number[1]}"
    if name in KNOWN:
        return _stored(name)
    if name == installed_release() and (INSTALLED / "index.xml").is_file():
        return words_in(cpu_map_at(INSTALLED), name)
    older = [known for known in KNOWN if _number(known) < number]
    newer = [known for known in KNOWN if _number(known) > number]
    if not older:
        raise InputError(f"libvirt {release} is older than {KNOWN[0]}, the oldest that is known")
    before = _stored(older[-1])
    after = _stored(newer[0]) if newer else before
    both = before.removed.keys() | after.removed.keys()
    disputed = frozenset(m for m in both if before.removed.get(m) != after.removed.get(m))
    return Words(name, before.features, before.models, before.removed, disputed)


def words_in(cpu_map: CpuMap, release: str) -> Words:
    """The words of the libvirt whose own CPU map this is."""
    removed = {name: model.removed for name, model in cpu_map.models.items() if model.removed}
    return Words(release, frozenset(cpu_map.features), frozenset(cpu_map.models), removed)


def _number(release: str) -> tuple[int, int]:
    """Major and minor; a third number never changes a CPU map's words."""
    found = re.fullmatch(r"(\d{1,4})\.(\d{1,4})(\.\d{1,4})?", release)
    if found is None:
        raise InputError(f"{release!r} is no version of libvirt, such as {KNOWN[-1]}")
    return int(found[1]), int(found[2])


@lru_cache
def _stored(release: str) -> Words:
    stored: Mapping[str, Any] = json.loads(data_path(f"libvirt-{release}.json").read_bytes())
    lost: Mapping[str, list[str]] = stored["removed"]
    return Words(
        release,
        frozenset(map(FeatureName, stored["features"])),
        frozenset(stored["models"]),
        {model: tuple(map(FeatureName, names)) for model, names in lost.items()},
    )
