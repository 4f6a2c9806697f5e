"""A kernel's KVM that traps CPUID and has XSAVE, in an emulated machine: guests read what was
said beforehand.
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from cpumap.cpu.expansion import CpuModel
from cpumap.cpu.explicit import ExplicitCpu
from cpumap.cpu.names import PropertyName, Value
from cpumap.cpu.request import CpuRequest
from cpumap.libvirt.cpu_map.load import load_cpu_map
from cpumap.move.adapt import adapt
from cpumap.move.predict import Evidence, Prediction, predict
from cpumap.move.xsave import Components
from cpumap.pin.expand import default_request, expand
from cpumap.pin.resolve import resolve
from cpumap.proof.guest import GuestCpu, differences, parse_records
from cpumap.qemu.arguments import cpu_arguments
from cpumap.sources.platform import Platform
from cpumap.sources.recorded import RecordedSource
from cpumap.sources.recordings import find_recording
from tests.support.paths import TREE

pytestmark = pytest.mark.live

RELEASES = ("5.2", "7.2", "10.0", "11.1")
MACHINE = "pc-q35-5.2"
LOOK = """
import base64, json, sys
from cpumap.proof.guest import probe_records
for qemu, machine, arguments in json.loads(sys.argv[1]):
    records = probe_records(qemu, machine, arguments, accel="kvm", timeout=120)
    print(base64.b64encode(records).decode())
"""
LACKING: dict[PropertyName, Value] = {
    PropertyName(name): False
    for name in ("hle", "rtm", "invpcid", "pcid", "tsc-deadline", "x2apic")
}
"""What the emulated host lacks of Haswell."""

OF_HOST: Components = {2: (0x100, 0x240), 9: (8, 0xA80)}
"""AVX and PKU."""


@dataclass(frozen=True)
class Haswell:
    """The Haswell of QEMU 5.2, held in a release, and what is said of it there."""

    cpu: ExplicitCpu
    prediction: Prediction


def haswell(release: str) -> Haswell:
    cpu_map = load_cpu_map()
    source, target = (
        RecordedSource(find_recording(name, "kvm")) for name in (RELEASES[0], release)
    )
    request = default_request(CpuModel("Haswell", LACKING), MACHINE, CpuRequest(accel="kvm"))
    expansion = expand(request, Platform(source, cpu_map))
    cpu = resolve(request, expansion)
    moved = adapt(cpu, source, target)
    evidence = Evidence(OF_HOST)
    prediction = predict(cpu, expansion.realised, moved, cpu_map, evidence=evidence)
    return Haswell(moved.cpu, prediction)


@pytest.fixture(scope="module")
def guests(qemus: Mapping[str, Path]) -> Mapping[str, GuestCpu]:
    """What a guest with this CPU reads, by release."""
    cpus = {release: haswell(release).cpu for release in RELEASES}
    cases = [
        [str(qemus[release]), MACHINE, cpu_arguments(cpu.model, cpu.typename, cpu.values)]
        for release, cpu in cpus.items()
    ]
    command = [str(TREE / "tools/nested-kvm"), sys.executable, "-c", LOOK, json.dumps(cases)]
    done = subprocess.run(
        command, cwd=TREE, capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stdout + done.stderr
    records = [base64.b64decode(line) for line in done.stdout.splitlines()]
    return dict(zip(RELEASES, map(parse_records, records), strict=True))


@pytest.mark.parametrize("release", RELEASES[1:])
def test_a_guest_reads_what_was_said(guests: Mapping[str, GuestCpu], release: str) -> None:
    assert guests[release].cpuid[1, 0][2] & 1 << 26, "XSAVE"
    prediction = haswell(release).prediction
    seen = [
        (d.leaf, d.subleaf, d.register, d.xor)
        for d in differences(guests[RELEASES[0]], guests[release])
    ]
    assert prediction.unknown == () and len(seen) == len(prediction.differences) > 0
    assert all(any(said.covers(*place) for said in prediction.differences) for place in seen)
