"""A fleet's CPUs written down: of each guest the explicit CPU, what asked for it, and where."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from cpumap.arch.x86.cpuid import LeafId, Registers
from cpumap.cpu.bits import leaf_key, read_leaf
from cpumap.cpu.expansion import Context, CpuModel
from cpumap.cpu.explicit import ExplicitCpu
from cpumap.cpu.names import Property, PropertyName, Value
from cpumap.cpu.origin import UNSAID, Origin, read_origin
from cpumap.cpu.request import CpuRequest, machine_topology
from cpumap.errors import InputError
from cpumap.fleet.convert import Answers
from cpumap.fleet.run import Converted
from cpumap.hosts.described import DescribedHost, lacking_on
from cpumap.libvirt.cpu_map.map import CpuMap
from cpumap.pin.write import lasting
from cpumap.proof.guest import GuestCpu
from cpumap.proof.verify import look
from cpumap.qemu.arguments import smp_option
from cpumap.sources.source import Source
from cpumap.system.made import Readers, made
from cpumap.system.shape import Shaped, at_top

SCHEMA = "cpumap.lock/2"


OLD_SCHEMA = "cpumap.lock/1"
"""Of locks that know their guests by file alone, and hold no reason for those that have no CPU."""


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
    """Guest (its file, or the name of a domain that libvirt keeps) → the entry of its CPU."""
    ids: Mapping[str, str] = field(default_factory=dict)
    """Guest → its UUID, else its name; what is in neither is known by its file."""
    refused: Mapping[str, str] = field(default_factory=dict)
    """Guest without a CPU that can be said → why."""

    def same_in(self, other: Lock, guest: str) -> str | None:
        """The guest of this lock in another one: by UUID or name, and by its file where several, or
        none, are called so.
        """
        everywhere = (*other.guests, *other.refused)
        own = self.ids.get(guest)
        alike = [name for name in everywhere if own is not None and other.ids.get(name) == own]
        if len(alike) == 1 or guest in alike:
            return guest if guest in alike else alike[0]
        nameless = own is None or guest not in other.ids
        return guest if nameless and guest in everywhere else None


@dataclass
class Locking:
    """Collects a fleet's outcomes into a lock."""

    answers: Answers
    guests: dict[str, str] = field(default_factory=dict)
    files: set[str] = field(default_factory=set)
    """Those whose emulator a file of their own names."""
    missing: dict[str, str] = field(default_factory=dict)
    """Guest without a CPU that can be said → why."""
    ids: dict[str, str] = field(default_factory=dict)

    def add(self, group: Iterable[Converted]) -> None:
        """Takes these guests up."""
        for item in group:
            if item.outcome.guest:
                self.ids[item.source.name] = item.outcome.guest
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
        locked = {key: self._locked(key, cpu, guests) for key, cpu in cpus.items()}
        return Lock(locked, self.guests, self.ids, self.missing)

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
    guests = _by_id(lock, {guest: {"cpu": key} for guest, key in lock.guests.items()})
    refused = _by_id(lock, {guest: {"reason": why} for guest, why in lock.refused.items()})
    whole = {"schema": SCHEMA, "cpus": cpus, "guests": guests, "refused": refused}
    return json.dumps(whole, indent=1) + "\n"


def _by_id(lock: Lock, guests: Mapping[str, dict[str, str]]) -> dict[str, dict[str, str]]:
    """What is said of each guest, by UUID, else name; where several share one, by file."""
    shared = Counter(lock.ids.get(guest) for guest in (*lock.guests, *lock.refused))
    found = {}
    for guest, about in guests.items():
        own = lock.ids.get(guest)
        key = own if own is not None and shared[own] == 1 else guest
        found[key] = {"from": guest, **({"id": own} if own and key != own else {}), **about}
    return dict(sorted(found.items()))


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
    except (ValueError, RecursionError) as err:
        raise InputError(f"not a lock: {err}", str(path)) from err
    if not isinstance(stored, dict) or stored.get("schema") not in (SCHEMA, OLD_SCHEMA):
        raise InputError(f"not a lock ({SCHEMA})", str(path))
    lock = at_top(stored, f"{path}: not a lock")
    cpus = {key: _cpu_of(entry) for key, entry in lock.key("cpus").items()}
    if stored["schema"] == OLD_SCHEMA:
        return Lock(cpus, {name: _among(key, cpus) for name, key in lock.key("guests").items()})
    return _lock_of(cpus, lock.key("guests"), lock.key("refused"))


def _among(key: Shaped, cpus: Mapping[str, LockedCpu]) -> str:
    """A guest's CPU, which is one of the lock's."""
    if key.text not in cpus:
        raise key.error("a CPU of the lock")
    return key.text


def _lock_of(cpus: Mapping[str, LockedCpu], guests: Shaped, refused: Shaped) -> Lock:
    ids = {}
    for key, about in (*guests.items(), *refused.items()):
        name = about.key("from").text
        own = about.optional("id")
        if (own.text if own else key) != name:
            ids[name] = own.text if own else key
    return Lock(
        cpus,
        {one.key("from").text: _among(one.key("cpu"), cpus) for one in guests.members()},
        ids,
        {one.key("from").text: one.key("reason").text for one in refused.members()},
    )


def _cpu_of(stored: Shaped) -> LockedCpu:
    origins = {
        name: read_origin(words)
        for words, names in stored.key("origins").items()
        for name in names.texts
    }
    properties = tuple(
        Property(name, value, origins.get(name, UNSAID))
        for name, value in stored.key("properties").values.items()
    )
    guest = stored.optional("guest")
    return LockedCpu(
        made(Context, stored.key("context")),
        made(CpuRequest, stored.key("request"), _READERS),
        stored.key("model").text,
        properties,
        None if guest is None else _guest_of(guest),
    )


_READERS: Readers = {Origin: lambda words: read_origin(words.text)}


def _guest_of(stored: Shaped) -> GuestCpu:
    try:
        msrs = {
            int(number, 16): None if value.value is None else int(value.text, 16)
            for number, value in stored.key("msrs").items()
        }
        vcpus = tuple(_leaves_of(leaves) for leaves in stored.key("vcpus").entries())
        return GuestCpu(_leaves_of(stored.key("cpuid")), msrs, vcpus)
    except ValueError as err:
        raise stored.error("leaves and MSRs in hexadecimal") from err


def _leaves_of(stored: Shaped) -> dict[LeafId, Registers]:
    leaves: dict[LeafId, Registers] = {}
    for name, text in stored.items():
        eax, ebx, ecx, edx = (int(register, 16) for register in text.text.split())
        leaves[read_leaf(name)] = eax, ebx, ecx, edx
    return leaves


def blocked_by(
    locked: LockedCpu, host: DescribedHost, features: frozenset[PropertyName]
) -> tuple[PropertyName, ...]:
    """The features of the CPU, of those that are features, that guests on this host cannot be
    given.
    """
    on = sorted(
        prop.name for prop in locked.properties if prop.value is True and prop.name in features
    )
    return tuple(lacking_on(host, on))


def feature_names(cpu_map: CpuMap) -> frozenset[PropertyName]:
    """The property names of every feature with bits in the map."""
    return frozenset(
        cpu_map.property_of(name) for name, feature in cpu_map.features.items() if feature.bits
    )


def depends_on_defaults(cpu: LockedCpu | ExplicitCpu) -> bool:
    """Whether anything of the CPU is there because a model, a machine type or QEMU has it so."""
    return any(prop.origin.kind in ("model", "machine type", "realised") for prop in cpu.properties)
