"""What the matrix measures: CPUs moved between machine types and QEMUs, compared by a guest."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar

from cpumap.arch.x86.x86 import X86_64
from cpumap.cpu.expansion import CpuModel, Expansion
from cpumap.cpu.explicit import ExplicitCpu
from cpumap.cpu.machine_type import machine_type, of_family
from cpumap.cpu.names import Accel, PropertyName, Value
from cpumap.cpu.request import CpuRequest
from cpumap.cpu.topology import Topology
from cpumap.errors import CpumapError, UnknownNameError
from cpumap.libvirt.cpu_map.load import load_cpu_map
from cpumap.libvirt.cpu_map.map import CpuMap
from cpumap.move.hold import hold
from cpumap.move.predict import PredictedDifference, Prediction
from cpumap.pin.expand import default_request, expand
from cpumap.pin.resolve import resolve
from cpumap.proof.guest import GuestCpu, differences
from cpumap.proof.verify import look
from cpumap.qemu.arguments import smp_option
from cpumap.sources.live import QemuSource
from cpumap.sources.platform import Platform
from cpumap.sources.recorded import RecordedSource
from cpumap.sources.recordings import find_recording

Style = Literal["naive", "libvirt", "static", "ours"]
Outcome = Literal["same", "as predicted", "unknown", "NOT PREDICTED", "refused", "not runnable"]
T = TypeVar("T")
FAMILIES = ("pc-q35", "pc-i440fx")
BOTH: tuple[Style, ...] = ("naive", "ours")
Settings = tuple[tuple[str, Value], ...]


@dataclass(frozen=True)
class Move:
    """One CPU, from one machine type of one QEMU to another."""

    release: str
    machine: str
    to_release: str
    to_machine: str
    model: str
    style: Style = "ours"
    accel: Accel = "tcg"
    settings: Settings = ()
    topology: Topology = field(default_factory=Topology)


@dataclass(frozen=True)
class Result:
    """How a move came out; what was predicted, where that is what a guest saw."""

    outcome: Outcome
    predicted: tuple[PredictedDifference, ...] = ()
    unknown: bool = False
    """Whether it had been said that this is not known."""

    @property
    def xsave_alone(self) -> bool:
        """Whether nothing differs but leaf 0xD, and what repeats it."""
        echoes = (d for d in self.predicted if d.leaf != 0xD)
        return bool(self.predicted) and all("repeats 0xd" in d.cause for d in echoes)


class Bench:
    """The QEMUs, asked and looked at; nothing is asked twice. Safe to use from several threads."""

    def __init__(self, binaries: Mapping[str, Path]) -> None:
        self.binaries = binaries
        self.cpu_map: CpuMap = load_cpu_map()
        self._answers: dict[object, object] = {}
        self._local = threading.local()
        self._sources: list[QemuSource] = []

    def source(self, release: str, accel: Accel) -> QemuSource:
        """This thread's own QEMU."""
        mine: dict[tuple[str, Accel], QemuSource] = self._local.__dict__.setdefault("sources", {})
        if (release, accel) not in mine:
            mine[release, accel] = QemuSource(self.binaries[release], accel, timeout=120)
            self._sources.append(mine[release, accel])
        return mine[release, accel]

    def close(self) -> None:
        for source in self._sources:
            source.close()

    def once(self, key: object, ask: Callable[[], T]) -> T:
        """The answer, or the error, that this question had the first time."""
        if key not in self._answers:
            try:
                self._answers[key] = ask()
            except CpumapError as err:
                self._answers[key] = err
        answer = self._answers[key]
        if isinstance(answer, CpumapError):
            raise answer
        return answer  # type: ignore[return-value]  # what is stored under a key is what its own question gave

    def machines(self, release: str, family: str) -> list[str]:
        """The versioned machine types of a family, oldest first."""
        machines = of_family(self.source(release, "tcg").machines(), family)
        return [machine.name for machine in machines if machine_type(machine.name).release]

    def models(self, release: str, accel: Accel = "tcg", *, aliases: bool = False) -> list[str]:
        """Every named model that is no alias of another, or every alias; of those that are the
        host's, `max` alone.
        """
        newest = self.machines(release, "pc-q35")[-1]
        definitions = self.once(
            ("models", release, accel), lambda: self.source(release, accel).definitions(newest)
        )
        return [d.name for d in definitions if bool(d.alias_of) is aliases and d.name != "host"]

    def tables(self, release: str) -> list[str]:
        """One machine type of each kind: those that differ from one another in some CPU, as
        recorded.
        """
        versioned = {name for family in FAMILIES for name in self.machines(release, family)}
        try:
            kinds = RecordedSource(find_recording(release, "tcg")).tables().values()
        except UnknownNameError:
            return sorted(versioned)
        return [max(mine) for kind in kinds if (mine := versioned.intersection(kind))]

    def result(self, move: Move) -> Result:
        """What a guest says of the move."""
        try:
            request, expansion, cpu, original = self._origin(move)
        except CpumapError:
            return Result("not runnable")
        try:
            model, prediction = self._moved(move, request, expansion, cpu)
            guest = self._look(move.to_release, move.to_machine, move.accel, model, move.topology)
        except CpumapError:
            return Result("refused")
        seen = {(d.leaf, d.subleaf, d.register, d.xor) for d in differences(original, guest)}
        if not seen:
            return _unchanged(prediction)
        if prediction is None:
            return Result("NOT PREDICTED")
        if prediction.unknown:
            return Result("unknown", unknown=True)
        exact = _exact(prediction.differences, seen)
        return Result("as predicted", prediction.differences) if exact else Result("NOT PREDICTED")

    def _origin(self, move: Move) -> tuple[CpuRequest, Expansion, ExplicitCpu, GuestCpu]:
        model = CpuModel(move.model, {PropertyName(name): value for name, value in move.settings})
        topology = move.topology
        asked = CpuRequest(accel=move.accel, topology=topology, vcpus=topology.count)
        request = default_request(model, move.machine, asked)
        key = ("expansion", move.release, move.machine, move.accel, move.model, move.settings)
        source = self.source(move.release, move.accel)
        expansion = self.once(key, lambda: expand(request, Platform(source, self.cpu_map)))
        cpu = resolve(request, expansion)
        return (
            request,
            expansion,
            cpu,
            self._look(move.release, move.machine, move.accel, model, move.topology),
        )

    def _moved(
        self, move: Move, request: CpuRequest, expansion: Expansion, cpu: ExplicitCpu
    ) -> tuple[CpuModel, Prediction | None]:
        target = self.source(move.to_release, move.accel)
        match move.style:
            case "ours":
                source = self.source(move.release, move.accel)
                moved, prediction = hold(
                    cpu, expansion, source, Platform(target, self.cpu_map, move.to_machine)
                )
                return CpuModel(moved.model, moved.values), prediction
            case "naive":
                return CpuModel(move.model, dict(expansion.model.props)), None
            case "libvirt":
                features = {
                    n: v for n, v in self._known(expansion, move).items() if isinstance(v, bool)
                }
                return CpuModel(move.model, {**expansion.model.props, **features}), None
            case "static":
                return CpuModel("base", self._known(expansion, move)), None

    def _known(self, expansion: Expansion, move: Move) -> dict[PropertyName, Value]:
        """The static expansion, without what the target cannot be told at all."""
        target = self.source(move.to_release, move.accel)
        key = ("names", move.to_release, move.to_machine, move.accel)
        names = self.once(
            key, lambda: frozenset(target.expand(move.to_machine, CpuModel("base"), "full").props)
        )
        static = expansion.static
        return {
            n: v
            for n, v in static.items()
            if n in names and not X86_64.refused(n, v, expansion.realised)
        }

    def _look(
        self, release: str, machine: str, accel: Accel, model: CpuModel, topology: Topology
    ) -> GuestCpu:
        source = self.source(release, accel)
        key = (
            "guest",
            release,
            machine,
            accel,
            model.name,
            tuple(sorted(model.props.items())),
            topology,
        )
        return self.once(key, lambda: look(source, machine, model, smp_option(topology)))


def _unchanged(prediction: Prediction | None) -> Result:
    """How a move came out that changed nothing: wrong where a change was foretold."""
    if prediction is None:
        return Result("same")
    foretold = any(not said.undefined for said in prediction.differences)
    if foretold and not prediction.unknown:
        return Result("NOT PREDICTED")
    return Result("same", unknown=bool(prediction.unknown))


def _exact(
    predicted: Sequence[PredictedDifference], seen: Collection[tuple[int, int, str, int]]
) -> bool:
    """Whether guests read what was predicted otherwise, no more and no less."""
    foreseen = all(any(said.covers(*place) for said in predicted) for place in seen)
    return foreseen and all(
        said.undefined or any(said.covers(*place) for place in seen) for said in predicted
    )


def within(
    bench: Bench, release: str, styles: Sequence[Style], accel: Accel = "tcg"
) -> Iterator[Move]:
    """Every model, oldest ↔ newest machine type: q35, and for our own style under tcg pc as
    well.
    """
    for model in bench.models(release, accel):
        for style in styles:
            for family in FAMILIES if style == "ours" and accel == "tcg" else FAMILIES[:1]:
                oldest, *_, newest = bench.machines(release, family)
                yield Move(release, oldest, release, newest, model, style, accel)
                yield Move(release, newest, release, oldest, model, style, accel)


def aliases(bench: Bench, release: str) -> Iterator[Move]:
    """Every alias (`Haswell`), oldest ↔ newest machine type: old ones change a CPU under this
    name alone.
    """
    oldest, *_, newest = bench.machines(release, "pc-q35")
    for model in bench.models(release, aliases=True):
        for style in BOTH:
            yield Move(release, oldest, release, newest, model, style)
            yield Move(release, newest, release, oldest, model, style)


def everywhere(bench: Bench, release: str) -> Iterator[Move]:
    """Every model, from the newest machine type to each that differs from the others."""
    newest = bench.machines(release, "pc-q35")[-1]
    for model in bench.models(release):
        yield from (
            Move(release, newest, release, machine, model) for machine in bench.tables(release)
        )


def across(
    bench: Bench, pair: tuple[str, str], styles: Sequence[Style], accel: Accel = "tcg"
) -> Iterator[Move]:
    """Every model, to the same machine type of another QEMU and between the oldest and newest ones.

    Under KVM to the same machine type alone, and for other styles than ours to the newest that both
    have.
    """
    release, other = pair
    ours, theirs = bench.machines(release, "pc-q35"), bench.machines(other, "pc-q35")
    common = [machine for machine in ours if machine in theirs]
    same = [(common[0], common[0]), (common[-1], common[-1])]
    ends = [
        (ours[0], theirs[0]),
        (ours[0], theirs[-1]),
        (ours[-1], theirs[0]),
        (ours[-1], theirs[-1]),
    ]
    for model in bench.models(release, accel):
        for style in styles:
            places = same[-1:] if style != "ours" else same if accel == "kvm" else [*same, *ends]
            for here, there in dict.fromkeys(places):
                yield Move(release, here, other, there, model, style, accel)


TOPOLOGIES = (
    Topology(sockets=2, cores=4, threads=2),
    Topology(cores=3, threads=3),
    Topology(dies=2, cores=3),
)
"""Usual, with counts that are no powers of two, and with dies."""


def topologies(bench: Bench, pair: tuple[str, str]) -> Iterator[Move]:
    """Every model with several vCPUs, to the newest machine type that another QEMU has as well.

    But for `base` as it is, which has no vendor and no levels: no guest runs on it.
    """
    release, other = pair
    machine = [
        name
        for name in bench.machines(release, "pc-q35")
        if name in bench.machines(other, "pc-q35")
    ][-1]
    for model in bench.models(release):
        for topology in TOPOLOGIES if model != "base" else ():
            yield Move(release, machine, other, machine, model, topology=topology)


KINDS: dict[str, tuple[Accel, Settings, Topology]] = {
    "hyperv": (
        "kvm",
        (
            ("hv-relaxed", True),
            ("hv-spinlocks", 8191),
            ("hv-runtime", True),
            ("hv-frequencies", True),
        ),
        Topology(),
    ),
    "hyperv vendor_id": ("kvm", (("hv-relaxed", True), ("hv-vendor-id", "cpumap")), Topology()),
    "kvm hidden": ("kvm", (("kvm", False),), Topology()),
    "pv-eoi, pv-unhalt off": ("kvm", (("kvm-pv-eoi", False), ("kvm-pv-unhalt", False)), Topology()),
    "pmu on": ("kvm", (("pmu", True),), Topology()),
    "pmu off": ("kvm", (("pmu", False),), Topology()),
    "cache emulate": ("tcg", (("l3-cache", True),), Topology()),
    "cache disable": ("tcg", (("l3-cache", False),), Topology()),
    "maxphysaddr 42": ("tcg", (("phys-bits", 42),), Topology()),
    "vendor_id": ("tcg", (("vendor", "AuthenticAMD"),), Topology()),
    "2 sockets, 2 cores": ("tcg", (), Topology(sockets=2, cores=2)),
    "4 cores, 2 threads": ("tcg", (), Topology(cores=4, threads=2)),
    "3 cores": ("tcg", (), Topology(cores=3)),
    "2 dies": ("tcg", (), Topology(dies=2, cores=2)),
}
"""Kinds of domain settings: accelerator, properties, topology."""


def settings(bench: Bench, release: str, kind: str, models: Sequence[str]) -> Iterator[Move]:
    """A kind of domain settings on a few models, oldest ↔ newest machine type."""
    accel, props, topology = KINDS[kind]
    oldest, *_, newest = bench.machines(release, "pc-q35")
    for model in models:
        yield Move(release, oldest, release, newest, model, "ours", accel, props, topology)
        yield Move(release, newest, release, oldest, model, "ours", accel, props, topology)
