"""Guests moved, running, from one libvirtd to another whose QEMU is of another release."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cpumap.arch.x86.x86 import X86_64
from cpumap.cpu.expansion import Realised
from cpumap.pin.resolve import Choices
from cpumap.pin.translate import translate
from cpumap.qemu.qmp import Session
from cpumap.sources.attached import AttachedSource
from tests.support import libvirtd
from tests.support.definitions import Case, model

if TYPE_CHECKING:
    import libvirt

pytestmark = [pytest.mark.live, pytest.mark.xdist_group("libvirt")]

FROM, TO = "7.2", "10.0"


@dataclass
class Host:
    """A libvirtd, and the emulator that its guests have."""

    daemon: libvirtd.Daemon
    connection: libvirt.virConnect

    def use(self, qemu: Path) -> None:
        emulator = self.daemon.root / "emulator"
        emulator.write_text(f'#!/bin/sh\nexec {self.daemon.emulator(qemu)} "$@"\n')
        emulator.chmod(0o755)

    def cpu(self, name: str) -> Realised:
        """The CPU of the running guest, through the monitor that it has of its own."""
        guest = AttachedSource(Session.attach(str(self.daemon.root / f"{name}.qmp")))
        try:
            return guest.running()
        finally:
            guest.close()


@pytest.fixture(scope="module")
def hosts(qemus: Mapping[str, Path]) -> Iterator[tuple[Host, Host]]:
    with libvirtd.private() as first, libvirtd.private() as second:
        here, there = Host(first, first.open()), Host(second, second.open())
        here.use(qemus[FROM])
        there.use(qemus[TO])
        yield here, there
        here.connection.close()
        there.connection.close()


def domain(host: Host, name: str, *, explicit: bool) -> str:
    """A guest for the host's emulator; explicit, with the CPU that this QEMU really gives it."""
    xml = Case(model("EPYC-Rome"), "pc-i440fx-5.2").xml(
        name, str(host.daemon.root / "emulator"), host.daemon.root / f"{name}.qmp"
    )
    return translate(xml, format="xml", choices=Choices(unavailable="off")) if explicit else xml


def migrated(hosts: tuple[Host, Host], document: str) -> tuple[Realised, Realised]:
    """The guest's CPU before and after it has moved while it ran."""
    import libvirt

    here, there = hosts
    guest = here.connection.createXML(document, libvirt.VIR_DOMAIN_START_PAUSED)
    name = guest.name()
    before = here.cpu(name)
    leaving = guest.XMLDesc(libvirt.VIR_DOMAIN_XML_MIGRATABLE | libvirt.VIR_DOMAIN_XML_SECURE)
    where = {
        libvirt.VIR_MIGRATE_PARAM_URI: f"unix://{there.daemon.root}/migration",
        libvirt.VIR_MIGRATE_PARAM_DEST_XML: leaving.replace(
            str(here.daemon.root), str(there.daemon.root)
        ),
    }
    arrived = guest.migrate3(there.connection, where, libvirt.VIR_MIGRATE_LIVE)
    after = there.cpu(name)
    arrived.destroy()
    return before, after


def restarted(hosts: tuple[Host, Host], document: str) -> tuple[Realised, Realised]:
    """The guest's CPU when it starts on one host, and when it starts on the other."""
    import libvirt

    found = []
    for host in hosts:
        at = document.replace(str(hosts[0].daemon.root), str(host.daemon.root))
        guest = host.connection.createXML(at, libvirt.VIR_DOMAIN_START_PAUSED)
        found.append(host.cpu(guest.name()))
        guest.destroy()
    return found[0], found[1]


def differing(before: Realised, after: Realised) -> dict[str, object]:
    """What both have, and have differently."""
    both = before.properties.keys() & after.properties.keys() - X86_64.per_instance
    return {
        str(name): (before.properties[name], after.properties[name])
        for name in both
        if before.properties[name] != after.properties[name]
    }


def test_an_explicit_cpu_arrives_as_it_left(hosts: tuple[Host, Host]) -> None:
    assert differing(*migrated(hosts, domain(hosts[0], "pinned", explicit=True))) == {}


def test_an_explicit_cpu_starts_anywhere_as_it_was(hosts: tuple[Host, Host]) -> None:
    assert differing(*restarted(hosts, domain(hosts[0], "pinned", explicit=True))) == {}


def test_a_cpu_left_to_defaults_drifts(hosts: tuple[Host, Host]) -> None:
    """As long as it runs, libvirt carries the features along; from its next start it has others."""
    assert differing(*restarted(hosts, domain(hosts[0], "left", explicit=False)))["rdseed"] == (
        False,
        True,
    )
