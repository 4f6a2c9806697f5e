"""The architectures that cpumap knows, looked up by name, and who runs whose guests.

A new architecture is a module beside this one and its place in `ARCHES`.
"""

from __future__ import annotations

from cpumap.arch.aarch64.aarch64 import AARCH64
from cpumap.arch.arch import Arch
from cpumap.arch.ppc64.ppc64 import PPC64, PPC64LE
from cpumap.arch.s390x.s390x import S390X
from cpumap.arch.x86.x86 import I686, X86_64
from cpumap.cpu.names import PropertyName
from cpumap.errors import ArchitectureError

ARCHES: tuple[Arch, ...] = (X86_64, I686, S390X, AARCH64, PPC64LE, PPC64)


DEFAULT = X86_64
"""Where nothing says which, neither the document nor a source."""


PER_INSTANCE = frozenset[PropertyName]().union(*(arch.per_instance for arch in ARCHES))
"""Properties of one vCPU in one running machine, of whatever architecture."""


_BY_NAME = {name: arch for arch in ARCHES for name in (arch.target, arch.name)}


_GUESTS = {
    "x86_64": ("x86_64", "i686"),
    "i386": ("i686",),
    "ppc64": ("ppc64", "ppc64le"),
    "ppc64le": ("ppc64", "ppc64le"),
}
"""Architecture of a host, or target of a QEMU → those of the guests that it runs; any other runs
its own.
"""


def arch_of(name: str, where: str = "") -> Arch:
    """The architecture of this name, libvirt's or QEMU's. Errors: `ArchitectureError` for one
    whose CPUs nobody here knows.
    """
    if name not in _BY_NAME:
        raise ArchitectureError(
            f"no CPU of architecture {name} can be made explicit, compared or held", where
        )
    return _BY_NAME[name]


def must_compare(name: str, where: str = "") -> None:
    """Nothing, where CPUs of this architecture can be compared. Errors: `ArchitectureError`."""
    if not arch_of(name, where).compared:
        raise ArchitectureError(
            f"what a host or a QEMU can enable of {name} CPUs is not known here; `diff` tells two"
            " of them apart, and `verify` tries one",
            where,
        )


def is_of_machine(name: str) -> bool:
    """Whether it is an option of `-machine` that says something of the CPU, on any architecture."""
    return any(arch.of_machine and arch.of_machine.fullmatch(name) for arch in ARCHES)


def is_known(name: str) -> bool:
    """Whether `arch_of` has an answer."""
    return name in _BY_NAME


def runs(host: str, guest: str | None) -> bool:
    """Whether a host of this architecture, or a QEMU of this target, runs guests of the other.

    A guest that says no architecture is of its host's.
    """
    return guest is None or guest in _GUESTS.get(host, (host,))


def target_of(guest: str) -> str:
    """The target of the QEMU that guests of this architecture are run by first: `x86_64` of
    i686.
    """
    return next((host for host, guests in _GUESTS.items() if guest in guests), guest)


def must_run(host: str, guest: str | None, label: str, where: str = "") -> None:
    """Nothing, where `label` is of an architecture that runs the guest. Errors:
    `ArchitectureError`, which names both.
    """
    if not runs(host, guest):
        raise ArchitectureError(f"the CPU is one of {guest}, and {label} is {host}", where)
