"""What `check` says of libvirt's own check, before anything is started.

The verdicts are those of libvirt 11.3 with QEMU 10.0, which was asked.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from cpumap.cli.main import main

DOMAIN = """<domain type='qemu'>
  <name>guest</name>
  <vcpu>4</vcpu>
  <os><type arch='x86_64' machine='pc-q35-7.2'>hvm</type></os>
  <cpu mode='custom' match='exact' check='{check}'>
    <model fallback='forbid'>{model}</model>
    <topology sockets='{sockets}' dies='1' cores='{cores}' threads='1'/>
    {features}
  </cpu>
</domain>
"""
# What tcg has made of both models since long.
OF_TCG = (("require", "hypervisor"), ("disable", "vme"))


def checked(
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    qemu: str,
    off: tuple[str, ...] = (),
    **inside: object,
) -> tuple[int, str]:
    named = [*OF_TCG, *(("disable", name) for name in off)]
    features = "".join(f"<feature policy='{policy}' name='{name}'/>" for policy, name in named)
    settings = {"check": "full", "sockets": 1, "cores": 4, **inside, "features": features}
    path = tmp_path / "guest.xml"
    path.write_text(DOMAIN.format(**settings))
    code = main(["check", "--recorded", qemu, "--libvirt", "11.3", str(path)])
    return code, capfd.readouterr().out


@pytest.mark.parametrize("model", ["Westmere", "core2duo"])
def test_ht_of_several_cores_is_extra_from_10_0_on(
    model: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert checked(tmp_path, capfd, "7.2", model=model)[0] == 0
    for qemu in ("10.0", "11.1"):
        code, out = checked(tmp_path, capfd, qemu, model=model)
        assert code == 1
        assert "specification: extra features: ht\n" in out


def test_no_package_of_several_threads_no_ht(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert checked(tmp_path, capfd, "10.0", model="core2duo", sockets=4, cores=1)[0] == 0


def test_a_partial_check_finds_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert checked(tmp_path, capfd, "10.0", model="core2duo", check="partial")[0] == 0


def test_what_is_disabled_and_on_is_extra(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert checked(tmp_path, capfd, "7.2", model="core2duo", off=("ht",))[0] == 0
    assert checked(tmp_path, capfd, "10.0", model="core2duo", off=("ht",))[0] == 1
