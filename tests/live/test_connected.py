"""Domains that a real libvirt keeps: pinned for another QEMU, locked, audited, planned."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cpumap.cli.main import main
from tests.support.libvirt_releases import ReleasedDaemon
from tests.support.releases import QEMUS

pytestmark = pytest.mark.live

QEMU_OF = {"9.0": "7.2", "11.3": "10.0", "12.8": "11.1"}

DOMAIN = """<domain type='qemu'>
  <name>guest</name>
  <memory unit='MiB'>16</memory>
  <vcpu>4</vcpu>
  <os><type arch='x86_64' machine='pc-q35-7.2'>hvm</type></os>
  <cpu mode='custom' match='exact' check='none'>
    <model fallback='forbid'>{model}</model><topology sockets='1' dies='1' cores='4' threads='1'/>
  </cpu>
  <devices><emulator>{emulator}</emulator></devices>
</domain>"""


@pytest.fixture
def kept(released_libvirtd: ReleasedDaemon) -> Iterator[tuple[ReleasedDaemon, tuple[str, ...]]]:
    """A libvirtd that keeps a guest, and the words that name it."""
    connection = released_libvirtd.open()
    binary = QEMUS / "bin" / f"qemu-{QEMU_OF[released_libvirtd.release]}"
    emulator = released_libvirtd.emulator(binary)
    domain = connection.defineXML(DOMAIN.format(model="Westmere", emulator=emulator))
    yield released_libvirtd, ("--connect", released_libvirtd.uri)
    domain.undefine()
    connection.close()


def answered(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, Any]:
    capsys.readouterr()
    code = main([*words, "--format", "json"])
    return code, json.loads(capsys.readouterr().out)


def test_lock_audit_and_plan(
    kept: tuple[ReleasedDaemon, tuple[str, ...]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    daemon, words = kept
    path = tmp_path / "lock.json"
    assert main(["lock", *words, "-o", str(path)]) == 0
    (guest,) = json.loads(path.read_text())["guests"].values()
    assert guest["from"] == "guest"
    assert answered(capsys, "audit", str(path), "guest", *words)[0] == 0
    code, answer = answered(capsys, "plan", *words, "--to-libvirt", daemon.release)
    assert (code, answer["summary"]["unchanged"]) == (0, 1)


def test_check_and_diff(kept: tuple[ReleasedDaemon, tuple[str, ...]]) -> None:
    _, words = kept
    assert main(["check", *words, "--domain", "guest"]) == 0
    assert main(["diff", "guest", "guest", *words]) == 0
    assert main(["diff", "guest", "Westmere,aes=off@pc-q35-7.2", *words]) == 1
    assert main(["check", *words]) == 2, "of what?"


def test_what_was_pinned_for_another_qemu_starts_here_too(
    kept: tuple[ReleasedDaemon, tuple[str, ...]], tmp_path: Path
) -> None:
    daemon, words = kept
    for target in ("7.2", "10.0", "11.1"):
        pin = ("--target-qemu", target, "--allow-drift", "--unavailable", "off")
        code = main(["convert", *words, "guest", *pin, "--backup-dir", str(tmp_path / target)])
        assert code == 0
        if target == QEMU_OF[daemon.release]:
            daemon.virsh("start", "guest")
            daemon.virsh("destroy", "guest")
        assert main(["convert", *words, "--restore", str(tmp_path / target)]) == 0


def test_a_compact_document_starts(
    kept: tuple[ReleasedDaemon, tuple[str, ...]], tmp_path: Path
) -> None:
    daemon, words = kept
    pin = ("--compact", "--unavailable", "off", "--backup-dir", str(tmp_path))
    assert main(["convert", *words, "guest", *pin]) == 0
    daemon.virsh("start", "guest")
    daemon.virsh("destroy", "guest")
