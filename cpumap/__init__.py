"""cpumap: libvirt CPU definitions, translated into explicit QEMU CPUs that hold.

    import cpumap
    print(cpumap.translate(xml, format="xml"))

What `translate` does in one call are `parse_request`, `explicit_cpu` and `write`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cpumap.cpu_map import load_cpu_map
    from cpumap.domain import parse_request
    from cpumap.errors import CpumapError
    from cpumap.expansion import expand
    from cpumap.resolve import Choices
    from cpumap.translation import explicit_cpu, translate, write

__version__ = "0.1.0"

_FRONT_DOOR = {
    "Choices": "resolve",
    "CpumapError": "errors",
    "expand": "expansion",
    "explicit_cpu": "translation",
    "load_cpu_map": "cpu_map",
    "parse_request": "domain",
    "translate": "translation",
    "write": "translation",
}

__all__ = [
    "Choices",
    "CpumapError",
    "expand",
    "explicit_cpu",
    "load_cpu_map",
    "parse_request",
    "translate",
    "write",
]


def __getattr__(name: str) -> Any:
    """A name of the front door, imported when it is first asked for, so that importing cpumap costs nothing."""
    if name not in _FRONT_DOOR:
        raise AttributeError(f"module 'cpumap' has no attribute {name!r}")
    return getattr(import_module(f"cpumap.{_FRONT_DOOR[name]}"), name)
