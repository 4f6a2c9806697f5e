"""What an upgrade does to guests: whether each starts there, sees the same CPU, can migrate live,
and what to do about it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from cpumap.arch.known import arch_of
from cpumap.cpu.expansion import Context, Expansion
from cpumap.cpu.explicit import ExplicitCpu
from cpumap.cpu.names import FeatureName, PropertyName, Value
from cpumap.cpu.request import CpuRequest
from cpumap.errors import CpumapError, InputError
from cpumap.fleet.audit import Case, Drift, drifts_of, prediction_of
from cpumap.fleet.convert import Answers
from cpumap.fleet.gravity import Gravity
from cpumap.fleet.lock import LockedCpu, locked_cpu
from cpumap.hosts.described import DescribedHost, lacking_on
from cpumap.libvirt.releases import looks_at_threads, words_of
from cpumap.libvirt.rules.full_check import FullCheck
from cpumap.libvirt.words import meant_for
from cpumap.move.adapt import newest_machine
from cpumap.move.hold import hold
from cpumap.move.predict import PredictedDifference, Prediction
from cpumap.move.target import drift_lines, opened
from cpumap.pin.expand import topology_refused
from cpumap.pin.resolve import resolve
from cpumap.pin.translate import expand_on
from cpumap.pin.write import lasting
from cpumap.runnable.starting import stopped_by
from cpumap.sources.machines import has_machine
from cpumap.sources.platform import Platform
from cpumap.sources.source import Source

_FREQUENCY = PropertyName("tsc-frequency")


Outlook = Literal["unchanged", "changes", "does not start", "not judged"]


Remedy = Literal[
    "nothing",
    "pin now",
    "pin for the target",
    "move the machine type",
    "cannot be held",
    "not known",
]


class GoalError(InputError):
    """The QEMU to which guests should go is none."""


@dataclass(frozen=True, slots=True)
class Goal:
    """Where the guests are to run after the upgrade; what is None stays as it is."""

    qemu: str | None = None
    """A binary, or a recorded release."""
    libvirt: str | None = None
    """A release of libvirt."""
    machine: str | None = None
    host: DescribedHost | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """A difference between the CPU now and the one there."""

    what: str
    """A property, or bits of a register."""
    before: Value | None
    after: Value | None
    cause: str
    gravity: Gravity


@dataclass(frozen=True, slots=True)
class Fate:
    """What becomes of the guests that ask for one CPU."""

    model: str
    before: Context | None = None
    after: Context | None = None
    unjudged: str = ""
    """Why nobody can say what these guests have now."""
    stopped: str = ""
    """Why they do not start there."""
    changes: tuple[Change, ...] = ()
    unknown: tuple[str, ...] = ()
    """What cannot be told beforehand."""
    on_unknown_host: bool = False
    """Whether it runs under KVM, and nobody says what the host lacks."""
    no_way_there: str = ""
    """Why they cannot migrate there live; empty where they can."""
    no_way_back: str = ""
    advice: Remedy = "nothing"
    why: str = ""
    """What to run, or why the CPU cannot be held."""

    @property
    def seen(self) -> tuple[Change, ...]:
        """The changes that matter to a guest."""
        return tuple(change for change in self.changes if change.gravity in ("guest", "host"))

    @property
    def status(self) -> Outlook:
        """What there is to say of these guests, the gravest first."""
        if self.stopped:
            return "does not start"
        if self.unjudged:
            return "not judged"
        if self.seen:
            return "changes"
        return "not judged" if self.unknown else "unchanged"


def unjudged(model: str, reason: str) -> Fate:
    """The fate of a guest of which nobody can say what it has now."""
    return Fate(model, unjudged=reason, advice="not known")


@dataclass
class Planner:
    """Says what becomes of guests. Holds the target's QEMUs; the caller closes it."""

    answers: Answers
    """What the guests have now."""
    goal: Goal
    _targets: dict[tuple[str, str], Source] = field(default_factory=dict)

    def fate(
        self, request: CpuRequest, *, own: bool = False, locked: LockedCpu | None = None
    ) -> Fate:
        """What becomes of guests that ask for this CPU, or that have the `locked` one.

        `own`: the request's emulator may be run. What cannot be judged is an answer too.
        """
        model = request.model or request.mode or "default"
        machine = None if locked is None else locked.context.machine
        try:
            source = self.answers.source(request, own=own)
        except CpumapError as err:
            return unjudged(model, _reason(err))
        now = Platform(source, self.answers.cpu_map, machine)
        try:
            meant, expansion = expand_on(self.goal.host, request, now)
            cpu = resolve(meant, expansion, self.answers.choices)
        except CpumapError as err:
            if stopped := topology_refused(request):
                return Fate(
                    model, stopped=stopped, advice="cannot be held", why="mend the document"
                )
            return unjudged(model, _reason(err))
        return self._moved(_Guest(request, now, cpu, expansion, locked or locked_cpu(cpu)), model)

    def _moved(self, guest: _Guest, model: str) -> Fate:
        there = self._there(guest)
        before = guest.locked.context
        try:
            meant, expansion = expand_on(self.goal.host, guest.request, there)
            after = lasting(resolve(meant, expansion, self.answers.choices))
        except CpumapError as err:
            advice, why = self._advice(guest, there, starts=False, same=False)
            reason = _reason(err)
            return Fate(
                model, before, stopped=reason, no_way_there=reason, no_way_back=reason,
                advice=advice, why=why,
            )  # fmt: skip
        stopped = stopped_by(meant, expansion, there, self.goal.host)
        if stopped and stopped_by(guest.request, guest.expansion, guest.now, self.goal.host):
            stopped = f"{stopped} (nor does it start today)"
        changes, prediction = self._compared(guest, after, there)
        seen = tuple(change for change in changes if change.gravity in ("guest", "host"))
        advice, why = self._advice(guest, there, not stopped, not (seen or prediction.unknown))
        looks = tuple(looks_at_threads(side.cpu_map.words) for side in (guest.now, there))
        under_kvm = there.source.accel == "kvm" and not there.source.own_host
        unknown_host = under_kvm and self.goal.host is None
        return Fate(
            model, before, expansion.context, "", stopped, changes, prediction.unknown,
            unknown_host, stopped or _no_way(guest.cpu, after, seen, looks),
            stopped or _no_way(after, guest.cpu, seen, looks[::-1]), advice, why,
        )  # fmt: skip

    def _there(self, guest: _Guest) -> Platform:
        source, cpu_map = guest.now.source, self.answers.cpu_map
        if self.goal.libvirt:
            cpu_map = meant_for(cpu_map, words_of(self.goal.libvirt))
        if self.goal.qemu is None:
            return Platform(source, cpu_map, self.goal.machine or guest.now.machine)
        kind = (source.accel, source.arch)
        if kind not in self._targets:
            self._targets[kind] = self._opened(self.goal.qemu, source)
        return Platform(self._targets[kind], cpu_map, self.goal.machine or guest.now.machine)

    def _opened(self, qemu: str, source: Source) -> Source:
        try:
            return opened(qemu, source, cache=self.answers.wanted.cache)
        except CpumapError as err:
            raise GoalError(_reason(err)) from err

    def _compared(
        self, guest: _Guest, after: ExplicitCpu, there: Platform
    ) -> tuple[tuple[Change, ...], Prediction]:
        locked, source = guest.locked, there.source
        drifts = drifts_of(Case("", ()), locked, after, source, self.answers, self.goal.machine)
        prediction = prediction_of(locked, after, source, self.answers)
        found = [_of_property(drift) for drift in drifts]
        found += [_of_bits(bits) for bits in prediction.differences]
        if looks_at_threads(there.cpu_map.words):
            found += _turned_on(guest.cpu, after)
        return tuple(found), prediction

    def _advice(
        self, guest: _Guest, there: Platform, starts: bool, same: bool
    ) -> tuple[Remedy, str]:
        """What keeps the CPU, or why nothing does."""
        if starts and same:
            return "nothing", ""
        context = guest.cpu.context
        machine = self.goal.machine or context.machine
        gone = not has_machine(there.source, machine)
        try:
            machine = newest_machine(there.source) if gone else machine
            place = Platform(there.source, there.cpu_map, machine)
            moved, prediction = hold(guest.cpu, guest.expansion, guest.now.source, place)
        except CpumapError as err:
            return "cannot be held", _reason(err)
        if not prediction.holds:
            return "cannot be held", "; ".join(drift_lines(prediction))
        if reason := _lacks(moved, self.goal.host):
            return "cannot be held", reason
        target = f" --target-qemu {self.goal.qemu}" if self.goal.qemu else ""
        if gone or machine != context.machine:
            return "move the machine type", f"convert --machine {machine}{target}"
        there_too = moved.values
        pinned = lasting(guest.cpu).values
        if all(there_too.get(name) == value for name, value in pinned.items()):
            return "pin now", "convert"  # what is not named is the machine type's, there as here
        return "pin for the target", f"convert{target}"

    @property
    def labels(self) -> list[str]:
        """What the target's QEMUs are called."""
        return sorted({f"{source.label} ({source.accel})" for source in self._targets.values()})

    def close(self) -> None:
        """Closes the target's QEMUs."""
        for source in self._targets.values():
            source.close()
        self._targets.clear()


@dataclass(frozen=True, slots=True)
class _Guest:
    """A guest as it is now."""

    request: CpuRequest
    now: Platform
    cpu: ExplicitCpu
    expansion: Expansion
    locked: LockedCpu


def _reason(err: CpumapError) -> str:
    return str(err).removeprefix(": ")


def _of_property(drift: Drift) -> Change:
    return Change(drift.name, drift.locked, drift.now, drift.cause, drift.gravity)


def _of_bits(bits: PredictedDifference) -> Change:
    if bits.register == "msr":
        what = f"MSR 0x{bits.leaf:x}"
    else:
        what = f"CPUID 0x{bits.leaf:x}.{bits.subleaf:x}.{bits.register.upper()}"
    return Change(f"{what} bits 0x{bits.xor:x}", None, None, bits.cause, "guest")


def _turned(cpu: ExplicitCpu) -> frozenset[FeatureName]:
    """The features that its QEMU turns on for several threads, named off or not."""
    vendor = cpu.values.get(PropertyName("vendor"))
    turned = arch_of(cpu.context.arch).turned_on(cpu.context.qemu, cpu.request.topology, vendor)
    return frozenset(f.name for f in turned if cpu.values.get(f.prop) is not True)


def _turned_on(before: ExplicitCpu, after: ExplicitCpu) -> Iterator[Change]:
    """What guests read on both sides, and libvirt on one alone."""
    then, now = _turned(before), _turned(after)
    for name in sorted(then ^ now):
        cause = f"QEMU {after.context.qemu} reports it where a package has several threads"
        if name in then:
            cause = f"QEMU {after.context.qemu} does not report it"
        yield Change(name, name in then, name in now, cause, "libvirt")


def _no_way(
    here: ExplicitCpu, there: ExplicitCpu, seen: Sequence[Change], looks: Sequence[bool]
) -> str:
    """Why a guest cannot go live from here to there; empty where nothing is known to stop it.

    `looks`: whether the libvirt here, and the one there, know of features for several threads.
    """
    if here.context.machine != there.context.machine:
        return (
            f"a running guest keeps its machine type, and {here.context.machine} is not "
            f"{there.context.machine}"
        )
    if seen:
        names = ", ".join(change.what for change in seen[:3])
        return f"its CPU would change while it runs: {names}{', …' if len(seen) > 3 else ''}"
    told, found = _turned(here) if looks[0] else frozenset(), _turned(there)
    extra, missing = found - told, told - found
    if here.request.by_libvirt and looks[1] and (extra or missing):
        return str(FullCheck(tuple(sorted(extra)), tuple(sorted(missing))))
    if here.values.get(PropertyName("invtsc")) is True and not here.values.get(_FREQUENCY):
        return "invtsc is on without a tsc-frequency: QEMU does not let it migrate"
    return ""


def _lacks(cpu: ExplicitCpu, host: DescribedHost | None) -> str:
    """What the host lacks of an explicit CPU."""
    if host is None:
        return ""
    on = (name for name in sorted(cpu.features) if cpu.values.get(name) is True)
    lacking = lacking_on(host, on)
    return f"{host.name} lacks {', '.join(lacking)}" if lacking else ""
