"""What this machine is: kernel, microcode, KVM's settings, and what CPU and KVM answer to CPUID."""

from __future__ import annotations

import platform
from contextlib import suppress
from pathlib import Path
from typing import Any

from cpumap.arch.x86.cpuid import CpuidData
from cpumap.arch.x86.own_cpu import own_data
from cpumap.errors import SourceError

_MODULES = ("kvm", "kvm_amd", "kvm_intel")


_SHOWN = {"model name": "name", "microcode": "microcode"}
"""Of /proc/cpuinfo: what no CPUID leaf that guests see says."""


def machine_json() -> dict[str, Any]:
    """The machine as JSON; null for what this user may not read, or what is not there."""
    from cpumap.arch.x86.kvm import supported_cpuid

    own = kvm = None
    with suppress(SourceError):
        own = own_data()[0]
    with suppress(SourceError):
        kvm = supported_cpuid()
    return {
        "kernel": platform.release(),
        **_of_cpuinfo(_text(Path("/proc/cpuinfo"))),
        "module-parameters": {name: _parameters(name) for name in _MODULES},
        "cpuid": None if own is None else _cpuid(own),
        "msrs": None if own is None else _msrs(own),
        "kvm-cpuid": None if kvm is None else _cpuid(kvm),
        "kvm-msrs": None if kvm is None else _msrs(kvm),
    }


def _of_cpuinfo(text: str) -> dict[str, str | None]:
    found: dict[str, str | None] = dict.fromkeys(_SHOWN.values())
    for line in text.partition("\n\n")[0].splitlines():
        key, _, value = line.partition(":")
        if name := _SHOWN.get(key.strip()):
            found[name] = value.strip()
    return found


def _parameters(module: str) -> dict[str, str] | None:
    directory = Path("/sys/module", module, "parameters")
    if not directory.is_dir():
        return None
    return {path.name: _text(path).strip() for path in sorted(directory.iterdir())}


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _cpuid(data: CpuidData) -> dict[str, list[str]]:
    """Leaf and subleaf → EAX, EBX, ECX, EDX."""
    return {
        f"0x{leaf:08x} 0x{subleaf:02x}": [f"0x{value:08x}" for value in registers]
        for (leaf, subleaf), registers in sorted(data.cpuid.items())
    }


def _msrs(data: CpuidData) -> dict[str, str]:
    return {f"0x{number:x}": f"0x{value:016x}" for number, value in sorted(data.msrs.items())}
