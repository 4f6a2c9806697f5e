"""Origins: what decisions hang on, and the words that files and reports have for them."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpumap.cpu.origin import Origin, OriginKind, origin, read_origin

WORDS = {
    "": Origin("unsaid"),
    "-cpu": Origin("-cpu"),
    "qemu:commandline": Origin("qemu:commandline"),
    "hyperv stimer direct": Origin("element", "hyperv stimer direct"),
    "policy require": Origin("policy", "require"),
    "libvirt, which has removed it from the model": Origin("removed by libvirt"),
    "CPU map model Haswell": Origin("CPU map model", "Haswell"),
    "model EPYC-v1, unavailable here": Origin("model", "EPYC-v1", unavailable=True),
    "machine type pc-q35-7.2": Origin("machine type", "pc-q35-7.2"),
    "realised": Origin("realised"),
    "topology dies": Origin("topology", "dies"),
    "EPYC-v1 has no cache table in QEMU 5.2": Origin("no cache table", "EPYC-v1", "5.2"),
    "not in QEMU 5.2": Origin("not in QEMU", "5.2"),
    "as on pc-q35-5.2": Origin("as on", "pc-q35-5.2"),
    "policy force, and what it depends on": Origin("policy", "force", depends=True),
}


@pytest.mark.parametrize("words", WORDS)
def test_an_origin_is_written_and_read_in_words(words: str) -> None:
    assert str(WORDS[words]) == words
    assert read_origin(words) == WORDS[words]


WITH_DETAIL = (
    "policy",
    "CPU map model",
    "model",
    "machine type",
    "topology",
    "not in QEMU",
    "as on",
)
NAMES = st.from_regex(r"[A-Za-z][A-Za-z0-9.-]{0,12}", fullmatch=True)


@given(st.sampled_from(get_args(OriginKind)), NAMES, NAMES, st.booleans(), st.booleans())
def test_what_is_written_is_read_again(
    kind: OriginKind, detail: str, release: str, depends: bool, unavailable: bool
) -> None:
    if kind not in (*WITH_DETAIL, "no cache table"):
        detail = "timer tsc" if kind == "element" else ""
    release = release if kind == "no cache table" else ""
    made = Origin(kind, detail, release, depends, unavailable)
    assert read_origin(str(made)) == made


def test_properties_share_their_origins() -> None:
    assert origin("model", "EPYC-v1") is origin("model", "EPYC-v1")
