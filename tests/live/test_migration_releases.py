"""A pinned guest goes live from libvirt 9.0 with QEMU 7.2 to 11.3 with 10.0 to 12.8 with 11.1, or
is refused with the reason that `plan` gives beforehand.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Any

import libvirt
import pytest

from cpumap.cli.main import main
from tests.support import libvirt_releases
from tests.support.libvirt_releases import EMULATOR
from tests.support.releases import LIBVIRT_RELEASES

pytestmark = [pytest.mark.live, pytest.mark.needs("libvirt-9.0", "libvirt-11.3", "libvirt-12.8")]

PORTS = count(49400)

DOMAIN = """<domain type='qemu'>
  <name>guest</name>
  <memory unit='MiB'>16</memory>
  <vcpu>{cores}</vcpu>
  <os><type arch='x86_64' machine='pc-i440fx-7.2'>hvm</type></os>
  <cpu mode='custom' match='exact' check='none'>
    <model fallback='forbid'>Westmere</model>
    <topology sockets='1' dies='1' cores='{cores}' threads='1'/>
  </cpu>
  <devices><emulator>{emulator}</emulator><memballoon model='none'/></devices>
</domain>"""


@pytest.fixture(scope="module")
def hosts() -> Iterator[dict[str, libvirt.virConnect]]:
    """Connections to the three libvirtds, by release."""
    with ExitStack() as stack:
        running = [
            stack.enter_context(libvirt_releases.running(release)) for release in LIBVIRT_RELEASES
        ]
        yield {daemon.release: daemon.open() for daemon in running}


def pinned(path: Path, cores: int, capsys: pytest.CaptureFixture[str]) -> str:
    path.write_text(DOMAIN.format(cores=cores, emulator=EMULATOR))
    pin = ("--recorded", "7.2", "--unavailable", "off", "--format", "xml")
    assert main(["translate", str(path), *pin]) == 0
    document = capsys.readouterr().out
    path.write_text(document)
    return document


def moved(guest: Any, host: libvirt.virConnect) -> Any:
    """The guest on the other host."""
    where = {
        libvirt.VIR_MIGRATE_PARAM_URI: f"tcp://127.0.0.1:{next(PORTS)}",
        libvirt.VIR_MIGRATE_PARAM_LISTEN_ADDRESS: "127.0.0.1",
    }
    flags = libvirt.VIR_MIGRATE_LIVE | libvirt.VIR_MIGRATE_UNSAFE
    return guest.migrate3(host, where, flags)


def way(path: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """What `plan` says of the way from 9.0 to 11.3."""
    words = ("--recorded", "7.2", "--to-qemu", "10.0", "--to-libvirt", "11.3")
    main(["plan", str(path), *words, "--libvirt", "9.0", "--format", "json"])
    (group,) = json.loads(capsys.readouterr().out)["groups"]
    assert group["starts"] is True
    found: dict[str, Any] = group["migrates"]
    return found


def test_one_core_goes_there_and_back(
    hosts: dict[str, libvirt.virConnect], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "guest.xml"
    guest = hosts["9.0"].createXML(pinned(path, 1, capsys))
    assert way(path, capsys)["possible"] is True
    for release in ("11.3", "12.8", "11.3", "9.0"):
        guest = moved(guest, hosts[release])
    guest.destroy()


def test_four_cores_are_refused_and_start_there(
    hosts: dict[str, libvirt.virConnect], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "guest.xml"
    document = pinned(path, 4, capsys)
    said = way(path, capsys)
    assert said["possible"] is False
    guest = hosts["9.0"].createXML(document)
    with pytest.raises(libvirt.libvirtError, match=said["reason"]):
        moved(guest, hosts["11.3"])
    guest.destroy()
    hosts["11.3"].createXML(document).destroy()


def test_libvirt_12_8_does_not_look_at_ht(
    hosts: dict[str, libvirt.virConnect], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "guest.xml"
    document = pinned(path, 4, capsys)
    there = ("--recorded", "7.2", "--to-qemu", "11.1", "--to-libvirt", "12.8")
    main(["plan", str(path), *there, "--libvirt", "9.0", "--format", "json"])
    (group,) = json.loads(capsys.readouterr().out)["groups"]
    assert group["migrates"]["possible"] is group["migrates-back"]["possible"] is True
    guest = hosts["9.0"].createXML(document)
    guest = moved(guest, hosts["12.8"])
    moved(guest, hosts["9.0"]).destroy()
    guest = moved(hosts["11.3"].createXML(document), hosts["12.8"])
    with pytest.raises(libvirt.libvirtError, match="extra features: ht"):
        moved(guest, hosts["11.3"])
    guest.destroy()
