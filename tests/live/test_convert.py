"""Converted documents before judges of their own: libvirt's schemas, and a real libvirtd."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from lxml import etree

from cpumap.cli.main import main
from tests.support.documents import RECORDED
from tests.support.paths import TREE

if TYPE_CHECKING:
    import libvirt

pytestmark = [pytest.mark.live, pytest.mark.xdist_group("libvirt")]

SCHEMA = Path("/usr/share/libvirt/schemas/domain.rng")
DOCUMENTS = 24


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Generated domains and the shipped examples, converted."""
    directory, output = tmp_path_factory.mktemp("in"), tmp_path_factory.mktemp("out")
    subprocess.run(
        [sys.executable, str(TREE / "tools/generate_domains.py"), str(DOCUMENTS), str(directory)],
        check=True,
    )
    examples = [
        str(path)
        for path in (TREE / "data/examples").glob("*.xml")
        if path.stem not in ("windows", "arm-server", "mainframe")
    ]
    assert main(["convert", str(directory), *examples, "--output-dir", str(output), *RECORDED]) == 0
    return sorted(output.rglob("*.xml"))


def test_valid_for_libvirt(converted: list[Path]) -> None:
    schema = etree.RelaxNG(file=str(SCHEMA))
    wrong = {
        path.name: str(schema.error_log)
        for path in converted
        if not schema.validate(etree.parse(str(path)))
    }
    assert len(converted) == DOCUMENTS + 3 and wrong == {}


def test_accepted_by_libvirtd(
    converted: list[Path], libvirt_connection: libvirt.virConnect
) -> None:
    for path in converted:
        text = path.read_text().replace("<name>", "<name>cpumap-test-")
        domain = libvirt_connection.defineXML(text)
        try:
            kept = domain.XMLDesc()
        finally:
            domain.undefine()
        wanted, found = etree.fromstring(path.read_bytes()), etree.fromstring(kept)
        features = [(f.get("name"), f.get("policy")) for f in wanted.iterfind("cpu/feature")]
        assert [
            (f.get("name"), f.get("policy")) for f in found.iterfind("cpu/feature")
        ] == features, path.name
        arguments = [argument.get("value") for argument in wanted.iter("{*}arg")]
        assert [argument.get("value") for argument in found.iter("{*}arg")] == arguments, path.name


def test_points_to_connect_in_libvirts_own_directory(
    libvirt_connection: libvirt.virConnect, capsys: pytest.CaptureFixture[str]
) -> None:
    if not Path("/etc/libvirt/qemu").is_dir() or not libvirt_connection.getURI().endswith(
        "/system"
    ):
        pytest.fail("this is no system libvirtd: run the live tests as root")
    assert main(["convert", "/etc/libvirt/qemu", "--dry-run", *RECORDED]) in (0, 1, 2)
    assert "belongs to the libvirtd that runs here" in capsys.readouterr().err
