"""A topology that is not that of the vCPUs: libvirt refuses to define such a domain, and so does
every command that says what its guest would have.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from cpumap.cli.main import main

MISFIT = """\
<domain type='qemu'>
  <vcpu>{vcpus}</vcpu>
  <os><type arch='x86_64' machine='pc-q35-7.2'>hvm</type></os>
  <cpu mode='custom'><model>Nehalem</model>
    <topology sockets='1' cores='2' threads='2'{dies}/>
  </cpu>
</domain>
"""
REASON = "CPU topology doesn't match maximum vcpu count"
"""libvirt 9.0's words."""

COMMANDS = (
    ("translate",),
    ("translate", "--pin", "none"),
    ("check",),
    ("convert", "--dry-run"),
)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("vcpus, dies", [(6, ""), (4, " dies='2'"), (1, "")])
def test_a_topology_of_other_vcpus_is_refused(
    command: tuple[str, ...],
    vcpus: int,
    dies: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "a.xml"
    path.write_text(MISFIT.format(vcpus=vcpus, dies=dies))
    assert main([*command, "--recorded", "7.2", str(path)]) == 1
    assert REASON in "".join(capsys.readouterr())


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_one_that_fits_is_not(command: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    path.write_text(MISFIT.format(vcpus=8, dies=" dies='2'"))
    assert main([*command, "--recorded", "7.2", str(path)]) == 0
