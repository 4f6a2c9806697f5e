"""A CPU that is there: what is known of a host."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from cpumap.cpu.frozen import NONE_YET, Frozen
from cpumap.cpu.names import Accel, FeatureName, PropertyName, Value
from cpumap.cpu.request import CpuRequest, FeaturePolicy


class ThisMachine(Frozen):
    """What this machine's CPU and kernel have of a CPU map's features; None: nobody here may
    know.
    """

    cpu: frozenset[FeatureName] | None
    kernel: frozenset[FeatureName] | None
    partial: bool = False
    """Whether `cpu` is only what Linux shows in /proc/cpuinfo, which leaves features out."""
    msrs: bool = False
    """Whether `cpu` has what model-specific registers say as well, which only root may read."""


UNKNOWN_MACHINE = ThisMachine(None, None)


class MadeCpu(Frozen):
    """A host's own CPU as its QEMU makes it: `-cpu host` or `-cpu max`, realised. Names are
    canonical, and nothing of one instance is among them.
    """

    model: str
    migratable: bool
    properties: Mapping[PropertyName, Value]
    bare: Mapping[PropertyName, Value]
    """Of the model without features, under the same machine type: what equals it is the machine
    type's doing and not the host's.
    """
    without: tuple[PropertyName, ...] = ()
    """What had to be switched off, since QEMU does not start with it there."""


class HostCpu(Frozen):
    """A CPU that is there: a model, and features on top of it. Without a model, the features are
    all it has.
    """

    arch: str = "x86_64"
    model: str | None = None
    vendor: str | None = None
    features: tuple[FeaturePolicy, ...] = ()
    """`require`: it has the feature; `disable`: it lacks it, although its model has it."""
    identity: Identity | None = None
    fallback: Literal["allow", "forbid"] = "allow"
    usable: tuple[str, ...] | None = None
    """The models that can be run there, None when nothing is said of them."""
    blockers: Mapping[str, tuple[str, ...]] = NONE_YET
    """Models that can be run there without these features, in libvirt's or QEMU's names."""
    properties: frozenset[PropertyName] | None = None
    """What its QEMU can enable, where a QEMU was asked; None where not."""
    machine: str | None = None
    """The machine type under which it was asked."""
    accel: Accel | None = None
    """The accelerator with which it was asked."""
    own: ThisMachine = UNKNOWN_MACHINE
    """What its CPU and its kernel have by themselves, where that was written down."""
    options: Mapping[PropertyName, str] = NONE_YET
    """Features that its QEMU would give with an option that it was not asked with: feature →
    option.
    """
    where: str = ""
    qemu: str | None = None
    """The release of the QEMU that was asked."""
    made: tuple[MadeCpu, ...] = ()
    """Its own CPU as that QEMU makes it, migratable and not; empty where nobody asked."""
    phys_bits: int | None = None
    """The address bits that a guest has with host-phys-bits=on; None where nobody asked."""
    also: tuple[HostCpu, ...] = ()
    """The same host with its QEMU's other accelerators."""


Cpu = HostCpu | CpuRequest
"""A CPU that is there, or one that is asked for."""


class Identity(Frozen):
    """Family, model and stepping, as CPUID leaf 1 gives them, extended fields included."""

    family: int
    model: int
    stepping: int
