"""`translate` for another place: what is named there, and what cannot stay the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from cpumap.cli.main import main

DOMAIN = """<domain type='{kind}'>
  <os><type arch='x86_64' machine='{machine}'>hvm</type></os>
  <cpu><model>{model}</model><feature policy='disable' name='rdrand'/></cpu>
</domain>
"""


def _translated(
    path: Path, capsys: pytest.CaptureFixture[str], *options: str
) -> tuple[int, str, str]:
    code = main(["translate", str(path), *options])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture
def haswell(tmp_path: Path) -> Path:
    path = tmp_path / "haswell.xml"
    path.write_text(DOMAIN.format(kind="qemu", machine="pc-q35-7.2", model="Haswell"))
    return path


def test_compact_names_what_changes_and_what_was_asked(
    haswell: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = _translated(haswell, capsys, "--recorded", "7.2")[1]
    code, compact, _ = _translated(haswell, capsys, "--recorded", "7.2", "--compact")
    assert code == 0
    assert len(compact) < len(whole) / 3 and len(compact) <= 1400
    assert compact.startswith("-cpu 'Haswell-v1,") or compact.startswith("-cpu Haswell-v1,")
    assert {"-rdrand", "cpuid-0xb=on"} <= set(compact.replace("'", "").split(","))


def test_another_release_has_the_features_it_adds_off(
    haswell: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    here = _translated(haswell, capsys, "--recorded", "7.2")[1]
    code, there, _ = _translated(haswell, capsys, "--recorded", "7.2", "--target-qemu", "10.0")
    assert code == 0
    assert "-prefetchiti" in there and "prefetchiti" not in here


def test_drift_is_refused_bit_by_bit_unless_allowed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "epyc.xml"
    path.write_text(DOMAIN.format(kind="qemu", machine="pc-q35-10.0", model="EPYC-Genoa"))
    where = ["--recorded", "11.1", "--target-qemu", "5.2", "--target-machine", "pc-q35-5.2"]
    code, out, err = _translated(path, capsys, *where)
    assert (code, out) == (1, "")
    assert "cannot stay the same in QEMU 5.2.0, pc-q35-5.2" in err and "CPUID[eax=" in err
    code, out, err = _translated(path, capsys, *where, "--allow-drift")
    assert code == 0 and out.startswith("-cpu ")
    assert "cpumap: will differ: CPUID[eax=" in err


def test_a_target_machine_in_the_same_qemu_holds(
    haswell: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    here = _translated(haswell, capsys, "--recorded", "7.2")[1]
    code, there, _ = _translated(
        haswell, capsys, "--recorded", "7.2", "--target-machine", "pc-i440fx-2.4"
    )
    assert (code, there) == (0, here)


def test_a_target_that_is_not_there(haswell: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _translated(haswell, capsys, "--recorded", "7.2", "--target-qemu", "6.0")[0] == 2
    assert (
        _translated(haswell, capsys, "--recorded", "7.2", "--target-machine", "pc-q35-99")[0] == 2
    )
