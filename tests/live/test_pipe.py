"""`virt-install --print-xml | cpumap translate - --format xml | virsh define /dev/stdin`, as the
README shows it.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from cpumap.sources.libvirt import Hypervisor
from tests.support import libvirtd

pytestmark = [pytest.mark.live, pytest.mark.xdist_group("libvirt")]

GENERATOR = (
    "virt-install --connect '{uri}' --name piped --memory 128 --import --disk none --network none "
    "--graphics none "
    "--osinfo generic --virt-type qemu --machine pc-q35-7.2 --cpu Haswell --print-xml"
)
PIPE = (
    f"set -o pipefail; {GENERATOR} | {sys.executable} -m cpumap translate - --format xml "
    "| virsh -c '{uri}' define /dev/stdin"
)


def test_virt_install_through_cpumap_into_libvirt(qemus: Mapping[str, Path]) -> None:
    missing = [program for program in ("virt-install", "virsh") if shutil.which(program) is None]
    assert not missing, f"{', '.join(missing)}: tools/setup-test installs them"
    with libvirtd.private() as daemon, Hypervisor(daemon.uri, write=True) as hypervisor:
        done = subprocess.run(
            ["bash", "-c", PIPE.format(uri=daemon.uri)],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "Domain 'piped' defined" in done.stdout
        assert b"<feature policy='disable' name='3dnow'/>" in hypervisor.xml("piped")
        hypervisor.start("piped", paused=True)
        hypervisor.destroy("piped")
        hypervisor.undefine("piped")
