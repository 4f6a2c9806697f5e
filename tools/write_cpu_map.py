"""Writes a CPU map in libvirt's format from what QEMU itself reports."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cpu_map_facts as facts

from cpumap.cpu.bits import REGISTERS, Bits, CpuidBits, MsrBits, Register
from cpumap.cpu.expansion import CpuModel
from cpumap.cpu.machine_type import machine_type, of_family
from cpumap.cpu.names import PropertyName, Value
from cpumap.errors import SourceError
from cpumap.qemu.qmp import Session
from cpumap.sources.live import QemuSource

_LACK = re.compile(
    r": (?:CPUID\[eax=(?P<leaf>\w+)h(?:,ecx=(?P<subleaf>\w+)h)?\]\.(?P<register>E[A-D]X)"
    r"|MSR\((?P<msr>\w+)h\))\.(?P<name>[a-z0-9.-]+) \[bit (?P<bit>\d+)\]"
)
"""QEMU 11's words for a feature that cannot be given, or not without another one; older ones
leave the subleaf out.
"""


@dataclass
class Answers:
    """What one QEMU says about its CPUs."""

    qemu: str
    bits: dict[str, Bits] = field(default_factory=dict)
    aliases: dict[str, list[str]] = field(default_factory=dict)
    blocking: set[str] = field(default_factory=set)
    models: dict[str, Mapping[PropertyName, Value]] = field(default_factory=dict)
    alias_of: dict[str, str] = field(default_factory=dict)


def newest_machine(source: QemuSource) -> str:
    """The newest pc-q35-X.Y."""
    machines = of_family(source.machines(), "pc-q35")
    return [machine.name for machine in machines if machine_type(machine.name).release][-1]


def boolean_properties(source: QemuSource) -> list[str]:
    """The canonical names of everything that QEMU counts as a CPU feature."""
    static = source.expand("none", CpuModel("base"), "static").props
    return sorted(name for name, value in static.items() if isinstance(value, bool))


def ask_bits(source: QemuSource, names: Sequence[str]) -> dict[str, Bits]:
    """Where each feature sits: from the warning of a QEMU that cannot give it, else from the CPU
    that has only it.
    """
    machine = newest_machine(source)
    found: dict[str, Bits] = {}
    # Without a PMU, QEMU 11 silently drops what belongs to it.
    with source.start(machine, _base([*names, "pmu"]), unfiltered=False) as session:
        found.update(_warned(session))
    for name in names:
        if name in found:
            continue
        with source.start(machine, _base([name, "pmu"])) as session:
            words, warned = _feature_words(session), _warned(session)
        if name in warned:
            found[name] = warned[name]
        elif words:
            # A feature with state of its own (avx) brings its XSAVE component along: leaf 0xD names
            # that, not it.
            own = [bits for bits in words if bits.leaf != 0xD or len(words) == 1]
            if len(own) != 1 or own[0].mask.bit_count() != 1:
                raise SystemExit(
                    f"{name} alone switches on {words}: which of them it is, QEMU does not say"
                )
            found[name] = own[0]
    return {name: bits for name, bits in found.items() if name in names}


def _base(names: Iterable[str]) -> CpuModel:
    return CpuModel("base", dict.fromkeys(map(PropertyName, names), True))


def _warned(session: Session) -> dict[str, Bits]:
    """The first bit of each name: QEMU calls two bits vmx-invept-single-context, the second one
    by mistake.
    """
    found: dict[str, Bits] = {}
    for match in filter(None, map(_LACK.search, session.warnings())):
        found.setdefault(match["name"], _worded(match))
    return found


def _worded(match: re.Match[str]) -> Bits:
    bit = int(match["bit"])
    if match["msr"]:
        index = int(match["msr"], 16)
        return MsrBits(index, 1 << (bit + 32 if index in facts.ALLOWED_ONE_MSRS else bit))
    return CpuidBits(
        int(match["leaf"], 16),
        int(match["subleaf"] or "0", 16),
        _register(match["register"]),
        1 << bit,
    )


def _register(name: str) -> Register:
    return next(register for register in REGISTERS if register == name.lower())


def _feature_words(session: Session) -> list[CpuidBits]:
    path = session.execute("query-cpus-fast")[0]["qom-path"]
    words = session.execute("qom-get", path=path, property="feature-words")
    return [
        CpuidBits(
            word["cpuid-input-eax"],
            word.get("cpuid-input-ecx", 0),
            _register(word["cpuid-register"]),
            word["features"],
        )
        for word in words
        if word["features"]
    ]


def ask_aliases(source: QemuSource, names: Sequence[str]) -> dict[str, list[str]]:
    """The other spellings that QEMU has for each feature: a property which, switched on, shows
    as that feature.
    """
    full = source.expand("none", CpuModel("base"), "full").props
    # QEMU 11 takes the features of SVM away from a CPU without SVM, even while it is only expanded.
    off = source.expand("none", _base(["svm"]), "static").props
    candidates = sorted(
        name
        for name, value in full.items()
        if value is False
        and name not in names
        and not name.startswith(("hv-", "x-"))
        and name != "realized"
    )
    aliases: dict[str, list[str]] = {}
    for name in candidates:
        try:
            on = source.expand("none", _base(["svm", name]), "static").props
        except SourceError:
            continue  # not a feature: its setter refuses it here
        if (
            len(
                changed := [key for key in names if on[PropertyName(key)] != off[PropertyName(key)]]
            )
            == 1
        ):
            aliases.setdefault(changed[0], []).append(name)
    return aliases


def ask_blocking(source: QemuSource, names: Sequence[str]) -> set[str]:
    """The features with which QEMU refuses to migrate (query-migrate's blocked-reasons), found
    by halving.
    """
    if not names:
        return set()
    try:
        with source.start(newest_machine(source), _base(names)) as session:
            if not session.execute("query-migrate").get("blocked-reasons"):
                return set()
    except SourceError:
        if len(names) == 1:
            print(
                f"{source.label}: cannot make a CPU with {names[0]}; taken as migratable",
                file=sys.stderr,
            )
            return set()
    else:
        if len(names) == 1:
            return set(names)
    middle = len(names) // 2
    return ask_blocking(source, names[:middle]) | ask_blocking(source, names[middle:])


def ask_models(tcg: QemuSource, kvm: QemuSource, answers: Answers) -> None:
    """Every named model without a machine type's changes, and what each alias stands for."""
    definitions = [
        definition
        for definition in tcg.definitions("none")
        if definition.migration_safe and not definition.static
    ]
    models = [CpuModel(definition.name) for definition in definitions]
    pairs = zip(
        *(source.expand_many("none", models, "static") for source in (tcg, kvm)), strict=True
    )
    for definition, (own, with_kvm) in zip(definitions, pairs, strict=True):
        taken = {name: with_kvm[name] for name in map(PropertyName, facts.TABLE_ACCEL_DIFFERS)}
        answers.models[definition.name] = {**own, **taken}
        if definition.alias_of:
            answers.alias_of[definition.name] = definition.alias_of


def ask(binary: str, *, models_only: bool) -> Answers:
    """What this QEMU says; takes about a minute unless only its models are wanted."""
    with QemuSource(binary, "tcg") as tcg, QemuSource(binary, "kvm") as kvm:
        answers = Answers(tcg.version)
        ask_models(tcg, kvm, answers)
        if not models_only:
            names = boolean_properties(tcg)
            answers.bits = ask_bits(tcg, names)
            answers.aliases = ask_aliases(tcg, names)
            answers.blocking = ask_blocking(
                kvm, [n for n, b in answers.bits.items() if _is_the_cpus(b)]
            )
    return answers


def _is_the_cpus(bits: Bits) -> bool:
    return isinstance(bits, MsrBits) or bits.leaf not in facts.PARAVIRTUAL


def main() -> None:
    from cpu_map_writer import write

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path, help="where to write; replaced file by file")
    parser.add_argument(
        "--qemu", required=True, help="the newest QEMU: features, and all its models"
    )
    parser.add_argument(
        "--older-qemu",
        action="append",
        default=[],
        help="an older QEMU: models that newer ones lost",
    )
    arguments = parser.parse_args()
    newest = ask(arguments.qemu, models_only=False)
    older = [ask(binary, models_only=True) for binary in arguments.older_qemu]
    write(arguments.directory, newest, older)


if __name__ == "__main__":
    main()
