"""Documents that are legal and odd: what is written is one that can be read again."""

from __future__ import annotations

import pytest

from cpumap.libvirt.domain import parse_request
from cpumap.pin.translate import translate

DOMAIN = """\
<domain type='kvm'{namespaces}>
  <vcpu>2</vcpu>
  <os><type arch='x86_64' machine='pc-q35-7.2'>hvm</type></os>
  <cpu mode='custom'>
    <model{vendor}>Haswell</model>
    <topology sockets='1' cores='2' threads='1'{attribute}/>
  </cpu>
  <devices/>
</domain>
"""
TAKEN = {
    "qemu": " xmlns:qemu='urn:a'",
    "libvirt-qemu": " xmlns:qemu='urn:a' xmlns:libvirt-qemu='urn:b'",
    "more": " xmlns:qemu='urn:a' xmlns:libvirt-qemu='urn:b' xmlns:qemu1='urn:c'",
}
ATTRIBUTES = ("", " xmlns:a='urn:a' a:b='c'", " a=' xmlns:b=&quot;c&quot;'")


@pytest.mark.parametrize("attribute", ATTRIBUTES)
@pytest.mark.parametrize("namespaces", ["", *TAKEN.values()])
def test_namespaces(namespaces: str, attribute: str) -> None:
    document = DOMAIN.format(namespaces=namespaces, attribute=attribute, vendor="")
    written = translate(document, format="xml", recorded="7.2")
    assert parse_request(written).topology == parse_request(document).topology
    assert any(setting.name == "level" for setting in parse_request(written).settings)
    assert translate(written, format="xml", recorded="7.2") == written


@pytest.mark.parametrize("character", ["\x85", "\u2028"])
def test_a_vendor_with_a_line_break_that_is_none_of_xmls(character: str) -> None:
    vendor = character + "x" * (12 - len(character.encode()))
    document = DOMAIN.format(namespaces="", attribute="", vendor=f" vendor_id='{vendor}'")
    written = translate(document, format="xml", recorded="7.2")
    assert parse_request(written).vendor_id == vendor
