"""Whether libvirt and QEMU start a guest, told before anything is started."""

from __future__ import annotations

from cpumap.cpu.expansion import Expansion
from cpumap.cpu.names import PropertyName
from cpumap.cpu.origin import OPTIONAL
from cpumap.cpu.request import CpuRequest
from cpumap.hosts.described import DescribedHost
from cpumap.libvirt.cpu_map.map import CpuMap
from cpumap.libvirt.rules.full_check import check_of
from cpumap.runnable.check import at_start, unavailable_in
from cpumap.sources.platform import Platform


def stopped_by(
    request: CpuRequest, expansion: Expansion, there: Platform, host: DescribedHost | None = None
) -> str:
    """Why libvirt and QEMU do not start this guest there, in their words; empty where they do.

    `expansion` is what the request is there, on the `host` if one is described. What a host lacks
    is known of a described one, and of a live QEMU's own.
    """
    cpu_map = there.cpu_map
    if request.by_libvirt and (unknown := _unknown_words(request, cpu_map)):
        return unknown
    if lacking := _required(request, expansion, cpu_map):
        return (
            "the CPU is incompatible with host CPU: Host CPU does not provide required features: "
            f"{', '.join(lacking)}"
        )
    given = [
        feature.name
        for feature in request.features
        if feature.policy == "forbid" and host and host.gives(cpu_map.property_of(feature.name))
    ]
    if given:
        return f"the host provides forbidden features: {', '.join(given)}"
    start = at_start(request, expansion, cpu_map, unavailable_in(expansion))
    return "" if start.passes else str(start)


def _unknown_words(request: CpuRequest, cpu_map: CpuMap) -> str:
    """The first name that the libvirt meant does not know."""
    words = cpu_map.words
    if words is None:
        return ""
    for feature in request.features:
        if feature.name not in words.features:
            return f"libvirt {words.release}: unknown CPU feature: {feature.name}"
    if request.mode == "custom" and request.model and request.model not in words.models:
        return f"libvirt {words.release}: Unknown CPU model {request.model}"
    return ""


def _required(request: CpuRequest, expansion: Expansion, cpu_map: CpuMap) -> list[str]:
    """What cannot be given there, and without which the guest does not start: libvirt's check wants
    it, or `enforce`.
    """
    optional = {prop.name for prop in expansion.asked if prop.origin == OPTIONAL}
    lacking = [PropertyName(name) for name in expansion.unavailable if name not in optional]
    libvirts = request.by_libvirt and request.mode == "custom" and check_of(request) != "none"
    enforced = any(s.name == "enforce" and s.value is True for s in request.settings)
    return [cpu_map.feature_of(name) for name in sorted(lacking)] if libvirts or enforced else []
