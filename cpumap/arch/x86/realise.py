"""What QEMU does to an x86 CPU when it makes it, and the values that it refuses: measured on QEMU
5.2, 7.2, 10.0 and 11.1, where nothing else is said.
"""

from __future__ import annotations

from collections.abc import Mapping

from cpumap.arch.arch import Properties
from cpumap.cpu.names import PropertyName, Value
from cpumap.cpu.topology import Topology

_LM, _PAE, _PSE36, _PHYS_BITS = map(PropertyName, ("lm", "pae", "pse36", "phys-bits"))
_ADDRESSES = frozenset({_LM, _PAE, _PSE36, _PHYS_BITS})
_UCODE_REV, _VENDOR = map(PropertyName, ("ucode-rev", "vendor"))
_FAMILY, _MODEL = map(PropertyName, ("family", "model"))


AMD_UCODE, OTHER_UCODE = 0x01000065, 0x100000000
"""The microcode revision of a CPU that names none, for AuthenticAMD and for every other vendor."""


DEFAULT_PHYS_BITS = 40
EXTENDED_PHYS_BITS, LEGACY_PHYS_BITS = 36, 32
"""Address bits of a CPU without long mode, which nobody can set: with pse36 or pae, and without."""


PAE_COUNTS_SINCE = (8,)
"""7.2.22 looks at pse36 alone, 8.2.2 at pae too."""


PLAIN_MODELS_SINCE = (11,)
"""11.1 leaves the extended model number out for families other than 6 and those from 15 on; 10.0
does not.
"""


_PDCM = PropertyName("pdcm")
_PDCM_WITHOUT_PMU = PropertyName("x-pdcm-on-even-without-pmu")
_LEVEL, _XLEVEL, _XLEVEL2 = map(PropertyName, ("level", "xlevel", "xlevel2"))
_AUTOMATIC = PropertyName("full-cpuid-auto-level")


FLOORS: Mapping[str, Mapping[PropertyName, int]] = {
    "EPYC-Milan": {_XLEVEL: 0x8000001E},
    "Opteron_G2": {_XLEVEL: 0x80000008},
    "Opteron_G3": {_XLEVEL: 0x80000008},
    "YongFeng": {_XLEVEL2: 0},
    "max": {_LEVEL: 0, _XLEVEL: 0},
}
"""The levels of models whose own features raise them; of every other model, the levels are as high
without. Asked with every such feature off, under every sixth machine type.
"""


_LEAF_OF_DIES, _LEAF_OF_CMP_LEGACY = 0x1F, 0x80000001


CMP_LEGACY_SINCE = (10,)
"""Since 10.0 AMD's CPUs have cmp-legacy where a package has several threads; 7.2 did not show it
among its features.
"""


ROOM_FOR_DEVICES = 36
"""Address bits that q35 needs with little memory, as 7.2 to 11.1 say when they refuse fewer."""


NARROW_UNTIL = (7, 2, 99)
"""The last releases that take 32 bits nevertheless; 8.2 refuses them."""


_RANGES: Mapping[str, tuple[int, int]] = {
    "family": (0, 270),
    "model": (0, 255),
    "stepping": (0, 15),
    "phys-bits": (32, 52),
    "host-phys-bits-limit": (0, 255),
    "avx10-version": (0, 255),
    "x-hv-max-vps": (-(2**31), 2**31 - 1),
    "tsc-frequency": (0, 2**63 - 1),
}


_32_BITS = frozenset(
    {"level", "level-func7", "xlevel", "xlevel2", "hv-spinlocks", "guest-phys-bits"}
)
_32_BITS |= {"min-level", "min-level-func7", "min-xlevel", "min-xlevel2"}
_32_BITS |= {"hv-version-id-build", "hv-version-id-spack"}


_VENDOR_LENGTH = 12


def refusal(name: PropertyName, value: Value, now: Properties, release: tuple[int, ...]) -> str:
    """Why QEMU refuses this value, in a CPU that has these; empty where it does not."""
    if isinstance(value, str):
        wrong = name == _VENDOR and len(value.encode()) != _VENDOR_LENGTH
        return f"must consist of exactly {_VENDOR_LENGTH} characters" if wrong else ""
    if isinstance(value, bool):
        return ""
    if name == _PHYS_BITS:
        return _phys_bits_refusal(value, now, release)
    low, high = _RANGES.get(name, (0, 2**32 - 1 if name in _32_BITS else 2**64 - 1))
    return "" if low <= value <= high else f"must be between {low} and {high}"


def _phys_bits_refusal(value: int, now: Properties, release: tuple[int, ...]) -> str:
    if value == 0:
        return ""  # as if it were not named
    if now.get(_LM) is False:
        return "is not user-configurable in 32 bit"
    low, high = _RANGES["phys-bits"]
    if not low <= value <= high:
        return f"must be between {low} and {high}"
    narrow = low < value or release > NARROW_UNTIL
    if narrow and value < ROOM_FOR_DEVICES:
        return "is too low for the addresses of a q35 machine's devices"
    return ""


def realised(now: Properties, given: Properties, release: tuple[int, ...]) -> Properties:
    """What QEMU makes of these properties when it makes the CPU, where `given` were named; those
    that change for that.
    """
    found: dict[PropertyName, Value] = {}
    if _VENDOR in given and not given.get(_UCODE_REV) and _UCODE_REV in now:
        found[_UCODE_REV] = AMD_UCODE if now.get(_VENDOR) == "AuthenticAMD" else OTHER_UCODE
    if not given.keys().isdisjoint(_ADDRESSES) and not given.get(_PHYS_BITS) and _PHYS_BITS in now:
        found[_PHYS_BITS] = _phys_bits(now, release)
    if not given.keys().isdisjoint((_FAMILY, _MODEL)) and release >= PLAIN_MODELS_SINCE:
        found |= _plain_model(now)
    if given.get(_PDCM) is True and now.get(_PDCM_WITHOUT_PMU) is True:
        found[_PDCM] = True
    return found


def _phys_bits(now: Properties, release: tuple[int, ...]) -> int:
    if now.get(_LM) is not False:
        return DEFAULT_PHYS_BITS
    extended = now.get(_PSE36) is True or (now.get(_PAE) is True and release >= PAE_COUNTS_SINCE)
    return EXTENDED_PHYS_BITS if extended else LEGACY_PHYS_BITS


def _plain_model(now: Properties) -> Properties:
    family, model = now.get(_FAMILY), now.get(_MODEL)
    if not isinstance(family, int) or not isinstance(model, int):
        return {}
    return {_MODEL: model if family == 6 or family >= 15 else model & 15}


def raised(values: Properties, kind: Topology, release: tuple[int, ...]) -> Properties:
    """The levels that QEMU raises for the topology, where it does so by itself."""
    if values.get(_AUTOMATIC, True) is not True:
        return {}
    found: dict[PropertyName, Value] = {}
    level, xlevel = values.get(_LEVEL), values.get(_XLEVEL)
    if kind.dies > 1 and level is not None and _has_intels_leaves(values):
        found[_LEVEL] = max(int(level), _LEAF_OF_DIES)
    amd = values.get(_VENDOR) == "AuthenticAMD" and release >= CMP_LEGACY_SINCE
    if kind.cores > 1 and xlevel is not None and amd:
        found[_XLEVEL] = max(int(xlevel), _LEAF_OF_CMP_LEGACY)
    return found


def _has_intels_leaves(values: Properties) -> bool:
    """Other vendors' CPUs have not, where they are told so."""
    intel_alone = values.get(PropertyName("x-vendor-cpuid-only"))
    return values.get(_VENDOR) == "GenuineIntel" or not intel_alone
