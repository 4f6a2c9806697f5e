"""CPU definitions as domains that a real libvirtd can start."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cpumap.pin.resolve import Pin

NAMESPACE = "http://libvirt.org/schemas/domain/qemu/1.0"


@dataclass(frozen=True)
class Case:
    """One CPU definition, and where it runs."""

    cpu: str = ""
    machine: str = "pc-q35-7.2"
    features: str = ""
    clock: str = ""
    kind: str = "qemu"
    vcpu: int = 1
    release: str = "7.2"
    pins: tuple[Pin, ...] = ("model",)
    arch: str = "x86_64"
    arguments: tuple[str, ...] = ()
    """QEMU arguments of the user's own."""

    def xml(self, name: str, emulator: str, monitor: Path) -> str:
        """The domain; the guest's QMP socket is a QEMU argument of the user's own, to be kept."""
        own = "".join(f"<qemu:arg value='{argument}'/>" for argument in self.arguments)
        return (
            f"<domain type='{self.kind}' "
            f"xmlns:qemu='{NAMESPACE}'><name>{name}</name><memory>131072</memory>"
            f"<vcpu>{self.vcpu}</vcpu><os><type arch='{self.arch}' "
            f"machine='{self.machine}'>hvm</type></os>"
            f"<features><acpi/>{self.features}</features>{self.cpu}<clock "
            f"offset='utc'>{self.clock}</clock>"
            f"<devices><emulator>{emulator}</emulator><controller type='usb' model='none'/>"
            "<memballoon model='none'/></devices>"
            "<qemu:commandline><qemu:arg value='-qmp'/><qemu:arg "
            f"value='unix:{monitor},server=on,wait=off'/>"
            f"{own}</qemu:commandline></domain>"
        )


def model(name: str, inside: str = "", attributes: str = "") -> str:
    return (
        f"<cpu check='none' match='exact'><model fallback='forbid'{attributes}>"
        f"{name}</model>{inside}</cpu>"
    )
