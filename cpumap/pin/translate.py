"""From a stored document to the explicit CPU written down: the five calls of the front door, in
one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cpumap.cpu.expansion import Expansion
from cpumap.cpu.explicit import ExplicitCpu
from cpumap.cpu.frozen import Frozen
from cpumap.cpu.request import CpuRequest
from cpumap.errors import DomainError
from cpumap.libvirt.cpu_map.load import load_cpu_map
from cpumap.libvirt.cpu_map.map import CpuMap
from cpumap.libvirt.domain import cpu_children, looks_like_xml, parse_request
from cpumap.libvirt.words import libvirt_map
from cpumap.pin.expand import expand
from cpumap.pin.resolve import DEFAULT_CHOICES, Choices, resolve
from cpumap.pin.write import (
    KEPT,
    Format,
    Style,
    cpu_xml,
    domain_xml,
    explicit_arguments,
    explicit_json,
    readconfig,
)
from cpumap.qemu.arguments import args_text
from cpumap.sources.choose import Wanted, choose_source
from cpumap.sources.platform import Platform
from cpumap.system.json_text import json_text
from cpumap.system.xml_document import Document

if TYPE_CHECKING:
    from cpumap.hosts.described import DescribedHost


class Written(Frozen):
    """How an explicit CPU is written down."""

    format: Format = "args"
    style: Style = "plus"


def translate(
    xml: str | bytes,
    *,
    format: Format = "args",
    style: Style = "plus",
    choices: Choices = DEFAULT_CHOICES,
    machine: str | None = None,
    qemu: str | None = None,
    recorded: str | None = None,
    host: str | bytes | None = None,
    cpu_map: CpuMap | None = None,
    name: str = "<domain>",
) -> str:
    """The explicit CPU of a domain XML, a `<cpu>` element or a `-cpu` string, as text in the format
    wished.

    `qemu` is a binary to ask, `recorded` a release (`7.2`); without either, the domain's own
    emulator if it is here, else the newest recorded QEMU that knows the machine type. `host`
    describes the host it is to run on, as
    `cpumap.hosts.read.read_host` takes it. Errors: `CpumapError`.
    """
    document = _bytes(xml)
    request = parse_request(document, name=name)
    names = cpu_map or load_cpu_map()
    source = choose_source(Wanted(qemu=qemu, recorded=recorded, machine=machine), request)
    try:
        described = _described(host, names) if host is not None else None
        cpu = explicit_cpu(
            request, Platform(source, names, machine), choices=choices, host=described
        )
    finally:
        source.close()
    return write(
        cpu, cpu_map or libvirt_map(), document, Written(format, style), name=name
    ).decode()


def _described(host: str | bytes, cpu_map: CpuMap) -> DescribedHost:
    from cpumap.hosts.described import read_described

    return read_described(_bytes(host), cpu_map, name="host")


def _bytes(text: str | bytes) -> bytes:
    return text.encode() if isinstance(text, str) else text


def explicit_cpu(
    request: CpuRequest,
    platform: Platform,
    *,
    choices: Choices = DEFAULT_CHOICES,
    host: DescribedHost | None = None,
) -> ExplicitCpu:
    """The explicit CPU of a request on this platform, or on another `host` with its QEMU.

    host-model, match='minimum' and optional features mean that host's CPU, and what it lacks is
    unavailable. Errors: as `expand` and `resolve`.
    """
    meant, expansion = expand_on(host, request, platform)
    return resolve(meant, expansion, choices)


def expand_on(
    host: DescribedHost | None, request: CpuRequest, platform: Platform
) -> tuple[CpuRequest, Expansion]:
    """What the request means on the `host`, if there is one, and what that is with the platform's
    QEMU, less what the host lacks. Errors: as `expand`.
    """
    if host is None:
        return request, expand(request, platform, must_realise=False)
    from cpumap.hosts.described import expansion_on, known_to, request_on

    known = known_to(platform.source, platform.machine or request.machine)
    meant = request_on(host, request, platform.cpu_map, known)
    expansion = expand(meant, platform, must_realise=False)
    return meant, expansion_on(host, expansion, platform.cpu_map)


def write(
    cpu: ExplicitCpu, cpu_map: CpuMap, document: bytes, written: Written, *, name: str
) -> bytes:
    """The CPU in the format wished; `document` is what it was read from, `cpu_map` what libvirt
    has words for.
    """
    match written.format:
        case "xml":
            return domain_xml(cpu, cpu_map, document, name)
        case "json":
            return json_text("translate", explicit_json(cpu, cpu_map, written.style)).encode()
        case "readconfig":
            return readconfig(cpu).encode()
        case "cpu-xml":
            return cpu_xml(cpu, cpu_map, _kept(document, name)).encode()
        case "args":
            return args_text(explicit_arguments(cpu, written.style)).encode()


def _kept(document: bytes, name: str) -> list[str]:
    return (
        cpu_children(Document.parse(document, name, DomainError), KEPT)
        if looks_like_xml(document)
        else []
    )
