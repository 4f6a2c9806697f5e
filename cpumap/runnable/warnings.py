"""What a guest starts with all the same, and what will hurt it later."""

from __future__ import annotations

from collections.abc import Iterator

from cpumap.cpu.expansion import Expansion
from cpumap.cpu.names import PropertyName
from cpumap.cpu.request import CpuRequest
from cpumap.hosts.described import DescribedHost
from cpumap.libvirt.rules.full_check import check_of
from cpumap.runnable.checked import Checked

_TSC_BOUND = (PropertyName("invtsc"), PropertyName("hv-reenlightenment"))
"""What QEMU migrates only where the frequency of the time stamp counter is named."""

_FREQUENCY = PropertyName("tsc-frequency")
_TOPOEXT = PropertyName("topoext")
_VENDOR = PropertyName("vendor")
_AMD = "AuthenticAMD"


def warned_of_cpu(
    request: CpuRequest, expansion: Expansion, host: DescribedHost | None
) -> Iterator[str]:
    """What the CPU will do to the guest."""
    realised = expansion.realised
    if expansion.context.accel == "kvm" and not realised.get(_FREQUENCY):
        for name in _TSC_BOUND:
            if realised.get(name) is True:
                yield (
                    f"{name} blocks migration unless the TSC's frequency is named "
                    "(<timer name='tsc' frequency=…/>, tsc-frequency=…)"
                )
    threads = request.topology.threads if request.topology else 1
    is_unseen = threads > 1 and realised.get(_TOPOEXT) is False
    if is_unseen and _vendor(expansion, host) == _AMD:
        yield (
            f"{threads} threads a core on an AMD CPU without topoext: the guest does not see them "
            "as threads"
        )
    if request.maxphysaddr is not None and request.maxphysaddr.mode == "passthrough":
        yield "maxphysaddr passthrough: the guest has the address bits of whatever host it is on"


def _vendor(expansion: Expansion, host: DescribedHost | None) -> object:
    """Under KVM, a CPU has its host's vendor unless another is named."""
    asked = {prop.name: prop.value for prop in expansion.asked}
    named = host is not None and expansion.context.accel == "kvm" and host.cpu.vendor
    if named and _VENDOR not in asked:
        return _AMD if named == "AMD" else named
    return expansion.realised.get(_VENDOR)


def warned_of_start(request: CpuRequest, found: Checked) -> Iterator[str]:
    """What libvirt, looking at nothing, lets pass."""
    if not (request.by_libvirt and request.mode == "custom" and check_of(request) == "none"):
        return
    enforced = any(s.name == "enforce" and s.value is True for s in request.settings)
    if found.missing and not found.refused and not enforced:
        names = ", ".join(lack.feature or lack.words for lack in found.missing)
        yield f"check='none': libvirt starts it all the same, without {names}"
