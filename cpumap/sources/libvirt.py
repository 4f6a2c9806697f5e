"""libvirt asked: what it offers, its domains, and a running guest's own QEMU. Only here is
libvirt imported.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from lxml import etree

from cpumap.cpu.expansion import CpuModel, Realised
from cpumap.cpu.names import Accel
from cpumap.errors import SourceError
from cpumap.qemu.qmp import Command, CommandFailedError
from cpumap.sources.attached import AttachedSource

if TYPE_CHECKING:
    import libvirt


@dataclass(frozen=True, slots=True)
class StoredDomain:
    """A domain as libvirt keeps it."""

    name: str
    uuid: str
    active: bool
    persistent: bool
    managed_save: bool
    """Whether a managed-save image holds the guest's memory, and the CPU it had."""
    snapshots: tuple[str, ...] = ()
    """Its snapshots' names, each with a definition of its own."""


class Hypervisor:
    """A connection to libvirt, read-only until something is asked that libvirt tells no reader. A
    context manager.

    With `write`, definitions hold their secrets, so that they can be defined again. Every method
    raises `SourceError` with libvirt's own message.
    """

    def __init__(self, uri: str, *, write: bool = False) -> None:
        self.uri = uri
        self._write = write
        self._libvirt = _library()
        self._full: libvirt.virConnect | None = None
        with self._said():
            self._connection = (self._libvirt.open if write else self._libvirt.openReadOnly)(uri)

    def capabilities(self) -> str:
        """The host's capabilities, as XML."""
        with self._said():
            return str(self._connection.getCapabilities())

    def domain_capabilities(
        self,
        *,
        emulator: str | None = None,
        arch: str | None = None,
        machine: str | None = None,
        kind: str | None = None,
    ) -> str:
        """What guests of this machine type and domain type (`kvm`, `qemu`) can have, as XML."""
        with self._said():
            return str(self._writable.getDomainCapabilities(emulator, arch, machine, kind))

    def emulator(self, arch: str, machine: str | None, accel: Accel) -> str:
        """The path of the QEMU that libvirt would use for such a guest."""
        kind = "kvm" if accel == "kvm" else "qemu"
        path = etree.fromstring(
            self.domain_capabilities(arch=arch, machine=machine, kind=kind)
        ).findtext("path")
        if not path:
            raise SourceError(f"{self.uri}: libvirt names no emulator for {arch} and {kind}")
        return str(path)

    @property
    def is_local(self) -> bool:
        """Whether the hypervisor is on this machine: its URI names no host."""
        return not urlsplit(self.uri).netloc

    def version(self) -> str:
        """The version of the QEMU that libvirt uses, `7.2.22`."""
        with self._said():
            number = self._connection.getVersion()
        return f"{number // 1000000}.{number // 1000 % 1000}.{number % 1000}"

    def domains(self) -> tuple[StoredDomain, ...]:
        """Every domain, by name. One that goes away meanwhile is left out."""
        with self._said():
            found = self._connection.listAllDomains()
        stored = (self._existing(domain) for domain in found)
        return tuple(sorted((entry for entry in stored if entry), key=lambda entry: entry.name))

    def domain(self, name: str) -> StoredDomain:
        """The domain of this name."""
        with self._said():
            return self._stored(self._lookup(name))

    def xml(self, name: str, *, live: bool = False) -> bytes:
        """The domain's definition as of its next start, or (`live`) as it runs; with secrets if
        it may write.
        """
        flags = 0 if live else self._libvirt.VIR_DOMAIN_XML_INACTIVE
        with self._said():
            if self._write:
                flags |= self._libvirt.VIR_DOMAIN_XML_SECURE
            return str(self._lookup(name).XMLDesc(flags)).encode()

    def define(self, xml: bytes) -> str:
        """Stores the definition; the name of the domain."""
        with self._said():
            return str(self._writable.defineXML(xml.decode()).name())

    def undefine(self, name: str) -> None:
        """Forgets the definition; what it has beside it (managed save, snapshots) makes libvirt
        refuse.
        """
        with self._said():
            self._writable.lookupByName(name).undefine()

    def start(self, name: str, *, paused: bool = False) -> None:
        """Starts the domain; paused, its guest has not executed an instruction."""
        with self._said():
            self._writable.lookupByName(name).createWithFlags(
                self._libvirt.VIR_DOMAIN_START_PAUSED if paused else 0
            )

    def destroy(self, name: str) -> None:
        """Ends the running guest at once."""
        with self._said():
            self._writable.lookupByName(name).destroy()

    def guest(self, name: str) -> GuestSource:
        """The running guest's own QEMU, asked through libvirt's monitor."""
        with self._said():
            domain = self._writable.lookupByName(name)
            if not domain.isActive():
                raise SourceError(f"domain {name!r} is not running: it has no QEMU to ask")
        return GuestSource(Monitor(self, domain))

    def close(self) -> None:
        """Ends the connection. May be called twice."""
        for connection in (self._connection, self._full):
            if connection is not None:
                connection.close()
        self._connection = self._full = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def _writable(self) -> libvirt.virConnect:
        """A connection that libvirt answers everything to."""
        if self._write:
            return self._connection
        if self._full is None:
            self._full = self._libvirt.open(self.uri)
        return self._full

    def _lookup(self, name: str) -> libvirt.virDomain:
        return self._connection.lookupByName(name)

    def _existing(self, domain: libvirt.virDomain) -> StoredDomain | None:
        try:
            return self._stored(domain)
        except self._libvirt.libvirtError as err:
            if err.get_error_code() == self._libvirt.VIR_ERR_NO_DOMAIN:
                return None
            raise SourceError(_sentence(err, self.uri)) from err

    def _stored(self, domain: libvirt.virDomain) -> StoredDomain:
        return StoredDomain(
            name=domain.name(),
            uuid=domain.UUIDString(),
            active=bool(domain.isActive()),
            persistent=bool(domain.isPersistent()),
            managed_save=self._supported(domain.hasManagedSaveImage, False),
            snapshots=tuple(self._supported(domain.snapshotListNames, [])),
        )

    def _supported(self, ask: Any, otherwise: Any) -> Any:
        """The answer, or `otherwise` where the hypervisor has no such thing."""
        try:
            return ask()
        except self._libvirt.libvirtError as err:
            if err.get_error_code() == self._libvirt.VIR_ERR_NO_SUPPORT:
                return otherwise
            raise

    @contextmanager
    def _said(self) -> Iterator[None]:
        try:
            yield
        except self._libvirt.libvirtError as err:
            raise SourceError(_sentence(err, self.uri)) from err


class Monitor:
    """A QMP conversation with a running guest's QEMU, one command at a time, through libvirt."""

    def __init__(self, hypervisor: Hypervisor, domain: libvirt.virDomain) -> None:
        self._hypervisor = hypervisor
        self._domain = domain
        self.label = f"domain {domain.name()}"

    def execute(self, command: str, **arguments: object) -> Any:
        """What QEMU returns for one command. Errors: `CommandFailedError`, and `SourceError` when
        the guest is gone.
        """
        answer = self._answer(command, arguments)
        if isinstance(answer, CommandFailedError):
            raise answer
        return answer

    def answers(self, commands: Iterable[Command]) -> list[Any]:
        """The return values in order, a `CommandFailedError` in place of what QEMU refuses."""
        return [self._answer(name, arguments) for name, arguments in commands]

    def _answer(self, command: str, arguments: Mapping[str, object]) -> Any:
        import libvirt_qemu

        asked = {"execute": command, **({"arguments": dict(arguments)} if arguments else {})}
        with self._hypervisor._said():
            answer = json.loads(libvirt_qemu.qemuMonitorCommand(self._domain, json.dumps(asked), 0))
        if "error" in answer:
            return CommandFailedError(f"{self.label}: {answer['error']['desc']}")
        return answer["return"]

    def warnings(self) -> list[str]:
        """Nothing: what QEMU printed went to libvirt's log."""
        return []

    def close(self) -> None:
        """Ends nothing: the guest is libvirt's."""


class GuestSource(AttachedSource):
    """A running guest's own QEMU. Whatever CPU it is asked to make, it shows the one that it
    has.
    """

    def realise(self, machine: str, model: CpuModel, *, unfiltered: bool = True) -> Realised:
        """The CPU of the running guest, with what was filtered out of it off; nothing is lacking
        in that one.
        """
        self._must_be(machine)
        return Realised(self.running().properties)


def _library() -> Any:
    """libvirt-python, with its habit of printing every error switched off."""
    try:
        import libvirt
    except ImportError as err:
        raise SourceError(
            "libvirt-python is not installed: pip install 'cpumap[libvirt]', or python3-libvirt of "
            "the distribution"
        ) from err
    libvirt.registerErrorHandler(lambda *_: None, None)
    return libvirt


def _sentence(err: libvirt.libvirtError, uri: str) -> str:
    """libvirt's message in one line, with the connection it is about."""
    return f"{uri}: {' '.join((err.get_error_message() or str(err)).split())}"
