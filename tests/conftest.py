"""Fixtures that every test may use: the real QEMUs, a real libvirtd, KVM, and golden files."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from tests.support import libvirt_releases, libvirtd
from tests.support.releases import (
    ABSENT,
    LIBVIRT_RELEASES,
    OTHER_QEMUS,
    QEMUS,
    RELEASES,
    needing,
)

if TYPE_CHECKING:
    import libvirt

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts what runs in its background so, and programs that tests interrupt inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("cpumap", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(
    "cpumap"
)  # beside running QEMUs, how long an example takes says nothing about it


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--regenerate",
        action="store_true",
        help="rewrite the golden files; what changed fails once",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out what needs a program that this machine's distribution cannot give."""

    def can_run(item: pytest.Item) -> bool:
        return ABSENT.isdisjoint(name for mark in item.iter_markers("needs") for name in mark.args)

    left_out = [item for item in items if not can_run(item)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if can_run(item)]


@pytest.fixture
def regenerate(request: pytest.FixtureRequest) -> bool:
    """Whether golden files are to be rewritten."""
    return bool(request.config.getoption("--regenerate"))


@pytest.fixture(autouse=True)
def one_libvirt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has every test mean libvirt 9.0 where it names none, whichever is installed."""
    monkeypatch.setenv("CPUMAP_LIBVIRT", "9.0")


@pytest.fixture(autouse=True)
def private_cache(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keeps every test away from the user's cache, recordings and defaults, and from another
    test's.
    """
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path_factory.mktemp("data")))
    monkeypatch.setenv("CPUMAP_CONFIG", "")


@pytest.fixture(scope="session")
def path_without_qemu(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A PATH with every program of this one but QEMU's."""
    directory = tmp_path_factory.mktemp("bin")
    for place in os.environ["PATH"].split(os.pathsep):
        programs = Path(place).iterdir() if Path(place).is_dir() else ()
        for program in programs:
            link = directory / program.name
            if not program.name.startswith("qemu-system-") and not link.is_symlink():
                link.symlink_to(program)
    return str(directory)


@pytest.fixture(autouse=True)
def no_qemu_by_chance(
    request: pytest.FixtureRequest, path_without_qemu: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keeps tests that name no QEMU from asking the one that happens to be on PATH."""
    if request.node.get_closest_marker("live") is None:
        monkeypatch.setenv("PATH", path_without_qemu)


@pytest.fixture(scope="session")
def qemus() -> Mapping[str, Path]:
    """The QEMU binaries under test by release (`7.2`), each one there and executable."""
    return _qemus(RELEASES)


@pytest.fixture(scope="session")
def other_qemus() -> Mapping[str, Path]:
    """The QEMU binaries beside those (`10.0.2`, `8.2-ubuntu`, `s390x-7.2`), each one there.

    A test of a certain one has the marker `needs("qemu-s390x-7.2")` too.
    """
    return _qemus(name for name in OTHER_QEMUS if f"qemu-{name}" not in ABSENT)


def _qemus(names: Iterable[str]) -> Mapping[str, Path]:
    binaries = {name: QEMUS / "bin" / f"qemu-{name}" for name in names}
    missing = [str(path) for path in binaries.values() if not os.access(path, os.X_OK)]
    if missing:
        pytest.fail(
            f"missing: {', '.join(missing)} (tools/fetch-qemus puts them there)", pytrace=False
        )
    return binaries


@pytest.fixture(scope="session", params=RELEASES)
def qemu(request: pytest.FixtureRequest, qemus: Mapping[str, Path]) -> Path:
    """One QEMU binary; a test that asks for it runs once for every release."""
    return qemus[request.param]


@pytest.fixture(scope="module", params=needing("libvirt", LIBVIRT_RELEASES))
def released_libvirtd(
    request: pytest.FixtureRequest,
) -> Iterator[libvirt_releases.ReleasedDaemon]:
    """A libvirtd of one release; a test that asks for it runs once for every release."""
    with libvirt_releases.running(request.param) as daemon:
        yield daemon


@pytest.fixture(scope="session")
def kvm() -> Path:
    """/dev/kvm, open to this user."""
    device = Path("/dev/kvm")
    if not os.access(device, os.R_OK | os.W_OK):
        pytest.fail(
            f"{device} is missing or closed to this user (tools/test opens it)", pytrace=False
        )
    return device


@pytest.fixture(scope="session")
def libvirt_connection() -> Iterator[libvirt.virConnect]:
    """A connection to a real libvirtd's QEMU driver, started for the tests if none was running."""
    with libvirtd.connection() as connection:
        yield connection
