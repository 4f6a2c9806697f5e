"""The libvirt hook in a real libvirtd: guests started, saved and restored with it in place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cpumap.errors import SourceError
from cpumap.hooks.install import install
from cpumap.pin.translate import translate
from cpumap.sources.libvirt import Hypervisor
from tests.support import libvirtd
from tests.support.definitions import Case, model
from tests.support.trusted import place_of_our_own

if TYPE_CHECKING:
    import libvirt

pytestmark = [pytest.mark.live, pytest.mark.xdist_group("libvirt")]

HANG = """#!/bin/sh
case "$*" in *socket,id=qmp,*) exec sleep 30;; esac
exec /usr/bin/qemu-system-x86_64 "$@"
"""
"""A QEMU that works for libvirt, and does not answer cpumap."""


@dataclass
class Site:
    """A libvirtd with the hook installed, and an emulator whose release can be changed under it."""

    daemon: libvirtd.Daemon
    hypervisor: Hypervisor
    connection: libvirt.virConnect
    qemus: Mapping[str, Path]
    place: Path
    """Where nobody else can put an emulator: what the hook runs must be there."""

    @property
    def emulator(self) -> Path:
        return self.place / "emulator"

    def upgrade(self, release: str) -> None:
        """Puts the QEMU of another release where the guests' emulator is."""
        self.emulator.write_text(
            f'#!/bin/sh\nexec {self.daemon.emulator(self.qemus[release])} "$@"\n'
        )
        self.emulator.chmod(0o755)

    def policy(self, **settings: object) -> None:
        known = {
            "on_error": "refuse",
            "state": f"{self.daemon.root}/state",
            "time_limit": 30,
            **settings,
        }
        lines = ["run-emulator = true\n"]
        lines += [f"{name.replace('_', '-')} = {value!r}\n" for name, value in known.items()]
        (self.daemon.root / "hook.toml").write_text("".join(lines))

    def define(
        self, name: str, *, explicit: bool, machine: str = "pc-q35-7.2", cpu: str = "Penryn"
    ) -> None:
        xml = Case(model(cpu), machine).xml(
            name, str(self.emulator), self.daemon.root / f"{name}.qmp"
        )
        self.hypervisor.define((translate(xml, format="xml") if explicit else xml).encode())

    def refused(self, name: str) -> str:
        """libvirt's message, when the guest cannot be started."""
        with pytest.raises(SourceError) as refusal:
            self.hypervisor.start(name, paused=True)
        return str(refusal.value)


@pytest.fixture(scope="module")
def module_site(qemus: Mapping[str, Path]) -> Iterator[Site]:
    def hooks(root: Path) -> None:
        install("libvirt", root / "etc/libvirt/hooks", root / "hook.toml")

    with (
        place_of_our_own() as place,
        libvirtd.private(hooks) as daemon,
        Hypervisor(daemon.uri, write=True) as hypervisor,
    ):
        connection = daemon.open()
        yield Site(daemon, hypervisor, connection, qemus, place)
        connection.close()


@pytest.fixture
def site(module_site: Site) -> Iterator[Site]:
    """The site with QEMU 7.2 and a policy that refuses; without guests again afterwards."""
    module_site.upgrade("7.2")
    module_site.policy()
    yield module_site
    for domain in module_site.hypervisor.domains():
        forget(module_site.connection, domain.name)


def forget(connection: libvirt.virConnect, name: str) -> None:
    """Ends the guest, and forgets it with its managed save."""
    import libvirt

    domain = connection.lookupByName(name)
    if domain.isActive():
        domain.destroy()
    domain.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE)


def test_only_explicit_cpus_start(site: Site) -> None:
    site.define("left-to-defaults", explicit=False)
    message = site.refused("left-to-defaults")
    assert "hook" in message.lower() and "its CPU is not explicit" in message
    assert "its CPU is not explicit" in site.daemon.log
    site.define("explicit", explicit=True)
    site.hypervisor.start("explicit", paused=True)
    site.policy(on_error="pass")
    site.hypervisor.start("left-to-defaults", paused=True)


def test_saved_and_restored_with_the_same_cpu(site: Site) -> None:
    site.define("kept", explicit=True)
    site.hypervisor.start("kept", paused=True)
    before = site.hypervisor.guest("kept").running()
    site.connection.lookupByName("kept").managedSave(0)
    site.hypervisor.start("kept", paused=True)
    assert site.hypervisor.guest("kept").running() == before


def test_not_restored_with_another_cpu(site: Site, tmp_path: Path) -> None:
    """The QEMU is another one by then, and gives what the guest leaves to defaults differently."""
    import libvirt

    image = str(site.daemon.root / "saved")
    site.policy(on_error="pass")
    site.define("drifts", explicit=False, machine="pc-i440fx-5.2", cpu="EPYC-Rome")
    site.hypervisor.start("drifts", paused=True)
    site.connection.lookupByName("drifts").save(image)
    site.policy()
    with pytest.raises(libvirt.libvirtError, match="its CPU is not explicit"):
        site.connection.restore(image)
    site.upgrade("11.1")
    with pytest.raises(libvirt.libvirtError, match="it was started with another CPU"):
        site.connection.restore(image)
    assert "it was started with another CPU (QEMU 7.2" in site.daemon.log
    site.upgrade("7.2")
    site.policy(on_error="pass")
    site.connection.restore(image)
    assert site.hypervisor.domain("drifts").active


def test_not_restored_where_its_machine_type_is_gone(site: Site) -> None:
    site.define("old", explicit=True, machine="pc-i440fx-2.4")
    site.hypervisor.start("old", paused=True)
    site.connection.lookupByName("old").managedSave(0)
    site.upgrade("11.1")
    assert "has no machine type 'pc-i440fx-2.4'" in site.refused("old")


def test_a_hook_that_hangs_is_cut_short(site: Site) -> None:
    site.define("waits", explicit=True)
    site.emulator.write_text(HANG)
    site.policy(time_limit=2)
    assert "not judged within 2 s" in site.refused("waits")
    site.policy(time_limit=2, on_error="pass")
    site.hypervisor.start("waits", paused=True)


def test_a_hook_that_crashes_is_said(site: Site) -> None:
    other = site.daemon.hooks / "qemu.d/40-other"
    other.write_text("#!/bin/sh\necho mine is broken >&2\nexit 3\n")
    other.chmod(0o755)
    try:
        site.define("stays", explicit=True)
        assert "mine is broken" in site.refused("stays")
    finally:
        other.unlink()
    site.hypervisor.start("stays", paused=True)
