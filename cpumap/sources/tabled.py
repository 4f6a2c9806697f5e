"""What recordings of every kind share: machine types that show the same CPUs share a table."""

from __future__ import annotations

from collections.abc import Mapping

from cpumap.errors import UnknownNameError
from cpumap.sources.source import Source


class TabledSource(Source):
    """A source that knows by which table each of its machine types is answered."""

    _tables: Mapping[str, str]
    """Machine type → the one that stands for it."""

    def tables(self) -> dict[str, list[str]]:
        """Machine types that show the same CPUs, by the one that stands for them."""
        found: dict[str, list[str]] = {}
        for machine, table in self._tables.items():
            found.setdefault(table, []).append(machine)
        return found

    def _table(self, machine: str) -> str:
        if machine not in self._tables:
            raise UnknownNameError(f"{self.label} has no machine type {machine!r}")
        return self._tables[machine]
