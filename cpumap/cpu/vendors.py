"""Whose a machine type is: upstream's, or a distribution's, whose defaults are its own."""

from __future__ import annotations

from collections.abc import Iterable

from cpumap.cpu.machine_type import machine_type

RHEL = "RHEL"


UBUNTU = "Ubuntu"


_CODENAMES = frozenset(
    {
        "trusty", "utopic", "vivid", "wily", "xenial", "yakkety", "zesty", "artful", "bionic",
        "cosmic", "disco", "eoan", "focal", "groovy", "hirsute", "impish", "jammy", "kinetic",
        "lunar", "mantic", "noble", "oracular", "plucky", "questing",
    }
)  # fmt: skip
"""Ubuntu's releases, which its machine types are named after (https://wiki.ubuntu.com/Releases)."""


_ALIASES = {"ubuntu": UBUNTU, "ubuntu-q35": UBUNTU}


def vendor_of(name: str) -> str:
    """Whose type this is, `RHEL` of pc-q35-rhel9.4.0; empty where it is upstream's."""
    vendor = machine_type(name).vendor
    if vendor is None:
        return _ALIASES.get(name, "")
    if vendor == "rhel":
        return RHEL
    return UBUNTU if vendor in _CODENAMES else vendor


def vendor_among(machines: Iterable[str]) -> str:
    """Whose types are among these; empty where all are upstream's."""
    found = {vendor_of(name) for name in machines} - {""}
    return min(found, default="")
