"""Documents that cpumap wrote start under the libvirts and QEMUs that they were written for, with
the CPU that was pinned. A sample; tools/starts.py has all models.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from cpumap.cli.main import main
from cpumap.sources.libvirt import Hypervisor
from tests.support.libvirt_releases import EMULATOR, ReleasedDaemon

pytestmark = pytest.mark.live

QEMU_OF = {"9.0": "7.2", "11.3": "10.0", "12.8": "11.1"}

TOPOLOGIES = ("cores='1' threads='1'", "cores='4' threads='1'", "cores='2' threads='2'")

DOMAIN = """<domain type='qemu'>
  <name>guest</name>
  <memory unit='MiB'>16</memory>
  <vcpu>{vcpus}</vcpu>
  <os><type arch='x86_64' machine='pc-i440fx-7.2'>hvm</type></os>
  <cpu mode='custom' match='exact' check='{check}'>
    <model fallback='forbid'>{model}</model><topology sockets='1' dies='1' {topology}/>
  </cpu>
  <devices><emulator>{emulator}</emulator></devices>
</domain>"""

OF_THREADS = frozenset({"ht", "cmp-legacy", "cmp_legacy"})
"""What QEMU reports as on for several threads, whatever it is told."""


def written(
    path: Path, capsys: pytest.CaptureFixture[str], *words: str
) -> tuple[str, dict[str, Any]]:
    """The document pinned, and the values of its properties."""
    pin = ("translate", str(path), "--unavailable", "off", "--allow-drift", *words)
    capsys.readouterr()
    assert main([*pin, "--format", "json"]) == 0
    named = json.loads(capsys.readouterr().out)["properties"]
    assert main([*pin, "--format", "xml"]) == 0
    return capsys.readouterr().out, {prop["name"]: prop["value"] for prop in named}


@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("model", ["Westmere", "qemu64", "EPYC"])
def test_it_starts_with_the_cpu_that_was_pinned(
    released_libvirtd: ReleasedDaemon,
    model: str,
    topology: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path, here = tmp_path / "guest.xml", QEMU_OF[released_libvirtd.release]
    vcpus = 1 if topology == TOPOLOGIES[0] else 4
    about = {"model": model, "topology": topology, "vcpus": vcpus, "emulator": EMULATOR}
    path.write_text(DOMAIN.format(**about, check="none"))
    pins = [("--recorded", "7.2"), ("--recorded", "7.2", "--target-qemu", here)]
    for words in (*pins, ("--recorded", here)):
        document, pinned = written(path, capsys, *words)
        released_libvirtd.virsh("create", "--paused", "/dev/stdin", given=document)
        try:
            with Hypervisor(released_libvirtd.uri, write=True) as hypervisor:
                guest = hypervisor.guest("guest").running().properties
                realised = {str(name): value for name, value in guest.items()}
        finally:
            released_libvirtd.virsh("destroy", "guest")
        known = (pinned.keys() & realised.keys()) - OF_THREADS
        assert {name: realised[name] for name in known} == {name: pinned[name] for name in known}


def test_what_libvirt_refuses_is_foreseen(
    released_libvirtd: ReleasedDaemon, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, here = tmp_path / "guest.xml", QEMU_OF[released_libvirtd.release]
    about = {"model": "qemu64", "topology": TOPOLOGIES[1], "vcpus": 4, "emulator": EMULATOR}
    path.write_text(DOMAIN.format(**about, check="none"))
    document, _ = written(path, capsys, "--recorded", "7.2")
    path.write_text(document.replace("check='partial'", "check='full'"))
    words = ("--recorded", here, "--libvirt", released_libvirtd.release)
    starts = main(["check", str(path), *words]) == 0
    said = capsys.readouterr().out
    try:
        released_libvirtd.virsh("create", "--paused", "/dev/stdin", given=path.read_text())
    except subprocess.CalledProcessError as err:
        assert not starts
        for word in ("ht", "cmp_legacy"):
            assert word in err.stderr.rpartition("features:")[2]
            assert word in said.rpartition("features:")[2]
    else:
        released_libvirtd.virsh("destroy", "guest")
        assert starts
