"""The real things the live tests stand on are really there, and are what they are taken for."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.releases import OTHER_QEMUS, needing

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
        [str(qemu), *options],
        input="info kvm\nquit\n",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "kvm support: enabled" in done.stdout, f"{kvm}: {done.stderr}"


def test_libvirtd_offers_guests_on_qemu(libvirt_connection: libvirt.virConnect) -> None:
    assert libvirt_connection.getType() == "QEMU"
    capabilities = libvirt_connection.getDomainCapabilities(None, "x86_64", None, "qemu")
    assert "<mode name='custom' supported='yes'>" in capabilities


MACHINES = {
    "aarch64": "virt",
    "s390x": "s390-ccw-virtio",
    "ppc64": "pseries",
    "riscv64": "virt",
    "loongarch64": "virt",
}


@pytest.mark.parametrize("name", needing("qemu", OTHER_QEMUS))
def test_the_qemus_beside_them_start_and_answer(name: str, other_qemus: Mapping[str, Path]) -> None:
    architecture = name.partition("-")[0]
    version, definitions = _answers(other_qemus[name], MACHINES.get(architecture, "q35"))
    found = version["qemu"]
    full = f"{found['major']}.{found['minor']}.{found['micro']}"
    release = name if name[0].isdigit() else name.partition("-")[2]
    assert f"{full}.".startswith(f"{release.removesuffix('-ubuntu')}.")
    has_no_command = name in ("riscv64-5.2", "riscv64-7.2")
    assert (definitions is None) == has_no_command


def _answers(binary: Path, machine: str) -> tuple[Any, Any]:
    """What it says to query-version and query-cpu-definitions; None to a command it has not."""
    commands = ("qmp_capabilities", "query-version", "query-cpu-definitions", "quit")
    options = ["-M", machine, "-accel", "tcg", "-S", "-nographic", "-monitor", "none"]
    done = subprocess.run(
        [str(binary), *options, "-serial", "none", "-qmp", "stdio"],
        input="".join(json.dumps({"execute": command}) for command in commands),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    messages = [json.loads(line) for line in done.stdout.splitlines()]
    answers = [message for message in messages if message.keys() & {"return", "error"}]
    return answers[1]["return"], answers[2].get("return")
