"""How vCPUs are laid out in sockets, dies, clusters, cores and threads."""

from __future__ import annotations

from cpumap.cpu.frozen import Frozen


class Topology(Frozen):
    """`<topology>`; counts."""

    sockets: int = 1
    dies: int = 1
    cores: int = 1
    threads: int = 1
    clusters: int = 1

    @property
    def count(self) -> int:
        """How many vCPUs that is."""
        return self.sockets * self.package

    @property
    def package(self) -> int:
        """How many threads a socket has."""
        return self.dies * self.clusters * self.cores * self.threads

    @property
    def several_dies(self) -> bool:
        """Whether a package consists of several parts, as QEMU counts dies and clusters."""
        return self.dies * self.clusters > 1

    @property
    def kind(self) -> Topology:
        """The smallest topology that makes the same of one vCPU's CPU: more of the same do not
        change it.
        """
        return Topology(dies=2 if self.several_dies else 1, cores=2 if self.package > 1 else 1)
