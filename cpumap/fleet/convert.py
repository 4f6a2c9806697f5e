"""Stored documents converted: what each one's CPU is asked as a question, and the answer put back
into it.

Equal questions have equal answers, so a fleet asks few. Reading and splicing (`convert_batch`) is
pure and runs wherever an executor takes it; the questions are answered in one place, by `Answers`.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self, TypeVar

from cpumap.arch.known import arch_of
from cpumap.cpu.expansion import Expansion
from cpumap.cpu.explicit import ExplicitCpu
from cpumap.cpu.names import Accel
from cpumap.cpu.request import CpuRequest
from cpumap.errors import CpumapError, DomainError, InputError, SourceError, understood
from cpumap.fleet.gist import Gist, read_gist
from cpumap.libvirt.cpu_edit import ExplicitElement
from cpumap.libvirt.cpu_map.load import load_cpu_map
from cpumap.libvirt.cpu_map.map import CpuMap
from cpumap.libvirt.domain import request_of
from cpumap.libvirt.edit import Edit, cpu_edits, edited
from cpumap.libvirt.layout import WRAPPERS, Layout
from cpumap.libvirt.words import libvirt_map
from cpumap.pin.expand import refuse_topology
from cpumap.pin.resolve import DEFAULT_CHOICES, Choices, resolve
from cpumap.pin.translate import expand_on
from cpumap.pin.write import domain_parts
from cpumap.sources.choose import ANY_SOURCE, Wanted, choose_source
from cpumap.sources.platform import Platform
from cpumap.sources.source import Source
from cpumap.system.xml_document import Document, first_child

if TYPE_CHECKING:
    from cpumap.hosts.described import DescribedHost
    from cpumap.move.target import Target
    from cpumap.sources.libvirt import Hypervisor


Status = Literal["converted", "explicit", "skipped", "refused", "failed"]
"""converted: now explicit · explicit: it was already · refused: its CPU cannot be held · failed:
and why.
"""


EXIT_CODES: dict[Status, int] = {
    "converted": 0,
    "explicit": 0,
    "skipped": 0,
    "refused": 1,
    "failed": 2,
}


QUESTIONS_KEPT = 2000
"""Answers remembered, some 12 KB each: fleets have far fewer kinds of CPU, and memory stays
bounded if one has not.
"""


GISTS_KEPT = 4000
"""Gists remembered, some 10 KB each with their edits: a CPU has one for each topology and the
like.
"""


Key = tuple[Any, ...]


T = TypeVar("T")


_APART = frozenset({"features", "settings", "topology", "vcpus", "where"})
"""Not in a question as they are: see `question_key`; and what never changes the CPU of one vCPU."""


_COUNTED = attrgetter(*(field.name for field in fields(CpuRequest) if field.name not in _APART))


@dataclass(frozen=True, slots=True)
class Stored:
    """A document as it was read; `number` is its place among all."""

    number: int
    name: str
    data: bytes
    is_file: bool = False
    """Whether it is a file of its own: of an archive's members, the emulator is never run."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What makes a document's CPU explicit, or why there is no such thing."""

    number: int
    element: ExplicitElement | None = None
    """What its `<cpu>` is to say; None: what it does."""
    arguments: tuple[str, ...] = ()
    machine: str | None = None
    """The machine type to move to."""
    notes: tuple[str, ...] = ()
    status: Status = "converted"
    reason: str = ""
    exit_code: int = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one document."""

    number: int
    name: str
    status: Status
    reason: str = ""
    content: bytes | None = None
    """The new document, where it is another one."""
    notes: tuple[str, ...] = ()
    answer: int | None = None
    """The number of the answer in it."""
    exit_code: int = 0
    guest: str = ""
    """The guest's UUID, else its name."""


@dataclass(frozen=True, slots=True)
class Question:
    """A CPU that has to be asked for, and the document that needs it."""

    number: int
    key: Key
    request: CpuRequest
    is_file: bool = False
    """As of the document."""


class _Change(NamedTuple):
    """An answer, and the edits that put it into a document, in offsets of the gist; none where
    it is there already.
    """

    answer: Answer
    edits: tuple[Edit, ...]


@dataclass
class _Learnt:
    """What this process was told in a run."""

    answers: dict[Key, Answer] = field(default_factory=dict)
    changes: dict[bytes, _Change] = field(default_factory=dict)
    """What becomes of documents with this gist."""

    def add(self, answers: Mapping[Key, Answer]) -> None:
        """Remembers these answers, and forgets the oldest of too many."""
        self.answers.update(answers)
        gone = _forget_oldest(self.answers, QUESTIONS_KEPT)
        if gone:
            self.changes = {
                gist: change for gist, change in self.changes.items() if change.answer not in gone
            }
        _forget_oldest(self.changes, GISTS_KEPT)


def _forget_oldest(known: dict[Any, T], kept: int) -> list[T]:
    return [known.pop(next(iter(known))) for _ in range(len(known) - kept)]


_learnt: dict[str, _Learnt] = {}
"""By run; a worker serves one run at a time."""


def convert_batch(
    run: str, documents: Sequence[Stored], answers: Mapping[Key, Answer] | None = None
) -> list[Outcome | Question]:
    """What becomes of each document, or what must be answered first; `answers` are remembered
    for the run.
    """
    if run not in _learnt:
        _learnt.clear()
    known = _learnt.setdefault(run, _Learnt())
    known.add(answers or {})
    return [_convert(document, known) for document in documents]


def _convert(document: Stored, known: _Learnt) -> Outcome | Question:
    guest = ""
    try:
        parsed = Document.parse(document.data, document.name, DomainError)
        guest = _guest_of(parsed)
        found = _converted(document, parsed, known)
    except Exception as err:  # one document's failure never is another's
        found = failure(document.number, document.name, understood(err))
    return found if isinstance(found, Question) else replace(found, guest=guest)


def _guest_of(document: Document) -> str:
    """The guest's UUID, else its name; empty where it has neither."""
    root = document.root
    domain = root if root.tag == "domain" else root.find("domain")
    if domain is None:
        return ""
    said = domain.findtext("uuid") or domain.findtext("name") or ""
    return str(said).strip()


def _converted(document: Stored, parsed: Document, known: _Learnt) -> Outcome | Question:
    gist = read_gist(document.data, parsed.root) if parsed.root.tag == "domain" else None
    change = known.changes.get(_kind_of(document, gist)) if gist else None
    if gist is None or change is None:
        return _asked(document, parsed, gist, known)
    return _outcome(document, change.answer, edited(document.data, gist.outside(change.edits)))


def _asked(
    document: Stored, parsed: Document, gist: Gist | None, known: _Learnt
) -> Outcome | Question:
    """The outcome, or the question, of a document whose gist is new."""
    reason = foreign(parsed)
    if reason:
        return Outcome(document.number, document.name, "skipped", reason)
    request = request_of(parsed)
    refuse_topology(request)  # questions are of one vCPU
    key = (*question_key(request), document.is_file)
    answer = known.answers.get(key)
    if answer is None:
        return Question(document.number, key, request, document.is_file)
    if answer.status != "converted":
        reason = f"{document.name}:{request.where.rpartition(':')[2]}: {answer.reason}"
        return Outcome(
            document.number,
            document.name,
            answer.status,
            reason,
            None,
            answer.notes,
            answer.number,
            answer.exit_code,
        )
    edits = _edits(document, parsed, answer)
    content = edited(document.data, edits)
    lasting = gist.within(edits) if gist else None
    if gist is not None and lasting is not None:
        known.changes[_kind_of(document, gist)] = _Change(
            answer, () if content == document.data else lasting
        )
    return _outcome(document, answer, content)


def _kind_of(document: Stored, gist: Gist) -> bytes:
    """What documents with the same answer share."""
    return gist.text if document.is_file else b"\0" + gist.text


def _edits(document: Stored, parsed: Document, answer: Answer) -> list[Edit]:
    layout = Layout(document.data, parsed)
    return cpu_edits(
        document.data,
        answer.element,
        answer.arguments,
        layout=layout,
        name=document.name,
        machine=answer.machine,
    )


def _outcome(document: Stored, answer: Answer, content: bytes) -> Outcome:
    if content == document.data:
        return Outcome(document.number, document.name, "explicit", answer=answer.number)
    return Outcome(
        document.number, document.name, "converted", "", content, answer.notes, answer.number
    )


def question_key(request: CpuRequest) -> Key:
    """What the answer depends on, in tuples: a key is compared for every document."""
    features = tuple((feature.name, feature.policy) for feature in request.features)
    topology = request.topology and request.topology.kind
    settings = tuple(
        (prop.name, type(prop.value), prop.value, prop.origin.kind, prop.origin.detail)
        for prop in request.settings  # with the type, since 1 equals True in Python
    )
    return _COUNTED(request), topology, features, settings


def failure(number: int, name: str, err: CpumapError) -> Outcome:
    """The outcome of a document that an error stopped; its reason does not repeat the document's
    name.
    """
    status: Status = "refused" if err.exit_code == 1 else "failed"
    return Outcome(
        number, name, status, str(err).removeprefix(f"{name}: "), exit_code=err.exit_code
    )


def foreign(document: Document) -> str:
    """Why this is none of ours; empty when it is the definition of a guest with a QEMU CPU.

    Errors: `ArchitectureError` for a guest whose CPU nobody here knows: it is not held, and so
    must not pass for done.
    """
    root = document.root
    if root.tag == "domstatus":
        return "the state of a running guest, not its definition"
    domain = root if root.tag == "domain" else root.find("domain")
    if root.tag not in ("domain", *WRAPPERS) or domain is None:
        return f"<{root.tag}> holds no domain"
    if domain.get("type") not in ("kvm", "qemu", None):
        return f"domain type '{domain.get('type')}' has no QEMU CPU"
    os = first_child(domain, "os")
    guest_type = None if os is None else first_child(os, "type")
    arch = None if guest_type is None else guest_type.get("arch")
    if guest_type is not None and arch is not None:
        arch_of(arch, f"{document.name}:{guest_type.sourceline}")
    return ""


@dataclass
class Answers:
    """Answers questions, each once; holds the sources that they come from."""

    wanted: Wanted = ANY_SOURCE
    cpu_map: CpuMap = field(default_factory=load_cpu_map)
    words: CpuMap = field(default_factory=libvirt_map)
    """What libvirt has words for."""
    choices: Choices = DEFAULT_CHOICES
    moves: Mapping[str, str] = field(default_factory=dict)
    """Old machine type → new one; `*` stands for every other one."""
    target: Target | None = None
    """Where the CPUs will run; the machine type is that of `moves`. None: where answers come
    from.
    """
    host: DescribedHost | None = None
    """The host that they will run on."""
    on_model: bool = False
    """Whether a host's own CPU is named on the nearest model."""
    hypervisor: Hypervisor | None = None
    """The libvirt whose domains these are: the QEMUs that it would start are asked."""
    keep: bool = False
    """Whether to keep every explicit CPU in `cpus`, for a report or a lock."""
    cpus: dict[int, ExplicitCpu] = field(default_factory=dict)
    own: set[int] = field(default_factory=set)
    """Those of them that the domain's own emulator may be asked about."""
    asked: int = 0
    _known: dict[Key, Answer] = field(default_factory=dict)
    _sources: dict[Any, Source] = field(default_factory=dict)
    _places: dict[tuple[Accel, str], Source] = field(default_factory=dict)
    """The target's QEMU."""

    def answer(self, question: Question) -> Answer:
        """The answer; one that says no, and why, where there is no explicit CPU."""
        if question.key not in self._known:
            while len(self._known) >= QUESTIONS_KEPT:
                self._known.pop(next(iter(self._known)))
            self._known[question.key] = self._new(question)
        return self._known[question.key]

    def _new(self, question: Question) -> Answer:
        self.asked += 1
        topology = question.request.topology and question.request.topology.kind
        features = tuple(replace(feature, line=0) for feature in question.request.features)
        request = replace(
            question.request,
            where="",
            features=features,
            topology=topology,
            vcpus=1 if topology is None else topology.count,
        )
        try:
            source = self.source(request, own=question.is_file)
            platform = Platform(source, self.cpu_map)
            meant, expansion = expand_on(self.host, request, platform, on_model=self.on_model)
            cpu = resolve(meant, expansion, self.choices)
            machine = self._new_machine(request, cpu)
            cpu, told = self._placed(cpu, expansion, platform, machine)
        except Exception as err:  # one question's failure never is another's
            failed = understood(err)
            status: Status = "refused" if failed.exit_code == 1 else "failed"
            return Answer(
                self.asked,
                status=status,
                reason=str(failed).removeprefix(": "),
                exit_code=failed.exit_code,
            )
        if self.keep:
            self.cpus[self.asked] = cpu
            self.own |= {self.asked} if question.is_file else set()
        element, arguments = domain_parts(cpu, self.words)
        notes = *cpu.notes, *told
        shared = tuple(map(sys.intern, arguments))  # nearly the same in every answer
        return Answer(self.asked, element, shared, machine, notes)

    def _placed(
        self, cpu: ExplicitCpu, expansion: Expansion, platform: Platform, machine: str | None
    ) -> tuple[ExplicitCpu, tuple[str, ...]]:
        """The CPU where it will run, and what is to be said of it there."""
        if self.target is None and machine is None:
            return cpu, ()
        from cpumap.move.target import Target, placed

        target = replace(self.target or Target(), machine=machine)
        return placed(
            cpu,
            expansion,
            platform,
            target,
            self._place(target, platform.source),
        )

    def _place(self, target: Target, source: Source) -> Source | None:
        from cpumap.move.target import opened

        if target.qemu is None:
            return None
        kind = (source.accel, source.arch)
        if kind not in self._places:
            self._places[kind] = opened(target.qemu, source, cache=self.wanted.cache)
        return self._places[kind]

    def _new_machine(self, request: CpuRequest, cpu: ExplicitCpu) -> str | None:
        written = request.machine or ""
        new = self.moves.get(written) or self.moves.get(cpu.context.machine) or self.moves.get("*")
        if new is None or new == written:
            return None
        if request.machine is None:
            raise InputError(f"the domain names no machine type that could become {new}")
        return new

    def source(self, request: CpuRequest, *, own: bool = False) -> Source:
        """The source for this request, opened once. Errors: `UnknownNameError`, `SourceError`.

        `own`: its emulator may be run, since a file of the fleet names it.
        """
        if not own and self.hypervisor is None:
            request = replace(request, emulator=None)
        named = self.wanted.qemu or self.wanted.qmp or self.wanted.recorded
        kind = (request.accel, request.arch)
        key = kind if named else (*kind, request.emulator, request.machine)
        if key not in self._sources:
            self._sources[key] = self._shared(self._chosen(request))
        return self._sources[key]

    def _chosen(self, request: CpuRequest) -> Source:
        if self.hypervisor is None:
            return choose_source(self.wanted, request)
        from cpumap.sources.choose import connected_source

        return connected_source(self.hypervisor, self.wanted, request)

    def _shared(self, source: Source) -> Source:
        """A source that is open already, rather than the same one again."""
        for other in self._sources.values():
            if (other.label, other.arch, other.accel) == (source.label, source.arch, source.accel):
                source.close()
                return other
        return source

    @property
    def labels(self) -> list[str]:
        """What the sources asked are called."""
        return sorted({f"{source.label} ({source.accel})" for source in self._sources.values()})

    def close(self) -> None:
        """Closes every source."""
        for source in {
            id(source): source for source in (*self._sources.values(), *self._places.values())
        }.values():
            source.close()
        self._sources.clear()
        self._places.clear()
        if self.hypervisor is not None:
            self.hypervisor.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def source_failure(number: int, name: str, err: OSError) -> Outcome:
    """The outcome of a document whose file could not be read or written."""
    return failure(number, name, SourceError(f"{name}: {err.strerror or err}"))
