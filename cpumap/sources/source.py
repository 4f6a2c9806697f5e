"""The protocol that every source speaks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from cpumap.cpu.expansion import CpuModel, Definition, ExpansionType, Machine, Realised
from cpumap.cpu.names import Accel, PropertyName, Value


class Source(Protocol):
    """One QEMU on one accelerator, asked about any of its machine types.

    Every method raises `SourceError` when the source fails and `UnknownName` for a machine type,
    model or property that it does not have. Machine type arguments are canonical names, not
    aliases.
    """

    label: str
    """What to call it in messages: `recorded QEMU 7.2.22`, `QEMU 7.2.22
    (/usr/bin/qemu-system-x86_64)`.
    """
    version: str
    arch: str
    accel: Accel

    def machines(self) -> tuple[Machine, ...]:
        """Every machine type, in the source's order."""

    def definitions(self, machine: str) -> tuple[Definition, ...]:
        """Every CPU model of query-cpu-definitions under this machine type."""

    def expand(
        self, machine: str, model: CpuModel, kind: ExpansionType
    ) -> Mapping[PropertyName, Value]:
        """The properties of query-cpu-model-expansion."""

    def realise(self, machine: str, model: CpuModel, *, unfiltered: bool = True) -> Realised:
        """The properties of the CPU that QEMU makes of this model.

        With `unfiltered` nothing the accelerator lacks is taken away where QEMU allows that (tcg's
        x-force-features).
        """

    def close(self) -> None:
        """Ends whatever process or connection it holds."""
