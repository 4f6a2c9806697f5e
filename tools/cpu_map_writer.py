"""Writes the files of a CPU map: index, vendors, features, and one file for each family of
models.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import cpu_map_facts as facts

from cpumap.cpu.bits import REGISTERS, Bits, CpuidBits, MsrBits
from cpumap.cpu.names import PropertyName

if TYPE_CHECKING:
    from write_cpu_map import Answers

_VERSIONED = re.compile(r"(?P<family>.+)-v(?P<version>\d+)")
_HEADER = """\
<!--
  Written by tools/write-cpu-map; change the tool or tools/cpu_map_facts.py, not this file.
  {what}
-->
<cpus>
"""


class Signature(NamedTuple):
    """One `<signature>`."""

    family: int
    model: int
    stepping: str | None = None


@dataclass(frozen=True)
class Entry:
    """One model as it is written, features in libvirt's names."""

    name: str
    family: str
    qemu: str
    vendor: str | None
    signatures: tuple[Signature, ...]
    features: frozenset[str]
    aliases: tuple[str, ...]


def write(directory: Path, newest: Answers, older: list[Answers]) -> None:
    """Writes the whole map."""
    directory.mkdir(parents=True, exist_ok=True)
    features = libvirt_features(newest)
    entries = [
        entry for answers in _new_names(newest, older) for entry in model_entries(answers, features)
    ]
    families: dict[str, list[Entry]] = {}
    for entry in sorted(entries, key=_version):
        families.setdefault(entry.family, []).append(entry)
    ordered = sorted(
        families.values(), key=lambda family: (len(family[0].features), family[0].family)
    )
    for stale in directory.glob("x86_*.xml"):
        stale.unlink()
    _write(directory / "index.xml", _index(ordered), _INDEX_NOTE.format(qemu=newest.qemu))
    _write(
        directory / "x86_vendors.xml", _vendors(ordered), "The strings are those of CPUID leaf 0."
    )
    _write(
        directory / "x86_features.xml",
        _features(features, newest),
        _FEATURES_NOTE.format(qemu=newest.qemu),
    )
    for family in ordered:
        what = _MODELS_NOTE.format(qemu=family[0].qemu)
        _write(directory / f"x86_{family[0].family}.xml", _models(family), what)


_INDEX_NOTE = "Models of QEMU {qemu}, and of older ones where it has them no more."

_FEATURES_NOTE = """\
Bits as QEMU {qemu} reports them: from its warning when the feature cannot be given, else from the \
feature-words
  of a CPU that has this feature only; aliases from its expansions, migratable='no' from its \
migration blockers
  (query-migrate). The spellings of libvirt and Linux, and features without a QEMU property, are \
facts of the tool's."""

_MODELS_NOTE = """\
Features as QEMU {qemu} expands each model without a machine type; the signatures are QEMU's \
numbers, and those
  under which the same microarchitecture was sold. Left out: hypervisor (every model has it), \
paravirtual features,
  and features that no guest can see without another one that the model lacks (vmx-* without \
vmx)."""


def _write(file: Path, lines: Iterable[str], what: str) -> None:
    body = "".join(f"  {line}\n" if line else "\n" for line in lines)
    file.write_text(f"{_HEADER.format(what=what)}{body}</cpus>\n")


def _new_names(newest: Answers, older: list[Answers]) -> Iterator[Answers]:
    """Each QEMU's answers, reduced to the models that no newer one has."""
    seen: set[str] = set()
    for answers in [newest, *older]:
        lost = {
            name
            for name in answers.models
            if name not in seen and _family(answers, name) not in seen
        }
        answers.models = {name: props for name, props in answers.models.items() if name in lost}
        yield answers
        seen |= lost | {_family(answers, name) for name in lost}


def _family(answers: Answers, name: str) -> str:
    versioned = _VERSIONED.fullmatch(answers.alias_of.get(name, name))
    return versioned["family"] if versioned else name


def _version(entry: Entry) -> tuple[str, int]:
    versioned = _VERSIONED.fullmatch(entry.name)
    return entry.family, int(versioned["version"]) if versioned else 0


def libvirt_features(newest: Answers) -> dict[str, Bits]:
    """libvirt's name of every feature that is the CPU's own → where it sits, in the order of the
    bits.
    """
    features = {
        libvirt_name(name): bits for name, bits in newest.bits.items() if not _paravirtual(bits)
    }
    for name, (leaf, subleaf, register, bit, _) in facts.BEYOND_QEMU.items():
        features[name] = CpuidBits(
            leaf, subleaf, next(r for r in REGISTERS if r == register), 1 << bit
        )
    return dict(sorted(features.items(), key=lambda item: _order(item[1])))


def libvirt_name(prop: str) -> str:
    """libvirt's spelling of a QEMU property."""
    return facts.LIBVIRT_SPELLINGS.get(prop, (prop, ""))[0]


def _paravirtual(bits: Bits) -> bool:
    return isinstance(bits, CpuidBits) and bits.leaf in facts.PARAVIRTUAL


def _order(bits: Bits) -> tuple[int, ...]:
    if isinstance(bits, MsrBits):
        return 1, bits.index, 0, 0, bits.mask
    return 0, bits.leaf, bits.subleaf, REGISTERS.index(bits.register), bits.mask


def model_entries(answers: Answers, features: dict[str, Bits]) -> Iterator[Entry]:
    """The models themselves, without their aliases."""
    aliases: dict[str, list[str]] = {}
    for alias, name in answers.alias_of.items():
        aliases.setdefault(name, []).append(alias)
    for name, props in answers.models.items():
        if name in answers.alias_of:
            continue
        family = _family(answers, name)
        on = {libvirt_name(prop) for prop, value in props.items() if value is True}
        numbers = Signature(int(props[PropertyName("family")]), int(props[PropertyName("model")]))
        yield Entry(
            name=name,
            family=family,
            qemu=answers.qemu,
            vendor=None
            if family in facts.WITHOUT_VENDOR
            else _vendor(str(props[PropertyName("vendor")])),
            signatures=() if family in facts.WITHOUT_SIGNATURE else _signatures(family, numbers),
            features=frozenset(
                f for f in on & features.keys() - facts.NOT_THE_MODELS if _visible(f, on)
            ),
            aliases=tuple(sorted(aliases.get(name, ()))),
        )


def _visible(feature: str, on: set[str]) -> bool:
    return all(needed in on for prefix, needed in facts.NEEDS.items() if feature.startswith(prefix))


def _vendor(string: str) -> str:
    return next(name for name, known in facts.VENDORS.items() if known == string)


def _signatures(family: str, own: Signature) -> tuple[Signature, ...]:
    stepping = facts.STEPPINGS.get(family)
    sold = [Signature(*numbers) for numbers in facts.SILICON.get(family, ())]
    known = [own, *sold] if (family, own[:2]) not in facts.NOT_SILICON else sold
    return tuple(signature._replace(stepping=stepping) for signature in dict.fromkeys(known))


def _index(families: list[list[Entry]]) -> Iterator[str]:
    yield "<arch name='x86'>"
    for name in ("vendors", "features"):
        yield f"  <include filename='x86_{name}.xml'/>"
    for vendor in [None, *facts.VENDORS]:
        group = [family[0].family for family in families if family[0].vendor == vendor]
        if group:
            yield ""
            yield f"  <!-- {vendor or 'models of no vendor'} -->"
            yield from (f"  <include filename={_quote(f'x86_{name}.xml')}/>" for name in group)
    yield "</arch>"


def _vendors(families: list[list[Entry]]) -> Iterator[str]:
    used = {family[0].vendor for family in families}
    for name, string in facts.VENDORS.items():
        if name in used:
            yield f"<vendor name={_quote(name)} string={_quote(string)}/>"


def _features(features: dict[str, Bits], newest: Answers) -> Iterator[str]:
    blocking = {libvirt_name(name) for name in newest.blocking}
    spelled = {libvirt_name(name): [name, *newest.aliases.get(name, ())] for name in newest.bits}
    heading = ""
    for name, bits in features.items():
        if _heading(bits) != heading:
            heading = _heading(bits)
            yield ""
            yield f"<!-- {heading} -->"
        if name in facts.BEYOND_QEMU:
            yield f"<!-- {facts.BEYOND_QEMU[name][-1]} -->"
        yield (
            f"<feature "
            f"name={_quote(name)}{' migratable=' + _quote('no') if name in blocking else ''}>"
        )
        for alias in spelled.get(name, ()):
            if alias != name:
                yield f"  <alias name={_quote(alias)} source='qemu'/>"
        if facts.LINUX_SPELLINGS.get(name, name) != name:
            yield f"  <alias name={_quote(facts.LINUX_SPELLINGS[name])} source='linux'/>"
        yield f"  {_place(bits)}"
        yield "</feature>"


def _heading(bits: Bits) -> str:
    if isinstance(bits, MsrBits):
        return f"MSR 0x{bits.index:x}"
    subleaf = f", subleaf {bits.subleaf}" if bits.leaf in _WITH_SUBLEAVES else ""
    return (
        f"leaf 0x{bits.leaf:x}{subleaf}, {bits.register}: {facts.LEAVES[bits.leaf, bits.subleaf]}"
    )


_WITH_SUBLEAVES = frozenset({0x7, 0xD, 0xF, 0x12, 0x14, 0x1E, 0x24, 0x29})


def _place(bits: Bits) -> str:
    if isinstance(bits, MsrBits):
        high, low = bits.mask >> 32, bits.mask & 0xFFFFFFFF
        return f"<msr index='0x{bits.index:x}' edx='0x{high:08x}' eax='0x{low:08x}'/>"
    subleaf = f" ecx_in='0x{bits.subleaf:02x}'" if bits.leaf in _WITH_SUBLEAVES else ""
    return f"<cpuid eax_in='0x{bits.leaf:02x}'{subleaf} {bits.register}='0x{bits.mask:08x}'/>"


def _models(family: list[Entry]) -> Iterator[str]:
    before: Entry | None = None
    for entry in family:
        extends = before is not None and _extends(entry, before)
        named = bool(entry.aliases) or _VERSIONED.fullmatch(entry.name) is None
        yield f"<model name={_quote(entry.name)}>"
        if extends and before is not None:
            yield f"  <model name={_quote(before.name)}/>"
        # An alias is described by its own name, which every libvirt knows; versions came to libvirt
        # later.
        yield _decode(host=not entry.aliases, guest=named and not entry.aliases)
        if not extends:
            yield from _identity(entry)
        known = before.features if extends and before is not None else frozenset()
        yield from (f"  <feature name={_quote(name)}/>" for name in sorted(entry.features - known))
        yield "</model>"
        for alias in entry.aliases:
            yield f"<model name={_quote(alias)}>"
            yield f"  <model name={_quote(entry.name)}/>"
            yield _decode(host=True, guest=True)
            yield "</model>"
        before = entry


def _extends(entry: Entry, before: Entry) -> bool:
    same = (entry.vendor, entry.signatures) == (before.vendor, before.signatures)
    return same and entry.features >= before.features


def _identity(entry: Entry) -> Iterator[str]:
    for family, model, stepping in entry.signatures:
        only = f" stepping={_quote(stepping)}" if stepping else ""
        yield f"  <signature family='{family}' model='{model}'{only}/>"
    if entry.vendor:
        yield f"  <vendor name={_quote(entry.vendor)}/>"


def _decode(*, host: bool, guest: bool) -> str:
    return f"  <decode host='{_onoff(host)}' guest='{_onoff(guest)}'/>"


def _onoff(on: bool) -> str:
    return "on" if on else "off"


def _quote(text: str) -> str:
    return f"'{text}'"
