"""What libvirt's check of a CPU says when a guest starts: it compares the features that QEMU has
turned on with those of the definition. Pure. Judged against libvirt 9.0, 11.3 and 12.8.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cpumap.cpu.names import FeatureName
from cpumap.cpu.request import Check, CpuRequest
from cpumap.libvirt.cpu_map.map import CpuMap
from cpumap.libvirt.releases import looks_at_threads
from cpumap.libvirt.words import NEVER_PASSED

_OF_THREADS = frozenset(map(FeatureName, ("ht", "cmp_legacy")))


_ON = frozenset({"force", "require", "optional"})


@dataclass(frozen=True, slots=True)
class FullCheck:
    """What keeps a guest from starting under check='full'."""

    extra: tuple[FeatureName, ...] = ()
    """On, although the definition does not say so."""
    missing: tuple[FeatureName, ...] = ()
    """Off, although the definition says on."""

    @property
    def passes(self) -> bool:
        """Whether the guest starts."""
        return not (self.extra or self.missing)

    def __str__(self) -> str:
        """The end of libvirt's own message."""
        lists = [("extra", self.extra), ("missing", self.missing)]
        said = (f"{word} features: {','.join(names)}" for word, names in lists if names)
        return "guest CPU doesn't match specification: " + ", ".join(said)


PASSES = FullCheck()


def check_of(request: CpuRequest) -> Check:
    """The check that libvirt makes where the document names none, or the one that it names."""
    if request.check is not None:
        return request.check
    if request.mode == "custom":
        return "full" if request.match == "strict" else "partial"
    return "partial" if request.mode == "host-model" else "none"


def full_check(
    expected: Mapping[FeatureName, bool],
    on: Mapping[FeatureName, bool],
    cpu_map: CpuMap,
    model: str | None = None,
) -> FullCheck:
    """What a full check finds: `expected` is what the definition names, `on` what the guest's CPU
    turns out to have.

    A feature that the definition does not name may be on if its model in the map has it; whether
    libvirt's own model has it, and would miss it, the map need not know.
    What the model has gained since it was published may be on or off; what the libvirt that is
    meant does not know is not looked at.
    """
    of_model, gained = _model_features(cpu_map, model)
    known = cpu_map.words.features if cpu_map.words else frozenset(cpu_map.aliases)
    if not looks_at_threads(cpu_map.words):
        known -= _OF_THREADS
    extra, missing = [], []
    for name in sorted(known):
        if name in NEVER_PASSED or (name in gained and name not in expected):
            continue
        has = on.get(name, False)
        if has and not expected.get(name, name in of_model):
            extra.append(name)
        if expected.get(name) and not has:
            missing.append(name)
    return FullCheck(tuple(extra), tuple(missing))


def expected_features(request: CpuRequest) -> dict[FeatureName, bool]:
    """What a definition says of each feature that it names."""
    return {feature.name: feature.policy in _ON for feature in request.features}


def _model_features(
    cpu_map: CpuMap, model: str | None
) -> tuple[frozenset[FeatureName], frozenset[FeatureName]]:
    """What is expected of a model, and what it has gained since it was published."""
    if model is None or model not in cpu_map.models:
        return frozenset(), frozenset()
    known = cpu_map.model(model)
    return known.features, known.added
