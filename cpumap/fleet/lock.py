"""A fleet's CPUs written down: of each guest the explicit CPU, what asked for it, and where."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from cpumap.arch.x86.cpuid import LeafId, Registers
from cpumap.cpu.bits import leaf_key, read_leaf
from cpumap.cpu.build import Build
from cpumap.cpu.expansion import Context, CpuModel
from cpumap.cpu.explicit import ExplicitCpu
from cpumap.cpu.names import Property, PropertyName, Value
from cpumap.cpu.origin import UNSAID, read_origin
from cpumap.cpu.request import Cache, CpuRequest, FeaturePolicy, MaxPhysAddr, machine_topology
from cpumap.cpu.topology import Topology
from cpumap.errors import InputError
from cpumap.fleet.convert import Answers
from cpumap.fleet.run import Converted
from cpumap.hosts.described import DescribedHost
from cpumap.libvirt.cpu_map.map import CpuMap
from cpumap.pin.write import lasting
from cpumap.proof.guest import GuestCpu
from cpumap.proof.verify import look
from cpumap.qemu.arguments import smp_option
from cpumap.sources.source import Source

SCHEMA = "cpumap.lock/1"


@dataclass(frozen=True, slots=True)
class LockedCpu:
    """A CPU as it was, where, and what asked for it."""

    context: Context
    request: CpuRequest
    model: str
    properties: tuple[Property, ...]
    guest: GuestCpu | None = None
    """What a guest read, where one was started for that."""

    @property
    def values(self) -> dict[PropertyName, Value]:
        """Property name → value."""
        return {prop.name: prop.value for prop in self.properties}


@dataclass(frozen=True, slots=True)
class Lock:
    """The CPUs of a fleet; guests that share one share its entry."""

    cpus: Mapping[str, LockedCpu]
    guests: Mapping[str, str]
    """Guest (its file) → the entry of its CPU."""


@dataclass
class Locking:
    """Collects a fleet's outcomes into a lock."""

    answers: Answers
    guests: dict[str, str] = field(default_factory=dict)
    files: set[str] = field(default_factory=set)
    """Those whose emulator a file of their own names."""
    missing: dict[str, str] = field(default_factory=dict)
    """Guest without a CPU that can be said → why."""

    def add(self, group: Iterable[Converted]) -> None:
        """Takes these guests up."""
        for item in group:
            if item.outcome.answer in self.answers.cpus:
                self.guests[item.source.name] = str(item.outcome.answer)
                if item.outcome.answer in self.answers.own:
                    self.files.add(item.source.name)
            elif item.outcome.status != "skipped":
                self.missing[item.source.name] = item.outcome.reason

    def lock(self, *, guests: bool = False) -> Lock:
        """All that was taken up; with `guests`, also what a guest reads of each CPU, which takes a
        live QEMU.

        Errors: `InputError` where the source is none, `SourceError`.
        """
        used = set(self.guests.values())
        cpus = {
            str(number): cpu for number, cpu in self.answers.cpus.items() if str(number) in used
        }
        return Lock({key: self._locked(key, cpu, guests) for key, cpu in cpus.items()}, self.guests)

    def _locked(self, key: str, cpu: ExplicitCpu, guests: bool) -> LockedCpu:
        own = int(key) in self.answers.own
        guest = guest_of(cpu, self.answers.source(cpu.request, own=own)) if guests else None
        return replace(locked_cpu(cpu), guest=guest)


def locked_cpu(cpu: ExplicitCpu) -> LockedCpu:
    """What a lock keeps of an explicit CPU: what a document says of it, so that converting one
    is no drift.
    """
    return LockedCpu(cpu.context, cpu.request, cpu.model, lasting(cpu).properties)


def guest_of(cpu: ExplicitCpu, source: Source) -> GuestCpu:
    """What a guest reads of this CPU. Errors: `InputError` where the source is no QEMU to start,
    `SourceError`.
    """
    if not source.starts_guests:
        raise InputError(f"{source.label} starts no guest: name a --qemu")
    model = CpuModel(cpu.model, cpu.values)
    return look(source, cpu.context.machine, model, smp_option(machine_topology(cpu.request)))


def lock_text(lock: Lock) -> str:
    """The lock as JSON: sorted and indented, so that version control shows what changed."""
    cpus = {key: _cpu_json(cpu) for key, cpu in lock.cpus.items()}
    return (
        json.dumps(
            {"schema": SCHEMA, "cpus": cpus, "guests": dict(sorted(lock.guests.items()))}, indent=1
        )
        + "\n"
    )


def _cpu_json(cpu: LockedCpu) -> dict[str, Any]:
    origins: dict[str, list[str]] = {}
    for prop in cpu.properties:
        origins.setdefault(str(prop.origin), []).append(prop.name)
    return {
        "context": asdict(cpu.context),
        "model": cpu.model,
        "request": {
            name: value
            for name, value in _request_json(cpu.request).items()
            if value not in (None, (), [], "")
        },
        "properties": dict(cpu.values),
        "origins": origins,
        **({"guest": _guest_json(cpu.guest)} if cpu.guest else {}),
    }


def _request_json(request: CpuRequest) -> dict[str, Any]:
    settings = [
        {"name": setting.name, "value": setting.value, "origin": str(setting.origin)}
        for setting in request.settings
    ]
    return {**asdict(request), "settings": settings}


def _guest_json(guest: GuestCpu) -> dict[str, Any]:
    return {
        "cpuid": _leaves_json(guest.cpuid),
        "vcpus": [_leaves_json(leaves) for leaves in guest.vcpus],
        "msrs": {
            f"{number:x}": value if value is None else f"{value:x}"
            for number, value in guest.msrs.items()
        },
    }


def _leaves_json(leaves: Mapping[LeafId, Registers]) -> dict[str, str]:
    return {
        leaf_key(leaf, subleaf): " ".join(f"{register:08x}" for register in registers)
        for (leaf, subleaf), registers in leaves.items()
    }


def read_lock(path: Path) -> Lock:
    """The lock in a file of `cpumap lock`. Errors: `InputError`."""
    try:
        stored = json.loads(path.read_bytes())
    except OSError as err:
        raise InputError(err.strerror or str(err), str(path)) from err
    except ValueError as err:
        raise InputError(f"not a lock: {err}", str(path)) from err
    if not isinstance(stored, dict) or stored.get("schema") != SCHEMA:
        raise InputError(f"not a lock ({SCHEMA})", str(path))
    try:
        return Lock(
            {key: _cpu_of(entry) for key, entry in stored["cpus"].items()}, stored["guests"]
        )
    except (KeyError, TypeError, ValueError, AttributeError) as err:
        raise InputError(f"not a lock: {err}", str(path)) from err


def _cpu_of(stored: Mapping[str, Any]) -> LockedCpu:
    origins = {
        name: read_origin(words) for words, names in stored["origins"].items() for name in names
    }
    properties = tuple(
        Property(PropertyName(n), v, origins.get(n, UNSAID))
        for n, v in stored["properties"].items()
    )
    guest = _guest_of(stored["guest"]) if "guest" in stored else None
    return LockedCpu(
        _context_of(stored["context"]),
        _request_of(stored["request"]),
        stored["model"],
        properties,
        guest,
    )


def _context_of(stored: Mapping[str, Any]) -> Context:
    """Locks of earlier versions hold no build."""
    build = stored.get("build")
    return Context(**{**stored, "build": Build(**build) if build else None})


def _guest_of(stored: Mapping[str, Any]) -> GuestCpu:
    msrs = {
        int(number, 16): None if value is None else int(value, 16)
        for number, value in stored["msrs"].items()
    }
    return GuestCpu(
        _leaves_of(stored["cpuid"]), msrs, tuple(_leaves_of(leaves) for leaves in stored["vcpus"])
    )


def _leaves_of(stored: Mapping[str, str]) -> dict[LeafId, Registers]:
    leaves: dict[LeafId, Registers] = {}
    for name, text in stored.items():
        eax, ebx, ecx, edx = (int(register, 16) for register in text.split())
        leaves[read_leaf(name)] = eax, ebx, ecx, edx
    return leaves


def _request_of(stored: Mapping[str, Any]) -> CpuRequest:
    kinds = {"cache": Cache, "maxphysaddr": MaxPhysAddr, "topology": Topology}
    fields: dict[str, Any] = {n: kinds[n](**v) if n in kinds else v for n, v in stored.items()}
    fields["features"] = tuple(FeaturePolicy(**feature) for feature in stored.get("features", ()))
    fields["settings"] = tuple(
        Property(**{**setting, "origin": read_origin(setting.get("origin", ""))})
        for setting in stored.get("settings", ())
    )
    return CpuRequest(**fields)


def blocked_by(
    locked: LockedCpu, host: DescribedHost, features: frozenset[PropertyName]
) -> tuple[PropertyName, ...]:
    """The features of the CPU, of those that are features, that guests on this host cannot be
    given.
    """
    on = sorted(
        prop.name for prop in locked.properties if prop.value is True and prop.name in features
    )
    return tuple(name for name in on if not host.gives(name))


def feature_names(cpu_map: CpuMap) -> frozenset[PropertyName]:
    """The property names of every feature with bits in the map."""
    return frozenset(
        cpu_map.property_of(name) for name, feature in cpu_map.features.items() if feature.bits
    )


def depends_on_defaults(cpu: LockedCpu | ExplicitCpu) -> bool:
    """Whether anything of the CPU is there because a model, a machine type or QEMU has it so."""
    return any(prop.origin.kind in ("model", "machine type", "realised") for prop in cpu.properties)
