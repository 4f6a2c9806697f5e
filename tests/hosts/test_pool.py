"""What several hosts have in common: features of all, the lowest levels, one vendor."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cpumap.cli.main import main
from cpumap.cpu.names import PropertyName
from cpumap.cpu.request import CpuRequest
from cpumap.errors import InputError
from cpumap.hosts.described import DescribedHost, read_described
from cpumap.hosts.pool import pool
from cpumap.libvirt.cpu_map.load import load_cpu_map
from cpumap.pin.translate import explicit_cpu
from cpumap.sources.platform import Platform
from cpumap.sources.recorded import RecordedSource
from cpumap.sources.recordings import find_recording

CPU_MAP = load_cpu_map()
TCG = RecordedSource(find_recording("7.2", "tcg"))
HOST = Path(__file__).with_name("cases") / "tcg-7.2.json"
HASWELL = "<cpu><arch>x86_64</arch><model>Haswell</model><vendor>Intel</vendor></cpu>"
SKYLAKE = (
    "<cpu><arch>x86_64</arch><model>Skylake-Server</model><vendor>Intel</vendor>"
    "<feature name='arch-capabilities'/><feature name='rdctl-no'/></cpu>"
)
ROME = "<cpu><arch>x86_64</arch><model>EPYC-Rome</model><vendor>AMD</vendor></cpu>"


def _changed(*without: str, **values: Any) -> str:
    """The described host as another one: without these features, with these values."""
    said = json.loads(HOST.read_text())
    said["properties"] = [name for name in said["properties"] if name not in without]
    for made in said["realised"]["cpus"]:
        made["properties"] |= {**dict.fromkeys(without, False), **values}
    return json.dumps(said)


def _pool(*texts: str) -> DescribedHost:
    hosts = [
        read_described(text, CPU_MAP, name=f"host-{number}") for number, text in enumerate(texts)
    ]
    return pool(hosts, CPU_MAP)


def test_the_cpu_that_all_hosts_have() -> None:
    both = _pool(_changed("avx2"), _changed("aes", "pclmulqdq", level=7, **{"phys-bits": 39}))
    request = CpuRequest(accel="tcg", machine="pc-i440fx-7.2", mode="host-passthrough")
    cpu = explicit_cpu(request, Platform(TCG, CPU_MAP), host=both)
    values = {str(name): value for name, value in cpu.values.items()}
    assert (values["avx2"], values["aes"], values["avx"]) == (False, False, True)
    assert (values["level"], values["phys-bits"]) == (7, 39)
    assert (values["family"], values["model"]) == (15, 107)


def test_a_pool_of_capabilities() -> None:
    both = _pool(HASWELL, SKYLAKE)
    assert both.cpu.model == "Haswell"
    assert both.gives(PropertyName("avx2"))
    assert not both.gives(PropertyName("avx512f"))
    assert not both.leaves_open(PropertyName("avx512f"))
    assert both.leaves_open(PropertyName("rdctl-no")), "of one host nobody knows"
    assert not both.leaves_open(PropertyName("mds-no")), "the other lacks it"


def test_hosts_of_several_vendors_are_no_pool() -> None:
    with pytest.raises(InputError, match=r"one vendor \(host-0: Intel, host-1: AMD\)"):
        _pool(HASWELL, ROME)


def test_several_hosts_on_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A guest that one of them cannot run is not runnable on them."""
    old, new, guest = (tmp_path / name for name in ("old.xml", "new.xml", "guest.txt"))
    old.write_text(HASWELL)
    new.write_text(SKYLAKE)
    guest.write_text("-cpu Skylake-Server-v1")
    words = ["check", "--recorded", "7.2", "--accel", "kvm", str(guest), "--host"]
    assert main([*words, str(new)]) == 0
    capsys.readouterr()
    assert main([*words, str(new), "--host", str(old)]) == 1
    assert "avx512f" in capsys.readouterr().out
    assert main([*words, str(old), "--host", "/dev/null"]) == 2
