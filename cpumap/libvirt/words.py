"""What libvirt has words for: a `<feature>` that it does not know keeps a domain from starting."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from cpumap.cpu.frozen import Frozen
from cpumap.cpu.names import FeatureName
from cpumap.libvirt.cpu_map.entries import Feature, Model, Vendor
from cpumap.libvirt.cpu_map.load import cpu_map_at, load_cpu_map
from cpumap.libvirt.cpu_map.map import CpuMap, Definitions
from cpumap.system.data import data_path

INSTALLED = Path("/usr/share/libvirt/cpu_map")
"""Where libvirt's own CPU map is, on a machine that has libvirt."""


NEVER_PASSED = frozenset(map(FeatureName, ("cmt", "mbm_total", "mbm_local", "osxsave", "ospke")))
"""Features that libvirt knows of hosts and QEMU has no property for: no guest is given one,
whatever the policy.
"""


OLDEST = "libvirt-9.0.json"
"""The features that libvirt 9.0 knows, and those which it switches off in models that had them
once.

No later release has forgotten any of them.
"""


def libvirt_map(path: Path | str | None = None, arch: str = "x86_64") -> CpuMap:
    """The CPU map whose features may be written as `<feature>`: the one given, else that of the
    libvirt installed here.

    Where no libvirt is, the shipped map with nothing in it that libvirt 9.0 did not know: what is
    left out of `<cpu>` is named beside it, so this is always safe. Raises as `load_cpu_map`.
    """
    if path is not None:
        return load_cpu_map(path, arch)
    if (INSTALLED / "index.xml").is_file():
        return cpu_map_at(INSTALLED, arch)
    shipped = load_cpu_map(None, arch)
    return replace(shipped, definitions=_KnownToOldest(shipped.definitions))


class _KnownToOldest(Frozen):
    """What a map defines, and of its names those that the oldest libvirt knows."""

    whole: Definitions

    def aliases(self) -> Mapping[FeatureName, tuple[str, ...]]:
        known = frozenset(_oldest()["features"])
        return {name: others for name, others in self.whole.aliases().items() if name in known}

    def vendors(self) -> Mapping[str, Vendor]:
        return self.whole.vendors()

    def features(self) -> Mapping[FeatureName, Feature]:
        return self.whole.features()

    def models(self) -> Mapping[str, Model]:
        return self.whole.models()


def removed_features(model: str) -> tuple[FeatureName, ...]:
    """The features that libvirt switches off in this model of its own unless the domain names them.

    They were in the model once; a domain of today has never had them, whatever QEMU's model says.
    """
    return tuple(FeatureName(name) for name in _oldest()["removed"].get(model, ()))


def _oldest() -> Mapping[str, Any]:
    stored: Mapping[str, Any] = json.loads(data_path(OLDEST).read_bytes())
    return stored
