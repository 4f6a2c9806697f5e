"""The domains that libvirt's own documentation shows, as Debian's libvirt-doc has them."""

from __future__ import annotations

from pathlib import Path

import pytest
from lxml import etree, html

DOCUMENTATION = Path("/usr/share/doc/libvirt-doc")
ROOTS = ("domain", "domainsnapshot", "domaincheckpoint")


def write_all(directory: Path) -> None:
    """Writes each example into the directory: the XML files, and what stands in the pages as
    well-formed XML.
    """
    pages = sorted(DOCUMENTATION.rglob("*.html"))
    if not pages:
        pytest.fail(
            "no documentation of libvirt (tools/setup-test installs libvirt-doc)", pytrace=False
        )
    for page in pages:
        for number, shown in enumerate(html.parse(str(page)).iter("pre")):
            _write(directory / f"{page.stem}-{number}.xml", shown.text_content().strip().encode())
    for example in DOCUMENTATION.rglob("*.xml"):
        _write(directory / example.name, example.read_bytes())


def _write(path: Path, text: bytes) -> None:
    try:
        root = etree.fromstring(text)
    except etree.XMLSyntaxError:
        return  # a shell command, or XML with gaps
    if root.tag in ROOTS:
        path.write_bytes(text)
