"""The machine type that a name means to a source."""

from __future__ import annotations

from cpumap.cpu.expansion import Machine
from cpumap.cpu.machine_type import MachineType, machine_type
from cpumap.cpu.vendors import RHEL, UBUNTU, vendor_of
from cpumap.errors import UnknownNameError
from cpumap.sources.source import Source

_BINARIES = {RHEL: "/usr/libexec/qemu-kvm", UBUNTU: "/usr/bin/qemu-system-x86_64"}
"""Where a vendor's QEMU is installed."""


_OTHER_ARCHITECTURES = {
    "virt": "aarch64, riscv64 or loongarch64",
    "pseries": "ppc64",
    "s390-ccw-virtio": "s390x",
}
"""Families of machine types that x86 does not have."""


def find_machine(source: Source, wanted: str | None, where: str = "") -> Machine:
    """The machine type of this name or alias; None: the source's default one. Errors:
    `UnknownNameError`.

    A label such as Proxmox's `+pve1` says nothing of the CPU: without it the name is upstream's.
    """
    if wanted is None:
        return _default(source, where)
    for name in dict.fromkeys((wanted, machine_type(wanted).upstream)):
        if found := _named(source, name):
            return found
    message = f"{source.label} has no machine type {wanted!r}"
    raise UnknownNameError(f"{message}{_hint(machine_type(wanted))}", where)


def has_machine(source: Source, wanted: str) -> bool:
    """Whether the source knows a machine type of this name or alias."""
    return bool(_named(source, wanted) or _named(source, machine_type(wanted).upstream))


def _default(source: Source, where: str) -> Machine:
    for machine in source.machines():
        if machine.is_default:
            return machine
    raise UnknownNameError(f"no machine type given, and {source.label} has no default one", where)


def _named(source: Source, wanted: str) -> Machine | None:
    machines = source.machines()
    named = [machine for machine in machines if machine.name == wanted]
    named += [machine for machine in machines if machine.alias == wanted]
    return named[0] if named else None


def _hint(asked: MachineType) -> str:
    return (
        f": {advice(asked)}"
        if vendor_of(asked.name) or asked.family in _OTHER_ARCHITECTURES
        else ""
    )


def advice(asked: MachineType) -> str:
    """Whose machine type this is, and what to do where no QEMU at hand knows it."""
    if asked.family in _OTHER_ARCHITECTURES:
        return f"it is one of {_OTHER_ARCHITECTURES[asked.family]}, not of x86_64"
    vendor = vendor_of(asked.name)
    if not vendor:
        return "name a --qemu that does"
    binary = _BINARIES.get(vendor, "PATH")
    return (
        f"it is {vendor}'s own. Run `cpumap record --qemu {binary}` where that QEMU is, "
        "then give the file with --recorded FILE"
    )
