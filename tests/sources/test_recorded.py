"""Recordings: their differences give back every answer, and answer for changed models as the
QEMU itself does.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpumap.arch.x86.x86 import X86_64
from cpumap.cpu.expansion import CpuModel
from cpumap.cpu.machine_type import release
from cpumap.cpu.names import Accel, PropertyName
from cpumap.errors import SourceError, UnknownNameError
from cpumap.pin.resolve import canonical_names
from cpumap.sources.choose import recorded_for
from cpumap.sources.layers import Layer, factorise
from cpumap.sources.live import QemuSource
from cpumap.sources.recorded import RecordedSource, offered_by
from cpumap.sources.recordings import find_recording, recording_name, shipped, upstream

UNRECORDED_EFFECTS = frozenset({"intel-pt", "pdcm"})
"""Features that depend on more than other features, which a recording does not reproduce.

intel-pt: old machine types take it away from a model whose level is below 0x14. pdcm: QEMU 11.1
takes it away where pmu is off, unless the machine type sets x-pdcm-on-even-without-pmu.
"""

TABLES = ("new", "old", "oldest")
MODELS = ("base", "One-v1", "One-v2", "One")
LIKE = {"base": None, "One-v1": "base", "One-v2": "One-v1", "One": "One-v2"}
FACTS = st.dictionaries(st.sampled_from("abcd"), st.one_of(st.booleans(), st.integers(0, 2)))


@given(
    st.fixed_dictionaries(
        {table: st.fixed_dictionaries(dict.fromkeys(MODELS, FACTS)) for table in TABLES}
    )
)
def test_differences_give_back_every_fact(answers: dict[str, dict[str, dict[str, Any]]]) -> None:
    layer = Layer(factorise(answers, {"like": LIKE}), LIKE)
    for table, models in answers.items():
        for model, facts in models.items():
            assert json.dumps(layer.facts(model, table), sort_keys=True) == json.dumps(
                facts, sort_keys=True
            )


UPSTREAM_TYPES = (
    "2.4", "2.5", "2.6", "2.7", "2.8", "2.9", "2.10", "2.11", "2.12", "3.0", "3.1", "4.0", "4.1",
    "4.2", "5.0", "5.1", "5.2", "6.0", "6.1", "6.2", "7.0", "7.1", "7.2", "8.0", "8.1", "8.2",
    "9.0", "9.1", "9.2", "10.0", "10.1", "10.2", "11.0", "11.1",
)  # fmt: skip
"""The releases that machine types are called after (QEMU's documentation, versioned types)."""


def test_recordings_are_shipped_in_eight_megabytes() -> None:
    by_accel = {accel: {found.name for found in shipped(accel)} for accel in ("kvm", "tcg")}
    assert by_accel["kvm"] == by_accel["tcg"]
    assert by_accel["tcg"] == {
        "5.2.0", "6.2.0", "7.2.22", "8.2.2-ubuntu", "9.0.0", "9.2.0", "10.0.2", "10.0.13", "10.1.0",
        "10.2.2", "11.1.3",
    }  # fmt: skip
    assert sum(found.path.stat().st_size for found in shipped()) < 8_000_000


@pytest.mark.parametrize("accel", ["kvm", "tcg"])
def test_every_upstream_machine_type_has_a_recording_of_its_release_or_the_next(
    accel: Accel,
) -> None:
    sources = [RecordedSource(found.path) for found in upstream(accel)]
    known = {machine.name for source in sources for machine in source.machines()}
    releases = [release(source.version) for source in sources]
    for number in UPSTREAM_TYPES:
        assert {f"pc-q35-{number}", f"pc-i440fx-{number}"} <= known
        answering = release(recorded_for(f"pc-q35-{number}", accel).version)
        assert answering.series == min(
            found.series for found in releases if found.series >= release(number)
        )


@pytest.mark.parametrize("path", [found.path for found in shipped()], ids=lambda path: path.stem)
def test_a_recording_says_which_qemu_it_is(path: Path) -> None:
    stored = json.loads(path.read_bytes())
    build = RecordedSource(path).build()
    assert stored["offers"] == offered_by(stored) == build.offers
    assert build.package or stored["origin"].startswith("upstream's release ")
    assert recording_name(build, stored["arch"], stored["accel"]) == path.name
    assert build.vendor == ("Ubuntu" if "ubuntu" in path.name else "")


@pytest.mark.parametrize("path", [found.path for found in shipped()], ids=lambda path: path.stem)
def test_every_model_answers_under_every_machine_type(path: Path) -> None:
    source = RecordedSource(path)
    for machine in source.tables():
        for definition in source.definitions(machine):
            if definition.name == "host" or (definition.name == "max" and source.accel == "kvm"):
                with pytest.raises(UnknownNameError, match="whatever its host has"):
                    source.expand(machine, CpuModel(definition.name), "full")
                continue
            full = source.expand(machine, CpuModel(definition.name), "full").props
            assert set(source.expand(machine, CpuModel(definition.name), "static").props) < set(
                full
            )
            assert set(full) <= set(source.realise(machine, CpuModel(definition.name)).properties)


@pytest.mark.parametrize("path", [found.path for found in shipped()], ids=lambda path: path.stem)
def test_spellings_are_those_that_resolve_knows(path: Path) -> None:
    """The recording found other spellings by switching properties; resolve knows them by rule."""
    source = RecordedSource(path)
    machine = next(iter(source.tables()))
    full = source.expand(machine, CpuModel("base"), "full").props
    static = source.expand(machine, CpuModel("base"), "static").props
    spellings = json.loads(path.read_text())["spellings"]
    assert canonical_names(full, static, X86_64).isdisjoint(spellings)
    assert set(spellings.values()) <= canonical_names(full, static, X86_64)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "not a recording"),
        ("[]", "not a recording"),
        ('{"schema": "cpumap.expansions/9"}', "not a recording"),
        (
            '{"schema": "cpumap.expansions/1", "qemu": "7.2.0"}',
            "not a whole recording: it lacks accel, arch",
        ),
    ],
)
def test_files_that_are_no_recordings(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "recording.json"
    path.write_text(content)
    with pytest.raises(SourceError, match=message):
        RecordedSource(path)


def test_a_recording_that_is_not_shipped() -> None:
    with pytest.raises(UnknownNameError, match=r"no recording of QEMU 6\.0 .*there are 5\.2"):
        find_recording("6.0", "tcg")


def test_release_is_found_by_its_beginning() -> None:
    assert find_recording("7.2", "tcg") == find_recording(
        RecordedSource(find_recording("7.2", "kvm")).version, "tcg"
    )


@pytest.mark.live
@pytest.mark.parametrize("accel", ["tcg", "kvm"])
def test_changed_models_answer_as_qemu_does(qemu: Path, accel: Accel) -> None:
    """Random features on and off, on random models and machine types: the same full expansion as
    the QEMU's own.
    """
    dice = random.Random(f"{qemu.name} {accel}")
    with QemuSource(qemu, accel) as live:
        recorded = RecordedSource(find_recording(live.version, accel))
        for machine in dice.sample(
            [name for name in recorded.tables() if name.startswith("pc-")], 3
        ):
            models = [_changed(recorded, machine, dice) for _ in range(60)]
            for model, answer in zip(
                models, live.expand_many(machine, models, "full"), strict=True
            ):
                mine = recorded.expand(machine, model, "full").props
                unlike = {
                    name: (mine.get(name), value)
                    for name, value in answer.props.items()
                    if mine.get(name) != value
                }
                assert not unlike, f"{model} under {machine}: (recorded, QEMU) {unlike}"


def _changed(source: RecordedSource, machine: str, dice: random.Random) -> CpuModel:
    names = [
        definition.name
        for definition in source.definitions(machine)
        if definition.name not in ("host", "max")
    ]
    static = source.expand(machine, CpuModel("base"), "static").props
    features = [
        name
        for name, value in static.items()
        if isinstance(value, bool) and name not in UNRECORDED_EFFECTS
    ]
    props = {name: dice.random() < 0.5 for name in dice.sample(features, dice.randint(1, 4))}
    props |= dict.fromkeys(
        map(PropertyName, dice.sample(["vmx", "svm", "avx", "xsave", "avx512f"], 1)), True
    )
    name = dice.choice(names)
    vendor = source.expand(machine, CpuModel(name), "full").props[PropertyName("vendor")]
    return CpuModel(name, {**props, PropertyName("vendor"): vendor} if vendor else props)
