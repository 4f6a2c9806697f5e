"""Which QEMU it is. A release number is not enough: distributions change what they build."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from cpumap.cpu.frozen import Frozen

_DIGITS = 16


class Build(Frozen):
    """One build of QEMU. Two are the same only if all of this agrees."""

    version: str
    """As QMP's query-version has it, `10.0.13`."""
    package: str = ""
    """The packager's words: `Debian 1:10.0.13+ds-0+deb13u1`; of upstream's own builds empty."""
    offers: str = ""
    """`digest_of` what it offers; empty where nobody asked."""
    vendor: str = ""
    """Whose machine types it has beside upstream's, `Ubuntu`; empty: upstream's alone."""

    def is_same(self, other: Build) -> bool:
        """Whether both are known to be one QEMU."""
        return bool(self.offers) and self == other

    @property
    def name(self) -> str:
        """As recordings and facts are called: `10.0.13`, `8.2.2-ubuntu`."""
        return f"{self.version}-{self.vendor.lower()}" if self.vendor else self.version

    def has_code_of(self, other: Build) -> bool:
        """Whether both are one version by one vendor, whoever packaged it.

        Of a vendor's version there are builds with more in them, and they offer more.
        """
        same = self.name == other.name
        return same and (not self.vendor or self.offers == other.offers)

    def __str__(self) -> str:
        return f"{self.version} ({self.vendor or self.package})" if self.package else self.version


def digest_of(
    machines: Collection[str], typenames: Collection[str], properties: Iterable[str]
) -> str:
    """A digest of the names of the machine types, CPU types and CPU properties that a QEMU offers.

    It does not depend on the accelerator, nor on the host.
    """
    import hashlib  # costs milliseconds, and few runs need it
    import json

    offered = [sorted(machines), sorted(typenames), sorted(properties)]
    return hashlib.sha256(json.dumps(offered).encode()).hexdigest()[:_DIGITS]
