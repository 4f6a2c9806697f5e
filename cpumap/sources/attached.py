"""A QEMU that runs already, reached through its QMP socket."""

from __future__ import annotations

from dataclasses import replace

from cpumap.arch.known import arch_of
from cpumap.cpu.build import Build
from cpumap.cpu.expansion import CpuModel, Definition, ExpansionType, Machine, Realised
from cpumap.cpu.names import Accel, PropertyName
from cpumap.errors import CannotRealiseError, UnknownNameError
from cpumap.qemu.answers import (
    build_of,
    definitions_of,
    expanded_by,
    first_vcpu,
    machines_of,
    told,
    version_of,
)
from cpumap.qemu.qmp import Conversation
from cpumap.sources.realised import bits_in, named_bits, read_realised
from cpumap.sources.source import Source


class AttachedSource(Source):
    """A QEMU that runs already, reached through its QMP socket: one machine type, one CPU, never
    ended by us.
    """

    makes_cpus = False

    def __init__(self, session: Conversation) -> None:
        self._session = session
        self.version = version_of(session.execute("query-version"))
        self.arch = told(session.execute("query-target"), "query-target").key("arch").text
        self.kind = arch_of(self.arch)
        kvm = told(session.execute("query-kvm"), "query-kvm").key("enabled").switch
        self.accel: Accel = "kvm" if kvm else "tcg"
        typename = session.execute("qom-get", path="/machine", property="type")
        self.machine = told(typename, "qom-get").text.removesuffix("-machine")
        self.label = f"running QEMU {self.version} ({session.label})"

    def build(self) -> Build:
        return build_of(self._session, self.kind)

    def machines(self) -> tuple[Machine, ...]:
        """Of the QEMU's machine types, the one that it runs counts as the default."""
        listed = machines_of(self._session.execute("query-machines"))
        return tuple(
            replace(machine, is_default=machine.name == self.machine) for machine in listed
        )

    def definitions(self, machine: str) -> tuple[Definition, ...]:
        self._must_be(machine)
        return definitions_of(self._session, self.kind)

    def expand(self, machine: str, model: CpuModel, kind: ExpansionType) -> CpuModel:
        self._must_be(machine)
        return expanded_by(self._session, model, kind)

    def realise(self, machine: str, model: CpuModel, *, unfiltered: bool = True) -> Realised:
        self._must_be(machine)
        own = self.running()
        typename = own.properties[PropertyName("type")]
        if model.props or typename != self.kind.typename(model.name):
            raise CannotRealiseError(
                f"{self.label} can only show its own CPU ({typename}), not make a {model.name}"
            )
        return own

    def running(self) -> Realised:
        """The CPU that its guest has now."""
        path = first_vcpu(self._session)
        words = self._session.execute("qom-get", path=path, property="filtered-features")
        return replace(read_realised(self._session, self.kind), filtered=named_bits(bits_in(words)))

    def _must_be(self, machine: str) -> None:
        if machine != self.machine:
            raise UnknownNameError(
                f"{self.label} runs machine type {self.machine}, and cannot answer for {machine}"
            )

    def close(self) -> None:
        self._session.close()
