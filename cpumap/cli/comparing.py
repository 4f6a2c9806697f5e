"""`compare`, `baseline`, `update`, `decode`: one CPU beside another."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cpumap.arch.known import arch_of, is_known
from cpumap.arch.x86.cpuid import CpuidData
from cpumap.arch.x86.cpuid_formats import read_cpuid
from cpumap.arch.x86.own_cpu import own_data
from cpumap.cli.columns import columns
from cpumap.cli.reading import read_file
from cpumap.cli.sourcing import (
    add_cpu_map_option,
    add_source_options,
    open_cpu_map,
    source_for,
    start_qemu,
)
from cpumap.cpu.frozen import NONE_YET
from cpumap.cpu.host import UNKNOWN_MACHINE, Cpu, HostCpu
from cpumap.cpu.request import CpuRequest
from cpumap.errors import DomainError, InputError
from cpumap.hosts.described import DescribedHost, read_described, request_on
from cpumap.hosts.read import read_cpus, read_host
from cpumap.libvirt.cpu_element import cpu_element
from cpumap.libvirt.cpu_map.map import CpuMap
from cpumap.libvirt.domain import cpu_children, looks_like_xml
from cpumap.libvirt.rules.baseline import Common
from cpumap.libvirt.rules.compare import compare
from cpumap.libvirt.rules.decode import Usable, decode
from cpumap.libvirt.rules.update import without_lost
from cpumap.libvirt.rules.usable import on_hypervisor, usable_on, usable_on_all
from cpumap.pin.consumers import CONSUMERS
from cpumap.runnable.compare_static import ComparedModels, baseline_static, compare_static
from cpumap.sources.live import QemuSource
from cpumap.sources.machines import find_machine
from cpumap.sources.platform import Platform
from cpumap.system.json_text import json_text
from cpumap.system.say import put, say
from cpumap.system.xml_document import Document

OWN = "host"
"""Instead of a file: the host that the source runs on."""


def add_compare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "host",
        metavar="HOST",
        help="capabilities, domcapabilities, <cpu>, CPUID data as for `decode`, or `cpumap host "
        "--format json`; "
        "with a source, the word `host`: what its QEMU can enable here",
    )
    parser.add_argument(
        "cpu", metavar="CPU", help="domain XML, <cpu> element or -cpu string; - is standard input"
    )
    parser.add_argument(
        "--error", action="store_true", help="say on stderr why they are incompatible"
    )
    parser.add_argument(
        "--format", choices=("text", "json"), default="text", help="(default: text)"
    )
    add_source_options(
        parser,
        machine="machine type, or `all` for a table of them; with a source only (default: the "
        "input's own)",
    )


def run_compare(arguments: argparse.Namespace) -> int:
    cpu_map = open_cpu_map(arguments)
    if _is_static(arguments.cpu, arguments, cpu_map):
        return _compare_static(arguments, cpu_map)
    if _names_source(arguments):
        return _compare_on_source(arguments, cpu_map)
    if arguments.machine:
        raise InputError(
            "--machine says which CPU a model is in some QEMU: name one (--recorded, --qemu, …)"
        )
    host = read_described(read_file(arguments.host), cpu_map, name=arguments.host).cpu
    found = compare(host, _one_cpu(arguments.cpu, cpu_map), cpu_map)
    if arguments.error and found.reason:
        say(found.reason)
    _write(arguments, "compare", found.to_json(), f"{found.verdict}\n")
    return 1 if found.verdict == "incompatible" else 0


def _is_static(file: str, arguments: argparse.Namespace, cpu_map: CpuMap) -> bool:
    """Whether the file's CPU is of an architecture whose CPUs QEMU compares itself."""
    known = arguments.arch
    if known is None and file != "-":
        known = read_cpus(read_file(file), cpu_map, name=file)[0].arch
    return known is not None and is_known(known) and arch_of(known).explicit == "static"


def _compare_static(arguments: argparse.Namespace, cpu_map: CpuMap) -> int:
    """libvirt calls any two CPUs identical; a QEMU compares them."""
    cpu = _one_cpu(arguments.cpu, cpu_map)
    if not _names_source(arguments):
        say("libvirt calls any two CPUs of this architecture identical; --qemu has QEMU compare")
        found = ComparedModels("identical")
    else:
        host = _one_cpu(arguments.host, cpu_map)
        with _comparing_qemu(arguments, cpu) as source:
            machine = find_machine(source, arguments.machine).name
            found = compare_static(source, machine, host, cpu)
    if arguments.error and found.reason:
        say(found.reason)
    _write(arguments, "compare", found.to_json(), f"{found.verdict}\n")
    return 1 if found.verdict == "incompatible" else 0


def _comparing_qemu(arguments: argparse.Namespace, cpu: Cpu) -> QemuSource:
    """The QEMU to be asked. Errors: `InputError` where none is named."""
    if not arguments.qemu:
        raise InputError("CPUs of this architecture are compared by QEMU itself: name one (--qemu)")
    request = CpuRequest(arch=cpu.arch or arguments.arch, accel="tcg")
    return start_qemu(arguments, request)


def _names_source(arguments: argparse.Namespace) -> bool:
    return any((arguments.qemu, arguments.qmp, arguments.connect, arguments.recorded))


def _compare_on_source(arguments: argparse.Namespace, cpu_map: CpuMap) -> int:
    from cpumap.runnable.compare import compare_all, compare_on, worst

    request = _one_request(arguments.cpu, cpu_map)
    every = arguments.machine == "all"
    if every:
        arguments.machine = None
    with source_for(arguments, request) as source:
        host = _host_for(arguments, source, cpu_map)
        if every:
            found = compare_all(Platform(source, cpu_map), host, request)
        else:
            found = (compare_on(Platform(source, cpu_map, arguments.machine), host, request),)
    verdict = worst(compared.verdict for compared in found)
    if arguments.error and not every and found[0].reason:
        say(f"{found[0].reason}")
    table = columns([one.machine, one.verdict, one.reason] for one in found) if every else ""
    answer = {"verdict": verdict, "machines": [one.to_json() for one in found]}
    _write(arguments, "compare", answer if every else found[0].to_json(), f"{verdict}\n{table}")
    return 1 if verdict == "incompatible" else 0


def _host_for(arguments: argparse.Namespace, source: Any, cpu_map: CpuMap) -> DescribedHost:
    from cpumap.hosts.this_machine import this_machine
    from cpumap.runnable.compare import own_host

    if arguments.host == OWN and not Path(OWN).exists():
        here = this_machine(cpu_map) if source.starts_guests else UNKNOWN_MACHINE
        return own_host(Platform(source, cpu_map, arguments.machine), here)
    return read_described(read_file(arguments.host), cpu_map, name=arguments.host)


def _one_cpu(file: str, cpu_map: CpuMap) -> Cpu:
    cpus = read_cpus(read_file(file), cpu_map, name=file)
    if len(cpus) != 1:
        raise InputError(f"one CPU is needed, and this describes {len(cpus)}", file)
    return cpus[0]


def _one_request(file: str, cpu_map: CpuMap) -> CpuRequest:
    """The CPU as a guest's; a host's is one that has all its features."""
    cpu = _one_cpu(file, cpu_map)
    if isinstance(cpu, CpuRequest):
        return cpu
    return CpuRequest(
        arch=cpu.arch,
        mode="custom",
        model=cpu.model or arch_of(cpu.arch).bare_model,
        features=cpu.features,
        where=cpu.where,
    )


def _write(arguments: argparse.Namespace, schema: str, answer: dict[str, Any], text: str) -> None:
    put(json_text(schema, answer) if arguments.format == "json" else text)


def add_baseline(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "files",
        metavar="FILE",
        nargs="+",
        help="capabilities, domcapabilities, <cpu>, domain XML, <cpudata> or `cpumap host --format "
        "json`, "
        "also several in one file; - is standard input",
    )
    parser.add_argument("--features", action="store_true", help="name every feature of the model")
    parser.add_argument(
        "--migratable", action="store_true", help="leave out features that block migration"
    )
    _add_models(parser)
    parser.add_argument(
        "--explain",
        action="store_true",
        help="say on stderr what each host gives up, and which one costs the pool most",
    )
    parser.add_argument(
        "--format",
        choices=("xml", "json", *CONSUMERS),
        default="xml",
        help="kubevirt: spec.domain.cpu; nova: nova.conf; proxmox: cpu-models.conf; incus: of a "
        "cluster group; lxd: raw.qemu (default: xml)",
    )
    add_source_options(parser)


def _add_models(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--models", metavar="A,B", type=_names, help="use one of these models only")
    parser.add_argument(
        "--usable",
        metavar="FILE",
        help="domain capabilities or `cpumap host --format json`: use a model that can be run "
        "there, without what blocks it",
    )


def _names(text: str) -> tuple[str, ...]:
    return tuple(name for name in (part.strip() for part in text.split(",")) if name)


def run_baseline(arguments: argparse.Namespace) -> int:
    cpu_map = open_cpu_map(arguments)
    cpus = [
        cpu for name in arguments.files for cpu in read_cpus(read_file(name), cpu_map, name=name)
    ]
    if cpus and _is_static(arguments.files[0], arguments, cpu_map):
        with _comparing_qemu(arguments, cpus[0]) as source:
            machine = find_machine(source, arguments.machine).name
            _write_cpu(arguments.format, "baseline", baseline_static(source, machine, cpus))
        return 0
    models = _usable(arguments, cpu_map)
    if models is None:
        hosts = [cpu for cpu in cpus if isinstance(cpu, HostCpu)]
        models = usable_on_all(hosts, cpu_map)
    common = Common(cpus, cpu_map, arguments.features, arguments.migratable)
    if _names_source(arguments) or arguments.explain or arguments.format in CONSUMERS:
        _write_pool(arguments, common, models)
    else:
        _write_cpu(arguments.format, "baseline", common.cpu(models))
    return 0


def _write_pool(arguments: argparse.Namespace, common: Common, models: Usable | None) -> None:
    from cpumap.cli.pooling import pool_of, tell_pool
    from cpumap.pin.consumers import settings_for

    found = pool_of(arguments, common, models)
    tell_pool(found, arguments.explain)
    if arguments.format in CONSUMERS:
        put(settings_for(arguments.format, found.cpu, common.cpu_map))
    else:
        _write_cpu(arguments.format, "baseline", found.cpu, more=found.to_json())


def _usable(arguments: argparse.Namespace, cpu_map: CpuMap) -> Usable | None:
    """The models that may be used, of --usable and --models; None: neither is given."""
    usable = None
    if arguments.usable:
        host = read_host(read_file(arguments.usable), cpu_map, name=arguments.usable)
        usable = usable_on(host, cpu_map)
        if usable is None:
            raise InputError("this says of no model whether it can be run", arguments.usable)
    if arguments.models is None:
        return usable
    named = [cpu_map.model(name, "--models").name for name in arguments.models]
    if usable is None:
        return dict.fromkeys(named, ())
    return {name: usable[name] for name in named if name in usable}


_SAYING_NO_MODEL = ("topology", "numa", "cache", "maxphysaddr")
"""The children of `<cpu>` that do not say which CPU it is."""


def add_update(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("host", metavar="HOST", help="the host's CPU, as for `compare`")
    parser.add_argument(
        "cpu", metavar="CPU", help="domain XML, <cpu> element or -cpu string; - is standard input"
    )
    _add_models(parser)
    parser.add_argument("--format", choices=("xml", "json"), default="xml", help="(default: xml)")
    add_cpu_map_option(parser)


def run_update(arguments: argparse.Namespace) -> int:
    cpu_map = open_cpu_map(arguments)
    host = read_described(read_file(arguments.host), cpu_map, name=arguments.host)
    content = read_file(arguments.cpu)
    document = None
    if looks_like_xml(content):
        document = Document.parse(content, arguments.cpu, DomainError)
    (cpu,) = read_cpus(document or content, cpu_map, name=arguments.cpu)[:1]
    if isinstance(cpu, HostCpu):
        raise InputError("a host's CPU has nothing to be resolved", arguments.cpu)
    kept = cpu_children(document, _SAYING_NO_MODEL) if document else []
    updated = request_on(host, cpu, cpu_map)
    if updated.by_libvirt:
        updated = without_lost(updated, cpu_map)
    usable = _usable(arguments, cpu_map) or usable_on(host.cpu, cpu_map)
    if usable is not None:
        updated = on_hypervisor(updated, cpu_map, usable)
    _write_cpu(arguments.format, "update", updated, kept)
    return 0


def add_decode(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file",
        metavar="FILE",
        help="<cpudata>, the output of `cpuid -r`, what the probe guest wrote (see `expand --type "
        "guest`), "
        "or /dev/cpu/0/cpuid; - is standard input",
    )
    parser.add_argument(
        "--as",
        dest="side",
        choices=("host", "guest"),
        default="host",
        help="the view of capabilities, or a CPU to give a guest (default: host)",
    )
    _add_models(parser)
    parser.add_argument("--format", choices=("xml", "json"), default="xml", help="(default: xml)")
    add_cpu_map_option(parser)


def run_decode(arguments: argparse.Namespace) -> int:
    cpu_map = open_cpu_map(arguments)
    models = _usable(arguments, cpu_map)
    _write_cpu(
        arguments.format, "decode", decode(_cpuid(arguments.file), cpu_map, arguments.side, models)
    )
    return 0


def _cpuid(file: str) -> CpuidData:
    if file != "-" and Path(file).is_char_device():
        data, unread = own_data(Path(file))
        if unread:
            say(f"{unread}: features that MSRs hold are unknown, and left out")
        return data
    return read_cpuid(read_file(file), name=file)


def _write_cpu(
    wanted: str,
    schema: str,
    cpu: Cpu,
    kept: Sequence[str] = (),
    more: Mapping[str, Any] = NONE_YET,
) -> None:
    if wanted == "xml":
        put(cpu_element(cpu, kept))
        return
    features = {feature.name: feature.policy for feature in cpu.features}
    answer: dict[str, Any] = {
        "arch": cpu.arch,
        "model": cpu.model,
        "vendor": cpu.vendor,
        "features": features,
    }
    if isinstance(cpu, CpuRequest):
        answer = {"mode": cpu.mode, "match": cpu.match, "fallback": cpu.fallback, **answer}
    put(json_text(schema, {**answer, **more}))
