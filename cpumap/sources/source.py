"""The protocol that every source speaks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from cpumap.cpu.build import Build
from cpumap.cpu.expansion import CpuModel, Definition, ExpansionType, Machine, Realised
from cpumap.cpu.names import Accel, PropertyName


class Source(Protocol):
    """One QEMU on one accelerator, asked about any of its machine types.

    What kinds of sources differ in, each says of itself: nobody asks which kind it is.
    Every method raises `SourceError` when the source fails and `UnknownNameError` for a machine
    type, model or property that it does not have. Machine type arguments are canonical names, not
    aliases.
    """

    label: str
    """What to call it in messages: `recorded QEMU 7.2.22`, `QEMU 7.2.22
    (/usr/bin/qemu-system-x86_64)`.
    """
    version: str
    arch: str
    accel: Accel

    makes_cpus: bool = True
    """Whether it answers for whatever CPU it is asked to make: a QEMU that runs already has its
    own, and makes no other.
    """
    binary: str = ""
    """The QEMU that is started on this machine for it, with guests and options as wished; empty:
    none.
    """
    own_host: bool = True
    """Whether there is a host behind its answers, so that what it lacks is what that host lacks."""

    @property
    def starts_guests(self) -> bool:
        """Whether its QEMU is started on this machine, whose CPU and kernel are then its host."""
        return bool(self.binary)

    def build(self) -> Build:
        """Which QEMU it is, by more than its version."""

    def machines(self) -> tuple[Machine, ...]:
        """Every machine type, in the source's order."""

    def definitions(self, machine: str) -> tuple[Definition, ...]:
        """Every CPU model of query-cpu-definitions under this machine type."""

    def expand(self, machine: str, model: CpuModel, kind: ExpansionType) -> CpuModel:
        """What query-cpu-model-expansion answers: properties, and the model that they stand on (of
        a static expansion another one than was asked for).
        """

    def realise(self, machine: str, model: CpuModel, *, unfiltered: bool = True) -> Realised:
        """The properties of the CPU that QEMU makes of this model.

        With `unfiltered` nothing the accelerator lacks is taken away where QEMU allows that (tcg's
        x-force-features).
        """

    def tables(self) -> Mapping[str, Sequence[str]]:
        """Machine types that show the same CPUs, by the one that stands for them; empty where
        nobody has compared them.
        """
        return {}

    def dependants(self, prop: PropertyName) -> tuple[PropertyName, ...]:
        """The features that QEMU switches off with this one, as far as that was recorded."""
        return ()

    def readings(self) -> Mapping[str, Any]:
        """What guests read on this QEMU, as `measure` has it; empty where it was not measured."""
        return {}

    def close(self) -> None:
        """Ends whatever process or connection it holds."""
