"""What libvirt compares of host and guest beside the features asked for: the vendor, and with
match='strict' what the host has beyond the CPU.
"""

from __future__ import annotations

from collections.abc import Iterator

from cpumap.arch.known import arch_of
from cpumap.cpu.expansion import CpuModel
from cpumap.cpu.frozen import Frozen
from cpumap.cpu.names import PropertyName
from cpumap.cpu.request import OWN_CPU, CpuRequest
from cpumap.hosts.described import DescribedHost
from cpumap.pin.expand import expand
from cpumap.sources.platform import Platform

NOT_ON_HOSTS = ("kvm", "hv-")
"""How the properties begin that a host's own CPU does not have: more of them is no more of a
CPU.
"""

_VENDOR = PropertyName("vendor")


class MostOf(Frozen):
    """All that a guest can be given: on a described host, else by the source's `max`."""

    platform: Platform
    machine: str
    host: DescribedHost | None

    def vendor(self) -> str | None:
        """The host's vendor by libvirt's name; None where it is not known."""
        if self.host is not None:
            return self.host.cpu.vendor
        found = self.platform.cpu_map.vendor_named(str(self._max().props.get(_VENDOR)))
        return found.name if found else None

    def properties(self) -> frozenset[PropertyName]:
        """The features that a guest can be given."""
        if self.host is not None:
            return self.host.properties
        return frozenset(name for name, value in self._max().props.items() if value is True)

    def _max(self) -> CpuModel:
        source = self.platform.source
        return source.expand(self.machine, CpuModel(arch_of(source.arch).maximum), "static")


def vendor_refused(request: CpuRequest, most: MostOf) -> str:
    """libvirt's words where `<vendor>` is not the host's; empty where it is, or none is named."""
    if not request.vendor or request.vendor == most.vendor():
        return ""
    return f"host CPU vendor does not match required CPU vendor {request.vendor}"


def strict_refused(request: CpuRequest, most: MostOf) -> str:
    """libvirt's words where match='strict' is asked and the host has more; empty elsewhere."""
    if request.match != "strict":
        return ""
    extra = list(extra_on(request, most))
    if not extra:
        return ""
    return f"Host CPU does not strictly match guest CPU: Extra features: {', '.join(extra)}"


def extra_on(request: CpuRequest, most: MostOf) -> Iterator[PropertyName]:
    """What the host has beyond the CPU, less what the CPU says something of and what KVM makes
    of itself.
    """
    if request.mode in OWN_CPU:
        return
    expansion = expand(request, most.platform)
    named = {most.platform.cpu_map.property_of(feature.name) for feature in request.features}
    for name in sorted(most.properties() - named):
        if (
            name in expansion.static
            and expansion.realised.get(name) is not True
            and not name.startswith(NOT_ON_HOSTS)
        ):
            yield name
