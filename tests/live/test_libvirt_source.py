"""libvirt as a source: its test driver for what needs no guest, a libvirtd for the rest."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from lxml import etree

from cpumap.cli.main import main
from cpumap.cpu.names import PropertyName
from cpumap.cpu.request import CpuRequest
from cpumap.errors import SourceError
from cpumap.sources.choose import Wanted, connected_source
from cpumap.sources.libvirt import Hypervisor
from tests.support import libvirtd
from tests.support.definitions import Case, model

pytestmark = [pytest.mark.live, pytest.mark.xdist_group("libvirt")]

TEST = "test:///default"


@pytest.fixture(scope="module")
def daemon() -> Iterator[libvirtd.Daemon]:
    with libvirtd.private() as daemon:
        yield daemon


@pytest.fixture(scope="module")
def guest(daemon: libvirtd.Daemon, qemus: Mapping[str, Path]) -> Iterator[str]:
    """The name of a paused guest."""
    xml = Case(model("Haswell")).xml("source", str(qemus["7.2"].resolve()), daemon.root / "qmp")
    with Hypervisor(daemon.uri, write=True) as hypervisor:
        hypervisor.define(xml.encode())
        hypervisor.start("source", paused=True)
        yield "source"
        hypervisor.destroy("source")
        hypervisor.undefine("source")


def test_domains_of_the_test_driver() -> None:
    with Hypervisor(TEST) as hypervisor:
        (domain,) = hypervisor.domains()
        assert (domain.name, domain.active, domain.persistent, domain.managed_save) == (
            "test",
            True,
            True,
            False,
        )
        assert b"<name>test</name>" in hypervisor.xml("test")
        assert "<host>" in hypervisor.capabilities()
        with pytest.raises(SourceError, match=r"monitor|not supported"):
            hypervisor.guest("test")


def test_a_domain_of_another_kind_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["translate", "--connect", TEST, "--domain", "test"]) == 2
    assert "no QEMU CPU to translate" in capsys.readouterr().err


def test_without_libvirt_python(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "libvirt", None)
    assert main(["translate", "--connect", TEST, "--domain", "test"]) == 3
    complaint = capsys.readouterr().err
    assert "libvirt-python is not installed" in complaint and complaint.count("\n") == 1


def test_what_it_offers(daemon: libvirtd.Daemon) -> None:
    with Hypervisor(daemon.uri) as hypervisor:
        capabilities = etree.fromstring(
            hypervisor.domain_capabilities(machine="pc-q35-7.2", kind="qemu")
        )
        assert capabilities.findtext("machine") == "pc-q35-7.2"
        source = connected_source(
            hypervisor, Wanted(), CpuRequest(machine="pc-q35-7.2", accel="tcg")
        )
        assert source.version == hypervisor.version()
        source.close()


def test_a_guest_is_asked_through_the_monitor(daemon: libvirtd.Daemon, guest: str) -> None:
    with Hypervisor(daemon.uri) as hypervisor:
        source = hypervisor.guest(guest)
        running = source.running()
        assert running.filtered["pcid"] == "CPUID[eax=01h].ECX [bit 17]"
        assert running.properties[PropertyName("pcid")] is False
        assert (source.machine, source.accel, source.arch) == ("pc-q35-7.2", "tcg", "x86_64")
        assert any(
            definition.name == "Haswell-v4" for definition in source.definitions("pc-q35-7.2")
        )


def test_every_command_takes_a_connection(
    daemon: libvirtd.Daemon, guest: str, capsys: pytest.CaptureFixture[str]
) -> None:
    at = ["--connect", daemon.uri]
    assert main(["machines", *at, "--accel", "tcg"]) == 0
    assert "pc-q35-7.2" in capsys.readouterr().out
    assert main(["translate", *at, "--domain", guest]) == 0
    said = capsys.readouterr()
    assert "-pcid" in said.out and ",enforce" in said.out, (
        "what was filtered out of the guest is off"
    )
    assert "domain source" in said.err
