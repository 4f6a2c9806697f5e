"""Where the value of a CPU property comes from."""

from __future__ import annotations

from functools import cache
from typing import Literal

from cpumap.cpu.frozen import Frozen

OriginKind = Literal[
    "unsaid",
    "-cpu",
    "-global",
    "qemu:commandline",
    "element",
    "policy",
    "removed by libvirt",
    "CPU map model",
    "host",
    "model",
    "machine type",
    "realised",
    "topology",
    "no cache table",
    "not in QEMU",
    "as on",
]
"""Who said so: the guest's document (`element`, `policy` and QEMU arguments), libvirt, QEMU, or
the move to another QEMU.
"""


_WORDS: dict[OriginKind, str] = {
    "unsaid": "",
    "element": "{}",
    "policy": "policy {}",
    "removed by libvirt": "libvirt, which has removed it from the model",
    "CPU map model": "CPU map model {}",
    "host": "host {}",
    "model": "model {}",
    "machine type": "machine type {}",
    "topology": "topology {}",
    "no cache table": "{} has no cache table in QEMU {}",
    "not in QEMU": "not in QEMU {}",
    "as on": "as on {}",
}
"""How each kind is printed, with its detail; any other is its own word."""


_DEPENDS, _UNAVAILABLE = ", and what it depends on", ", unavailable here"


class Origin(Frozen):
    """Where a value comes from. Decisions hang on its kind and detail; `str` gives the words."""

    kind: OriginKind
    detail: str = ""
    """A model, machine type or release; the policy; the element, for which it is all there is to
    say.
    """
    release: str = ""
    """Of the QEMU that has no cache table for the model."""
    depends: bool = False
    """Whether QEMU made another value of it, for something else that the property depends on."""
    unavailable: bool = False
    """Whether it is off although something else was wished, since it cannot be given here."""

    def __str__(self) -> str:
        """The words for people, as reports and JSON have them."""
        words = _WORDS.get(self.kind, self.kind).format(self.detail, self.release)
        depends = _DEPENDS if self.depends else ""
        return f"{words}{depends}{_UNAVAILABLE if self.unavailable else ''}"


UNSAID = Origin("unsaid")


@cache
def origin(kind: OriginKind, detail: str = "") -> Origin:
    """The origin of this kind: one value for all properties that have it, since most have the
    same.
    """
    return Origin(kind, detail)


REQUIRED, OPTIONAL = origin("policy", "require"), origin("policy", "optional")


def read_origin(words: str) -> Origin:
    """The origin that is printed in these words, which is how files keep it."""
    unavailable = words.endswith(_UNAVAILABLE)
    words = words.removesuffix(_UNAVAILABLE)
    depends = words.endswith(_DEPENDS)
    words = words.removesuffix(_DEPENDS)
    kind, detail, release = _read(words)
    return Origin(kind, detail, release, depends, unavailable)


def _read(words: str) -> tuple[OriginKind, str, str]:
    plain: tuple[OriginKind, ...] = ("-cpu", "-global", "qemu:commandline", "realised")
    for kind in plain:
        if words == kind:
            return kind, "", ""
    for kind, form in _WORDS.items():
        before, hole, _ = form.partition("{}")
        if words == form:
            return kind, "", ""
        if before and hole and words.startswith(before):
            return kind, words.removeprefix(before), ""
    model, between, release = words.partition(" has no cache table in QEMU ")
    return ("no cache table", model, release) if between else ("element", words, "")
