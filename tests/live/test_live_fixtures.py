"""The real things the live tests stand on are really there, and are what they are taken for."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import libvirt

pytestmark = pytest.mark.live


def test_every_qemu_is_of_the_release_its_name_says(qemus: Mapping[str, Path]) -> None:
    for release, binary in qemus.items():
        said = subprocess.run(
            [binary, "--version"], capture_output=True, text=True, check=True
        ).stdout
        assert f"version {release}." in said


def test_every_qemu_can_use_kvm(qemu: Path, kvm: Path) -> None:
    options = ["-accel", "kvm", "-machine", "none", "-display", "none", "-S", "-monitor", "stdio"]
    done = subprocess.run(
        [str(qemu), *options], input="info kvm\nquit\n", capture_output=True, text=True, timeout=60
    )
    assert "kvm support: enabled" in done.stdout, f"{kvm}: {done.stderr}"


def test_libvirtd_offers_guests_on_qemu(libvirt_connection: libvirt.virConnect) -> None:
    assert libvirt_connection.getType() == "QEMU"
    capabilities = libvirt_connection.getDomainCapabilities(None, "x86_64", None, "qemu")
    assert "<mode name='custom' supported='yes'>" in capabilities
