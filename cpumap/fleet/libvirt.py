"""Domains that libvirt keeps, pinned where they are: read, made explicit, backed up, defined,
and read back.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from cpumap.cpu.explicit import ExplicitCpu
from cpumap.cpu.request import CpuRequest
from cpumap.errors import CpumapError, DomainError, SourceError
from cpumap.fleet.convert import Status
from cpumap.hosts.described import DescribedHost, read_described
from cpumap.libvirt.cpu_map.map import CpuMap
from cpumap.libvirt.domain import domain_element, parse_request, read_document, request_of
from cpumap.libvirt.layout import QEMU_NAMESPACE
from cpumap.move.target import Target, opened, placed
from cpumap.pin.resolve import DEFAULT_CHOICES, Choices, resolve
from cpumap.pin.translate import expand_on, explicit_cpu
from cpumap.pin.write import domain_xml
from cpumap.runnable.starting import stopped_by
from cpumap.sources.choose import Wanted, connected_source
from cpumap.sources.libvirt import Hypervisor, StoredDomain
from cpumap.sources.platform import Platform
from cpumap.sources.source import Source
from cpumap.system.files import write_atomically
from cpumap.system.xml_document import Document, read_input


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one domain."""

    name: str
    status: Status
    """converted: now explicit (or would be) · explicit: it was already · refused: cannot be ·
    failed: and why.
    """
    reason: str = ""
    notes: tuple[str, ...] = ()
    old: bytes = b""
    new: bytes = b""
    exit_code: int = 0

    @property
    def diff(self) -> str:
        """What changes in the definition, as a unified diff."""
        lines = (self.old.decode().splitlines(), self.new.decode().splitlines())
        return "".join(
            f"{line}\n" for line in difflib.unified_diff(*lines, self.name, self.name, lineterm="")
        )


@dataclass
class Converter:
    """Pins domains through one connection. A context manager: it holds the QEMUs that it asks."""

    hypervisor: Hypervisor
    cpu_map: CpuMap
    words: CpuMap
    """What libvirt has words for."""
    choices: Choices = DEFAULT_CHOICES
    wanted: Wanted = field(default_factory=Wanted)
    live: bool = False
    """Whether a running guest's domain is pinned to the CPU that the guest has now."""
    backup: Path | None = None
    """Where old definitions go before new ones are stored; None: nothing is stored."""
    target: Target | None = None
    """Where the guests will run; None: where answers come from."""
    host: DescribedHost | None = None
    """The host that they will run on; None: libvirt's own, for those that depend on it."""
    _places: dict[tuple[str, str], Source] = field(default_factory=dict)
    """The target's QEMU."""
    _sources: dict[tuple[object, ...], Source] = field(default_factory=dict)
    _cpus: dict[CpuRequest, ExplicitCpu] = field(default_factory=dict)
    _open: ExitStack = field(default_factory=ExitStack)

    def convert(self, name: str) -> Result:
        """What became of the domain; errors are results too."""
        try:
            return self._convert(name)
        except CpumapError as err:
            status: Status = "refused" if err.exit_code == 1 else "failed"
            return Result(name, status, str(err), exit_code=err.exit_code)

    def _convert(self, name: str) -> Result:
        domain = self.hypervisor.domain(name)
        if not domain.persistent:
            return Result(
                name, "refused", "it is transient: libvirt keeps no definition of it", exit_code=1
            )
        old = self.hypervisor.xml(name)
        document = read_document(old, name=name)
        cpu = (
            self._running(name)
            if self.live and domain.active
            else self._explicit(request_of(document))
        )
        new = domain_xml(cpu, self.words, document)
        notes = (*cpu.notes, *self._beside(domain))
        if definition(new, name) == definition(old, name):
            return Result(name, "explicit", notes=notes)
        if self.backup is not None:
            self._store(name, old, new)
        return Result(name, "converted", notes=notes, old=old, new=new)

    def _explicit(self, request: CpuRequest) -> ExplicitCpu:
        key = replace(request, where="")
        if key not in self._cpus:
            self._cpus[key] = self._placed(key)
        return self._cpus[key]

    def _placed(self, request: CpuRequest) -> ExplicitCpu:
        """The CPU as it must be named where it will run, with what is to be said of it."""
        host = self.host or (self._host(request) if request.mode == "host-model" else None)
        platform = Platform(self._source(request), self.cpu_map)
        meant, expansion = expand_on(host, request, platform)
        cpu = resolve(meant, expansion, self.choices)
        if self.target is None:
            return cpu
        place = self._place(self.target, platform.source)
        moved, told = placed(cpu, expansion, platform, self.target, place)
        return replace(moved, notes=(*moved.notes, *told))

    def _place(self, target: Target, source: Source) -> Source | None:
        if target.qemu is None:
            return None
        kind = (source.accel, source.arch)
        if kind not in self._places:
            place = opened(target.qemu, source, cache=self.wanted.cache)
            self._open.callback(place.close)
            self._places[kind] = place
        return self._places[kind]

    def _running(self, name: str) -> ExplicitCpu:
        return running_cpu(self.hypervisor, name, self.cpu_map, self.choices)

    def _source(self, request: CpuRequest) -> Source:
        key = (
            request.emulator,
            request.arch,
            request.accel,
            request.machine if request.emulator is None else None,
        )
        if key not in self._sources:
            source = connected_source(self.hypervisor, self.wanted, request)
            self._open.callback(source.close)
            self._sources[key] = source
        return self._sources[key]

    def _host(self, request: CpuRequest) -> DescribedHost:
        return host_model_of(self.hypervisor, request, self.cpu_map)

    def _beside(self, domain: StoredDomain) -> Iterator[str]:
        """What of the domain keeps the CPU it had, whatever its definition says."""
        if domain.active and self.live:
            yield "running: pinned to the CPU that it has now, effective at its next start"
        elif domain.active:
            yield "running: effective at its next start; --live pins the CPU that it has now"
        if domain.managed_save:
            yield (
                "its managed-save image is left alone: it comes back with the CPU it was saved with"
            )
        if domain.snapshots:
            yield (
                f"snapshots are left alone, and have the CPU they were taken with: "
                f"{', '.join(domain.snapshots)}"
            )

    def _store(self, name: str, old: bytes, new: bytes) -> None:
        assert self.backup is not None
        keep(self.backup, name, old)
        if self.hypervisor.xml(name) != old:
            raise SourceError(
                f"{name}: somebody else has changed its definition meanwhile; nothing is changed"
            )
        self.hypervisor.define(new)
        kept = self.hypervisor.xml(name)
        if definition(kept, name) != definition(new, name):
            self.hypervisor.define(old)
            raise SourceError(
                f"{name}: libvirt would store another CPU than meant; its definition is as it was"
            )
        if reason := self._stopped(kept, name):
            self.hypervisor.define(old)
            raise SourceError(
                f"{name}: libvirt would not start it: {reason}; its definition is as it was"
            )

    def _stopped(self, kept: bytes, name: str) -> str:
        """Why libvirt would not start what it has stored, where it will run."""
        request = request_of(read_document(kept, name=name))
        source = self._source(request)
        place = self.target and self._place(self.target, source)
        platform = Platform(place or source, self.cpu_map)
        meant, expansion = expand_on(self.host, request, platform)
        return stopped_by(meant, expansion, platform, self.host)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()


def running_cpu(
    hypervisor: Hypervisor, name: str, cpu_map: CpuMap, choices: Choices = DEFAULT_CHOICES
) -> ExplicitCpu:
    """The CPU that a running guest has, asked of its own QEMU, explicit; what was filtered out
    of it is off.
    """
    request = parse_request(hypervisor.xml(name, live=True), name=name)
    guest = hypervisor.guest(name)
    lacking = guest.running().filtered
    cpu = explicit_cpu(request, Platform(guest, cpu_map), choices=choices)
    off = f"off, because the running guest does not have them: {', '.join(sorted(lacking))}"
    return replace(cpu, notes=(*cpu.notes, off)) if lacking else cpu


def host_model_of(hypervisor: Hypervisor, request: CpuRequest, cpu_map: CpuMap) -> DescribedHost:
    """The CPU that host-model means to this libvirt, for the request's machine type and domain
    type.
    """
    kind = "kvm" if request.accel == "kvm" else "qemu"
    xml = hypervisor.domain_capabilities(
        emulator=request.emulator, arch=request.arch, machine=request.machine, kind=kind
    )
    return read_described(xml.encode(), cpu_map, name=f"{hypervisor.uri} domain capabilities")


def definition(xml: bytes, name: str) -> tuple[object, ...]:
    """What a domain document says of the CPU, in a form that neither spacing nor libvirt's own
    additions change.
    """
    domain = domain_element(Document.parse(xml, name, DomainError))
    commandline = domain.find(f"{{{QEMU_NAMESPACE}}}commandline")
    arguments = (
        () if commandline is None else tuple(element.get("value") for element in commandline)
    )
    return (_plain(domain.find("cpu")), arguments)


def _plain(element: Any) -> object:
    if element is None:
        return None
    attributes = {
        key: value
        for key, value in element.attrib.items()
        if (element.tag, key) != ("topology", "dies")
    }
    children = tuple(_plain(child) for child in element.iterchildren("*"))
    return (element.tag, tuple(sorted(attributes.items())), (element.text or "").strip(), children)


_LATER = re.compile(r"~\d+$")
"""What ends the name of a definition that was kept after another of the same domain: no domain's
name is written with such a mark.
"""


def keep(directory: Path, name: str, content: bytes) -> Path:
    """Where the definition now is in the backup; one that is there already is never overwritten
    by another.
    """
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    stem = re.sub(r"[/\0%~]|^\.", lambda found: f"%{ord(found[0]):02X}", name)
    for number in range(1000):
        path = directory / (f"{stem}~{number}.xml" if number else f"{stem}.xml")
        if path.exists() and path.read_bytes() == content:
            return path
        if not path.exists():
            write_atomically(path, content)
            return path
    raise SourceError(f"{directory}: a thousand backups of {name}")


def restore(hypervisor: Hypervisor, backup: Path) -> Iterator[Result]:
    """Defines every domain of the backup as it was when it was first kept there: a directory, or
    one file.
    """
    if not backup.exists():
        raise SourceError(f"{backup}: there is no such backup")
    paths = sorted(backup.glob("*.xml")) if backup.is_dir() else [backup]
    first = [path for path in paths if len(paths) == 1 or not _LATER.search(path.stem)]
    if not first:
        raise SourceError(f"{backup}: no definitions in it")
    for path in first:
        try:
            old = read_input(path)
            name = hypervisor.define(old)
            same = definition(hypervisor.xml(name), name) == definition(old, name)
            yield Result(
                name,
                "converted" if same else "failed",
                "" if same else "libvirt has stored another CPU",
            )
        except CpumapError as err:
            yield Result(path.stem, "failed", str(err), exit_code=err.exit_code)
