"""What was asked for: a CPU as a domain XML, a `<cpu>` element or a `-cpu` string describes it."""

from __future__ import annotations

from typing import Literal

from cpumap.cpu.frozen import Frozen
from cpumap.cpu.names import Accel, FeatureName, Property
from cpumap.cpu.topology import Topology


def machine_topology(request: CpuRequest) -> Topology:
    """The topology asked for, or libvirt's default: every vCPU a socket of its own."""
    return request.topology or Topology(sockets=request.vcpus)


Mode = Literal["custom", "host-model", "host-passthrough", "maximum"]


OWN_CPU: frozenset[Mode] = frozenset({"host-passthrough", "maximum"})
"""The modes that mean whatever CPU the host has."""


Match = Literal["minimum", "exact", "strict"]


Check = Literal["none", "partial", "full"]


Fallback = Literal["allow", "forbid"]


PolicyName = Literal["force", "require", "optional", "disable", "forbid"]


class FeaturePolicy(Frozen):
    """One `<feature policy= name=>`."""

    name: FeatureName
    policy: PolicyName
    line: int = 0
    """Line in the input, 0 when it has none."""


class Cache(Frozen):
    """`<cache level= mode=>`."""

    mode: Literal["emulate", "passthrough", "disable"]
    level: int | None = None


class MaxPhysAddr(Frozen):
    """`<maxphysaddr mode= bits= limit=>`; bits and limit in address bits."""

    mode: Literal["emulate", "passthrough"]
    bits: int | None = None
    limit: int | None = None


class CpuRequest(Frozen):
    """What was asked for, read from a domain XML, a `<cpu>` element or a `-cpu` string. Nothing
    in it is decided.
    """

    arch: str | None = None
    """By libvirt's name; None: of whatever QEMU or host it is put to."""
    accel: Accel = "kvm"
    machine: str | None = None
    """The machine type as written, which may be an alias (`q35`); None when the input names
    none.
    """
    emulator: str | None = None
    mode: Mode | None = None
    """None: no `<cpu>` (or one without mode and model): the machine type's default CPU."""
    model: str | None = None
    match: Match | None = None
    check: Check | None = None
    fallback: Fallback = "allow"
    migratable: bool | None = None
    deprecated_features: bool | None = None
    vendor: str | None = None
    """libvirt's vendor name (`Intel`), from `<vendor>`."""
    vendor_id: str | None = None
    """The 12 characters of `<model vendor_id=>`."""
    features: tuple[FeaturePolicy, ...] = ()
    cache: Cache | None = None
    maxphysaddr: MaxPhysAddr | None = None
    topology: Topology | None = None
    vcpus: int = 1
    """The maximum number of vCPUs (`<vcpu>`)."""
    settings: tuple[Property, ...] = ()
    """What the rest of the domain (hyperv, kvm, pmu, timers, …) or a `-cpu` string sets, in
    QEMU's names, in order.
    """
    of_host: tuple[Property, ...] = ()
    """What host-passthrough means on a host that is described, below all else that is asked for."""
    where: str = ""
    """`file:line` of the CPU definition, for messages."""
    by_libvirt: bool = False
    """Whether it is a `<cpu>`, to which libvirt adds its own when it starts the domain."""
