"""How grave it is that a property of a guest's CPU is another one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

from cpumap.arch.known import arch_of
from cpumap.cpu.names import PropertyName, Value
from cpumap.cpu.origin import Origin
from cpumap.cpu.topology import Topology

Gravity = Literal["guest", "libvirt", "property", "host"]
"""guest: a guest reads it · libvirt: libvirt checks it when the guest starts or arrives · property:
only QEMU's property, no guest reads it · host: it is so because of a host.
"""

WORDS: Mapping[Gravity, str] = {
    "guest": "seen by a guest",
    "libvirt": "libvirt checks it",
    "property": "only a property",
    "host": "host-bound",
}


def gravity(
    name: PropertyName,
    sides: Iterable[Mapping[PropertyName, Value]],
    arch: str,
    topology: Topology,
    origins: Iterable[Origin] = (),
) -> Gravity:
    """How grave it is that this property differs between two CPUs with these values.

    What is not known to be unseen counts as seen.
    """
    if any(found.unavailable for found in origins):
        return "host"
    unseen = arch_of(arch).unseen
    return "property" if all(unseen(name, values, topology) for values in sides) else "guest"
