"""What QEMU takes from its host under KVM is no part of a recording's answer."""

from __future__ import annotations

import pytest

from cpumap.errors import ResolveError
from cpumap.pin.translate import translate
from cpumap.pin.write import FORMATS, Format

DOMAIN = """\
<domain type='{kind}'>
  <os><type arch='x86_64' machine='pc-q35-7.2'>hvm</type></os>
  <features>{features}</features>
  <cpu mode='custom'><model>Haswell</model>{inside}</cpu>
  <devices/>
</domain>
"""
PASSTHROUGH = "<hyperv mode='passthrough'/>"


@pytest.mark.parametrize("format", FORMATS)
def test_enlightenments_of_an_unknown_host_are_refused(format: Format) -> None:
    document = DOMAIN.format(kind="kvm", features=PASSTHROUGH, inside="")
    with pytest.raises(ResolveError, match="hv-passthrough turns on whatever its host's KVM has"):
        translate(document, format=format, recorded="7.2")


def test_named_enlightenments_are_not() -> None:
    document = DOMAIN.format(
        kind="kvm", features="<hyperv><relaxed state='on'/></hyperv>", inside=""
    )
    assert "hv-relaxed=on" in translate(document, recorded="7.2")


def test_address_bits_of_an_unknown_host_are_left_to_it() -> None:
    inside = "<maxphysaddr mode='passthrough'/>"
    written = translate(DOMAIN.format(kind="kvm", features="", inside=inside), recorded="7.2")
    assert ",host-phys-bits=on," in written and ",phys-bits=" not in written
