"""Guests with a `-cpu` of their own among their QEMU arguments: QEMU heeds the last one, whole."""

from __future__ import annotations

import re

import pytest

from cpumap.pin.translate import translate

DOMAIN = """\
<domain type='kvm' xmlns:q='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>own</name>
  <vcpu>4</vcpu>
  <os><type arch='x86_64' machine='pc-q35-7.2'>hvm</type></os>
  <features>
    <hyperv><relaxed state='on'/><vendor_id state='on' value='nobody'/></hyperv>
    <kvm><hidden state='on'/></kvm>
    <pmu state='off'/>
  </features>
  {cpu}
  <clock><timer name='tsc' frequency='2000000000'/></clock>
  <devices/>
  <q:commandline>
    <q:arg value='-s'/>
    {arguments}
  </q:commandline>
</domain>
"""
CPUS = (
    "<cpu mode='host-passthrough' check='none'/>",
    "<cpu mode='host-passthrough'><cache mode='passthrough'/></cpu>",
    "<cpu><model>Haswell</model><!-- ours --><feature name='avx' policy='disable'/></cpu>",
    "<cpu mode='host-model'/>",
    "",
)
OWN = (
    ("-cpu", "Penryn,vendor=GenuineIntel,+popcnt,check"),
    ("-cpu", "EPYC", "--cpu", "base,+avx,level=13,family=6"),
    ("-global", "x86_64-cpu.level=9", "-cpu", "Nehalem"),
    ("-cpu", "Nehalem", "--global", "driver=Nehalem-x86_64-cpu,property=level,value=9"),
)


def arguments(words: tuple[str, ...]) -> str:
    return "\n    ".join(f"<q:arg value='{word}'/>" for word in words)


def said(document: str) -> list[str]:
    return re.findall("<q:arg value='(.*?)'/>", document)


@pytest.mark.parametrize("cpu", CPUS)
@pytest.mark.parametrize("own", OWN, ids=" ".join)
def test_the_last_cpu_argument_is_made_explicit_and_nothing_else_changes(
    cpu: str, own: tuple[str, ...]
) -> None:
    document = DOMAIN.format(cpu=cpu, arguments=arguments(own))
    written = translate(document, format="xml", recorded="7.2")
    users, option, value, *more = said(written)
    assert (users, option, more) == ("-s", "-cpu", [])
    assert written == DOMAIN.format(cpu=cpu, arguments=arguments((option, value)))
    model = own[own.index("-cpu") + 1].partition(",")[0]
    assert value.startswith("base," if "--cpu" in own else f"{model}-v1,")
    options = dict(piece.partition("=")[::2] for piece in value.split(","))
    assert {"kvm": options["kvm"], "hv-relaxed": options["hv-relaxed"]} == {
        "kvm": "on",
        "hv-relaxed": "off",
    }
    assert "hv-vendor-id" not in options and "tsc-frequency" not in options
    assert translate(written, format="xml", recorded="7.2") == written


@pytest.mark.parametrize("own", OWN[2:], ids=" ".join)
def test_globals_hold_where_the_cpu_argument_says_nothing(own: tuple[str, ...]) -> None:
    document = DOMAIN.format(cpu="", arguments=arguments(own))
    assert ",level=9," in translate(document, recorded="7.2")
