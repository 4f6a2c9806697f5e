"""QEMU knows every name in the settings of a pool."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from cpumap.cli.main import main

pytestmark = pytest.mark.live

HOSTS = "".join(
    f"<cpu><arch>x86_64</arch><model>{model}</model><vendor>Intel</vendor>"
    "<feature name='monitor'/><feature name='est'/><feature name='pcid'/><feature name='vmx'/>"
    "<feature name='invtsc'/></cpu>"
    for model in ("Haswell-noTSX-IBRS", "Broadwell-IBRS", "Skylake-Server-IBRS")
)


@pytest.mark.parametrize("release", ["5.2", "7.2", "11.1"])
def test_qemu_knows_the_arguments(
    release: str,
    qemus: Mapping[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "hosts.xml").write_text(HOSTS)
    where = ["--recorded", release, "--accel", "kvm", "--machine", f"pc-q35-{release}"]
    assert main(["baseline", str(tmp_path / "hosts.xml"), *where, "--format", "args"]) == 0
    words = shlex.split(capsys.readouterr().out)
    assert words[1].startswith("Haswell-noTSX-IBRS,")
    # tcg gives less than was asked for, which only `enforce` minds
    words[1] = words[1].removesuffix(",enforce")
    start = [str(qemus[release]), "-machine", f"pc-q35-{release},accel=tcg", *words]
    quiet = ["-display", "none", "-nodefaults", "-S", "-monitor", "stdio"]
    ran = subprocess.run(
        [*start, *quiet], input="quit\n", capture_output=True, text=True, timeout=300, check=False
    )
    assert ran.returncode == 0, ran.stderr
