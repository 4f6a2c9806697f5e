"""From a stored document to the explicit CPU written down: the five calls of the front door, in
one.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from os import PathLike
from typing import TYPE_CHECKING, get_args

from cpumap.cpu.expansion import Expansion
from cpumap.cpu.explicit import ExplicitCpu
from cpumap.cpu.request import CpuRequest
from cpumap.errors import DomainError, one_of
from cpumap.libvirt.cpu_map.load import load_cpu_map
from cpumap.libvirt.cpu_map.map import CpuMap
from cpumap.libvirt.domain import Given, cpu_children, read_document, request_of
from cpumap.libvirt.words import libvirt_map
from cpumap.pin.expand import expand
from cpumap.pin.resolve import DEFAULT_CHOICES, Choices, resolve
from cpumap.pin.write import (
    FORMATS,
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
from cpumap.system.xml_document import Document, read_input

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypedDict, Unpack

    from cpumap.cpu.names import Accel
    from cpumap.hosts.described import DescribedHost

    class Options(TypedDict, total=False):
        """The fields of `Wanted`, as keywords of a call."""

        qemu: str | None
        qmp: str | None
        recorded: str | None
        accel: Accel | None
        machine: str | None
        start: bool
        tell: Callable[[str], None] | None
        cache: bool


def translate(
    document: Given,
    *,
    format: Format = "args",
    style: Style = "plus",
    choices: Choices = DEFAULT_CHOICES,
    host: Given | None = None,
    cpu_map: CpuMap | None = None,
    **wanted: Unpack[Options],
) -> str:
    """The explicit CPU of a domain XML, a `<cpu>` element or a `-cpu` string, as text in the format
    wished.

    The other keywords are those of `Wanted`: `qemu` is a binary to ask, `recorded` a release
    (`7.2`); without either, the domain's own emulator if it is here, else the newest recorded QEMU
    that knows the machine type. `host` describes the host it is to run on, as
    `cpumap.hosts.read.read_host` takes it. Errors: `CpumapError`.
    """
    one_of(format, FORMATS, "format")
    parsed = read_document(document, name="" if isinstance(document, PathLike) else "<domain>")
    request = request_of(parsed)
    asked = Wanted(**wanted)
    platform = Platform(choose_source(asked, request), cpu_map or load_cpu_map(), asked.machine)
    with closing(platform.source):
        described = None if host is None else _described(host, platform.cpu_map)
        cpu = explicit_cpu(request, platform, choices=choices, host=described)
    written = write(cpu, parsed, format=format, style=style, cpu_map=cpu_map)
    return written.decode("utf-8", "surrogateescape")


def _described(host: Given, cpu_map: CpuMap) -> DescribedHost:
    from cpumap.hosts.described import read_described

    if isinstance(host, PathLike):
        return read_described(read_input(host), cpu_map, name=str(host))
    if isinstance(host, bytes | str):
        return read_described(host, cpu_map, name="host")
    return read_described(read_document(host).text(), cpu_map, name="host")


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
    host: DescribedHost | None,
    request: CpuRequest,
    platform: Platform,
    *,
    on_model: bool = False,
) -> tuple[CpuRequest, Expansion]:
    """What the request means on the `host`, if there is one, and what that is with the platform's
    QEMU, less what the host lacks. Its own CPU is named on the model without features, or with
    `on_model` on the nearest one. Errors: as `expand`.
    """
    if host is None:
        return request, expand(request, platform, must_realise=False)
    from cpumap.hosts.described import expansion_on, for_accel, meant_on

    host = for_accel(host, platform.source.accel)
    meant, notes = meant_on(host, request, platform, model=on_model)
    expansion = expand(meant, platform, must_realise=False)
    return meant, expansion_on(
        host, replace(expansion, notes=(*expansion.notes, *notes)), platform.cpu_map, meant
    )


def write(
    cpu: ExplicitCpu,
    document: Given | None = None,
    *,
    format: Format = "args",
    style: Style = "plus",
    cpu_map: CpuMap | None = None,
) -> bytes:
    """The CPU in the format wished; `document` is what it was read from, which `xml` is made of.

    `cpu_map` is what libvirt has words for (None: `libvirt_map`). Errors: `InputError` for a format
    that there is not, `DomainError` where `xml` has no domain to be written into.
    """
    one_of(style, get_args(Style), "style")
    match one_of(format, FORMATS, "format"):
        case "xml":
            return domain_xml(cpu, cpu_map or libvirt_map(), _domain(document))
        case "json":
            words = explicit_json(cpu, cpu_map or libvirt_map(), style)
            return json_text("translate", words).encode()
        case "readconfig":
            return readconfig(cpu).encode()
        case "cpu-xml":
            kept = () if document is None else cpu_children(read_document(document), KEPT)
            return cpu_xml(cpu, cpu_map or libvirt_map(), kept).encode()
        case _:
            return args_text(explicit_arguments(cpu, style)).encode()


def _domain(given: Given | None) -> Document:
    document = None if given is None else read_document(given)
    if document is None or document.root is None:
        where = "" if document is None else document.name
        raise DomainError("format xml rewrites a domain XML, and there is none", where)
    return document
