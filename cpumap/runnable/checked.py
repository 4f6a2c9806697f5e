"""What a check found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cpumap.cpu.expansion import Context
from cpumap.cpu.names import PropertyName
from cpumap.hosts.lack import Lack, lack_json
from cpumap.libvirt.rules.full_check import PASSES, FullCheck


@dataclass(frozen=True, slots=True)
class Checked:
    """Whether a CPU is runnable, and what stands in the way."""

    context: Context
    model: str
    missing: tuple[Lack, ...] = ()
    """Features asked for that cannot be given: QEMU with `enforce` does not start, without it
    leaves them out.
    """
    forbidden: tuple[Lack, ...] = ()
    """Features with policy forbid that can be given: libvirt does not start the domain."""
    optional: tuple[PropertyName, ...] = ()
    """Optional features that cannot be given, and so are left out."""
    silent: tuple[Lack, ...] = ()
    """Features asked for that QEMU leaves out without a word, even with `enforce`: pdcm without
    pmu, for one.
    """
    refused: str = ""
    """Why QEMU or libvirt starts no such guest at all, features aside."""
    start: FullCheck = PASSES
    """What libvirt's own check finds when it starts the domain, where it makes a full one."""
    unproven: str = ""
    """What could not be tried, where no CPU could be made to look at."""
    warnings: tuple[str, ...] = ()
    """What starts all the same, and will hurt."""

    undescribed: tuple[Lack, ...] = ()
    """Features asked for of which the host's description does not say whether guests get them."""

    hostless: bool = False
    """Whether nobody said on which host: what that lacks is not known."""

    @property
    def stopped(self) -> bool:
        """Whether something is known to keep the guest from having exactly this CPU."""
        found = self.missing or self.forbidden or self.silent or self.refused
        return bool(found) or not self.start.passes

    @property
    def runnable(self) -> bool:
        """Whether the guest is known to start with exactly the CPU that was asked for."""
        return not (self.stopped or self.undescribed or self.hostless)

    @property
    def enforce_fails(self) -> bool:
        """Whether QEMU with `enforce` ends before the guest starts."""
        return bool(self.missing or self.refused)

    def to_json(self) -> dict[str, Any]:
        """JSON-ready values."""
        return {
            "runnable": self.runnable,
            "enforce-fails": self.enforce_fails,
            "context": self.context.as_json(),
            "model": self.model,
            "missing": [lack_json(lack) for lack in self.missing],
            "forbidden": [lack_json(lack) for lack in self.forbidden],
            "not-described": [lack_json(lack) for lack in self.undescribed],
            "silently-left-out": [lack_json(lack) for lack in self.silent],
            "optional-left-out": list(self.optional),
            "refused": self.refused,
            "libvirt-refuses": "" if self.start.passes else str(self.start),
            "unproven": self.unproven,
            "warnings": list(self.warnings),
        }
