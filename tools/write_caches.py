"""Writes data/x86_64/caches.json: what each QEMU says in the CPUID leaves about caches, which no
CPU property describes.

    tools/write_caches.py [QEMU...]      default: every $CPUMAP_QEMUS/bin/qemu-X.Y; others stay

Every model with a cache table of its own, and the common tables by vendor, are looked at by a guest
(tcg) under each combination of the properties that act on these leaves. The guest has two dies of
two cores of two threads, so that it says which caches are a thread's, a core's, a die's or the
package's. About ten minutes on two processors.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import qemus

from cpumap.cpu.expansion import CpuModel
from cpumap.cpu.machine_type import Release, of_family, release
from cpumap.cpu.names import PropertyName, Value
from cpumap.move.adapt import has_cache_table, newest_machine
from cpumap.move.caches import CACHE_LEAVES, CACHE_PROPERTIES, RECORDED_ON
from cpumap.proof.guest import GuestCpu, probe
from cpumap.qemu.arguments import cpu_arguments, smp_option
from cpumap.sources.live import QemuSource
from cpumap.system.data import data_path
from cpumap.system.files import write_atomically

VENDORS = ("GenuineIntel", "AuthenticAMD", "HygonGenuine", "CentaurHauls", "  Shanghai  ")
HOSTS = VENDORS[:2]
"""Under KVM a model whose vendor is not named has its host's."""

SWITCHED = tuple(PropertyName(name) for name in ("l3-cache", "topoext"))
HIGH = {PropertyName("level"): 0x1F, PropertyName("xlevel"): 0x80000022}
"""So that every leaf about caches is there, whichever the model."""

Case = tuple[str, str, dict[PropertyName, Value]]
"""The key of the recording, the model, and what is set on it."""


def main() -> None:
    binaries = [Path(name) for name in sys.argv[1:]] or list(qemus.releases().values())
    path = data_path("x86_64", "caches.json")
    stored = json.loads(path.read_bytes())
    leaves: dict[str, int] = {json.dumps(leaf): at for at, leaf in enumerate(stored["leaves"])}
    releases: dict[str, dict[str, dict[str, int]]] = stored["releases"]
    for binary in binaries:
        with QemuSource(binary) as source:
            releases[source.build().name] = _recorded(source, leaves)
    ordered = {name: releases[name] for name in sorted(releases, key=_age)}
    known = [json.loads(text) for text in leaves]
    write_atomically(path, _text(stored["same_as"], ordered, known).encode())


def _age(name: str) -> tuple[Release, str]:
    version, _, vendor = name.partition("-")
    return release(version), vendor


def _recorded(source: QemuSource, leaves: dict[str, int]) -> dict[str, dict[str, int]]:
    """Cache table → properties that are on → index into the list of what leaves hold."""
    machine = newest_machine(source)
    cases = list(_cases(source))

    def look(case: Case) -> GuestCpu:
        _, model, props = case
        how = {**props, **HIGH, PropertyName("x-force-features"): True}
        arguments = cpu_arguments(model, source.kind.typename(model), how)
        return probe(
            source.binary, machine, arguments, accel="tcg", smp=smp_option(RECORDED_ON), timeout=120
        )

    found: dict[str, dict[str, int]] = {}
    with ThreadPoolExecutor(2) as pool:
        for count, ((key, _, props), guest) in enumerate(
            zip(cases, pool.map(look, cases), strict=True), 1
        ):
            print(f"\rQEMU {source.version}: {count} of {len(cases)}", end="", file=sys.stderr)
            seen = {
                f"{leaf:x}.{sub:x}": [f"{register:x}" for register in registers]
                for (leaf, sub), registers in guest.cpuid.items()
                if leaf in CACHE_LEAVES
            }
            for leaf in [leaf for leaf in seen if leaf == "80000000.0"]:
                seen[leaf][0] = "0"
            on = " ".join(
                sorted(
                    name
                    for name, value in props.items()
                    if value is True and name in CACHE_PROPERTIES
                )
            )
            found.setdefault(key, {})[on] = leaves.setdefault(json.dumps(seen), len(leaves))
    print(file=sys.stderr)
    return found


def _cases(source: QemuSource) -> Iterator[Case]:
    newest = newest_machine(source)
    eras = list(_eras(source))
    tables = [
        definition.name
        for definition in source.definitions(newest)
        if not definition.alias_of
        and definition.name not in ("host", "max")
        and has_cache_table(source, definition.name)
    ]
    vendor, legacy = PropertyName("vendor"), PropertyName("legacy-cache")
    for era, values in itertools.product(
        eras, itertools.product((True, False), repeat=len(SWITCHED))
    ):
        props = {**era, **dict(zip(SWITCHED, values, strict=True))}
        for name in VENDORS:
            yield f"legacy {name}", "qemu64", {vendor: name, legacy: True, **props}
        for model in tables:
            own = str(source.expand(newest, CpuModel(model), "full").props[vendor])
            for name in sorted({own, *HOSTS}):
                yield f"{model} {name}", model, {vendor: name, legacy: False, **props}


def _eras(source: QemuSource) -> Iterator[dict[PropertyName, Value]]:
    """Each set of values that the machine types give to the properties about caches that they
    change.
    """
    seen = []
    for machine in of_family(source.machines(), "pc-q35"):
        full = source.expand(machine.name, CpuModel("qemu64"), "full").props
        names = [name for name in CACHE_PROPERTIES if name.startswith("x-") and name in full]
        if (era := {name: full[name] for name in names}) not in seen:
            seen.append(era)
            yield era


def _text(
    same_as: Mapping[str, str],
    releases: Mapping[str, Mapping[str, Mapping[str, int]]],
    leaves: list[object],
) -> str:
    lines = [
        f"  {json.dumps(name)}: {{\n{_rows(tables)}\n  }}" for name, tables in releases.items()
    ]
    facts = ",\n".join(f"  {json.dumps(entry)}" for entry in leaves)
    return (
        '{\n "schema": "cpumap.caches/2",\n'
        + f' "same_as": {json.dumps(same_as)},\n "releases": {{\n'
        + ",\n".join(lines)
        + f'\n }},\n "leaves": [\n{facts}\n ]\n}}\n'
    )


def _rows(tables: Mapping[str, Mapping[str, int]]) -> str:
    return ",\n".join(
        f"   {json.dumps(table)}: {json.dumps(known)}" for table, known in tables.items()
    )


if __name__ == "__main__":
    main()
