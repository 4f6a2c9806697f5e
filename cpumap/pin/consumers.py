"""A model with features added and removed, in the settings of those who start guests.

KubeVirt, Nova and libvirt have libvirt's names of features; Proxmox, Incus, LXD and QEMU have
QEMU's. Sources: KubeVirt's API reference (CPU, CPUFeature); Nova's configuration reference
([libvirt] cpu_mode, cpu_models, cpu_model_extra_flags); Proxmox VE's manual of cpu-models.conf;
Incus, "How to set up cluster groups"; LXD's instance options (raw.qemu).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Literal, get_args

from cpumap.cpu.names import PropertyName
from cpumap.cpu.request import CpuRequest
from cpumap.errors import ResolveError
from cpumap.libvirt.cpu_map.map import CpuMap
from cpumap.qemu.arguments import args_text, cpu_arguments

Consumer = Literal["args", "kubevirt", "nova", "proxmox", "incus", "lxd"]

CONSUMERS: tuple[Consumer, ...] = get_args(Consumer)

_OFF = frozenset({"disable", "forbid"})
_PROXMOX_MODEL = "pool"
"""What the model is called there: `cpu: custom-pool` in a guest's configuration."""

_PLAIN = re.compile(r"[A-Za-z0-9][\w.+-]*")


def settings_for(consumer: Consumer, cpu: CpuRequest, cpu_map: CpuMap) -> str:
    """The CPU as text in the format of the one who starts guests with it.

    Errors: `ResolveError` for a CPU that is no model with features, and for a name that cannot
    stand in such a text.
    """
    if cpu.mode != "custom" or not cpu.model:
        raise ResolveError(f"{cpu.where}: only a CPU model with features can be written for others")
    for name in (cpu.model, *(feature.name for feature in cpu.features)):
        if not _PLAIN.fullmatch(name):
            raise ResolveError(f"{name!r} cannot be written in settings")
    return _WRITERS[consumer](cpu, cpu.model, cpu_map)


def _switches(cpu: CpuRequest, cpu_map: CpuMap) -> Mapping[PropertyName, bool]:
    return {cpu_map.property_of(f.name): f.policy not in _OFF for f in cpu.features}


def _signed(cpu: CpuRequest, cpu_map: CpuMap, *, plus: str = "+") -> Iterator[str]:
    for name, on in _switches(cpu, cpu_map).items():
        yield f"{plus if on else '-'}{name}"


def _args(cpu: CpuRequest, model: str, cpu_map: CpuMap) -> str:
    switches = _switches(cpu, cpu_map)
    return args_text(cpu_arguments(model, "", switches, plus=frozenset(switches), enforce=True))


def _kubevirt(cpu: CpuRequest, model: str, cpu_map: CpuMap) -> str:
    lines = ["spec:", "  domain:", "    cpu:", f'      model: "{model}"']
    if cpu.features:
        lines.append("      features:")
    for feature in cpu.features:
        name = cpu_map.feature_of(cpu_map.property_of(feature.name))
        lines += [f'      - name: "{name}"', f"        policy: {feature.policy}"]
    return _text(lines)


def _nova(cpu: CpuRequest, model: str, _cpu_map: CpuMap) -> str:
    flags = [f"{'-' if f.policy in _OFF else '+'}{f.name}" for f in cpu.features]
    lines = ["[libvirt]", "cpu_mode = custom", f"cpu_models = {model}"]
    return _text([*lines, *([f"cpu_model_extra_flags = {','.join(flags)}"] if flags else [])])


def _proxmox(cpu: CpuRequest, model: str, cpu_map: CpuMap) -> str:
    flags = ";".join(_signed(cpu, cpu_map))
    lines = [f"cpu-model: {_PROXMOX_MODEL}", *([f"    flags {flags}"] if flags else [])]
    return _text([*lines, f"    reported-model {model}"])


def _incus(cpu: CpuRequest, model: str, cpu_map: CpuMap) -> str:
    key = f"instances.vm.cpu.{cpu.arch or 'x86_64'}"
    flags = ",".join(_signed(cpu, cpu_map, plus=""))
    lines = ["config:", f'  {key}.baseline: "{model}"']
    return _text([*lines, *([f'  {key}.flags: "{flags}"'] if flags else [])])


def _lxd(cpu: CpuRequest, model: str, cpu_map: CpuMap) -> str:
    return _text(["config:", f'  raw.qemu: "{_args(cpu, model, cpu_map).strip()}"'])


def _text(lines: list[str]) -> str:
    return "\n".join([*lines, ""])


_WRITERS: Mapping[Consumer, Callable[[CpuRequest, str, CpuMap], str]] = {
    "args": _args,
    "kubevirt": _kubevirt,
    "nova": _nova,
    "proxmox": _proxmox,
    "incus": _incus,
    "lxd": _lxd,
}
