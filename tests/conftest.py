"""Fixtures that every test may use: the real QEMUs, a real libvirtd, KVM, and golden files."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from tests.support import libvirtd
from tests.support.releases import RELEASES

if TYPE_CHECKING:
    import libvirt

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


@pytest.fixture
def regenerate(request: pytest.FixtureRequest) -> bool:
    """Whether golden files are to be rewritten."""
    return bool(request.config.getoption("--regenerate"))


@pytest.fixture(autouse=True)
def private_cache(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keeps every test away from the user's cache, and from another test's."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="session")
def qemus() -> Mapping[str, Path]:
    """The QEMU binaries under test by release (`7.2`), each one there and executable."""
    directory = Path(os.environ.get("CPUMAP_QEMUS") or Path.home() / ".cache/cpumap-qemus")
    binaries = {release: directory / "bin" / f"qemu-{release}" for release in RELEASES}
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
