"""A recording answers as its QEMU does: random changed models, realised by both, compared property
by property.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from cpumap.arch.known import PER_INSTANCE
from cpumap.cpu.expansion import CpuModel
from cpumap.cpu.names import PropertyName, Value
from cpumap.errors import CpumapError, UnknownNameError
from cpumap.sources.live import QemuSource
from cpumap.sources.recorded import RecordedSource
from cpumap.sources.recordings import recording_of

pytestmark = pytest.mark.live

CASES = 12
"""For each QEMU."""
VENDORS = ("GenuineIntel", "AuthenticAMD", "HygonGenuine", "CentaurHauls", "KVMKVMKVM001")
NUMBERS = {
    "level": (1, 4, 7, 13, 31),
    "xlevel": (0, 0x80000001, 0x80000008, 0x80000022),
    "stepping": (0, 3, 15),
    "family": (5, 6, 15, 25),
    "model": (1, 94, 200),
    "ucode-rev": (1, 0x700),
    "min-xlevel": (0x80000007,),
}
OFTEN = ("lm", "pse36", "pae", "pdcm", "pmu", "svm", "cmp-legacy", "intel-pt", "xsave", "vmx")
REFUSED = (
    ("vendor", "Short"),
    ("vendor", "ThirteenChars"),
    ("stepping", 16),
    ("model", 256),
    ("family", 271),
    ("family", 99999999999),
    ("level", -5),
    ("xlevel", 2**32),
    ("phys-bits", 99),
    ("phys-bits", 31),
)
"""Values that every QEMU refuses."""


def pair(qemu: Path) -> tuple[QemuSource, RecordedSource]:
    live = QemuSource(qemu)
    path = recording_of(live.build(), "tcg")
    assert path is not None
    return live, RecordedSource(path)


def changed_models(source: RecordedSource, seed: int) -> Iterator[tuple[str, CpuModel]]:
    """Machine types, and models with random properties of any kind."""
    chance = random.Random(seed)
    machines = [m for m in source.tables() if m.startswith(("pc-q35-", "pc-i440fx-"))]
    for _ in range(CASES):
        machine = chance.choice(machines)
        names = [d.name for d in source.definitions(machine) if d.name != "host"]
        model = chance.choice(names)
        shown = source.expand(machine, CpuModel(model), "static").props
        features = [name for name, value in shown.items() if isinstance(value, bool)]
        props: dict[PropertyName, Value] = {}
        for name in chance.sample(features, chance.choice((0, 1, 3, 8))):
            props[name] = chance.random() < 0.6
        for often in OFTEN:
            if chance.random() < 0.1:
                props[PropertyName(often)] = chance.random() < 0.5
        for number, values in NUMBERS.items():
            if chance.random() < 0.1:
                props[PropertyName(number)] = chance.choice(values)
        if chance.random() < 0.3:
            props[PropertyName("vendor")] = chance.choice(VENDORS)
        yield machine, CpuModel(model, props)


def test_what_is_realised(qemu: Path) -> None:
    live, recorded = pair(qemu)
    with live:
        for machine, model in changed_models(recorded, seed=11):
            there = live.realise(machine, model)
            here = recorded.realise(machine, model)
            names = (there.properties.keys() | here.properties.keys()) - PER_INSTANCE
            unlike = {
                name: (there.properties.get(name), here.properties.get(name))
                for name in names
                if there.properties.get(name) != here.properties.get(name)
            }
            assert not unlike, f"{model} on {machine}: (QEMU's, recorded) {unlike}"
            assert there.filtered.keys() == here.filtered.keys()


@pytest.mark.parametrize("name, value", REFUSED)
def test_what_is_refused(qemu: Path, name: str, value: Value) -> None:
    live, recorded = pair(qemu)
    machine = next(iter(recorded.tables()))
    model = CpuModel("Nehalem", {PropertyName(name): value})
    with live, pytest.raises(CpumapError):
        live.realise(machine, model)
    with pytest.raises(UnknownNameError, match=name):
        recorded.realise(machine, model)


@pytest.mark.parametrize("bits", [32, 33, 35, 36])
def test_room_for_addresses(qemu: Path, bits: int) -> None:
    live, recorded = pair(qemu)
    model = CpuModel("Nehalem", {PropertyName("phys-bits"): bits})
    names = [machine.name for machine in recorded.machines()]
    machine = next(name for name in names if name.startswith("pc-q35-"))
    with live:
        try:
            recorded.realise(machine, model)
        except UnknownNameError:
            with pytest.raises(CpumapError):
                live.realise(machine, model)
        else:
            assert live.version.startswith("5.") or live.realise(machine, model)
