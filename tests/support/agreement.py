"""The same questions put to libvirt's own code and to `rules`, and their answers side by side."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from lxml import etree

from cpumap.arch.x86.cpuid import CpuidData
from cpumap.cpu.host import HostCpu
from cpumap.cpu.names import FeatureName
from cpumap.errors import CpumapError
from cpumap.hosts.read import read_cpus, read_host
from cpumap.libvirt.cpu_element import cpu_element
from cpumap.libvirt.cpu_map.load import load_cpu_map
from cpumap.libvirt.domain import parse_request
from cpumap.libvirt.rules.baseline import baseline
from cpumap.libvirt.rules.compare import compare, features_of_cpu
from cpumap.libvirt.rules.decode import decode
from cpumap.libvirt.rules.update import update
from cpumap.libvirt.rules.usable import on_hypervisor
from cpumap.libvirt.words import NEVER_PASSED
from tests.support.libvirt_code import LibvirtCode, RefusedError
from tests.support.random_cpus import RandomCpus

VERDICTS = {0: "incompatible", 1: "identical", 2: "superset"}

FIRST_VENDOR = (
    "libvirt overlooks the vendor of the first CPU's model when that CPU names none, and may mix "
    "vendors"
)
MODEL_BLOCKS = (
    "libvirt leaves invtsc on in a migratable CPU when the model has it: here it is disabled"
)
KNOWN_CAUSES = ("", FIRST_VENDOR, MODEL_BLOCKS)
"""Why an answer may differ; what is no agreement is an improvement."""


@dataclass(frozen=True)
class Outcome:
    """One question, and both answers to it."""

    asked: object
    ours: object
    theirs: object
    cause: str = ""
    """Why they differ, where that is meant."""

    @property
    def same(self) -> bool:
        """Whether both say the same; of refusals the words do not count."""
        return self.ours == self.theirs


def agreement(code: LibvirtCode, kind: str, seed: random.Random, count: int) -> Iterator[Outcome]:
    """So many questions of this kind, one of `QUESTIONS`, always the same for a seed."""
    cpus = RandomCpus(load_cpu_map(code.cpu_map), seed)
    for _ in range(count):
        yield QUESTIONS[kind](code, cpus)


def _comparison(code: LibvirtCode, cpus: RandomCpus) -> Outcome:
    host_xml = cpus.host()
    host = read_host(host_xml, cpus.cpu_map)
    near = cpus.seed.random() < 0.5
    model = host.model if near else None
    pool = sorted(features_of_cpu(host, cpus.cpu_map)) if near else ()
    guest = cpus.seed.random() < 0.8
    asked = cpus.guest(pool, model) if guest else cpus.host(model)
    (cpu,) = read_cpus(asked, cpus.cpu_map)
    ours = compare(host, cpu, cpus.cpu_map)
    theirs = VERDICTS[code.compare(host_xml, asked)]
    reason = ""
    if theirs == "incompatible":
        reason = _refusal(lambda: code.compare(host_xml, asked, fail=True))
    same_reason = reason.endswith(ours.reason)
    return Outcome(
        (host_xml, asked),
        (ours.verdict, ours.reason),
        (theirs, ours.reason if same_reason else reason),
    )


def _refusal(ask: Callable[[], object]) -> str:
    try:
        ask()
    except RefusedError as refusal:
        return str(refusal)
    return ""


def _baseline(code: LibvirtCode, cpus: RandomCpus) -> Outcome:
    hosts = cpus.hosts()
    expand, migratable = (cpus.seed.random() < 0.5 for _ in range(2))
    read = [read_host(host, cpus.cpu_map) for host in hosts]
    ours = _answer(
        lambda: _essence(
            cpu_element(baseline(read, cpus.cpu_map, features=expand, migratable=migratable))
        )
    )
    theirs = _answer(lambda: _as_given(_essence(code.baseline(hosts, expand, migratable))))
    cause = "" if ours == theirs else _baseline_cause(read, ours, migratable, cpus)
    return Outcome((hosts, expand, migratable), ours, theirs, cause)


def _baseline_cause(
    hosts: Sequence[HostCpu], ours: object, migratable: bool, cpus: RandomCpus
) -> str:
    vendors = [cpu.vendor or cpus.cpu_map.models[str(cpu.model)].vendor for cpu in hosts]
    if hosts[0].vendor is None and vendors[0] and vendors[0] not in vendors[1:]:
        return FIRST_VENDOR
    return MODEL_BLOCKS if migratable and "disable invtsc" in str(ours) else "not known"


def _decoding(side: str) -> Callable[[LibvirtCode, RandomCpus], Outcome]:
    def ask(code: LibvirtCode, cpus: RandomCpus) -> Outcome:
        data = cpus.data()
        xml = cpudata_xml(data)
        guest = side == "guest"
        ours = _answer(
            lambda: _essence(cpu_element(decode(data, cpus.cpu_map, "guest" if guest else "host")))
        )
        return Outcome(xml, ours, _answer(lambda: _essence(code.decode(xml, guest))))

    return ask


def _decoding_usable(code: LibvirtCode, cpus: RandomCpus) -> Outcome:
    data, models = cpus.data(), cpus.usable()
    xml = cpudata_xml(data)
    blockers = {name: list(map(FeatureName, blocked or ())) for name, blocked in models.items()}
    ours = _answer(lambda: _essence(cpu_element(decode(data, cpus.cpu_map, "guest", blockers))))
    return Outcome((xml, models), ours, _answer(lambda: _essence(code.decode(xml, True, models))))


def _updating(code: LibvirtCode, cpus: RandomCpus) -> Outcome:
    host, asked = cpus.host_model(), cpus.relative()
    read = read_host(host, cpus.cpu_map)
    ours = _answer(lambda: _essence(cpu_element(update(read, parse_request(asked), cpus.cpu_map))))
    return Outcome((host, asked), ours, _answer(lambda: _essence(code.update(host, asked))))


def _falling_back(code: LibvirtCode, cpus: RandomCpus) -> Outcome:
    host, asked, models = cpus.host_model(), cpus.relative(), cpus.usable()
    read = read_host(host, cpus.cpu_map)
    usable = {name: list(map(FeatureName, blocked or ())) for name, blocked in models.items()}
    ours = _answer(
        lambda: _essence(
            cpu_element(
                on_hypervisor(
                    update(read, parse_request(asked), cpus.cpu_map), cpus.cpu_map, usable
                )
            )
        )
    )
    theirs = _answer(lambda: _essence(code.update(host, asked, models)))
    return Outcome((host, asked, models), ours, theirs)


QUESTIONS: dict[str, Callable[[LibvirtCode, RandomCpus], Outcome]] = {
    "compare": _comparison,
    "baseline": _baseline,
    "decode --as host": _decoding("host"),
    "decode --as guest": _decoding("guest"),
    "decode with usable models": _decoding_usable,
    "update": _updating,
    "update with usable models": _falling_back,
}


def cpudata_xml(data: CpuidData) -> str:
    """The data as `<cpudata>`."""
    lines = ["<cpudata arch='x86'>"]
    for (leaf, subleaf), (eax, ebx, ecx, edx) in data.cpuid.items():
        lines.append(
            f"<cpuid eax_in='{leaf:#x}' ecx_in='{subleaf:#x}' "
            f"eax='{eax:#x}' ebx='{ebx:#x}' ecx='{ecx:#x}' edx='{edx:#x}'/>"
        )
    for index, value in data.msrs.items():
        lines.append(
            f"<msr index='{index:#x}' edx='{value >> 32:#x}' eax='{value & 0xFFFFFFFF:#x}'/>"
        )
    return "\n".join([*lines, "</cpudata>"])


def _answer(ask: Callable[[], tuple[object, ...]]) -> tuple[object, ...]:
    try:
        return ask()
    except (RefusedError, CpumapError):
        return ("refused",)


def _essence(xml: str) -> tuple[object, ...]:
    """What a `<cpu>` says: model, fallback, vendor, and the features in their order."""
    cpu = etree.fromstring(xml)
    model = cpu.find("model")
    features = [f"{f.get('policy', 'require')} {f.get('name')}" for f in cpu.iterfind("feature")]
    fallback = None if model is None else model.get("fallback")
    return cpu.findtext("model"), fallback, cpu.findtext("vendor"), features


def _as_given(essence: tuple[object, ...]) -> tuple[object, ...]:
    """Without what the QEMU driver leaves out: the code asked here is below it."""
    *rest, features = essence
    assert isinstance(features, list)
    dropped = {f"require {name}" for name in NEVER_PASSED}
    return (*rest, [feature for feature in features if feature not in dropped])
