"""libvirt's own code of several releases as the judge of `rules`, each with its own CPU map."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.support.agreement import KNOWN_CAUSES, QUESTIONS, Outcome, agreement
from tests.support.libvirt_code import LibvirtCode, libvirt_code
from tests.support.releases import LIBVIRT_RELEASES, needing

pytestmark = pytest.mark.live

HOW_MANY = int(os.environ.get("CPUMAP_AGREEMENTS", "150"))
"""How many questions of each kind each release is asked; tools/libvirt-agreement asks 2,000."""


@pytest.fixture(scope="module", params=needing("libvirt", LIBVIRT_RELEASES))
def code(request: pytest.FixtureRequest) -> Iterator[LibvirtCode]:
    with libvirt_code(request.param) as opened:
        yield opened


@pytest.mark.parametrize("kind", QUESTIONS)
def test_the_same_answers(code: LibvirtCode, kind: str) -> None:
    causes = Counter[str]()
    for outcome in agreement(code, kind, random.Random(2026), HOW_MANY):
        assert outcome.same or outcome.cause in KNOWN_CAUSES, _told(outcome)
        causes[outcome.cause] += 1
    assert causes[""] > HOW_MANY / 2


def _told(outcome: Outcome) -> str:
    return f"{outcome.asked}\nours: {outcome.ours}\nlibvirt's: {outcome.theirs}"
