"""A CPU as libvirt's `<cpu>` element: a host's as capabilities describe it, a guest's as a
domain asks for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from xml.sax.saxutils import escape, quoteattr

from cpumap.cpu.host import Cpu, HostCpu
from cpumap.cpu.request import CpuRequest


def cpu_element(cpu: Cpu, kept: Sequence[str] = ()) -> str:
    """The element as text, a line for each child; `kept` are further children, already XML."""
    lines = _host(cpu) if isinstance(cpu, HostCpu) else _guest(cpu, kept)
    first, *rest, last = lines
    return "\n".join([first, *(f"  {line}" for line in rest), last]) + "\n"


def _host(cpu: HostCpu) -> Iterator[str]:
    yield "<cpu>"
    yield f"<arch>{escape(cpu.arch)}</arch>"
    yield from _child("model", cpu.model)
    yield from _child("vendor", cpu.vendor)
    if cpu.identity is not None:
        numbers = cpu.identity
        yield (
            f"<signature family='{numbers.family}' model='{numbers.model}' "
            f"stepping='{numbers.stepping}'/>"
        )
    for feature in cpu.features:
        policy = "" if feature.policy == "require" else f" policy={_quoted(feature.policy)}"
        yield f"<feature{policy} name={_quoted(feature.name)}/>"
    yield "</cpu>"


def _guest(cpu: CpuRequest, kept: Sequence[str]) -> Iterator[str]:
    migratable = None if cpu.migratable is None else ("on" if cpu.migratable else "off")
    attributes = {
        "mode": cpu.mode,
        "match": cpu.match,
        "check": cpu.check,
        "migratable": migratable,
    }
    yield (
        "<cpu"
        + "".join(f" {name}={_quoted(value)}" for name, value in attributes.items() if value)
        + ">"
    )
    if cpu.model is not None:
        vendor_id = f" vendor_id={_quoted(cpu.vendor_id)}" if cpu.vendor_id else ""
        yield f"<model fallback={_quoted(cpu.fallback)}{vendor_id}>{escape(cpu.model)}</model>"
    yield from _child("vendor", cpu.vendor)
    yield from kept
    for feature in cpu.features:
        yield f"<feature policy={_quoted(feature.policy)} name={_quoted(feature.name)}/>"
    yield "</cpu>"


def _child(name: str, text: str | None) -> Iterator[str]:
    if text:
        yield f"<{name}>{escape(text)}</{name}>"


def _quoted(text: str) -> str:
    """The text as an attribute's value, in the quotes that libvirt writes."""
    quoted = quoteattr(text)
    return f"'{quoted[1:-1]}'" if quoted.startswith('"') and "'" not in quoted else quoted
