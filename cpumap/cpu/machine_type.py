"""QEMU releases and machine types as values: the only place where their names are taken apart."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache

from cpumap.cpu.expansion import Machine
from cpumap.cpu.frozen import Frozen
from cpumap.errors import UnknownNameError

_RELEASE = re.compile(r"\d{1,9}(?:\.\d{1,9}){0,3}")


_UPSTREAM = re.compile(r"(?P<family>.+?)-(?P<numbers>\d{1,9}(?:\.\d{1,9})+)(?P<label>[-+].+)?")
"""`pc-q35-7.2`, `pc-i440fx-2.11+pve0`, `pseries-2.12-sxxm`."""


_FAMILIES = ("pc-q35", "pc-i440fx", "s390-ccw-virtio", "pseries", "virt")
"""The families of which distributions have types of their own."""


_DOWNSTREAM = re.compile(
    rf"(?P<family>{'|'.join(_FAMILIES)})-(?P<vendor>[a-z]+)(?P<rest>[0-9.]*(?:-.+)?)"
)
"""`pc-q35-rhel9.4.0`, `pc-q35-noble-v2`, `pseries-rhel7.6.0-sxxm`."""


class Release(Frozen):
    """A QEMU release, to be compared with others: `7.2` comes before `7.2.22` and `10.0`."""

    numbers: tuple[int, ...]

    def __lt__(self, other: Release) -> bool:
        return self.numbers < other.numbers

    def __le__(self, other: Release) -> bool:
        return self.numbers <= other.numbers

    def __str__(self) -> str:
        return ".".join(map(str, self.numbers))

    @property
    def series(self) -> Release:
        """What machine types are named after: `7.2` of 7.2.22."""
        return Release(self.numbers[:2])


@cache
def release(text: str) -> Release:
    """The release of a version, `7.2` or `10.0.13`. Errors: `UnknownNameError` for any other
    text.
    """
    if not _RELEASE.fullmatch(text):
        raise UnknownNameError(f"'{text[:40]}' is no QEMU release (like 7.2 or 10.0.13)")
    return Release(tuple(map(int, text.split("."))))


class MachineType(Frozen):
    """A machine type's name, taken apart."""

    name: str
    family: str
    """`pc-q35` of pc-q35-7.2 and of pc-q35-noble-v2; of a name without versions the name."""
    release: Release | None = None
    """The QEMU release whose defaults it keeps. A distribution's own types have none: their
    numbers are the distribution's, and so are their defaults.
    """
    vendor: str | None = None
    """What a distribution's own type begins with behind its family: `rhel`, `noble`."""
    label: str = ""
    """What else the name says: `+pve0`, which Proxmox adds to upstream's type, `-sxxm`, `-v2`."""
    own_numbers: tuple[int, ...] = ()
    """The distribution's numbers: (9, 4, 0) of pc-q35-rhel9.4.0."""

    @property
    def upstream(self) -> str:
        """The name without a label that changes nothing: `pc-i440fx-2.11` of
        pc-i440fx-2.11+pve0.
        """
        return self.name.partition("+")[0] if self.release else self.name


@cache
def machine_type(name: str) -> MachineType:
    """The parts of a machine type's name. Any name has at least a family."""
    if match := _UPSTREAM.fullmatch(name):
        label = match["label"] or ""
        return MachineType(name, match["family"], release(match["numbers"]), label=label)
    if match := _DOWNSTREAM.fullmatch(name):
        numbers, _, _ = match["rest"].partition("-")
        own = tuple(int(part) for part in numbers.split(".") if part)
        label = match["rest"].removeprefix(numbers)
        return MachineType(name, match["family"], None, match["vendor"], label, own)
    return MachineType(name, name)


def oldest_first(machines: Iterable[Machine]) -> list[Machine]:
    """The machine types family by family, as their releases followed each other.

    Types of distributions come after upstream's. Nothing in a name like `noble` says how old it
    is: the one that QEMU lists as a default or under an alias counts as its newest.
    """
    return sorted(machines, key=_age)


def _age(machine: Machine) -> tuple[object, ...]:
    parsed = machine_type(machine.name)
    numbers = parsed.release.numbers if parsed.release else ()
    newest = machine.is_default or machine.alias is not None
    vendor = parsed.vendor or ""
    return (
        parsed.family, parsed.release is None, numbers, bool(vendor),
        not parsed.own_numbers and newest, vendor, parsed.own_numbers, newest, machine.name,
    )  # fmt: skip


def of_family(machines: Iterable[Machine], *families: str) -> list[Machine]:
    """The versioned machine types of these families, upstream's and distributions', oldest first.

    An unversioned name is nobody's default to keep: it is left out.
    """
    found = (machine for machine in machines if machine_type(machine.name).family in families)
    return oldest_first(
        machine
        for machine in found
        if machine_type(machine.name).release or machine_type(machine.name).vendor
    )


def nearest(machines: Iterable[Machine], family: str, wanted: Release) -> str | None:
    """The machine type of this family and release, else of the nearest older release, else of the
    oldest; None where no type of the family has a release.

    A distribution's own types are passed over: their defaults are not those of a release.
    """
    numbered = {
        parsed.release: parsed.name
        for parsed in (machine_type(machine.name) for machine in oldest_first(machines))
        if parsed.release and parsed.family == family
    }
    if not numbered:
        return None
    older = [found for found in numbered if found <= wanted]
    return numbered[max(older) if older else min(numbered)]
