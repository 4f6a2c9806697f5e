"""XML from elsewhere, converted: virt-install's and that of libvirt's documentation. libvirt
judges the results.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from lxml import etree

from cpumap.cli.main import main
from tests.support import libvirt_examples, libvirtd, virt_install
from tests.support.documents import RECORDED, content

if TYPE_CHECKING:
    import libvirt

pytestmark = pytest.mark.live

SCHEMA = Path("/usr/share/libvirt/schemas/domain.rng")

REFUSED = frozenset(
    {"host-model", "host-model-less", "kvm", "passthrough", "passthrough-cache", "passthrough-less"}
)
"""What virt-install wrote and recorded answers cannot make explicit: under KVM, the host's own
CPU.
"""

HOST = """\
<capabilities><host><cpu><arch>x86_64</arch><model>Cascadelake-Server-noTSX</model><vendor>Intel</vendor></cpu></host>
</capabilities>
"""

Found = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def connection() -> Iterator[libvirt.virConnect]:
    with libvirtd.private() as daemon:
        opened = daemon.open()
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory, connection: libvirt.virConnect) -> Path:
    """What virt-install prints for each set of options."""
    directory = tmp_path_factory.mktemp("virt-install")
    virt_install.print_all(connection.getURI(), directory)
    return directory


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("libvirt-doc")
    libvirt_examples.write_all(directory)
    return directory


def converted(
    capsys: pytest.CaptureFixture[str], directory: Path, *words: object
) -> tuple[int, Found]:
    """The exit code of one run over the directory, and what it says of each document, by name."""
    capsys.readouterr()
    code = main(["convert", str(directory), *map(str, words), "--format", "json", *RECORDED])
    answer = json.loads(capsys.readouterr().out)
    return code, {Path(entry.pop("file")).stem: entry for entry in answer["files"]}


def test_what_virt_install_prints(
    installed: Path,
    connection: libvirt.virConnect,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert len(virt_install.OPTION_SETS) >= 50
    code, found = converted(capsys, installed, "--output-dir", tmp_path / "out")
    assert found.keys() == virt_install.OPTION_SETS.keys() and code == 1
    reasons = {
        name: entry["reason"] for name, entry in found.items() if entry["status"] != "converted"
    }
    assert reasons.keys() == REFUSED
    assert all("means the host's CPU" in reason for reason in reasons.values())
    assert all(reason.endswith("for --host HOST.json") for reason in reasons.values())
    written = content(tmp_path / "out")
    assert {Path(name).stem for name in written} == found.keys() - REFUSED
    _judged_by_libvirt(tmp_path / "out", connection)
    assert (
        converted(capsys, tmp_path / "out", "--in-place")[0] == 0
        and content(tmp_path / "out") == written
    )


def test_host_model_of_virt_install_on_a_host_that_is_named(
    installed: Path,
    connection: libvirt.virConnect,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    host = tmp_path / "host.xml"
    host.write_text(HOST)
    for name in ("host-model", "host-model-less"):
        code, _ = converted(
            capsys, installed / f"{name}.xml", "--output-dir", tmp_path / "out", "--host", host
        )
        assert code == 0
    _judged_by_libvirt(tmp_path / "out", connection)
    less: Any = etree.parse(tmp_path / "out/host-model-less.xml")
    assert less.find("cpu/model").text == "Cascadelake-Server-noTSX"
    assert less.find("cpu/feature[@name='erms']").get("policy") == "disable"


def test_every_example_of_libvirts_documentation(
    examples: Path,
    connection: libvirt.virConnect,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _, found = converted(capsys, examples, "--output-dir", tmp_path / "out")
    assert found.keys() == {path.stem for path in examples.iterdir()}
    for name, entry in found.items():
        root = etree.parse(examples / f"{name}.xml").getroot()
        assert (entry["status"], entry.get("reason", "").rpartition(": ")[2]) in _expected(root), (
            name
        )
    written = sorted((tmp_path / "out").iterdir())
    assert len(written) >= 8
    old = {path.name for path in written if _accepted(connection, examples / path.name)}
    assert len(old) >= 3 and old <= {path.name for path in written if _accepted(connection, path)}
    kept = content(tmp_path / "out")
    assert (
        converted(capsys, tmp_path / "out", "--in-place")[0] == 0
        and content(tmp_path / "out") == kept
    )


def _expected(root: Any) -> list[tuple[str, str]]:
    """What may become of a document of the documentation: many are parts of one, or none of
    QEMU's.
    """
    if root.tag != "domain":
        return [
            ("skipped", f"<{root.tag}> holds no domain"),
            ("failed", f"no domain definition in <{root.tag}>"),
        ]
    if root.get("type") is None:
        return [("failed", "missing required attribute 'type' in element 'domain'")]
    if root.get("type") not in ("kvm", "qemu"):
        return [("skipped", f"domain type '{root.get('type')}' has no QEMU CPU")]
    if root.find("cpu[@mode='host-model']") is not None:
        there = "`cpumap host --format json > HOST.json` there describes it"
        return [("refused", f"{there}, for --host HOST.json")]
    return [
        ("converted", "")
        if root.find("name") is not None
        else ("failed", "no place for a <cpu> in this <domain>")
    ]


def _accepted(connection: libvirt.virConnect, path: Path) -> bool:
    """Whether libvirtd takes the definition."""
    import libvirt

    try:
        connection.defineXML(path.read_text()).undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_NVRAM)
    except libvirt.libvirtError:
        return False
    return True


def _judged_by_libvirt(directory: Path, connection: libvirt.virConnect) -> None:
    """Each document is valid by libvirt's schema, and what libvirtd makes of it has the CPU that
    was written.
    """
    import libvirt

    schema = etree.RelaxNG(file=str(SCHEMA))
    for path in sorted(directory.iterdir()):
        wanted = etree.parse(path).getroot()
        assert schema.validate(wanted), (path.name, schema.error_log)
        domain = connection.defineXMLFlags(path.read_text(), libvirt.VIR_DOMAIN_DEFINE_VALIDATE)
        try:
            kept: Any = etree.fromstring(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))
        finally:
            domain.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_NVRAM)
        assert _has(kept.find("cpu"), wanted.find("cpu")), (
            path.name,
            etree.tostring(kept.find("cpu")),
        )
        assert _arguments(kept) == _arguments(wanted), path.name


def _has(kept: Any, wanted: Any) -> bool:
    """Whether libvirt has kept an element as it was written; it adds attributes, and puts
    `<numa>` last.
    """
    return (
        (kept.tag, (kept.text or "").strip(), len(kept))
        == (wanted.tag, (wanted.text or "").strip(), len(wanted))
        and dict(wanted.attrib).items() <= dict(kept.attrib).items()
        and all(map(_has, sorted(kept, key=_tag), sorted(wanted, key=_tag)))
    )


def _tag(element: Any) -> str:
    return str(element.tag)


def _arguments(domain: Any) -> list[str]:
    return [element.get("value") for element in domain.iterfind("{*}commandline/{*}arg")]
