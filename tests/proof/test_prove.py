"""`verify` and `diff` as commands: what they print, and their exit codes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from cpumap.cli.main import main

DOMAIN = """<domain type='qemu'>
  <os><type arch='x86_64' machine='{machine}'>hvm</type></os>
  <cpu><model>{model}</model></cpu>
</domain>
"""


@pytest.fixture
def skylake(tmp_path: Path) -> Path:
    path = tmp_path / "skylake.xml"
    path.write_text(DOMAIN.format(machine="pc-q35-5.2", model="Skylake-Server"))
    return path


def said(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str]:
    code = main([str(word) for word in words])
    return code, capsys.readouterr().out


def answer(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, Any]:
    code, out = said(capsys, *words, "--format", "json")
    return code, json.loads(out)


def test_diff_of_two_machine_types(capsys: pytest.CaptureFixture[str]) -> None:
    code, out = said(
        capsys, "diff", "Haswell@pc-q35-2.4", "Haswell@pc-q35-7.2", "--recorded", "7.2"
    )
    assert code == 1 and "differ" in out.splitlines()[0]
    abm = next(line for line in out.splitlines() if line.startswith("  abm "))
    assert (
        abm.split(maxsplit=4)[1:4] == ["off", "->", "on"]
        and "machine type: pc-q35-2.4 is not pc-q35-7.2" in abm
    )
    code, out = said(
        capsys, "diff", "Haswell@pc-q35-7.2", "Haswell-v1@pc-i440fx-7.2", "--recorded", "7.2"
    )
    assert code == 0 and "the same" in out


def test_diff_of_a_domain_against_every_machine_type(
    skylake: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, found = answer(capsys, "diff", skylake, "--all-machines", "--recorded", "7.2")
    by_machine = {
        entry["b"].split(" on ")[1].split(",")[0]: entry for entry in found["differences"]
    }
    assert code == 1 and by_machine["pc-q35-5.2"]["same"] and not by_machine["pc-q35-2.4"]["same"]
    assert len(by_machine) == 55


def test_diff_of_two_releases(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("EPYC-Milan@pc-q35-7.2", "--recorded", "7.2", "--target-qemu", "10.0")
    code, found = answer(capsys, "diff", *words)
    (difference,) = found["differences"]
    assert code == 1 and difference["bits"] is None
    assert {entry["cause"] for entry in difference["properties"]} == {"QEMU: 7.2.22 is not 10.0.13"}


@pytest.mark.parametrize(
    "a", ["NoSuchModel", "Haswell@pc-q35-99", "Haswell,no-such-property=on", "Haswell,avx2=7"]
)
def test_diff_of_what_is_not_there(a: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diff", a, "Haswell", "--recorded", "7.2"]) == 2
    assert capsys.readouterr().err.startswith("cpumap: ")


@pytest.mark.live
def test_diff_by_what_guests_read(
    qemus: Mapping[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("qemu64@pc-q35-2.4", "qemu64@pc-q35-7.2", "--guest", "--qemu", qemus["7.2"])
    code, found = answer(capsys, "diff", *words)
    (difference,) = found["differences"]
    abm = next(bit for bit in difference["bits"] if "abm" in bit["names"])
    assert code == 1 and (abm["leaf"], abm["register"], abm["names"]) == (
        0x80000001,
        "ecx",
        ["abm", "sse4a"],
    )
    assert abm["cause"].startswith(
        "abm: machine type: pc-q35-2.4 is not pc-q35-7.2; sse4a: machine type"
    )
    code, out = said(capsys, "diff", *words)
    assert code == 1 and "CPUID[eax=80000001h].ECX" in out


@pytest.mark.live
def test_verify_within_one_qemu(
    skylake: Path, qemus: Mapping[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    code, out = said(
        capsys, "verify", skylake, "--qemu", qemus["7.2"], "--target-machine", "pc-i440fx-2.4"
    )
    assert code == 0 and out.splitlines() == [
        "source: QEMU 7.2.22, pc-q35-5.2, tcg",
        "QEMU 7.2.22, pc-i440fx-2.4: expanded again: holds, realised: holds, seen by a guest: "
        "holds",
        "holds",
    ]
    code, found = answer(
        capsys, "verify", skylake, "--qemu", qemus["5.2"], "--all-machines", "--compact"
    )
    assert code == 0 and found["holds"] and len(found["places"]) > 40


@pytest.mark.live
def test_verify_elsewhere(
    skylake: Path, qemus: Mapping[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("verify", skylake, "--qemu", qemus["5.2"], "--target-qemu", qemus["7.2"])
    code, out = said(capsys, *words)
    assert code == 1 and "realised: differs" in out and "tcg of QEMU 5.2.0 cannot give it" in out
    code, found = answer(capsys, *words, "--unavailable", "off")
    (place,) = found["places"]
    assert code == 1 and place["as_predicted"] and not place["holds"]
    assert {judge["judge"]: judge["verdict"] for judge in place["judges"]} == {
        "expanded again": "holds",
        "realised": "holds",
        "seen by a guest": "differs",
    }
    (bit,) = place["judges"][2]["bits"]
    assert (bit["leaf"], bit["subleaf"], bit["register"], bit["predicted"]) == (0xD, 1, "ebx", True)


@pytest.mark.live
def test_verify_where_it_cannot_be(
    skylake: Path, qemus: Mapping[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        main(["verify", str(skylake), "--qemu", str(qemus["7.2"]), "--target-machine", "pc-q35-99"])
        == 2
    )
    assert main(["verify", str(skylake), "--qemu", "/nowhere/qemu"]) == 2
    assert "name a QEMU binary that is here" in capsys.readouterr().err
