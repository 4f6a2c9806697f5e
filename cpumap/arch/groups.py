"""Names that stand for several features together, as s390x has them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import cached_property

from cpumap.cpu.frozen import Frozen
from cpumap.cpu.names import PropertyName, Value
from cpumap.system.data import data_path


class Groups(Frozen):
    """The groups of one architecture; no feature is in two of them (measured on 5.2 to 11.1)."""

    file: str = ""
    """Below data/: group → its features. Empty: the architecture has no groups."""

    @cached_property
    def members(self) -> Mapping[PropertyName, frozenset[PropertyName]]:
        """Group → the single features that it stands for."""
        if not self.file:
            return {}
        stored: Mapping[str, list[str]] = json.loads(data_path(*self.file.split("/")).read_bytes())
        return {
            PropertyName(group): frozenset(map(PropertyName, names))
            for group, names in stored.items()
        }

    @cached_property
    def _group_of(self) -> Mapping[PropertyName, PropertyName]:
        return {name: group for group, names in self.members.items() for name in names}

    def group_of(self, name: PropertyName) -> PropertyName | None:
        """The group that the single feature belongs to."""
        return self._group_of.get(name)

    def singles(self, names: Iterable[PropertyName]) -> frozenset[PropertyName]:
        """The features that the names stand for, every group opened."""
        found: set[PropertyName] = set()
        for name in names:
            found |= self.members.get(name, {name})
        return frozenset(found)

    def on(self, props: Mapping[PropertyName, Value]) -> frozenset[PropertyName]:
        """The single features that these properties switch on."""
        return self.singles(name for name, value in props.items() if value is True)

    def named(self, singles: Iterable[PropertyName]) -> frozenset[PropertyName]:
        """The features as QEMU names them: a group where all of it is there, else one by one."""
        found = frozenset(singles)
        whole = [group for group, names in self.members.items() if names <= found]
        return (found - self.singles(whole)) | frozenset(whole)

    def changed(
        self, on: frozenset[PropertyName], props: Mapping[PropertyName, Value]
    ) -> frozenset[PropertyName]:
        """The single features that are on after the properties are set, in their order."""
        for name, value in props.items():
            on = on | self.singles([name]) if value is True else on - self.singles([name])
        return on

    def shown(
        self, on: frozenset[PropertyName], off: frozenset[PropertyName]
    ) -> dict[PropertyName, Value]:
        """Every feature as an expansion shows it: what is on, and what is off, by QEMU's names."""
        return {
            **dict.fromkeys(sorted(self.named(on)), True),
            **dict.fromkeys(sorted(self.named(off)), False),
        }

    def contradiction(self, props: Mapping[PropertyName, Value]) -> str:
        """A group and a feature of it that are set to different values: which of them holds depends
        on who reads them. Empty where there is none.
        """
        for name, value in props.items():
            group = self.group_of(name)
            if group and group in props and props[group] is not value:
                return f"{group} and {name}, which is part of it"
        return ""
