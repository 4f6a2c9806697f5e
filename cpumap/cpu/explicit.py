"""A CPU that names everything."""

from __future__ import annotations

from cpumap.cpu.expansion import Context
from cpumap.cpu.frozen import Frozen
from cpumap.cpu.names import Property, PropertyName, Value
from cpumap.cpu.request import CpuRequest


class ExplicitCpu(Frozen):
    """A CPU that names everything: the model to start from, and every property with its origin."""

    context: Context
    request: CpuRequest
    model: str
    """The model the properties stand on: a versioned name, or `base`/`custom`."""
    typename: str
    properties: tuple[Property, ...]
    """Sorted by name; no name twice."""
    features: frozenset[PropertyName] = frozenset()
    """Those of the properties that are feature bits (QEMU takes `+f` and `-f` for them, libvirt
    `<feature>`).
    """
    enforce: bool = True
    whole: bool = True
    """Whether everything is named, and not only what some machine type changes."""
    came_from: Context | None = None
    """Where it was read, if it was taken elsewhere: what is written must start there too."""
    notes: tuple[str, ...] = ()
    """What a person should know (features off because they were never there, enforce left out,
    …).
    """

    @property
    def values(self) -> dict[PropertyName, Value]:
        """Property name → value, in order."""
        return {prop.name: prop.value for prop in self.properties}
