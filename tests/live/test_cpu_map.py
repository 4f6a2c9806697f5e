"""The shipped CPU map against the two programs it speaks for: QEMU, and the libvirt that is
installed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from cpumap.cpu.bits import CpuidBits, MsrBits
from cpumap.cpu.expansion import CpuModel
from cpumap.cpu.names import FeatureName
from cpumap.libvirt.cpu_map.entries import Feature, Model
from cpumap.libvirt.cpu_map.load import load_cpu_map
from cpumap.libvirt.cpu_map.map import CpuMap
from cpumap.sources.live import QemuSource

pytestmark = pytest.mark.live

LIBVIRTS = Path(os.environ.get("CPUMAP_LIBVIRT_MAP") or "/usr/share/libvirt/cpu_map")
"""Where the package libvirt-daemon (libvirt-common in newer Debian) installs it: libvirt 9.0,
11.3, 12.8 were tried.
"""

PARAVIRTUAL = range(0x40000000, 0x50000000)


@pytest.fixture(scope="module")
def ours() -> CpuMap:
    return load_cpu_map()


@pytest.fixture(scope="module")
def libvirts() -> CpuMap:
    assert LIBVIRTS.is_dir(), "libvirt's own CPU map is missing (tools/test installs it)"
    return load_cpu_map(LIBVIRTS)


def test_shared_features_have_the_same_bits(ours: CpuMap, libvirts: CpuMap) -> None:
    shared = ours.features.keys() & libvirts.features.keys()
    assert len(shared) > 200
    differ = {name for name in shared if ours.features[name].bits != libvirts.features[name].bits}
    assert {
        name
        for name in differ
        if not _in_the_other_half(ours.features[name], libvirts.features[name])
    } == set()


def _in_the_other_half(feature: Feature, other: Feature) -> bool:
    """Whether it is a VMX control where libvirt 11 has it: in the low half of its MSR, which
    says what must be on.
    """
    low = tuple(
        MsrBits(bits.index, bits.mask >> 32) for bits in feature.bits if isinstance(bits, MsrBits)
    )
    return feature.name.startswith("vmx-") and low == other.bits


NAMELESS_IN_QEMU = {
    "vmx-ept-uc",
    "vmx-ept-wb",
    "vmx-invvpid-single-context",
    "vmx-invvpid-single-context-noglobals",
}
"""Bits that newer libvirts have names for, and QEMU has none, or another one
(vmx-invept-single-context-noglobals).
"""


def test_libvirt_has_no_feature_that_is_missing_here(ours: CpuMap, libvirts: CpuMap) -> None:
    assert libvirts.features.keys() - ours.features.keys() <= NAMELESS_IN_QEMU


def test_shared_features_have_the_same_spellings(ours: CpuMap, libvirts: CpuMap) -> None:
    for name in libvirts.features.keys() & ours.features.keys():
        assert set(libvirts.aliases[name]) <= set(ours.aliases[name]), name
        assert libvirts.property_of(name) == ours.property_of(name)


MIGRATABLE = {
    "xsaves": "QEMU migrates XSAVES state today, and lists no blocker for it; libvirt 9 still "
    "drops it"
}
"""Features whose `migratable` differs, and why."""


def test_shared_features_block_migration_alike(ours: CpuMap, libvirts: CpuMap) -> None:
    shared = libvirts.features.keys() & ours.features.keys()
    differ = {n for n in shared if libvirts.features[n].migratable != ours.features[n].migratable}
    assert differ == MIGRATABLE.keys()


MODELS_ONLY_LIBVIRT_HAS = {
    "pentiumpro": "QEMU has no such model: libvirt uses it for hosts only",
    "cpu64-rhel5": "a model of Red Hat's QEMU, never in QEMU's own releases",
    "cpu64-rhel6": "a model of Red Hat's QEMU, never in QEMU's own releases",
}

SIGNATURES = {
    "Westmere-IBRS": "libvirt lists one of the three numbers that Westmere was sold under",
    "Icelake-Client": "libvirt lists one of two numbers",
    "Icelake-Client-noTSX": "libvirt lists one of two numbers",
    "Icelake-Server": "libvirt lists one of two numbers",
    "Icelake-Server-noTSX": "libvirt lists one of two numbers",
    "Opteron_G3": "QEMU gives it family 16, which is K10; libvirt repeats the numbers of K8",
}
"""Models whose signatures differ, and why."""

NEWER_SIGNATURES = {
    "GraniteRapids": "libvirt lists one of two numbers",
    "YongFeng": "libvirt repeats the first version's numbers; QEMU put them right in the second",
    "Westmere": "the same as Westmere-IBRS in its second version",
    **SIGNATURES,
}
"""Likewise in libvirts that have models by version too: by the model's name without it."""


def test_models(ours: CpuMap, libvirts: CpuMap) -> None:
    assert libvirts.models.keys() - ours.models.keys() == MODELS_ONLY_LIBVIRT_HAS.keys()
    shared = libvirts.models.keys() & ours.models.keys()
    assert {n for n in shared if _vendor(libvirts, n) != _vendor(ours, n)} == set()
    differ = {
        n for n in shared if set(libvirts.models[n].signatures) != set(ours.models[n].signatures)
    }
    if _by_version(libvirts):
        assert {_stem(name) for name in differ} <= NEWER_SIGNATURES.keys()
    else:
        assert differ == SIGNATURES.keys()


def _vendor(cpu_map: CpuMap, model: str) -> str | None:
    """What CPUID says: the name that a map has for the vendor is its own."""
    name = cpu_map.models[model].vendor
    return None if name is None else cpu_map.vendors[name].string


def _by_version(cpu_map: CpuMap) -> bool:
    """Whether this libvirt is newer than the 9.0 of Debian 12: since 11.0, models are there by
    version too.
    """
    return "Haswell-v1" in cpu_map.models


def _stem(model: str) -> str:
    return re.sub(r"-v\d+$", "", model)


@dataclass(frozen=True)
class Difference:
    """A feature that QEMU's models have (or lack) and libvirt's models of the same names lack
    (or have).
    """

    feature: str
    models: str
    cause: str
    qemu_has: bool = True
    since: str = ""
    """The machine type with which QEMU changed it: pc-i440fx-`since` is as ours, pc-i440fx-`before`
    as libvirt's.

    So it is with a model's first version; libvirt derived its -IBRS and -noTSX models from its own
    first ones.
    """
    before: str = ""


HASWELL = "Haswell Haswell-IBRS Haswell-noTSX Haswell-noTSX-IBRS"
BROADWELL = "Broadwell Broadwell-IBRS Broadwell-noTSX Broadwell-noTSX-IBRS"
WESTMERE = "Westmere Westmere-IBRS"
SANDY_IVY = "SandyBridge SandyBridge-IBRS IvyBridge IvyBridge-IBRS"
SKYLAKE_SERVER = "Skylake-Server Skylake-Server-IBRS Skylake-Server-noTSX-IBRS"
ICELAKE = "Icelake-Client Icelake-Client-noTSX Icelake-Server Icelake-Server-noTSX"
OPTERONS = "Opteron_G1 Opteron_G2 Opteron_G3 Opteron_G4 Opteron_G5"
EPYCS = "EPYC EPYC-IBPB Dhyana"

LATER = "QEMU changed the model; libvirt keeps it as it was first published"
TCG = "libvirt's model was taken from a QEMU under tcg, which cannot give it"
NEVER = "libvirt left it out, having seen that KVM never gave it to this model"
FROM_EPYC = "libvirt derived it from its EPYC, which lacks it"
HAND = "libvirt's model was written by hand, before QEMU could be asked, and leaves it out"

DIFFERENCES = (
    Difference("abm", f"{HASWELL} {BROADWELL}", LATER, since="2.5", before="2.4"),
    Difference(
        "arat", f"{WESTMERE} {SANDY_IVY} {HASWELL} {BROADWELL}", LATER, since="2.4", before="2.3"
    ),
    Difference("f16c", f"{HASWELL} {BROADWELL}", LATER, since="2.3", before="2.2"),
    Difference("rdrand", f"{HASWELL} {BROADWELL}", LATER, since="2.3", before="2.2"),
    Difference("pclmuldq", WESTMERE, LATER, since="1.5", before="1.4"),
    Difference("movbe", "n270", LATER, since="1.5", before="1.4"),
    Difference("clflushopt", "Skylake-Server", LATER, since="2.12", before="2.11"),
    Difference("pku", SKYLAKE_SERVER, LATER, since="3.1", before="3.0"),
    Difference("npt", "Opteron_G4 Opteron_G5 EPYC EPYC-IBPB", LATER, since="4.0", before="3.1"),
    Difference(
        "nrip-save", "Opteron_G4 Opteron_G5 EPYC EPYC-IBPB", LATER, since="4.0", before="3.1"
    ),
    Difference("topoext", "EPYC EPYC-IBPB", LATER, since="3.0", before="2.12"),
    Difference(
        "mpx",
        f"{SKYLAKE_SERVER} Skylake-Client Skylake-Client-IBRS Skylake-Client-noTSX-IBRS "
        f"Cascadelake-Server Icelake-Client Icelake-Server",
        LATER,
        False,
        since="4.0",
        before="3.1",
    ),
    Difference("rdtscp", "Opteron_G2", LATER, False, since="2.5", before="2.4"),
    Difference(
        "vme",
        f"kvm32 kvm64 Conroe Penryn Nehalem Nehalem-IBRS {WESTMERE} SandyBridge SandyBridge-IBRS "
        f"{HASWELL} {BROADWELL} phenom {OPTERONS}",
        TCG,
    ),
    Difference("xsaveopt", f"{SANDY_IVY} {HASWELL} {BROADWELL}", TCG),
    Difference("monitor", f"Snowridge Opteron_G3 EPYC-Rome EPYC-Milan {EPYCS}", NEVER),
    Difference("acpi", "coreduo core2duo n270", NEVER),
    Difference(
        "mpx",
        "Cascadelake-Server-noTSX Icelake-Client-noTSX Icelake-Server-noTSX",
        "libvirt derived it from its model with TSX, which QEMU had taken MPX from before this one "
        "came",
        False,
    ),
    Difference(
        "mpx", "Snowridge", "QEMU took it away in Snowridge-v2; libvirt's Snowridge is that one"
    ),
    Difference(
        "pku",
        "Cascadelake-Server Cascadelake-Server-noTSX",
        "libvirt derived it from Skylake-Server, which had no PKU yet",
    ),
    Difference("topoext", "EPYC-Rome EPYC-Milan Dhyana", FROM_EPYC),
    Difference("npt", "Dhyana", FROM_EPYC),
    Difference("nrip-save", "Dhyana", FROM_EPYC),
    Difference("xsaves", "EPYC-Rome", "libvirt leaves out what it thinks blocks migration"),
    *(
        Difference(
            feature,
            "Cascadelake-Server-noTSX",
            "QEMU's is Cascadelake-Server-v3, which builds on v2; libvirt's on v1",
        )
        for feature in ("arch-capabilities", "ibrs-all", "mds-no", "rdctl-no", "skip-l1dfl-vmentry")
    ),
    Difference("apic", "pentium pentium2 pentium3", HAND),
    Difference("mca", "athlon", HAND),
    Difference("ss", "coreduo core2duo n270", HAND),
    Difference("cx16", "core2duo phenom", HAND),
    Difference("lahf_lm", "n270 core2duo qemu64 phenom", HAND),
    *(
        Difference(feature, "phenom", HAND)
        for feature in ("abm", "npt", "pdpe1gb", "popcnt", "rdtscp", "sse4a")
    ),
)
"""Every difference between the features of libvirt 9's models and QEMU's, and its cause."""

NEWER_DIFFERENCES = (
    Difference("monitor", "Denverton EPYC-Genoa EPYC-Turin YongFeng", NEVER),
    Difference("topoext", "EPYC-Genoa EPYC-Turin", FROM_EPYC),
    *(
        Difference(
            width, "DiamondRapids", "every width is there since AVX10 version 2: libvirt names none"
        )
        for width in ("avx10-128", "avx10-256", "avx10-512")
    ),
)
"""Those of models that libvirt 9 has not; of models by version, by the name without it."""

SAME_MODEL = {"Cascadelake-Server-v3": "Cascadelake-Server-noTSX"}
"""Versions that are another model of libvirt's."""


def test_every_difference_in_features_has_its_cause(ours: CpuMap, libvirts: CpuMap) -> None:
    found = set()
    for name in libvirts.models.keys() & ours.models.keys():
        qemus, other = ours.models[name], libvirts.models[name]
        known_as = SAME_MODEL.get(name, _stem(name))
        found |= {
            (known_as, feature, feature in qemus.features) for feature in _apart(qemus, other)
        }
    listed = _listed(DIFFERENCES)
    if _by_version(libvirts):
        assert found <= listed | _listed(NEWER_DIFFERENCES)
    else:
        assert found == listed


def _apart(qemus: Model, libvirts: Model) -> Iterator[str]:
    """Newer libvirts list what vmx would offer in models without vmx, whose guests cannot see
    any of it.
    """
    for feature in qemus.features ^ libvirts.features:
        if not feature.startswith("vmx-") or "vmx" in qemus.features | libvirts.features:
            yield feature


def _listed(rows: Iterable[Difference]) -> set[tuple[str, str, bool]]:
    listed = [(model, row.feature, row.qemu_has) for row in rows for model in row.models.split()]
    assert len(set(listed)) == len(listed)
    return set(listed)


def test_the_machine_types_that_are_given_as_causes(
    qemus: Mapping[str, Path], ours: CpuMap
) -> None:
    rows = [row for row in DIFFERENCES if row.since]
    assert rows
    with QemuSource(qemus["7.2"]) as qemu:
        first = {d.name for d in qemu.definitions("none") if d.alias_of == f"{d.name}-v1"}
        for row in sorted(rows, key=lambda row: row.since):
            models = [name for name in row.models.split() if name in first]
            assert models, row
            changes = {name: _changes(qemu, ours, name, row) for name in models}
            assert changes == dict.fromkeys(models, (not row.qemu_has, row.qemu_has)), row


def _changes(qemu: QemuSource, cpu_map: CpuMap, model: str, row: Difference) -> tuple[bool, bool]:
    prop = cpu_map.property_of(FeatureName(row.feature))
    before, since = (
        qemu.expand(f"pc-i440fx-{version}", CpuModel(model), "static").props[prop]
        for version in (row.before, row.since)
    )
    return bool(before), bool(since)


def test_models_have_the_features_that_qemu_says(qemus: Mapping[str, Path], ours: CpuMap) -> None:
    newest = qemus["11.1"]
    with QemuSource(newest, "tcg") as tcg, QemuSource(newest, "kvm") as kvm:
        definitions = [d for d in tcg.definitions("none") if d.migration_safe and not d.static]
        assert len(definitions) > 180
        for definition in definitions:
            model = CpuModel(definition.name)
            own = {
                ours.feature_of(name)
                for name, value in tcg.expand("none", model, "static").props.items()
                if value is True
            }
            given = {
                ours.feature_of(name)
                for name, value in kvm.expand("none", model, "static").props.items()
                if value is True
            }
            # tcg switches vme off in all models; a guest without vmx cannot see what vmx would
            # offer.
            expected = {
                name
                for name in own | given & {"vme"}
                if not name.startswith("vmx-") or "vmx" in own
            }
            known = {name for name in expected if name in ours.features and name != "hypervisor"}
            assert ours.models[definition.name].features == known, definition.name


def test_what_the_map_leaves_out_is_not_the_cpus(qemus: Mapping[str, Path], ours: CpuMap) -> None:
    with QemuSource(qemus["11.1"]) as qemu:
        static = qemu.expand("none", CpuModel("base"), "static").props
    unknown = {
        name
        for name, value in static.items()
        if isinstance(value, bool) and ours.feature_of(name) not in ours.features
    }
    # lmce is a bit of MCG_CAP, which neither libvirt nor QEMU counts as a feature word.
    assert {name for name in unknown if not name.startswith("kvm")} == {"lmce"}


def test_bits_are_what_a_realised_cpu_shows(qemus: Mapping[str, Path], ours: CpuMap) -> None:
    """feature-words of one CPU with everything on: 10.0's, where the map was written from 11.1."""
    with QemuSource(qemus["10.0"]) as qemu:
        static = qemu.expand("none", CpuModel("base"), "static").props
        names = [
            name
            for name, value in static.items()
            if isinstance(value, bool) and not name.startswith("kvm")
        ]
        with qemu.start("pc-q35-10.0", CpuModel("base", dict.fromkeys(names, True))) as session:
            path = session.execute("query-cpus-fast")[0]["qom-path"]
            words = session.execute("qom-get", path=path, property="feature-words")
    shown = {
        (
            word["cpuid-input-eax"],
            word.get("cpuid-input-ecx", 0),
            word["cpuid-register"].lower(),
        ): word["features"]
        for word in words
        if word["cpuid-input-eax"] not in PARAVIRTUAL
        and (word["cpuid-input-eax"], word.get("cpuid-input-ecx")) != (0xD, 0)
    }
    expected = dict.fromkeys(shown, 0)
    for name in names:
        for bits in (
            ours.features[ours.feature_of(name)].bits
            if ours.feature_of(name) in ours.features
            else ()
        ):
            if isinstance(bits, CpuidBits) and (bits.leaf, bits.subleaf, bits.register) in expected:
                expected[bits.leaf, bits.subleaf, bits.register] |= bits.mask
    assert shown == expected
