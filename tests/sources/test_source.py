"""What each kind of source says that it can do."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import pytest

from cpumap.cpu.names import PropertyName
from cpumap.qemu.qmp import Session
from cpumap.sources.attached import AttachedSource
from cpumap.sources.cached import CachedSource
from cpumap.sources.live import QemuSource
from cpumap.sources.recorded import RecordedSource
from cpumap.sources.recordings import find_recording
from cpumap.sources.source import Source


def _said(source: Source) -> tuple[bool, bool, bool]:
    return source.makes_cpus, source.starts_guests, source.own_host


def test_a_recording_makes_any_cpu_and_has_no_host() -> None:
    source = RecordedSource(find_recording("7.2", "kvm"))
    assert _said(source) == (True, False, False)
    assert "pc-q35-7.2" in {name for names in source.tables().values() for name in names}
    assert source.dependants(PropertyName("core-capability")) == ("split-lock-detect",)


@pytest.mark.live
def test_a_qemu_that_can_be_started_makes_any_cpu_on_its_own_host(
    qemus: Mapping[str, Path], tmp_path: Path
) -> None:
    binary = qemus["7.2"]
    for source in (QemuSource(binary), CachedSource(str(binary), "tcg", tmp_path)):
        with closing(source):
            assert _said(source) == (True, True, True)
            assert source.binary == str(binary)
            assert not source.tables()
            assert not source.dependants(PropertyName("core-capability"))


@pytest.mark.live
def test_a_qemu_that_runs_already_has_its_own_cpu_only(qemus: Mapping[str, Path]) -> None:
    running = Session.start(str(qemus["7.2"]), ["-machine", "pc-q35-7.2,accel=tcg"])
    with closing(AttachedSource(running)) as source:
        assert _said(source) == (False, False, True)
