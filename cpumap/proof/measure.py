"""What guests read of a small basis of CPUs on one QEMU: enough to tell what will differ on another
one that was measured as well.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

from cpumap.cpu.bits import REGISTERS, Where, read_where
from cpumap.cpu.expansion import CpuModel
from cpumap.cpu.machine_type import of_family
from cpumap.cpu.names import PropertyName, Value
from cpumap.cpu.topology import Topology
from cpumap.move.adapt import has_cache_table, newest_machine
from cpumap.move.caches import CACHE_PROPERTIES, RECORDED_ON
from cpumap.move.measured import (
    ADDRESS_PARTS,
    ASPECTS,
    AVX10_PARTS,
    XSAVE_PARTS,
    is_of_an_aspect,
    is_shared,
    register_name,
    sharing_name,
    topology_way,
)
from cpumap.move.side import ONE_VCPU
from cpumap.proof.guest import GuestCpu, probe
from cpumap.qemu.arguments import cpu_arguments, smp_option
from cpumap.sources.live import QemuSource
from cpumap.sources.record import Progress

Props = dict[str, Value]


HexRegisters = dict[str, str]


VENDORS = ("GenuineIntel", "AuthenticAMD", "HygonGenuine", "CentaurHauls", "  Shanghai  ")


HOSTS = VENDORS[:2]
"""Under KVM a model whose vendor is not named has its host's."""


TOPOLOGIES = (
    ONE_VCPU,
    Topology(cores=2),
    Topology(cores=4),
    Topology(cores=3, threads=2),
    Topology(sockets=2, cores=4, threads=2),
    Topology(cores=3, threads=3),
    Topology(dies=2, cores=2),
    Topology(dies=2, cores=3),
)
"""Usual ones, counts that are no powers of two, and dies."""


_SWITCHED = ("l3-cache", "topoext")


_HIGH: Props = {"level": 0x20, "xlevel": 0x80000022}
"""So that every leaf is there, whichever the model."""


_BARE: Props = {**_HIGH, "vendor": "GenuineIntel", "lm": True, "pae": True}
"""A CPU in long mode, which needs PAE: tcg hides SYSCALL elsewhere."""


_TIMES = 3
"""A guest is looked at so often to see what is left to chance."""


BasisCpu = tuple[str, str, str, Props, Topology]
"""Aspect, way, model, what is set on it, how many vCPUs."""


def measure(
    source: QemuSource,
    progress: Progress = lambda *_: None,
    models: Collection[str] | None = None,
) -> dict[str, dict[str, HexRegisters]]:
    """The readings of this QEMU under tcg, as recordings keep them; of the cache tables only those
    of these models (None: of all).

    Errors: `SourceError` when QEMU does not run a guest.
    """
    basis = Basis(source, models)
    found: dict[str, dict[str, HexRegisters]] = {}
    for case, guest in basis.looked_at(list(basis.cases()), progress):
        found.setdefault(case[0], {})[case[1]] = _reading(case[0], guest)
    sharing = list(basis.sharing_cases(found["caches"]))
    for case, guest in basis.looked_at(sharing, progress):
        learnt = _counted(found["caches"][case[1]], guest)
        way = topology_way("caches", False, case[4])
        found.setdefault("sharing", {}).setdefault(way, {}).update(learnt)
    found["features"] = basis.features(progress)
    found["undefined"] = basis.undefined(progress)
    return found


class Basis:
    """The CPUs that are looked at on one QEMU."""

    def __init__(self, source: QemuSource, models: Collection[str] | None = None) -> None:
        self.source = source
        self.machine = newest_machine(source)
        self.models = models
        self.known = source.expand(self.machine, CpuModel("base"), "full").props
        self.examples: dict[str, BasisCpu] = {}
        """The cases of caches, by their way."""

    def looked_at(
        self, cases: list[BasisCpu], progress: Progress
    ) -> Iterator[tuple[BasisCpu, GuestCpu]]:
        """What a guest reads of each."""
        with ThreadPoolExecutor(2) as pool:
            for count, (case, guest) in enumerate(
                zip(cases, pool.map(self._look, cases), strict=True), 1
            ):
                progress(f"guests: {case[0]}", count, len(cases))
                yield case, guest

    def _look(self, case: BasisCpu) -> GuestCpu:
        _, _, model, props, topology = case
        how = {PropertyName(name): value for name, value in props.items() if name in self.known}
        how[PropertyName("x-force-features")] = True
        arguments = cpu_arguments(model, self.source.kind.typename(model), how)
        smp = smp_option(topology)
        return probe(self.source.binary, self.machine, arguments, accel="tcg", smp=smp, timeout=120)

    def cases(self) -> Iterator[BasisCpu]:
        """All but those of single features, and of caches shared in other ways."""
        for parts in self._subsets(XSAVE_PARTS):
            yield self._bare("xsave", " ".join(parts) or "none", {"xsave": True, **_on(parts)})
        for parts in self._subsets(ADDRESS_PARTS):
            props: Props = {**dict.fromkeys(ADDRESS_PARTS, False), **_on(parts)}
            yield self._bare("address", " ".join(parts) or "none", props)
        for parts in self._subsets(("sgx",)):
            yield self._bare("sgx", " ".join(parts) or "none", _on(parts))
        yield self._bare("lbr", "any", {})
        yield from self._avx10()
        yield from self._topologies()
        for case in self._caches():
            self.examples[case[1]] = case
            yield case

    def _bare(self, aspect: str, way: str, props: Props, topology: Topology = ONE_VCPU) -> BasisCpu:
        return aspect, way, "base", {**_BARE, **props}, topology

    def _subsets(self, names: Iterable[str]) -> Iterator[tuple[str, ...]]:
        known = [name for name in names if name in self.known]
        for count in range(len(known) + 1):
            yield from itertools.combinations(known, count)

    def _avx10(self) -> Iterator[BasisCpu]:
        versions = (0, 1, 2) if "avx10-version" in self.known else (0,)
        for parts, version in itertools.product(self._subsets(AVX10_PARTS), versions):
            if parts and "avx10" not in parts:
                continue
            props: Props = {"level": 0x24, "avx10-version": version, **_on(parts)}
            yield self._bare("avx10", f"{' '.join(parts) or 'none'} {version}", props)

    def _topologies(self) -> Iterator[BasisCpu]:
        """cpuid-0xb is on, and what a CPU says of itself off, so that all that is counted shows."""
        kinds = (False, True) if "x-vendor-cpuid-only-v2" in self.known else (False,)
        for vendor, topology, own in itertools.product(VENDORS, TOPOLOGIES, kinds):
            props: Props = {
                "vendor": vendor,
                "cpuid-0xb": True,
                "ht": False,
                "cmp-legacy": False,
                "x-vendor-cpuid-only": own,
                "x-vendor-cpuid-only-v2": own,
            }
            yield self._bare("topology", topology_way(vendor, own, topology), props, topology)

    def _caches(self) -> Iterator[BasisCpu]:
        switches = itertools.product((True, False), repeat=len(_SWITCHED))
        for era, values in itertools.product(list(self._eras()), list(switches)):
            props = {**_HIGH, **era, **dict(zip(_SWITCHED, values, strict=True))}
            for table, model, of_model in self.tables():
                way = f"{table}: {_caches_on(props)}"
                yield "caches", way, model, {**props, **of_model}, RECORDED_ON

    def tables(self) -> Iterator[tuple[str, str, Props]]:
        """Every cache table, the model that has it, and what is set for it."""
        for name in VENDORS:
            yield f"legacy {name}", "qemu64", {"vendor": name, "legacy-cache": True}
        for definition in self.source.definitions(self.machine):
            model = definition.name
            passed = definition.alias_of or model in ("host", "max")
            wanted = self.models is None or model in self.models
            if passed or not wanted or not has_cache_table(self.source, model):
                continue
            full = self.source.expand(self.machine, CpuModel(model), "full").props
            for name in sorted({str(full[PropertyName("vendor")]), *HOSTS}):
                yield f"{model} {name}", model, {"vendor": name, "legacy-cache": False}

    def _eras(self) -> Iterator[Props]:
        """Each set of values that machine types give to the properties about caches."""
        seen = []
        for machine in of_family(self.source.machines(), "pc-q35"):
            full = self.source.expand(machine.name, CpuModel("qemu64"), "full").props
            names = [name for name in CACHE_PROPERTIES if name.startswith("x-") and name in full]
            if (era := {str(name): full[name] for name in names}) not in seen:
                seen.append(era)
                yield era

    def sharing_cases(self, caches: Mapping[str, HexRegisters]) -> Iterator[BasisCpu]:
        """A few guests whose caches are shared in all the ways there are, with every topology."""
        ways: dict[str, BasisCpu] = {}
        for way, read in caches.items():
            for name in _sharing_names(read):
                ways.setdefault(name, self.examples[way])
        chosen = {case[1]: case for case in ways.values()}
        for case, topology in itertools.product(chosen.values(), TOPOLOGIES):
            yield (*case[:4], topology)

    def features(self, progress: Progress) -> dict[str, HexRegisters]:
        """Feature → what it makes of the bare CPU, the aspects set aside."""
        static = self.source.expand(self.machine, CpuModel("base"), "static").props
        names = [name for name, value in static.items() if isinstance(value, bool)]
        cases = [self._bare("features", name, {name: True}) for name in sorted(names)]
        bare = _registers(self._look(self._bare("features", "", {})))
        return {
            case[1]: _apart(bare, _registers(guest))
            for case, guest in self.looked_at(cases, progress)
        }

    def undefined(self, progress: Progress) -> dict[str, HexRegisters]:
        """The leaves that several guests with one CPU read differently."""
        cases = [self._bare("undefined", "", {}) for _ in range(_TIMES)]
        reads = [_registers(guest) for _, guest in self.looked_at(cases, progress)]
        leaves = {
            where[0] for read in reads for where in read if read[where] != reads[0].get(where)
        }
        return {f"{leaf:x}": {} for leaf in sorted(leaves)}


def _on(names: Iterable[str]) -> Props:
    return dict.fromkeys(names, True)


def _caches_on(props: Props) -> str:
    return " ".join(sorted(name for name in CACHE_PROPERTIES if props.get(name) is True))


def _registers(guest: GuestCpu) -> dict[Where, int]:
    return {
        (leaf, subleaf, which): value
        for (leaf, subleaf), values in guest.cpuid.items()
        for which, value in zip(REGISTERS, values, strict=True)
    }


def _reading(aspect: str, guest: GuestCpu) -> HexRegisters:
    """The bits that the aspect is about, where any is set."""
    mask = next(known.mask for known in ASPECTS if known.name == aspect)
    found = {where: value & mask(where) for where, value in _registers(guest).items()}
    return {register_name(where): f"{value:x}" for where, value in found.items() if value}


def _apart(bare: Mapping[Where, int], read: Mapping[Where, int]) -> HexRegisters:
    found = {}
    for where in sorted(bare.keys() | read.keys()):
        xor = (bare.get(where, 0) ^ read.get(where, 0)) & ~is_of_an_aspect(where)
        if xor:
            found[register_name(where)] = f"{xor:x}"
    return found


def _sharing_names(read: HexRegisters) -> Iterator[str]:
    for name, text in read.items():
        where, value = read_where(name), int(text, 16)
        if is_shared(where) and value & 0x1F:
            yield sharing_name(where, value)


def _counted(recorded: HexRegisters, guest: GuestCpu) -> HexRegisters:
    """How a cache is called by who shares it → the bits that say so of this guest."""
    registers = _registers(guest)
    found = {}
    for name, text in recorded.items():
        where, value = read_where(name), int(text, 16)
        if is_shared(where) and value & 0x1F:
            found[sharing_name(where, value)] = f"{registers.get(where, 0) & 0xFFFFC000:x}"
    return found
