"""Which libvirt is meant, and what it has words for."""

from __future__ import annotations

from pathlib import Path

import pytest

from cpumap.cpu.host import Identity
from cpumap.cpu.names import FeatureName
from cpumap.errors import InputError, ResolveError
from cpumap.hosts.read import read_host
from cpumap.libvirt.cpu_map.load import load_cpu_map
from cpumap.libvirt.domain import parse_request
from cpumap.libvirt.releases import installed_release, lost_by, wants_phys_bits, words_of
from cpumap.libvirt.rules.baseline import baseline
from cpumap.libvirt.rules.decode import decode
from cpumap.libvirt.rules.update import update
from cpumap.libvirt.words import libvirt_map, meant_for
from tests.support.cpuid_words import data_of, with_identity

MPX, MONITOR = FeatureName("mpx"), FeatureName("monitor")


@pytest.mark.parametrize(
    ("release", "features", "models"),
    [("9.0", 212, 58), ("11.3", 364, 150), ("12.8", 400, 176)],
)
def test_each_release_has_words(release: str, features: int, models: int) -> None:
    words = words_of(release)
    assert (len(words.features), len(words.models)) == (features, models)
    assert lost_by("EPYC", words) == (MONITOR,)
    assert not words.disputed


def test_what_a_model_has_lost_depends_on_the_release() -> None:
    assert lost_by("Skylake-Server", words_of("9.0")) == ()
    assert lost_by("Skylake-Server", words_of("11.3")) == (MPX,)
    assert lost_by("Skylake-Server", words_of("11.3.0")) == (MPX,)


def test_a_release_between_two_is_known_where_they_agree() -> None:
    words = words_of("10.0")
    assert words.features == words_of("9.0").features
    assert lost_by("EPYC", words) == (MONITOR,)
    assert lost_by("Haswell", words) == ()
    with pytest.raises(ResolveError, match=r"libvirt 10\.0 is between two that differ in what Sky"):
        lost_by("Skylake-Server", words)


@pytest.mark.parametrize("release", ["8.0", "nine", "11", "11.3-2", ""])
def test_releases_that_nobody_knows(release: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CPUMAP_LIBVIRT", release or "x")
    with pytest.raises(InputError, match=r"older than 9\.0|no version of libvirt"):
        words_of(release)


def test_the_installed_release_is_read_from_its_library(tmp_path: Path) -> None:
    assert installed_release(tmp_path) is None
    directory = tmp_path / "usr/lib/x86_64-linux-gnu"
    directory.mkdir(parents=True)
    (directory / "libvirt.so.0.11003.0").touch()
    (directory / "libvirt.so.0").symlink_to("libvirt.so.0.11003.0")
    assert installed_release(tmp_path) == "11.3"


def test_an_explicit_cpu_is_written_in_the_words_of_its_libvirt() -> None:
    named = FeatureName("vmx-ept")
    assert named not in words_of("9.0").features
    assert named in libvirt_map(libvirt="12.8").aliases


def test_a_baseline_is_one_that_its_libvirt_understands() -> None:
    shipped = load_cpu_map()
    host = read_host("<cpu><arch>x86_64</arch><model>SierraForest</model></cpu>", shipped)
    for release in ("9.0", "12.8"):
        words = words_of(release)
        common = baseline([host], meant_for(shipped, words))
        assert common.model in words.models
        assert {feature.name for feature in common.features} <= words.features


def test_decode_knows_what_the_model_has_lost() -> None:
    seen = meant_for(load_cpu_map(), words_of("12.8"))
    model = seen.models["Skylake-Server"]
    data = with_identity(data_of(model.features, seen), "GenuineIntel", Identity(6, 85, 4))
    guest = decode(data, seen, "guest")
    assert MPX not in model.features
    assert (guest.model, guest.features[-1].name, guest.features[-1].policy) == (
        "Skylake-Server",
        MPX,
        "disable",
    )
    with pytest.raises(ResolveError, match="between two"):
        decode(data, meant_for(load_cpu_map(), words_of("10.0")), "guest", ["Skylake-Server"])


def test_update_names_what_the_model_has_lost() -> None:
    host = read_host("<cpu><arch>x86_64</arch><model>Penryn</model></cpu>", load_cpu_map())
    asked = parse_request("<cpu match='exact'><model>Skylake-Server</model></cpu>")
    after = {
        release: update(host, asked, meant_for(load_cpu_map(), words_of(release))).features
        for release in ("9.0", "11.3")
    }
    assert after["9.0"] == ()
    assert [(f.name, f.policy) for f in after["11.3"]] == [(MPX, "disable")]


def test_which_libvirts_want_phys_bits() -> None:
    wanted = [wants_phys_bits(words_of(release)) for release in ("9.0", "11.3", "12.8")]
    assert wanted == [True, False, False]
    with pytest.raises(ResolveError, match=r"whether libvirt 10\.5 takes <maxphysaddr"):
        wants_phys_bits(words_of("10.5"))
