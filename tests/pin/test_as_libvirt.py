"""What libvirts of several releases pass to QEMU for the same domain."""

from __future__ import annotations

import pytest

from cpumap.errors import ResolveError
from cpumap.libvirt.cpu_map.load import load_cpu_map
from cpumap.libvirt.domain import parse_request
from cpumap.libvirt.releases import words_of
from cpumap.libvirt.words import meant_for
from cpumap.pin.as_libvirt import libvirt_cpu_args
from cpumap.pin.expand import expand
from cpumap.sources.choose import Wanted, choose_source
from cpumap.sources.platform import Platform

DOMAIN = """<domain type='qemu'><name>guest</name><memory>65536</memory>
<os><type arch='x86_64' machine='pc-q35-7.2'>hvm</type></os>
<cpu match='exact'><model>{}</model>{}</cpu></domain>"""


def passed(release: str, model: str, inside: str = "") -> str:
    request = parse_request(DOMAIN.format(model, inside))
    source = choose_source(Wanted(recorded="7.2"), request)
    seen = meant_for(load_cpu_map(), words_of(release))
    _, value = libvirt_cpu_args(request, Platform(source, seen))
    return value


def test_removed_features_are_switched_off() -> None:
    assert passed("9.0", "Skylake-Server") == "Skylake-Server"
    assert passed("11.3", "Skylake-Server") == "Skylake-Server,mpx=off"
    assert passed("12.8", "Icelake-Server") == "Icelake-Server,intel-pt=off,mpx=off"
    named = "<feature policy='require' name='mpx'/>"
    assert passed("11.3", "Skylake-Server", named) == "Skylake-Server,mpx=on"


def test_emulated_physical_bits_without_a_number() -> None:
    emulated = "<maxphysaddr mode='emulate'/>"
    assert passed("11.3", "Haswell", emulated) == "Haswell,host-phys-bits=off"
    assert passed("12.8", "Haswell", emulated) == "Haswell,host-phys-bits=off"
    with pytest.raises(ResolveError, match="bits= must be specified too"):
        passed("9.0", "Haswell", emulated)
    with pytest.raises(ResolveError, match="not known"):
        passed("10.0", "Haswell", emulated)


@pytest.mark.parametrize("policy", ["force", "require", "disable", "forbid"])
def test_what_libvirt_passes_on_to_no_qemu(policy: str) -> None:
    names = ("cmt", "mbm_total", "mbm_local", "osxsave", "ospke")
    inside = "".join(f"<feature policy='{policy}' name='{name}'/>" for name in names)
    assert passed("9.0", "Haswell", inside) == "Haswell"
    request = parse_request(DOMAIN.format("Haswell", inside))
    source = choose_source(Wanted(recorded="7.2"), request)
    expansion = expand(request, Platform(source, load_cpu_map()))
    assert not expansion.asked
