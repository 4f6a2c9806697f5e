"""Comparisons and baselines that ask QEMU: a guest's CPU is what it expands to under its machine
type.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cpumap.cpu.expansion import Machine
from cpumap.cpu.host import UNKNOWN_MACHINE, ThisMachine
from cpumap.cpu.names import PropertyName
from cpumap.cpu.request import CpuRequest, FeaturePolicy
from cpumap.errors import ResolveError, SourceError
from cpumap.hosts.described import DescribedHost, described, known_to, request_on
from cpumap.hosts.lack import lack_json
from cpumap.libvirt.rules.compare import Verdict
from cpumap.runnable.available import available
from cpumap.runnable.available_json import available_host
from cpumap.runnable.check import check, check_features
from cpumap.runnable.checked import Checked
from cpumap.runnable.on_host import MostOf, extra_on, vendor_refused
from cpumap.sources.platform import Platform
from cpumap.sources.source import Source


@dataclass(frozen=True, slots=True)
class Compared:
    """What a comparison under one machine type found."""

    machine: str
    verdict: Verdict
    reason: str
    checked: Checked
    extra: tuple[PropertyName, ...] = ()
    """What the host can give and the CPU has not."""

    def to_json(self) -> dict[str, Any]:
        """JSON-ready values."""
        return {
            "machine": self.machine,
            "verdict": self.verdict,
            "reason": self.reason,
            "missing": [lack_json(lack) for lack in self.checked.missing],
            "forbidden": [lack_json(lack) for lack in self.checked.forbidden],
            "extra": list(self.extra),
        }


def own_host(
    platform: Platform, here: ThisMachine = UNKNOWN_MACHINE, *, made: bool = False
) -> DescribedHost:
    """The host that the source runs on, as its QEMU can use it: what any other machine would
    read of it; with `made`, its own CPU too.
    """
    found = available(platform, here, options=False, made=made)
    cpu = replace(available_host(found, platform.cpu_map), where=platform.source.label)
    return described(cpu, platform.cpu_map, platform.source.label)


def compare_on(platform: Platform, host: DescribedHost, request: CpuRequest) -> Compared:
    """Whether the host can provide what this QEMU makes of the CPU under its machine type.

    The rules are those of `cpumap.libvirt.rules.compare`. Errors: as `check`.
    """
    name = platform.machine_for(request).name
    platform = replace(platform, machine=name)
    resolved = request_on(host, request, platform.cpu_map, known_to(platform.source, name))
    checked = check_features(resolved, platform, host=host)
    most = MostOf(platform, name, host)
    if reason := vendor_refused(request, most):
        return Compared(name, "incompatible", reason, checked)
    if not checked.runnable:
        return Compared(name, "incompatible", _reason(checked), checked)
    extra = tuple(extra_on(resolved, most))
    if extra and request.match == "strict":
        reason = f"Host CPU does not strictly match guest CPU: Extra features: {', '.join(extra)}"
        return Compared(name, "incompatible", reason, checked, extra)
    return Compared(name, "superset" if extra else "identical", "", checked, extra)


def compare_all(
    platform: Platform, host: DescribedHost, request: CpuRequest
) -> tuple[Compared, ...]:
    """The comparison under every machine type of the source that it can be made under, in the
    source's order.
    """
    found: dict[str, Compared] = {}
    for machine, stands_for in _tables(platform.source):
        if stands_for not in found:
            try:
                found[stands_for] = compare_on(replace(platform, machine=stands_for), host, request)
            except SourceError:
                continue  # a machine type that this QEMU lists and does not start
        found[machine.name] = replace(found[stands_for], machine=machine.name)
    return tuple(
        found[machine.name] for machine in platform.source.machines() if machine.name in found
    )


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """The least of the verdicts: incompatible, superset, identical."""
    order: tuple[Verdict, ...] = ("incompatible", "superset", "identical")
    return min(verdicts, key=order.index)


def _tables(source: Source) -> Iterator[tuple[Machine, str]]:
    """Every machine type, and one that shows the same CPUs: a recording knows which do."""
    same = {name: table for table, names in source.tables().items() for name in names}
    for machine in source.machines():
        if not same or machine.name in same:
            yield machine, same.get(machine.name, machine.name)


def _reason(checked: Checked) -> str:
    if checked.refused:
        return checked.refused
    if checked.forbidden:
        return (
            f"Host CPU provides forbidden features: "
            f"{', '.join(lack.feature for lack in checked.forbidden)}"
        )
    if checked.undescribed and not checked.missing:
        names = ", ".join(lack.feature for lack in checked.undescribed)
        return f"the host's description does not say whether guests are given {names}"
    return (
        f"Host CPU does not provide required features: "
        f"{', '.join(lack.feature for lack in checked.missing)}"
    )


def runnable_on_all(
    platform: Platform, hosts: Sequence[DescribedHost], request: CpuRequest
) -> tuple[CpuRequest, tuple[str, ...]]:
    """The CPU that every host can run as this QEMU expands it, and the features that had to be
    disabled for that.

    Each host is asked under the platform's machine type, else under the machine type that its
    description is of, where this QEMU has it. QEMU's model of a name may have more than the CPU
    map's, and QEMU may lack a feature that the hosts have. Errors: `ResolveError` when a host
    cannot run it even so.
    """
    disabled: list[str] = []
    known = {entry.name for entry in platform.source.machines()}
    places = [
        (host, platform)
        if platform.machine or host.cpu.machine not in known
        else (host, replace(platform, machine=host.cpu.machine))
        for host in hosts
    ]
    for host, place in places:
        checked = check(request, place, host=host)
        names = [lack.feature for lack in (*checked.missing, *checked.undescribed)]
        disabled += names
        kept = tuple(feature for feature in request.features if feature.name not in names)
        request = replace(
            request, features=(*kept, *(FeaturePolicy(name, "disable") for name in names))
        )
    for host, place in places:
        checked = check(request, place, host=host)
        if not checked.runnable:
            raise ResolveError(f"{host.name} cannot run the baseline: {_reason(checked)}")
    return request, tuple(disabled)
