"""Names of machine types and releases, taken apart; none makes anything crash."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpumap.cpu.expansion import Machine
from cpumap.cpu.machine_type import (
    MachineType,
    Release,
    machine_type,
    nearest,
    of_family,
    oldest_first,
    release,
)
from cpumap.cpu.names import model_version
from cpumap.errors import UnknownNameError

R = Release

NAMES = {
    "pc-q35-7.2": MachineType("pc-q35-7.2", "pc-q35", R((7, 2))),
    "pc-i440fx-2.11+pve0": MachineType(
        "pc-i440fx-2.11+pve0", "pc-i440fx", R((2, 11)), None, "+pve0"
    ),
    "pc-q35-9.2+pve1": MachineType("pc-q35-9.2+pve1", "pc-q35", R((9, 2)), None, "+pve1"),
    "pc-q35-noble-v2": MachineType("pc-q35-noble-v2", "pc-q35", None, "noble", "-v2"),
    "pc-i440fx-jammy-hpb": MachineType("pc-i440fx-jammy-hpb", "pc-i440fx", None, "jammy", "-hpb"),
    "pc-q35-rhel9.4.0": MachineType("pc-q35-rhel9.4.0", "pc-q35", None, "rhel", "", (9, 4, 0)),
    "pseries-rhel7.6.0-sxxm": MachineType(
        "pseries-rhel7.6.0-sxxm", "pseries", None, "rhel", "-sxxm", (7, 6, 0)
    ),
    "pseries-2.12-sxxm": MachineType("pseries-2.12-sxxm", "pseries", R((2, 12)), None, "-sxxm"),
    "pseries-4.0": MachineType("pseries-4.0", "pseries", R((4, 0))),
    "virt-9.0": MachineType("virt-9.0", "virt", R((9, 0))),
    "s390-ccw-virtio-2.9": MachineType("s390-ccw-virtio-2.9", "s390-ccw-virtio", R((2, 9))),
    "q35": MachineType("q35", "q35"),
    "ubuntu": MachineType("ubuntu", "ubuntu"),
    "ubuntu-q35": MachineType("ubuntu-q35", "ubuntu-q35"),
    "microvm": MachineType("microvm", "microvm"),
    "isapc": MachineType("isapc", "isapc"),
    "powernv10": MachineType("powernv10", "powernv10"),
    "": MachineType("", ""),
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_taken_apart(name: str) -> None:
    assert machine_type(name) == NAMES[name]


@given(st.text(max_size=60) | st.from_regex(r"(pc-q35|virt)-[a-z0-9.+-]{0,40}", fullmatch=True))
def test_any_text_is_a_machine_type(name: str) -> None:
    parsed = machine_type(name)
    assert parsed.name == name and name.startswith(parsed.family)
    assert parsed.release is None or parsed.vendor is None


def test_a_label_is_all_that_upstreams_type_lacks() -> None:
    assert machine_type("pc-i440fx-2.11+pve0").upstream == "pc-i440fx-2.11"
    assert machine_type("pc-q35-rhel9.4.0").upstream == "pc-q35-rhel9.4.0"


def test_releases_are_ordered_as_numbers() -> None:
    texts = ["10.0.13", "7.2", "2.12", "2.9", "7.2.22", "10.0.2", "11.1.3"]
    assert [str(one) for one in sorted(map(release, texts))] == [
        "2.9", "2.12", "7.2", "7.2.22", "10.0.2", "10.0.13", "11.1.3",
    ]  # fmt: skip
    assert release("10.0.13").series == release("10.0")


@pytest.mark.parametrize("text", ["", "rhel9.4.0", "7.", ".2", "7.2-rc1", "seven", "7.2.1.0.9"])
def test_what_is_no_release_is_said(text: str) -> None:
    with pytest.raises(UnknownNameError, match="is no QEMU release"):
        release(text)


LISTED = [
    Machine("pc-q35-10.0"), Machine("pc-q35-noble-v2", alias="ubuntu-q35"), Machine("q35x"),
    Machine("pc-q35-rhel9.4.0", alias="q35"), Machine("pc-q35-2.9"), Machine("pc-q35-jammy"),
    Machine("pc-q35-rhel8.6.0"), Machine("pc-i440fx-10.1"), Machine("microvm"),
]  # fmt: skip


def test_a_family_is_ordered_by_release_then_by_what_qemu_says() -> None:
    assert [machine.name for machine in of_family(LISTED, "pc-q35")] == [
        "pc-q35-2.9", "pc-q35-10.0", "pc-q35-jammy", "pc-q35-rhel8.6.0", "pc-q35-rhel9.4.0",
        "pc-q35-noble-v2",
    ]  # fmt: skip
    assert sorted(machine.name for machine in oldest_first(LISTED)) == sorted(
        machine.name for machine in LISTED
    )


def test_the_nearest_type_is_upstreams() -> None:
    assert nearest(LISTED, "pc-q35", release("9.2")) == "pc-q35-2.9"
    assert nearest(LISTED, "pc-q35", release("11.1")) == "pc-q35-10.0"
    assert nearest(LISTED, "pc-q35", release("1.0")) == "pc-q35-2.9"
    assert nearest([Machine("pc-q35-rhel9.4.0")], "pc-q35", release("9.4")) is None


@pytest.mark.parametrize(
    ("model", "parts"),
    [
        ("Haswell-v4", ("Haswell", 4)),
        ("Haswell", ("Haswell", None)),
        ("Haswell-noTSX-IBRS", ("Haswell-noTSX-IBRS", None)),
        ("x-v", ("x-v", None)),
        ("z14.2", ("z14.2", None)),
    ],
)
def test_a_models_version(model: str, parts: tuple[str, int | None]) -> None:
    assert model_version(model) == parts
