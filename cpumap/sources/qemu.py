"""A QEMU asked directly: one that is started for the question, or one that runs already."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Self

from cpumap.cpu import Accel, Bit, CpuModel, Definition, Machine, PropertyName, Realised, Value
from cpumap.cpu_map_entries import CpuidBits
from cpumap.errors import CannotRealise, SourceError, UnknownName
from cpumap.qmp import CommandFailed, Conversation, Session
from cpumap.render import cpu_arguments
from cpumap.sources import ExpansionType

_SESSIONS_KEPT = 2
_WORDS = r": (?P<words>(?:CPUID|MSR)\S*?\.(?P<name>[a-z0-9_.-]+) \[bit \d+\])"
_LACK = re.compile(r"doesn't support requested feature" + _WORDS)
_UNMET = re.compile(r"depends on other features that were not requested" + _WORDS)
_PARAVIRTUAL = range(0x40000000, 0x50000000)
"""CPUID leaves of KVM and Hyper-V: QEMU has names for the bits, although CPU maps have not."""

_UNKNOWN = re.compile(
    r"CPU model '.*' not found|[Pp]roperty '.*' not found|unable to find CPU model"
    r"|Invalid parameter type for|Parameter '.*' expects|Property '.*' doesn't take value|value of property '.*' must"
)
"""How QEMU words what it was asked for in vain: the input's fault, not its own."""


class QemuSource:
    """A QEMU binary; one paused process per machine type, the last two kept, and one per realised CPU."""

    def __init__(self, binary: str | Path, accel: Accel = "tcg", *, timeout: float = 30.0) -> None:
        self.binary = str(binary)
        self.accel: Accel = accel
        self._timeout = timeout
        self._sessions: dict[str, Session] = {}
        bare = self._session("none")
        self.version = _version(bare.execute("query-version"))
        self.arch: str = bare.execute("query-target")["arch"]
        self.label = f"QEMU {self.version} ({self.binary})"
        self._machines = _machines(bare.execute("query-machines"))

    def machines(self) -> tuple[Machine, ...]:
        return self._machines

    def definitions(self, machine: str) -> tuple[Definition, ...]:
        return _definitions(self._session(machine), self.arch)

    def expand(self, machine: str, model: CpuModel, kind: ExpansionType) -> Mapping[PropertyName, Value]:
        return _expand(self._session(machine), model, kind)

    def expand_many(
        self, machine: str, models: Iterable[CpuModel], kind: ExpansionType
    ) -> list[Mapping[PropertyName, Value]]:
        """The expansions of many models, asked for in one pipeline."""
        answers = self._session(machine).pipeline(_expansion_command(model, kind) for model in models)
        return [answer["model"]["props"] for answer in answers]

    def realise(self, machine: str, model: CpuModel, *, unfiltered: bool = True) -> Realised:
        with self.start(machine, model, unfiltered=unfiltered) as session:
            return _with_filtered(read_realised(session)) if unfiltered else read_realised(session)

    def start(self, machine: str, model: CpuModel, *, unfiltered: bool = True) -> Session:
        """A session with a paused QEMU that has made this CPU; under tcg nothing is filtered out of it if so wished.

        Under KVM the kernel refuses registers of features that the host has not, and QEMU aborts: never forced there.
        """
        how = {PropertyName("check"): True}  # old machine types switch the warnings off
        if unfiltered and self.accel == "tcg":
            how[PropertyName("x-force-features")] = True
        arguments = cpu_arguments(model.name, f"{model.name}-{self.arch}-cpu", {**model.props, **how})
        return self._started([*self._machine(machine), *arguments])

    def _session(self, machine: str) -> Session:
        session = self._sessions.pop(machine, None) or self._started(self._machine(machine))
        self._sessions[machine] = session
        while len(self._sessions) > _SESSIONS_KEPT:
            self._sessions.pop(next(iter(self._sessions))).close()
        return session

    def _machine(self, machine: str) -> list[str]:
        return ["-machine", f"{machine},accel={self.accel}"]

    def _started(self, arguments: list[str]) -> Session:
        try:
            return Session.start(self.binary, arguments, timeout=self._timeout)
        except SourceError as err:
            if _UNKNOWN.search(str(err)):
                raise UnknownName(str(err)) from err
            if "-machine help" in str(err) or "unsupported machine type" in str(err):
                raise UnknownName(f"{self.binary} has no machine type {arguments[1].partition(',')[0]!r}") from err
            raise

    def close(self) -> None:
        for session in self._sessions.values():
            session.close()
        self._sessions.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AttachedSource:
    """A QEMU that runs already, reached through its QMP socket: one machine type, one CPU, never ended by us."""

    def __init__(self, session: Conversation) -> None:
        self._session = session
        self.version = _version(session.execute("query-version"))
        self.arch: str = session.execute("query-target")["arch"]
        self.accel: Accel = "kvm" if session.execute("query-kvm")["enabled"] else "tcg"
        self.machine: str = session.execute("qom-get", path="/machine", property="type").removesuffix("-machine")
        self.label = f"running QEMU {self.version} ({session.label})"

    def machines(self) -> tuple[Machine, ...]:
        """Of the QEMU's machine types, the one that it runs counts as the default."""
        listed = _machines(self._session.execute("query-machines"))
        return tuple(replace(machine, is_default=machine.name == self.machine) for machine in listed)

    def definitions(self, machine: str) -> tuple[Definition, ...]:
        self._must_be(machine)
        return _definitions(self._session, self.arch)

    def expand(self, machine: str, model: CpuModel, kind: ExpansionType) -> Mapping[PropertyName, Value]:
        self._must_be(machine)
        return _expand(self._session, model, kind)

    def realise(self, machine: str, model: CpuModel, *, unfiltered: bool = True) -> Realised:
        self._must_be(machine)
        own = self.running()
        typename = own.properties[PropertyName("type")]
        if model.props or typename != f"{model.name}-{self.arch}-cpu":
            raise CannotRealise(f"{self.label} can only show its own CPU ({typename}), not make a {model.name}")
        return own

    def running(self) -> Realised:
        """The CPU that its guest has now."""
        path = self._session.execute("query-cpus-fast")[0]["qom-path"]
        words = self._session.execute("qom-get", path=path, property="filtered-features")
        return replace(read_realised(self._session), filtered=_named(_bits(words)))

    def _must_be(self, machine: str) -> None:
        if machine != self.machine:
            raise UnknownName(f"{self.label} runs machine type {self.machine}, and cannot answer for {machine}")

    def close(self) -> None:
        self._session.close()


def _with_filtered(realised: Realised) -> Realised:
    given_back = {PropertyName(name): True for name in realised.filtered if name in realised.properties}
    return replace(realised, properties={**realised.properties, **given_back})


def _bits(words: Iterable[Mapping[str, Any]]) -> Iterator[Bit]:
    """The bits set in a list of X86CPUFeatureWordInfo, as `filtered-features` is."""
    for word in words:
        leaf, subleaf, register = word["cpuid-input-eax"], word.get("cpuid-input-ecx", 0), word["cpuid-register"]
        yield from ((leaf, subleaf, register.lower(), number) for number in range(32) if word["features"] >> number & 1)


@cache
def _names() -> Mapping[Bit, PropertyName]:
    """The properties by their CPUID bits, as the shipped CPU map has them."""
    from cpumap.cpu_map import load_cpu_map

    cpu_map = load_cpu_map()
    return {
        (bits.leaf, bits.subleaf, bits.register, number): cpu_map.property_of(feature.name)
        for feature in cpu_map.features.values()
        for bits in feature.bits
        if isinstance(bits, CpuidBits)
        for number in range(32)
        if bits.mask >> number & 1
    }


def _named(filtered: Iterable[Bit]) -> dict[str, str]:
    """Property name → where the bit sits, in QEMU's way of writing it; bits without a name left out."""
    return {
        str(_names()[bit]): f"CPUID.{bit[0]:02X}H:{bit[2].upper()} [bit {bit[3]}]"
        for bit in filtered
        if bit in _names()
    }


def read_realised(session: Conversation) -> Realised:
    """The first vCPU of a QEMU: every readable scalar property, and what it says was filtered."""
    path = session.execute("query-cpus-fast")[0]["qom-path"]
    listed = session.execute("qom-list", path=path)
    names = [entry["name"] for entry in listed if not entry["type"].startswith(("link<", "child<"))]
    values = session.answers(("qom-get", {"path": path, "property": name}) for name in names)
    properties = {
        PropertyName(name): value
        for name, value in zip(names, values, strict=True)
        if isinstance(value, bool | int | str)
    }
    filtered = values[names.index("filtered-features")] if "filtered-features" in names else ()
    warnings = session.warnings()
    nameless = tuple(bit for bit in _bits(filtered) if bit not in _names() and bit[0] not in _PARAVIRTUAL)
    return Realised(properties, lacking(warnings), lacking(warnings, _UNMET), nameless)


def lacking(warnings: Iterable[str], warning: re.Pattern[str] = _LACK) -> dict[str, str]:
    """Property name → words, of every feature that QEMU's warnings say cannot be given.

    QEMU 5.2 to 10.0 write `CPUID.07H:EBX.avx2 [bit 5]`, 11.1 `CPUID[eax=07h,ecx=00h].EBX.avx2 [bit 5]`.
    """
    found = (warning.search(line) for line in warnings)
    return {match["name"]: match["words"] for match in found if match}


def _version(answer: Mapping[str, Any]) -> str:
    qemu = answer["qemu"]
    return f"{qemu['major']}.{qemu['minor']}.{qemu['micro']}"


def _machines(answer: Iterable[Mapping[str, Any]]) -> tuple[Machine, ...]:
    return tuple(
        Machine(
            name=entry["name"],
            alias=entry.get("alias"),
            default_cpu=entry.get("default-cpu-type"),
            deprecated=entry.get("deprecated", False),
            is_default=entry.get("is-default", False),
            cpu_max=entry["cpu-max"],
        )
        for entry in sorted(answer, key=lambda entry: str(entry["name"]))
        if entry["name"] != "none"
    )


def _definitions(session: Conversation, arch: str) -> tuple[Definition, ...]:
    return tuple(
        Definition(
            name=entry["name"],
            typename=entry.get("typename", f"{entry['name']}-{arch}-cpu"),
            alias_of=entry.get("alias-of"),
            migration_safe=entry.get("migration-safe", False),
            static=entry.get("static", False),
            deprecated=entry.get("deprecated", False),
            unavailable=tuple(entry.get("unavailable-features", ())),
        )
        for entry in sorted(session.execute("query-cpu-definitions"), key=lambda entry: str(entry["name"]))
    )


def _expansion_command(model: CpuModel, kind: ExpansionType) -> tuple[str, dict[str, object]]:
    info: dict[str, object] = {"name": model.name}
    if model.props:
        info["props"] = dict(model.props)
    return "query-cpu-model-expansion", {"type": kind, "model": info}


def _expand(session: Conversation, model: CpuModel, kind: ExpansionType) -> Mapping[PropertyName, Value]:
    name, arguments = _expansion_command(model, kind)
    try:
        props: Mapping[PropertyName, Value] = session.execute(name, **arguments)["model"]["props"]
    except CommandFailed as err:
        raise (UnknownName(str(err)) if _UNKNOWN.search(str(err)) else err) from err
    return props
