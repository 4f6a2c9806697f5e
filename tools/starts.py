"""Starts documents that cpumap wrote, under libvirts of several releases with the QEMU of their
suite, and compares the guests' CPUs with what was pinned.

PYTHONPATH=. tools/starts.py [--models N] [--plan N]

It wants root, and what tools/fetch-qemus and tools/fetch-libvirts fetch.

Every model that QEMU 7.2 starts is pinned in four topologies (a) on QEMU 7.2, (b) on 7.2 for 10.0
and 11.1, (c) on each QEMU for itself. A document that does not start, and of which `plan` did not
say so beforehand, is a defect, and so is a guest with another CPU. With --plan N, so many generated
guests are started on 10.0, as they are, beside what `plan` says of them.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from typing import NamedTuple

import libvirt
from generate_domains import domain

from cpumap.cpu.explicit import ExplicitCpu
from cpumap.errors import CpumapError
from cpumap.libvirt.cpu_map.load import load_cpu_map
from cpumap.libvirt.domain import parse_request
from cpumap.libvirt.releases import words_of
from cpumap.libvirt.words import libvirt_map, meant_for
from cpumap.move.hold import hold
from cpumap.pin.expand import expand
from cpumap.pin.resolve import Choices, resolve
from cpumap.pin.translate import write
from cpumap.pin.write import lasting
from cpumap.runnable.starting import stopped_by
from cpumap.sources.libvirt import Hypervisor
from cpumap.sources.platform import Platform
from cpumap.sources.recorded import RecordedSource
from cpumap.sources.recordings import find_recording
from tests.support import libvirt_releases
from tests.support.libvirt_releases import EMULATOR, ReleasedDaemon

QEMU_OF = {"9.0": "7.2", "11.3": "10.0", "12.8": "11.1"}
LIBVIRT_OF = {qemu: release for release, qemu in QEMU_OF.items()}
TOPOLOGIES = {
    "1": (1, ""),
    "4 cores": (4, "<topology sockets='1' dies='1' cores='4' threads='1'/>"),
    "2 cores, 2 threads": (4, "<topology sockets='1' dies='1' cores='2' threads='2'/>"),
    "2 dies": (4, "<topology sockets='1' dies='2' cores='2' threads='1'/>"),
}
DOMAIN = f"""<domain type='qemu'>
  <name>guest</name>
  <memory unit='MiB'>16</memory>
  <vcpu>{{vcpus}}</vcpu>
  <os><type arch='x86_64' machine='pc-i440fx-7.2'>hvm</type></os>
  <cpu mode='custom' match='exact' check='none'>
    <model fallback='forbid'>{{model}}</model>{{topology}}
  </cpu>
  <devices><emulator>{EMULATOR}</emulator></devices>
</domain>"""
UNHEEDED = frozenset({"ht", "cmp-legacy", "cmp_legacy", "min-level"})
"""What QEMU sets for several threads or dies, whatever it is told; no guest reads min-level."""


class Case(NamedTuple):
    """A document, and the QEMUs on which it is to start."""

    name: str
    written_for: tuple[str, ...]
    cpu: ExplicitCpu
    document: str


def cases(models: list[str]) -> Iterator[Case]:
    """Every document that is to start somewhere."""
    sources = {qemu: RecordedSource(find_recording(qemu, "tcg")) for qemu in LIBVIRT_OF}
    cpu_map = load_cpu_map()
    for model in models:
        for topology, (vcpus, element) in TOPOLOGIES.items():
            text = DOMAIN.format(model=model, vcpus=vcpus, topology=element)
            for unavailable in ("keep", "off"):
                choices = Choices(unavailable="keep" if unavailable == "keep" else "off")
                for qemu, source in sources.items():
                    yield from _of_one(
                        f"{model}, {topology}, {unavailable}", text, qemu,
                        Platform(source, cpu_map), sources, choices,
                    )  # fmt: skip


def _of_one(
    name: str,
    text: str,
    qemu: str,
    platform: Platform,
    sources: dict[str, RecordedSource],
    choices: Choices,
) -> Iterator[Case]:
    request = parse_request(text)
    words = libvirt_map(libvirt=LIBVIRT_OF[qemu])
    try:
        expansion = expand(request, platform)
        cpu = resolve(request, expansion, choices)
    except CpumapError as err:
        print(f"{name} on {qemu}: refused: {err}", file=sys.stderr)
        return
    own = write(cpu, text, format="xml", cpu_map=words).decode()
    # What was pinned on Debian 12 is to start after its upgrades too.
    everywhere = tuple(QEMU_OF.values()) if qemu == "7.2" else (qemu,)
    yield Case(f"{name}, on {qemu}", everywhere, cpu, own)
    for target in ("10.0", "11.1") if qemu == "7.2" else ():
        place = Platform(sources[target], platform.cpu_map)
        moved, _ = hold(cpu, expansion, platform.source, place)
        there = write(moved, text, format="xml", cpu_map=words).decode()
        yield Case(f"{name}, on 7.2 for {target}", (target,), moved, there)


def started(daemon: ReleasedDaemon, case: Case) -> str:
    """`same`; else why it did not start, or in what the guest's CPU differs from the pinned one."""
    connection = daemon.open()
    try:
        guest = connection.createXML(case.document, libvirt.VIR_DOMAIN_START_PAUSED)
    except libvirt.libvirtError as err:
        return f"does not start: {err}"
    finally:
        connection.close()
    try:
        with Hypervisor(daemon.uri, write=True) as hypervisor:
            realised = hypervisor.guest("guest").running().properties
    finally:
        guest.destroy()
    wrong = [
        f"{name}: {value} is {realised[name]}"
        for name, value in lasting(case.cpu).values.items()
        if name in realised and realised[name] != value and name not in UNHEEDED
    ]
    return f"differs: {', '.join(wrong[:4])}" if wrong else "same"


def foreseen(document: str, qemu: str) -> str:
    """Why it will not start on this QEMU, as `plan` says it."""
    request = parse_request(document)
    cpu_map = meant_for(load_cpu_map(), words_of(LIBVIRT_OF[qemu]))
    there = Platform(RecordedSource(find_recording(qemu, "tcg")), cpu_map)
    try:
        return stopped_by(request, expand(request, there), there)
    except CpumapError as err:
        return str(err)


def models_of(count: int | None) -> list[str]:
    """The models that libvirt 9.0 and QEMU 7.2 both know; with a count, evenly so many of them."""
    source = RecordedSource(find_recording("7.2", "tcg"))
    known = words_of("9.0").models
    found = sorted(d.name for d in source.definitions("pc-i440fx-7.2") if d.name in known)
    return found if count is None else found[:: max(1, len(found) // count)][:count]


def pinned(daemons: dict[str, ReleasedDaemon], count: int | None) -> int:
    """Starts every document where it is to start; how many defects there are."""
    counts = Counter[str]()
    for case in cases(models_of(count)):
        for qemu in case.written_for:
            said, became = foreseen(case.document, qemu), started(daemons[qemu], case)
            verdict = became.partition(":")[0]
            if became != "same" and case.cpu.enforce:
                verdict = "FORESEEN" if said else "DEFECT"
                print(f"{verdict}: {case.name}, started on {qemu}: {became}", file=sys.stderr)
            elif became != "same":
                verdict = f"without enforce, {verdict}"
            elif said:
                verdict = "WRONGLY FORESEEN"
                print(f"{verdict}: {case.name} on {qemu}: {said}", file=sys.stderr)
            counts[verdict] += 1
    for verdict, number in sorted(counts.items()):
        print(f"{number:6} {verdict}")
    return counts["DEFECT"] + counts["WRONGLY FORESEEN"]


def plain(daemon: ReleasedDaemon, count: int) -> int:
    """Starts generated guests, unpinned, beside what is foreseen; how often that was wrong."""
    counts = Counter[tuple[str, str]]()
    for number in range(count):
        text = _bare(domain(number)[1].decode())
        said = foreseen(text, "10.0")
        connection = daemon.open()
        try:
            connection.createXML(text, libvirt.VIR_DOMAIN_START_PAUSED).destroy()
            became = ""
        except libvirt.libvirtError as err:
            became = str(err)
        connection.close()
        counts["stops" if said else "starts", "stopped" if became else "started"] += 1
        if bool(said) != bool(became):
            print(f"WRONG: generated {number}: said {said!r}, became {became!r}", file=sys.stderr)
    for (said, became), guests in sorted(counts.items()):
        print(f"{guests:6} said: {said}, {became}")
    return sum(guests for (said, became), guests in counts.items() if said[:4] != became[:4])


def _bare(text: str) -> str:
    """The guest with its CPU, and without devices that this machine has not."""
    text = re.sub(r"<domain type='kvm'>", "<domain type='qemu'>", text)
    text = re.sub(r"<memory unit='KiB'>\d+</memory>", "<memory unit='MiB'>16</memory>", text)
    text = re.sub(r"\s*<currentMemory.*?</currentMemory>", "", text)
    text = re.sub(r"\s*<cputune>.*?</cputune>", "", text, flags=re.S)
    devices = f"<devices><emulator>{EMULATOR}</emulator></devices>"
    return re.sub(r"<devices>.*</devices>", devices, text, flags=re.S)


def main() -> int:
    """0 where nothing fails that was not foreseen."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--models", type=int, help="so many models (default: all)")
    parser.add_argument("--plan", type=int, help="start so many generated guests instead")
    arguments = parser.parse_args()
    with ExitStack() as stack:
        releases = ["11.3"] if arguments.plan else list(QEMU_OF)
        daemons = {
            QEMU_OF[release]: stack.enter_context(libvirt_releases.running(release))
            for release in releases
        }
        if arguments.plan:
            wrong = plain(daemons["10.0"], arguments.plan)
        else:
            wrong = pinned(daemons, arguments.models)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
