"""Rules of QEMU for x86 guests that no expansion shows: vCPUs, their topology, Hyper-V.

For vCPUs and topology asked of QEMU 5.2, 7.2, 10.0 and 11.1, for Hyper-V by QEMU's documentation
(system/i386/hyperv).
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from functools import cache

from cpumap.cpu.expansion import Expansion, Machine
from cpumap.cpu.machine_type import machine_type, release
from cpumap.cpu.names import PropertyName
from cpumap.cpu.request import CpuRequest
from cpumap.sources.newer import too_new
from cpumap.sources.source import Source
from cpumap.system.data import data_path

_X86 = frozenset({"pc-q35", "pc-i440fx", "microvm", "isapc"})
_WITHOUT_DIES = frozenset({"microvm"})
_DIES_REFUSED_SINCE = release("7.2")
"""QEMU 5.2 starts such a guest, and counts no dies."""
_XAPIC_IDS = 255
"""vCPUs that the APIC's 8-bit numbers are enough for."""

_EVMCS = PropertyName("hv-evmcs")
_VMX = PropertyName("vmx")


def refused_by_rule(request: CpuRequest, machine: Machine, source: Source) -> str:
    """Why this QEMU does not start the guest, whatever its CPU; empty where nothing is known
    against it.
    """
    return (
        _vcpus_refused(request, machine)
        or _topology_refused(request, machine, source)
        or _hyperv_refused(request, source)
        or _model_refused(request, machine, source)
    )


def _vcpus_refused(request: CpuRequest, machine: Machine) -> str:
    if not machine.cpu_max or request.vcpus <= machine.cpu_max:
        return ""
    return (
        f"{request.vcpus} vCPUs are more than the {machine.cpu_max} that machine type "
        f"{machine.name} supports"
    )


def _topology_refused(request: CpuRequest, machine: Machine, source: Source) -> str:
    topology, family = request.topology, machine_type(machine.name).family
    if topology is None or family not in _X86:
        return ""
    if topology.clusters > 1:
        return f"clusters > 1 are not supported by machine type {machine.name}: no x86 one has them"
    is_counted = release(source.version) >= _DIES_REFUSED_SINCE
    if topology.dies > 1 and family in _WITHOUT_DIES and is_counted:
        return f"dies > 1 are not supported by machine type {machine.name}"
    return ""


@cache
def _needs() -> Mapping[PropertyName, Sequence[PropertyName]]:
    stored = tomllib.loads(data_path("features.toml").read_text(encoding="utf-8"))
    return {
        PropertyName(name): tuple(map(PropertyName, needed))
        for name, needed in stored["needs"].items()
    }


def _hyperv_refused(request: CpuRequest, source: Source) -> str:
    """Under tcg, QEMU ignores every enlightenment."""
    on = {setting.name for setting in request.settings if setting.value not in (False, "off")}
    if source.accel != "kvm" or "hv-passthrough" in on:
        return ""
    unmet = {name: [need for need in needed if need not in on] for name, needed in _needs().items()}
    said = [
        f"{name} needs {', '.join(lacking)}"
        for name, lacking in unmet.items()
        if name in on and lacking
    ]
    return f"QEMU does not start: {'; '.join(said)}" if said else ""


def _model_refused(request: CpuRequest, machine: Machine, source: Source) -> str:
    model = request.model
    if request.mode != "custom" or not model:
        return ""
    if any(definition.name == model for definition in source.definitions(machine.name)):
        return ""
    return too_new(model, source)


def refused_when_realised(expansion: Expansion) -> str:
    """Why KVM does not start what the CPU turns out to be; empty where nothing is known against
    it.
    """
    realised = expansion.realised
    if expansion.context.accel != "kvm" or realised.get(_EVMCS) is not True:
        return ""
    return "" if realised.get(_VMX) is True else "hv-evmcs needs vmx, which this CPU has not"


def unproven_by_rule(request: CpuRequest, machine: Machine) -> str:
    """What would have to be known beside the CPU."""
    return "; ".join(_unproven(request, machine))


def _unproven(request: CpuRequest, machine: Machine) -> Iterator[str]:
    if request.vcpus > _XAPIC_IDS and machine_type(machine.name).family in _X86:
        yield (
            f"{request.vcpus} vCPUs need x2apic and an interrupt controller for it: libvirt wants "
            "an <iommu> with eim='on', which is not looked at"
        )
