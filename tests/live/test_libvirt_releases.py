"""The libvirtds of several releases start, each with the QEMU of its suite, and run guests."""

from __future__ import annotations

import re
import subprocess

import pytest

from tests.support import libvirt_releases
from tests.support.libvirt_releases import EMULATOR, ReleasedDaemon
from tests.support.releases import LIBVIRT_RELEASES, QEMUS, needing

pytestmark = pytest.mark.live

QEMU_OF = {"9.0": "7.2", "11.3": "10.0", "12.8": "11.1"}

DOMAIN = """<domain type='qemu'>
  <name>guest</name>
  <memory unit='MiB'>64</memory>
  <os><type arch='x86_64' machine='q35'>hvm</type></os>
  <cpu mode='custom' match='exact' check='none'><model fallback='forbid'>Haswell</model></cpu>
  <devices><emulator>{emulator}</emulator></devices>
</domain>"""

CPUS = """
<cpu><arch>x86_64</arch><model>Haswell</model><vendor>Intel</vendor></cpu>
<cpu><arch>x86_64</arch><model>Nehalem</model><vendor>Intel</vendor></cpu>
"""


def test_a_guest_starts_and_ends(released_libvirtd: ReleasedDaemon) -> None:
    connection = released_libvirtd.open()
    guest = connection.defineXML(DOMAIN.format(emulator=EMULATOR))
    guest.create()
    assert guest.isActive()
    assert released_libvirtd.options("guest")["-cpu"] == ["Haswell"]
    guest.destroy()
    guest.undefine()
    connection.close()


def test_it_is_of_the_release_its_name_says(released_libvirtd: ReleasedDaemon) -> None:
    release = released_libvirtd.release
    assert released_libvirtd.version.startswith(f"{release}.")
    said = released_libvirtd.virsh("version")
    assert f"Using library: libvirt {release}." in said
    assert f"Running hypervisor: QEMU {QEMU_OF[release]}." in said


def test_it_has_no_kvm(released_libvirtd: ReleasedDaemon) -> None:
    offered = set(re.findall("<domain type='([a-z]+)'", released_libvirtd.virsh("capabilities")))
    assert offered == {"qemu"}


def test_another_qemu_may_be_the_emulator(released_libvirtd: ReleasedDaemon) -> None:
    emulator = released_libvirtd.emulator(QEMUS / "bin/qemu-7.2")
    document = DOMAIN.format(emulator=emulator)
    assert "guest" in released_libvirtd.virsh("create", "/dev/stdin", given=document)
    monitor = ("qemu-monitor-command", "guest", "--hmp", "info version")
    assert released_libvirtd.virsh(*monitor).startswith("7.2.")
    released_libvirtd.virsh("destroy", "guest")


def test_what_virsh_complains_of_is_told(released_libvirtd: ReleasedDaemon) -> None:
    with pytest.raises(subprocess.CalledProcessError) as caught:
        released_libvirtd.virsh("start", "nobody")
    assert "failed to get domain 'nobody'" in caught.value.stderr


@pytest.mark.parametrize("release", needing("libvirt", LIBVIRT_RELEASES))
def test_two_of_one_release_know_nothing_of_each_other(release: str) -> None:
    with libvirt_releases.running(release) as one, libvirt_releases.running(release) as other:
        document = DOMAIN.format(emulator=EMULATOR)
        one.virsh("define", "/dev/stdin", given=document)
        assert one.virsh("list", "--all", "--name").split() == ["guest"]
        assert other.virsh("list", "--all", "--name").split() == []


@pytest.mark.parametrize("release", needing("libvirt", LIBVIRT_RELEASES))
def test_virsh_answers_without_a_daemon(release: str) -> None:
    arguments = ("--connect", "test:///default", "cpu-baseline", "/dev/stdin")
    baseline = libvirt_releases.virsh(release, *arguments, given=CPUS)
    assert re.search("<model[^>]*>Nehalem</model>", baseline)
