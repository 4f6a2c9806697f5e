"""A QEMU that is started for the question."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

from cpumap.arch.known import arch_of
from cpumap.cpu.build import Build
from cpumap.cpu.expansion import CpuModel, Definition, ExpansionType, Machine, Realised
from cpumap.cpu.names import Accel
from cpumap.errors import SourceError, UnknownNameError
from cpumap.qemu.answers import (
    build_of,
    definitions_of,
    expanded_by,
    expansion_command,
    machines_of,
    model_of,
    told,
    version_of,
)
from cpumap.qemu.arguments import cpu_arguments, machine_arguments
from cpumap.qemu.qmp import CommandFailedError, Session
from cpumap.qemu.warnings import ASKED_IN_VAIN
from cpumap.sources.realised import read_realised, with_filtered
from cpumap.sources.source import Source

_SESSIONS_KEPT = 2


def _info(model: CpuModel) -> dict[str, Any]:
    """As QMP's CpuModelInfo."""
    return {"name": model.name, "props": dict(model.props)}


class QemuSource(Source):
    """A QEMU binary; one paused process per machine type, the last two kept, and one per
    realised CPU.
    """

    def __init__(self, binary: str | Path, accel: Accel = "tcg", *, timeout: float = 30.0) -> None:
        self.binary = str(binary)
        self.accel: Accel = accel
        self._timeout = timeout
        self._sessions: dict[str, Session] = {}
        try:
            self._introduce(self._session("none"))
        except BaseException:
            self.close()
            raise

    def _introduce(self, bare: Session) -> None:
        self.version = version_of(bare.execute("query-version"))
        self.arch: str = told(bare.execute("query-target"), "query-target").key("arch").text
        self.kind = arch_of(self.arch)
        self.label = f"QEMU {self.version} ({self.binary})"
        self._build: Build | None = None
        self.machines_of = machines_of(bare.execute("query-machines"))

    def build(self) -> Build:
        self._build = self._build or build_of(self._session("none"), self.kind)
        return self._build

    def machines(self) -> tuple[Machine, ...]:
        return self.machines_of

    def definitions(self, machine: str) -> tuple[Definition, ...]:
        return definitions_of(self._session(machine), self.kind)

    def expand(self, machine: str, model: CpuModel, kind: ExpansionType) -> CpuModel:
        return expanded_by(self._session(machine), model, kind)

    def expand_many(
        self, machine: str, models: Iterable[CpuModel], kind: ExpansionType
    ) -> list[CpuModel]:
        """The expansions of many models, asked for in one pipeline."""
        answers = self._session(machine).pipeline(
            expansion_command(model, kind) for model in models
        )
        return [model_of(answer) for answer in answers]

    def compare(self, machine: str, one: CpuModel, other: CpuModel) -> dict[str, Any]:
        """What query-cpu-model-comparison answers: `result`, `responsible-properties`."""
        return self._of_two("comparison", machine, one, other)

    def baseline(self, machine: str, one: CpuModel, other: CpuModel) -> CpuModel:
        """The model that both can provide (query-cpu-model-baseline)."""
        return model_of(self._of_two("baseline", machine, one, other))

    def _of_two(self, what: str, machine: str, one: CpuModel, other: CpuModel) -> dict[str, Any]:
        models = {"modela": _info(one), "modelb": _info(other)}
        answer: dict[str, Any] = self._session(machine).execute(f"query-cpu-model-{what}", **models)
        return answer

    def try_many(
        self, machine: str, models: Iterable[CpuModel], kind: ExpansionType
    ) -> list[CpuModel | None]:
        """The expansions of many models; None for one that QEMU refuses."""
        answers = self._session(machine).answers(expansion_command(model, kind) for model in models)
        return [
            None if isinstance(answer, CommandFailedError) else model_of(answer)
            for answer in answers
        ]

    def realise(self, machine: str, model: CpuModel, *, unfiltered: bool = True) -> Realised:
        with self.start(machine, model, unfiltered=unfiltered) as session:
            realised = read_realised(session, self.kind)
            return with_filtered(realised) if unfiltered else realised

    def start(self, machine: str, model: CpuModel, *, unfiltered: bool = True) -> Session:
        """A session with a paused QEMU that has made this CPU; under tcg nothing is filtered out of
        it if so wished.

        Under KVM the kernel refuses registers of features that the host has not, and QEMU aborts:
        never forced there.
        """
        how = dict(self.kind.checked or {})
        if unfiltered and self.accel == "tcg":
            how |= self.kind.unfiltered or {}
        typename = self.kind.typename(model.name)
        props = {**model.props, **how}
        of_machine = {n: value for n, value in props.items() if self.kind.place(n) == "-machine"}
        inside = {n: value for n, value in props.items() if n not in of_machine}
        arguments = cpu_arguments(model.name, typename, inside)
        options = machine_arguments(of_machine)
        return self._started([*self._machine(machine), *options, *arguments])

    def _session(self, machine: str) -> Session:
        session = self._sessions.pop(machine, None) or self._started(self._machine(machine))
        self._sessions[machine] = session
        while len(self._sessions) > _SESSIONS_KEPT:
            self._sessions.pop(next(iter(self._sessions))).close()
        return session

    def _machine(self, machine: str) -> list[str]:
        return ["-machine", f"{machine},accel={self.accel}"]

    def _started(self, arguments: list[str]) -> Session:
        try:
            return Session.start(self.binary, arguments, timeout=self._timeout)
        except SourceError as err:
            if ASKED_IN_VAIN.search(str(err)):
                raise UnknownNameError(str(err)) from err
            if "-machine help" in str(err) or "unsupported machine type" in str(err):
                raise UnknownNameError(
                    f"{self.binary} has no machine type {arguments[1].partition(',')[0]!r}"
                ) from err
            raise

    def close(self) -> None:
        for session in self._sessions.values():
            session.close()
        self._sessions.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
