"""cpumap: libvirt CPU definitions, translated into explicit QEMU CPUs that hold.

    import cpumap
    print(cpumap.translate(xml, format="xml"))

What `translate` does in one call are `parse_request`, `open_source`, `explicit_cpu` and `write`.
`check` says whether a CPU can be run; `convert`, `lock` and `audit` are for fleets.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cpumap.errors import CpumapError
    from cpumap.fleet.calls import audit, convert, lock
    from cpumap.fleet.convert import Answers
    from cpumap.fleet.write import Destination
    from cpumap.libvirt.cpu_map.load import load_cpu_map
    from cpumap.libvirt.domain import parse_request
    from cpumap.pin.expand import expand
    from cpumap.pin.resolve import Choices, resolve
    from cpumap.pin.translate import explicit_cpu, translate, write
    from cpumap.runnable.check import check
    from cpumap.sources.choose import Wanted, open_source
    from cpumap.sources.platform import Platform

__version__ = "0.1.0"

_FRONT_DOOR = {
    "Answers": "fleet.convert",
    "Choices": "pin.resolve",
    "CpumapError": "errors",
    "Destination": "fleet.write",
    "Platform": "sources.platform",
    "Wanted": "sources.choose",
    "audit": "fleet.calls",
    "check": "runnable.check",
    "convert": "fleet.calls",
    "expand": "pin.expand",
    "explicit_cpu": "pin.translate",
    "load_cpu_map": "libvirt.cpu_map.load",
    "lock": "fleet.calls",
    "open_source": "sources.choose",
    "parse_request": "libvirt.domain",
    "resolve": "pin.resolve",
    "translate": "pin.translate",
    "write": "pin.translate",
}

__all__ = [
    "Answers",
    "Choices",
    "CpumapError",
    "Destination",
    "Platform",
    "Wanted",
    "audit",
    "check",
    "convert",
    "expand",
    "explicit_cpu",
    "load_cpu_map",
    "lock",
    "open_source",
    "parse_request",
    "resolve",
    "translate",
    "write",
]


def __getattr__(name: str) -> Any:
    """A name of the front door, imported when it is first asked for: importing cpumap is cheap."""
    if name not in _FRONT_DOOR:
        raise AttributeError(f"module 'cpumap' has no attribute {name!r}")
    return getattr(import_module(f"cpumap.{_FRONT_DOOR[name]}"), name)


def __dir__() -> list[str]:
    """The front door, and what a module has beside it."""
    return sorted({*globals(), *_FRONT_DOOR})
