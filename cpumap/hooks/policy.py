"""What a hook does with a domain that is about to run: judge its CPU, or pin it. No hook ever
calls libvirt.
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal, get_args

from cpumap.cpu.explicit import ExplicitCpu
from cpumap.cpu.names import PropertyName, Value
from cpumap.errors import DomainError, DriftError, InputError
from cpumap.libvirt.cpu_map.load import load_cpu_map
from cpumap.libvirt.domain import domain_element, read_document, request_of
from cpumap.libvirt.words import libvirt_map
from cpumap.pin.expand import expand
from cpumap.pin.resolve import Choices, Pin, resolve
from cpumap.pin.write import domain_xml, lasting
from cpumap.qemu.arguments import property_text
from cpumap.sources.choose import Wanted, choose_source
from cpumap.sources.platform import Platform
from cpumap.system.files import open_regular, read_regular, write_atomically
from cpumap.system.shape import at_top
from cpumap.system.trust import reason_not_to_obey
from cpumap.system.xml_document import Document

OnError = Literal["pass", "refuse"]


POLICY = Path("/etc/cpumap/hook.toml")


STATE = "/var/lib/cpumap"


POLICY_LIMIT = 1024 * 1024
"""Bytes."""


STATE_LIMIT = 1024 * 1024
"""Bytes; what is written has some 20,000."""


LONGEST = 3600
"""Seconds. libvirt waits for its hooks, and everything that asks about the domain with it."""


FILTERS = (("migrate", "begin"), ("restore", "begin"))
"""libvirt's operations whose output replaces the domain's XML, and must not change the CPU."""


GATES = (("prepare", "begin"), ("start", "begin"))
"""Operations that can only refuse. libvirt runs `prepare` first; a hook that is asked twice
answers twice.
"""


RECORDED = (("started", "begin"),)


@dataclass(frozen=True, slots=True)
class Policy:
    """`/etc/cpumap/hook.toml`: names as here, with `-` for `_`."""

    domains: tuple[str, ...] = ("*",)
    """Shell patterns of domain names."""
    exclude: tuple[str, ...] = ()
    pin: Pin = "model"
    """How hooks that may write (vdsm, kubevirt) pin."""
    on_error: OnError = "pass"
    """What becomes of a domain whose CPU is not as it should be, or cannot be judged."""
    recorded: str = ""
    """The release to ask; empty: the recording of the machine type's release."""
    run_emulator: bool = False
    """Whether to ask the domain's own emulator instead, if the file is trusted: a hook runs as
    root.
    """
    state: str = STATE
    """Where the CPUs that started guests had are kept, to be compared when they are restored;
    empty: nowhere.
    """
    log: str = ""
    """A file that gets a line for every decision; empty: none."""
    time_limit: int = 5
    """Seconds, 1 to 3600, after which a judgement counts as an error."""

    def covers(self, name: str) -> bool:
        """Whether the domain of this name is to be looked at."""
        wanted = any(fnmatchcase(name, pattern) for pattern in self.domains)
        return wanted and not any(fnmatchcase(name, pattern) for pattern in self.exclude)


def read_policy(path: Path) -> Policy:
    """The policy of the file; the default one where there is no such file.

    Errors: `InputError`, also for a file that somebody else than root and the caller may write.
    """
    try:
        stored = tomllib.loads(_own_text(path))
    except FileNotFoundError:
        return Policy()
    except (OSError, ValueError, RecursionError) as err:
        raise InputError(f"cannot be read: {err}", str(path)) from err
    known = {field.name: getattr(Policy(), field.name) for field in fields(Policy)}
    return Policy(
        **{_key(key, known, path): _value(key, value, known, path) for key, value in stored.items()}
    )


def _own_text(path: Path) -> str:
    handle = open_regular(path, os.O_RDONLY)
    with os.fdopen(handle, "rb") as stream:
        if reason := reason_not_to_obey(path, handle):
            raise InputError(f"is not obeyed: {reason}", str(path))
        return stream.read(POLICY_LIMIT).decode()


def _key(key: str, known: Mapping[str, object], path: Path) -> str:
    name = key.replace("-", "_")
    if name not in known:
        raise InputError(
            f"no such setting: {key}; there are {', '.join(known).replace('_', '-')}", str(path)
        )
    return name


def _value(key: str, value: Any, known: Mapping[str, Any], path: Path) -> Any:
    default = known[key.replace("-", "_")]
    choices = {"on-error": get_args(OnError), "pin": get_args(Pin)}.get(key.replace("_", "-"))
    if choices and value not in choices:
        raise InputError(f"{key} is {' or '.join(choices)}, not {value!r}", str(path))
    if isinstance(default, tuple):
        if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
            raise InputError(f"{key} is a list of strings", str(path))
        return tuple(value)
    if type(value) is not type(default):
        kind = {bool: "true or false", int: "a number"}.get(type(default), "a string")
        raise InputError(f"{key} is {kind}", str(path))
    if type(value) is int and not 1 <= value <= LONGEST:
        raise InputError(f"{key} is from 1 to {LONGEST} seconds", str(path))
    return value


@dataclass(frozen=True, slots=True)
class Judged:
    """The CPU that this machine would give a domain, and what its definition leaves to defaults."""

    cpu: ExplicitCpu
    unnamed: tuple[PropertyName, ...]
    given: Mapping[PropertyName, Value]
    """The properties of the CPU, with off what cannot be given here."""

    @property
    def is_explicit(self) -> bool:
        return not self.unnamed


def judge(document: Document, policy: Policy) -> Judged:
    """The CPU of the domain on the QEMU that would run it here. Errors: `CpumapError`, also for
    what it lacks.
    """
    request = request_of(document)
    cpu_map = load_cpu_map()
    wanted = Wanted(recorded=policy.recorded or None, start=policy.run_emulator)
    source = choose_source(wanted, request)
    try:
        expansion = expand(request, Platform(source, cpu_map))
    finally:
        source.close()
    cpu = resolve(request, expansion, Choices(pin=policy.pin))
    asked = {prop.name for prop in expansion.asked}
    unnamed = tuple(name for name in lasting(cpu).values if name not in asked)
    lacking = dict.fromkeys(map(PropertyName, expansion.unavailable), False)
    return Judged(cpu, unnamed, {**cpu.values, **lacking})


def require_explicit(judged: Judged) -> None:
    """Raises `DriftError` when something of the CPU is left to defaults."""
    if not judged.is_explicit:
        shown = ", ".join(judged.unnamed[:5]) + (", …" if len(judged.unnamed) > 5 else "")
        raise DriftError(
            f"its CPU is not explicit: {len(judged.unnamed)} properties are left to defaults "
            f"({shown})"
        )


def remember(document: Document, judged: Judged, policy: Policy) -> None:
    """Keeps the CPU that the guest has started with."""
    if policy.state:
        path = Path(policy.state) / f"{_uuid(document)}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        stored = {
            "domain": document.name,
            "qemu": judged.cpu.context.qemu,
            "cpu": dict(judged.given),
        }
        write_atomically(path, json.dumps(stored, indent=1).encode())


def require_same(document: Document, judged: Judged, policy: Policy) -> None:
    """Raises `DriftError` when the guest was started with another CPU than it would get now."""
    path = Path(policy.state) / f"{_uuid(document)}.json"
    if not policy.state or not path.exists():
        return
    qemu, was = _remembered(path)
    differing = changed_values(was, judged.given)
    if differing:
        raise DriftError(
            f"it was started with another CPU (QEMU {qemu}) than QEMU "
            f"{judged.cpu.context.qemu} would give"
            f" it: {', '.join(differing[:5])}{', …' if len(differing) > 5 else ''}"
        )


def _remembered(path: Path) -> tuple[str, Mapping[str, Value]]:
    """The QEMU and the CPU that a guest was started with. Errors: `InputError`."""
    try:
        stored = at_top(json.loads(read_regular(path, STATE_LIMIT)), str(path))
    except (OSError, ValueError, RecursionError) as err:
        raise InputError(f"cannot be read: {err}", str(path)) from err
    cpu = stored.key("cpu").values
    return stored.key("qemu").text, {str(name): value for name, value in cpu.items()}


def changed_values(was: Mapping[str, Value], now: Mapping[PropertyName, Value]) -> list[str]:
    """The properties that are not what they were; one that only one of them has counts when it
    is on.
    """
    names = sorted({*was, *now})
    pairs = ((name, was.get(name), now.get(PropertyName(name))) for name in names)
    return [
        f"{n} {_shown(a)} → {_shown(b)}"
        for n, a, b in pairs
        if a != b and (None not in (a, b) or True in (a, b))
    ]


def _shown(value: Value | None) -> str:
    return "absent" if value is None else property_text(value)


def _uuid(document: Document) -> str:
    uuid = domain_element(document).findtext("uuid") or document.name
    return "".join(c for c in uuid if c.isalnum() or c in "-_")


def libvirt_hook(name: str, operation: str, sub: str, document: bytes, policy: Policy) -> None:
    """Raises when the domain must not run. Prints nothing: a filter's empty answer means that
    nothing changes.
    """
    if (operation, sub) not in (*FILTERS, *GATES, *RECORDED) or not policy.covers(name):
        return
    parsed = read_document(document, name=name)
    judged = judge(parsed, policy)
    if (operation, sub) in RECORDED:
        remember(parsed, judged, policy)
        return
    if (operation, sub) in FILTERS:
        require_same(parsed, judged, policy)
    require_explicit(judged)


def pinned(document: Document, policy: Policy) -> bytes:
    """The domain with its CPU explicit, for hooks that may write."""
    if not policy.covers(document.name):
        return document.text()
    return domain_xml(judge(document, policy).cpu, libvirt_map(), document)


def read_guest(content: bytes, name: str = "") -> Document:
    """The guest's document, called by this name, else by its own. Errors: `DomainError`."""
    document = Document.parse(content, name or "<hook>", DomainError)
    own = str(domain_element(document).findtext("name") or "domain").strip()
    return replace(document, name=name or own)
