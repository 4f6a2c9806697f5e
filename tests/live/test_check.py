"""`check` and `host` on real QEMUs: what they say is what QEMU does with `enforce`, and what it
filters.

A few models of each QEMU and accelerator; with CPUMAP_EVERY_MODEL=1 in the environment all of them
(minutes).
"""

from __future__ import annotations

import json
import os
import random
import re
import shlex
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from cpumap.arch.x86.x86 import X86_64
from cpumap.cli.main import main
from cpumap.cpu.bits import CpuidBits, bit_numbers
from cpumap.cpu.expansion import CpuModel
from cpumap.cpu.host import UNKNOWN_MACHINE
from cpumap.cpu.names import Accel, FeatureName
from cpumap.cpu.request import CpuRequest, FeaturePolicy
from cpumap.errors import SourceError, UnknownNameError
from cpumap.hosts.described import read_described
from cpumap.hosts.this_machine import this_machine
from cpumap.libvirt.cpu_map.load import load_cpu_map
from cpumap.libvirt.domain import parse_request
from cpumap.qemu.qmp import Session
from cpumap.runnable.available import available, listed
from cpumap.runnable.available_json import available_json
from cpumap.runnable.check import check
from cpumap.runnable.checked import Checked
from cpumap.sources.attached import AttachedSource
from cpumap.sources.libvirt import GuestSource
from cpumap.sources.live import QemuSource
from cpumap.sources.machines import find_machine
from cpumap.sources.platform import Platform
from cpumap.system.json_text import json_text
from tests.support.releases import RELEASES

pytestmark = pytest.mark.live

SAMPLE = None if os.environ.get("CPUMAP_EVERY_MODEL") else 2
PATIENCE = 120.0
"""Seconds for an answer, on a machine that is busy with other tests."""

ACCELS: tuple[Accel, ...] = ("tcg", "kvm")
CPU_MAP = load_cpu_map()
Bit = tuple[int, int, str, int]


def _models(source: QemuSource, machine: str) -> list[str]:
    """Models under every kind of name; those with which QEMU starts are few, and so are always
    among them.
    """
    definitions = source.definitions(machine)
    # Under tcg, `host` stands for `max`, as in `expand`; QEMU itself has no such model there.
    names = [
        d.name
        for d in definitions
        if not d.alias_of and (d.name != "host" or source.accel == "kvm")
    ]
    if SAMPLE is None:
        return names
    dice = random.Random(f"{source.version} {source.accel}")
    runnable = [d.name for d in definitions if not d.alias_of and not d.unavailable]
    return [
        dice.choice(runnable),
        *dice.sample(names, SAMPLE),
        X86_64.host_passthrough[source.accel],
    ]


def _request(name: str, accel: Accel, *features: FeaturePolicy) -> CpuRequest:
    if name in ("host", "max"):
        return CpuRequest(
            accel=accel, mode="host-passthrough" if name == "host" else "maximum", features=features
        )
    return CpuRequest(accel=accel, mode="custom", model=name, features=features)


def _starts(source: QemuSource, machine: str, cpu: str) -> bool:
    """Whether QEMU itself starts with this -cpu."""
    try:
        arguments = ["-machine", f"{machine},accel={source.accel}", "-cpu", cpu]
        Session.start(source.binary, arguments, timeout=PATIENCE).close()
    except SourceError as err:
        assert "before it answered" in str(err), err
        return False
    return True


def _filtered(source: QemuSource, machine: str, cpu: str) -> set[Bit]:
    """The bits that a realised CPU of this -cpu says were filtered out of it."""
    arguments = ["-machine", f"{machine},accel={source.accel}", "-cpu", cpu]
    with Session.start(source.binary, arguments, timeout=PATIENCE) as session:
        path = session.execute("query-cpus-fast")[0]["qom-path"]
        words = session.execute("qom-get", path=path, property="filtered-features")
    return {
        (
            word["cpuid-input-eax"],
            word.get("cpuid-input-ecx", 0),
            word["cpuid-register"].lower(),
            number,
        )
        for word in words
        for number in bit_numbers(word["features"])
    }


def _bits(found: Checked) -> set[Bit]:
    return {
        (bits.leaf, bits.subleaf, bits.register, number)
        for lack in found.missing
        for bits in lack.bits
        if isinstance(bits, CpuidBits)
        for number in bit_numbers(bits.mask)
    }


@pytest.mark.parametrize("accel", ACCELS)
def test_runnable_is_what_starts_with_enforce(qemu: Path, accel: Accel, kvm: Path) -> None:
    with QemuSource(qemu, accel, timeout=PATIENCE) as source:
        machine = find_machine(source, "q35").name
        unlike = []
        for name in _models(source, machine):
            found = check(_request(name, accel), Platform(source, CPU_MAP, machine))
            starts = _starts(source, machine, f"{name},enforce")
            if found.runnable != starts or found.enforce_fails == starts:
                unlike.append(
                    f"{name}: check says {found.runnable}, QEMU with enforce starts: {starts}"
                )
            elif not found.refused and (filtered := _filtered(source, machine, name)) != _bits(
                found
            ):
                unlike.append(
                    f"{name}: missing {_bits(found) - filtered}, only filtered "
                    f"{filtered - _bits(found)}"
                )
        assert not unlike, "\n".join(unlike)


@pytest.mark.parametrize("accel", ACCELS)
def test_features_asked_for_count_too(qemu: Path, accel: Accel, kvm: Path) -> None:
    """Features that no accelerator gives, that depend on others, and that are there."""
    cases = {"3dnow": False, "clflush": True, "vmx-ept": False, "npt": False}
    with QemuSource(qemu, accel, timeout=PATIENCE) as source:
        machine = find_machine(source, None).name
        for name, expected in cases.items():
            policy = FeaturePolicy(FeatureName(name), "require")
            found = check(_request("pentium3", accel, policy), Platform(source, CPU_MAP, machine))
            starts = _starts(
                source, machine, f"pentium3,{CPU_MAP.property_of(policy.name)}=on,enforce"
            )
            assert found.enforce_fails == (not starts), f"{name}: {found}"
            assert found.runnable == starts, f"{name}: {found}"
            assert starts == expected or accel == "tcg", name
            assert found.runnable or found.missing[0].feature == name


@pytest.mark.parametrize("model", ["Skylake-Server-v1", "Cooperlake-v1"])
def test_who_lacks_it(qemu: Path, kvm: Path, model: str) -> None:
    """Under KVM each lack is put down to somebody, and to nobody who has it; also where QEMU
    dies of the CPU.
    """
    here = this_machine(CPU_MAP)
    assert here.kernel is not None
    assert "apic" in here.kernel
    with QemuSource(qemu, "kvm", timeout=PATIENCE) as source:
        found = check(_request(model, "kvm"), Platform(source, CPU_MAP, "q35"), here=here)
    assert found.missing
    for lack in found.missing:
        assert lack.words or found.refused, lack
        assert str(lack.origin) == f"model {model}"
        if lack.who == "host CPU":
            assert here.cpu is not None
            assert lack.feature not in here.cpu | here.kernel
        elif lack.who == "kernel (KVM)":
            assert lack.feature not in here.kernel
        else:
            assert lack.who in ("QEMU", "host CPU or kernel (KVM)") or not lack.property, lack


def test_an_option_lacks_it(qemus: dict[str, Path], kvm: Path) -> None:
    """kvm-msi-ext-dest-id is there with kernel-irqchip=split only: neither CPU nor kernel nor
    QEMU is to blame.
    """
    policy = FeaturePolicy(FeatureName("kvm-msi-ext-dest-id"), "require")
    for release in RELEASES[1:]:
        with QemuSource(qemus[release], "kvm", timeout=PATIENCE) as source:
            found = check(
                _request("pentium3", "kvm", policy),
                Platform(source, CPU_MAP),
                here=this_machine(CPU_MAP),
            )
        assert [lack.who for lack in found.missing] == [
            "option (kernel-irqchip=split would give it)"
        ], release


def test_a_qemu_that_runs(
    qemu: Path, kvm: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Through its QMP socket: what it could enable, and whether it runs its own CPU; no other
    can be tried there.
    """
    socket, cpu = tmp_path / "qmp", tmp_path / "cpu.xml"
    arguments = [
        "-machine",
        "q35,accel=kvm",
        "-cpu",
        "pentium3",
        "-qmp",
        f"unix:{socket},server=on,wait=off",
    ]
    with Session.start(qemu, arguments, timeout=PATIENCE):
        assert main(["host", "--qmp", str(socket)]) == 0
        assert "x2apic" in capsys.readouterr().out.split()
        cpu.write_text("<cpu><model>pentium3</model></cpu>")
        assert main(["check", str(cpu), "--qmp", str(socket)]) == 0
        assert capsys.readouterr().out.startswith("runnable: pentium3")


ASKED = [
    "<cpu><model>Haswell</model></cpu>",
    "<cpu><model>EPYC</model><feature policy='disable' name='avx2'/></cpu>",
    "<cpu><model>qemu64</model><feature policy='require' name='avx512f'/>"
    "<feature policy='optional' name='3dnow'/></cpu>",
    "<cpu><model>pentium2</model><feature policy='require' name='x2apic'/></cpu>",
]


@pytest.mark.parametrize(
    ("release", "accel", "kind"),
    [
        *((release, "kvm", AttachedSource) for release in RELEASES),
        (RELEASES[-1], "tcg", AttachedSource),
        (RELEASES[1], "kvm", GuestSource),
    ],
)
def test_a_qemu_that_runs_says_what_it_cannot_give(
    qemus: dict[str, Path],
    release: str,
    accel: Accel,
    kind: type[AttachedSource],
    kvm: Path,
    tmp_path: Path,
) -> None:
    """Of CPUs that it does not make: the same as the QEMU says that makes them; and what was not
    tried is said.
    """
    qemu, socket = qemus[release], tmp_path / "qmp"
    arguments = [
        "-machine",
        f"q35,accel={accel}",
        "-cpu",
        "pentium3",
        "-qmp",
        f"unix:{socket},server=on,wait=off",
    ]
    with (
        Session.start(qemu, arguments, timeout=PATIENCE),
        closing(kind(Session.attach(str(socket)))) as there,
        QemuSource(qemu, accel, timeout=PATIENCE) as source,
    ):
        for text in ASKED if SAMPLE is None else random.Random(release).sample(ASKED, SAMPLE):
            request = replace(parse_request(text), accel=accel)
            told, made = (
                check(request, Platform(one, CPU_MAP, there.machine)) for one in (there, source)
            )
            named = [lack.property for lack in made.missing if lack.property]
            assert [lack.property for lack in told.missing] == named, text
            assert (told.runnable, told.optional) == (made.runnable, made.optional)
            assert "not tried: enforce itself" in told.unproven and not made.unproven
        own = check(_request("pentium3", accel), Platform(there, CPU_MAP, there.machine))
        assert own.runnable and not own.unproven
        with pytest.raises(UnknownNameError, match="runs machine type"):
            check(request, Platform(there, CPU_MAP, "isapc"))


def test_bits_without_a_name(qemus: dict[str, Path], kvm: Path) -> None:
    """QEMU up to 7.2 warns of the XSAVE components of what KVM lacks, which no feature is called
    by.
    """
    for release in ("5.2", "7.2"):
        with QemuSource(qemus[release], "kvm", timeout=PATIENCE) as source:
            found = check(_request("Skylake-Server", "kvm"), Platform(source, CPU_MAP, "q35"))
            machine = found.context.machine
            words = warnings_of(source, machine, "Skylake-Server")
        unnamed = [lack for lack in found.missing if not lack.property]
        assert {
            f"CPUID.0DH:EAX [bit {n}]"
            for lack in unnamed
            for b in lack.bits
            for n in bit_numbers(b.mask)
        } == {line for line in words if re.search(r":E[A-D]X \[bit", line)}
        assert all(lack.who == "host CPU, kernel (KVM) or QEMU" for lack in unnamed)
        assert found.enforce_fails


def warnings_of(source: QemuSource, machine: str, cpu: str) -> set[str]:
    """The bits that QEMU warns of, in its words."""
    arguments = ["-machine", f"{machine},accel={source.accel}", "-cpu", f"{cpu},check"]
    with Session.start(source.binary, arguments, timeout=PATIENCE) as session:
        return {
            line.rpartition(": ")[2] for line in session.warnings() if "requested feature" in line
        }


@pytest.mark.parametrize("accel", ACCELS)
def test_everything_that_is_available_starts_with_enforce(
    qemu: Path, accel: Accel, kvm: Path
) -> None:
    """All of it at once on `base`, and the best model with what it adds; nothing more could be
    added.
    """
    with QemuSource(qemu, accel, timeout=PATIENCE) as source:
        machine = find_machine(source, "q35").name
        found = available(Platform(source, CPU_MAP, machine), this_machine(CPU_MAP), options=False)
        everything = ",".join(["base", *(f"+{name}" for name in sorted(found.features))])
        assert _starts(source, machine, f"{everything},enforce")
        best = ",".join([found.best.name, *(f"+{name}" for name in found.best.props)])
        assert _starts(source, machine, f"{best},enforce")
        static = source.expand(machine, CpuModel("base"), "static").props
        more = sorted(
            n for n, v in static.items() if isinstance(v, bool) and n not in found.features
        )
        dice = random.Random(source.version)
        # Left out without a word, even with enforce; lmce only in a family below 6, which that of
        # `base` is.
        silent = ("kvm", "pdcm", "full-width-write", "lmce")
        for name in dice.sample([name for name in more if not name.startswith(silent)], 4):
            assert not _starts(source, machine, f"{everything},+{name},enforce"), (
                f"{name} can be had after all"
            )


def test_host_is_all_or_says_why_not(qemu: Path, kvm: Path) -> None:
    """QEMU's promise is that `host` starts with enforce; where it does not, that is reported."""
    with QemuSource(qemu, "kvm", timeout=PATIENCE) as source:
        machine = find_machine(source, "q35").name
        found = available(Platform(source, CPU_MAP, machine), UNKNOWN_MACHINE)
        kept = all(
            _starts(source, machine, f"host,migratable={value},enforce") for value in ("on", "off")
        )
    assert kept != any("-cpu host" in breach for breach in found.breaches), found.breaches
    effects = {effect.option: effect for effect in found.options}
    assert {
        "kernel-irqchip=off",
        "kernel-irqchip=split",
        "pmu=off",
        "host-phys-bits=on",
    } <= effects.keys()
    assert effects["kernel-irqchip=off"].refused or "x2apic" in effects["kernel-irqchip=off"].lost
    assert "invtsc" not in found.features or "invtsc" in found.blocking


def test_a_saved_host_is_as_good_as_being_there(
    qemus: dict[str, Path], kvm: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`check --host` of this machine, written down, agrees with `check` of its QEMU."""
    with QemuSource(qemus["7.2"], "kvm", timeout=PATIENCE) as source:
        found = available(Platform(source, CPU_MAP, "q35"), this_machine(CPU_MAP), options=False)
        text = json_text("host", available_json(found, CPU_MAP))
        host = read_described(text.encode(), CPU_MAP, name="host.json")
        assert host.properties == listed(found, "all")
        for name in ("486", "pentium3", "qemu64", "EPYC", "Haswell-noTSX"):
            live = check(
                _request(name, "kvm"), Platform(source, CPU_MAP, "q35"), here=this_machine(CPU_MAP)
            )
            there = check(_request(name, "kvm"), Platform(source, CPU_MAP, "q35"), host=host)
            named = {lack.property: lack.who for lack in live.missing if lack.property}
            assert {lack.property: lack.who for lack in there.missing} == {
                prop: f"{who} (host.json)" for prop, who in named.items()
            }, name
    saved = tmp_path / "host.json"
    saved.write_text(text)
    domain = tmp_path / "cpu.xml"
    domain.write_text("<cpu mode='host-model'/>")
    assert main(["check", str(domain), "--recorded", "7.2", "--host", str(saved)]) == 0
    assert capsys.readouterr().out.startswith("runnable: ")
    domain.write_text("<cpu><model>EPYC</model></cpu>")
    assert (
        main(["check", str(domain), "--recorded", "7.2", "--host", str(saved), "--format", "json"])
        == 1
    )
    answer = json.loads(capsys.readouterr().out)
    assert answer["schema"] == "cpumap.check/1"
    assert answer["enforce-fails"] is True
    avx2 = next(lack for lack in answer["missing"] if lack["feature"] == "avx2")
    assert avx2["bits"] == [{"leaf": 7, "subleaf": 0, "register": "ebx", "bits": [5]}]


def test_what_is_translated_for_a_saved_host_starts_there(
    qemu: Path, kvm: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From a recording and the host's JSON alone: host-model, and a model that the host has not
    all of.
    """
    release = qemu.name.removeprefix("qemu-")
    saved, cpu = tmp_path / "host.json", tmp_path / "cpu.xml"
    assert (
        main(["host", "--qemu", str(qemu), "--machine", "q35", "--no-cache", "--format", "json"])
        == 0
    )
    saved.write_text(capsys.readouterr().out)
    machine = json.loads(saved.read_text())["context"]["machine"]
    for text in ("<cpu mode='host-model'/>", "<cpu><model>Westmere</model></cpu>"):
        cpu.write_text(text)
        source = ["--recorded", release, "--machine", machine]
        assert main(["translate", str(cpu), *source, "--host", str(saved), "--accel", "kvm"]) == 0
        arguments = shlex.split(capsys.readouterr().out)
        assert arguments[1].endswith(",enforce")
        Session.start(
            qemu, ["-machine", f"{machine},accel=kvm", *arguments], timeout=PATIENCE
        ).close()
