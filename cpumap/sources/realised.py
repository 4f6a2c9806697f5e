"""The CPU that a QEMU has made, read from its first vCPU."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

from cpumap.arch.arch import Arch
from cpumap.cpu.bits import Bit, CpuidBits, Register, bits_words
from cpumap.cpu.expansion import Realised
from cpumap.cpu.names import PropertyName
from cpumap.qemu.answers import first_vcpu, told
from cpumap.qemu.qmp import Conversation
from cpumap.qemu.warnings import UNMET, lacking

_PARAVIRTUAL = range(0x40000000, 0x50000000)
"""CPUID leaves of KVM and Hyper-V: QEMU has names for the bits, although CPU maps have not."""


def with_filtered(realised: Realised) -> Realised:
    given_back = {
        PropertyName(name): True for name in realised.filtered if name in realised.properties
    }
    return replace(realised, properties={**realised.properties, **given_back})


_REGISTERS = ("EAX", "EBX", "ECX", "EDX")


def bits_in(words: Any) -> Iterator[Bit]:
    """The bits set in a list of X86CPUFeatureWordInfo, as `filtered-features` is."""
    for word in told(words, "filtered-features").entries():
        leaf = word.key("cpuid-input-eax").number
        subleaf = word.optional("cpuid-input-ecx")
        register: Register = word.key("cpuid-register").among(_REGISTERS).lower()
        features = word.key("features").number
        for number in range(32):
            if features >> number & 1:
                yield leaf, 0 if subleaf is None else subleaf.number, register, number


@cache
def _names() -> Mapping[Bit, PropertyName]:
    """The properties by their CPUID bits, as the shipped CPU map has them."""
    from cpumap.libvirt.cpu_map.load import load_cpu_map

    cpu_map = load_cpu_map()
    return {
        (bits.leaf, bits.subleaf, bits.register, number): cpu_map.property_of(feature.name)
        for feature in cpu_map.features.values()
        for bits in feature.bits
        if isinstance(bits, CpuidBits)
        for number in range(32)
        if bits.mask >> number & 1
    }


def named_bits(filtered: Iterable[Bit]) -> dict[str, str]:
    """Property name → where the bit sits, in QEMU's way of writing it; bits without a name left
    out.
    """
    return {
        str(_names()[bit]): bits_words(bit[:3], 1 << bit[3]) for bit in filtered if bit in _names()
    }


def read_realised(session: Conversation, arch: Arch) -> Realised:
    """The first vCPU of a QEMU: every readable scalar property, and what it says was filtered; and
    what the machine does for it, where the architecture has such properties.
    """
    read = _read(session, first_vcpu(session))
    filtered = read.get(PropertyName("filtered-features"), [])
    if arch.of_machine is not None:
        machine = _read(session, "/machine")
        read |= {name: value for name, value in machine.items() if arch.place(name) == "-machine"}
    properties = {
        name: value for name, value in read.items() if isinstance(value, bool | int | str)
    }
    warnings = session.warnings()
    nameless = tuple(
        bit for bit in bits_in(filtered) if bit not in _names() and bit[0] not in _PARAVIRTUAL
    )
    return Realised(properties, lacking(warnings), lacking(warnings, UNMET), nameless)


def _read(session: Conversation, path: str) -> dict[PropertyName, Any]:
    """What the properties of a QEMU's object answer: their values, or that none can be read."""
    listed = told(session.execute("qom-list", path=path), "qom-list")
    names = [
        PropertyName(entry.key("name").text)
        for entry in listed.entries()
        if not entry.key("type").text.startswith(("link<", "child<"))
    ]
    values = session.answers(("qom-get", {"path": path, "property": name}) for name in names)
    return dict(zip(names, values, strict=True))
