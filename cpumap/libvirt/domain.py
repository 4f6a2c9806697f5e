"""A domain XML, a `<cpu>` element or a `-cpu` string becomes a `CpuRequest`: what was asked for,
nothing decided.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from os import PathLike
from typing import Any, get_args

from lxml import etree

from cpumap.cpu.names import Accel, FeatureName, Property, PropertyName
from cpumap.cpu.origin import origin
from cpumap.cpu.request import (
    Cache,
    Check,
    CpuRequest,
    Fallback,
    FeaturePolicy,
    Match,
    MaxPhysAddr,
    Mode,
    PolicyName,
)
from cpumap.cpu.topology import Topology
from cpumap.errors import DomainError, InputError
from cpumap.libvirt.layout import QEMU_NAMESPACE, WRAPPERS
from cpumap.libvirt.settings import domain_settings
from cpumap.qemu.cpu_option import cpu_globals, cpu_machine_options, option_name, parse_cpu_option
from cpumap.system.xml_document import Document, c_integer, first_child, read_input

NAMESPACES = re.compile(r"""\sxmlns:[^=\s]+=(?:"[^"]*"|'[^']*')""")
"""Declarations that lxml writes on every element taken out of a document; the document still has
them.
"""


# fmt: off
ARCHITECTURES = frozenset({
    "aarch64", "alpha", "armv6l", "armv7b", "armv7l", "cris", "i686", "ia64", "itanium", "lm32",
    "loongarch64", "m68k", "microblaze", "microblazeel", "mips", "mips64", "mips64el", "mipsel",
    "openrisc", "parisc", "parisc64", "ppc", "ppc64", "ppc64le", "ppcemb", "riscv32", "riscv64",
    "s390", "s390x", "sh4", "sh4eb", "sparc", "sparc64", "unicore32", "x86_64", "xtensa",
    "xtensaeb",
})
# fmt: on
"""Architectures by libvirt's names (virArch)."""


MODES, MATCHES, CHECKS, FALLBACKS, POLICIES = map(
    get_args, (Mode, Match, Check, Fallback, PolicyName)
)


ACCELS: dict[str, Accel] = {"kvm": "kvm", "qemu": "tcg"}


Given = bytes | str | PathLike[str] | Document | etree._Element
"""A document in any of its forms: content, a path, parsed by us, or by somebody else with lxml."""


def read_document(given: Given, *, name: str = "") -> Document:
    """The document, parsed once, here; of a `-cpu` string, which is no XML, the root is None.

    `name` stands in messages, by default the path or `<stdin>`. `DomainError` says `file:line`;
    `InputError` when a path cannot be read, or for what is no document at all.
    """
    if isinstance(given, Document):
        return given
    if isinstance(given, PathLike):
        return read_document(read_input(given), name=name or str(given))
    name = name or "<stdin>"
    if isinstance(given, bytes | bytearray | str):
        if looks_like_xml(given):
            return Document.parse(given, name, DomainError)
        return Document(name, DomainError, None, _decoded(given, name).encode())
    if etree.iselement(given):
        return Document(name, DomainError, given)
    raise InputError(f"a document is bytes, text, a path or an element, not {type(given).__name__}")


def parse_request(xml: Given, *, name: str = "") -> CpuRequest:
    """What the input asks for; a path is read, bytes and text are the content itself.

    Takes a `<domain>`, alone or in a `<domstatus>`, `<domainsnapshot>` or `<domaincheckpoint>`, a
    `<cpu>`, or a
    `-cpu` string. `name` stands in messages, by default the path or `<stdin>`. `DomainError` says
    `file:line`;
    `InputError` when a path cannot be read.
    """
    return request_of(read_document(xml, name=name))


def request_of(document: Document) -> CpuRequest:
    """What a document of `read_document` asks for. `DomainError` says `file:line`."""
    if document.root is None:
        return parse_cpu_option(document.content.decode(), name=document.name)
    if document.root.tag == "cpu":
        return _bare_cpu(document)
    return _domain(document, domain_element(document))


def cpu_children(document: Document, names: Collection[str]) -> list[str]:
    """The children of `<cpu>` with these names, as XML text, in order; none where there is no
    `<cpu>`.
    """
    if document.root is None:
        return []
    cpu = (
        document.root
        if document.root.tag == "cpu"
        else first_child(domain_element(document), "cpu")
    )
    found = () if cpu is None else cpu.iterchildren(*names)
    texts = [etree.tostring(child, encoding="unicode", with_tail=False) for child in found]
    inherited = {} if cpu is None else cpu.nsmap
    return [_outdented(_without_inherited(text, inherited)) for text in texts]


def _without_inherited(text: str, namespaces: Mapping[str | None, str]) -> str:
    """The element without the declarations that stand above it in its document."""

    def kept(found: re.Match[str]) -> str:
        prefix, uri = found[0].split(":", 1)[1].split("=", 1)
        return "" if namespaces.get(prefix) == uri[1:-1] else found[0]

    return NAMESPACES.sub(kept, text)


def _outdented(text: str) -> str:
    """The element's lines less the indentation that its end tag has."""
    indentation = re.match(r"[ \t]*", text.rpartition("\n")[2])
    return text.replace(f"\n{indentation[0]}", "\n") if indentation and "\n" in text else text


def looks_like_xml(data: bytes | str) -> bool:
    """Whether the first character is `<`, in UTF-8, UTF-16 or UTF-32, after a byte order mark
    and white space.
    """
    if isinstance(data, str):
        return data.lstrip("\ufeff \t\r\n").startswith("<")
    return data[:200].lstrip(b"\xef\xbb\xbf\xff\xfe\0 \t\r\n").startswith(b"<")


def domain_element(document: Document) -> Any:
    """The `<domain>` element of the document; of a snapshot the guest's state then, not its
    `<inactiveDomain>`.
    """
    root = document.root
    if root.tag == "domain":
        return root
    if root.tag not in WRAPPERS:
        raise document.error(
            root,
            f"expected <domain>, <cpu> or one of <{'>, <'.join(WRAPPERS)}>, found <{root.tag}>",
        )
    domain = root.find("domain")
    if domain is None or domain.find("os") is None:
        raise document.error(root, f"no domain definition in <{root.tag}>")
    return domain


def _decoded(data: bytes | str, name: str) -> str:
    if isinstance(data, str):
        return data
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as err:
        raise DomainError(f"neither XML nor a -cpu string: {err}", f"{name}:1") from err


def _domain(document: Document, domain: Any) -> CpuRequest:
    cpu, vcpu, os, devices = (first_child(domain, tag) for tag in ("cpu", "vcpu", "os", "devices"))
    guest_type = None if os is None else first_child(os, "type")
    emulator = None if devices is None else first_child(devices, "emulator")
    fields: dict[str, Any] = {
        "accel": _accel(document, domain),
        "arch": None if guest_type is None else _arch(document, guest_type, guest_type.get("arch")),
        "machine": None if guest_type is None else guest_type.get("machine") or None,
        "emulator": None if emulator is None else (emulator.text or "").strip() or None,
        "settings": domain_settings(document, domain),
        "where": document.where(domain),
        **({} if cpu is None else _cpu_fields(document, cpu)),
        **({} if vcpu is None else {"vcpus": _vcpus(document, vcpu)}),
    }
    request = CpuRequest(**fields)
    commandlines = domain.findall(f"{{{QEMU_NAMESPACE}}}commandline")
    return _with_commandlines(document, commandlines, request) if commandlines else request


def _with_commandlines(
    document: Document, commandlines: Sequence[Any], request: CpuRequest
) -> CpuRequest:
    """The request with what the guest's own QEMU arguments make of it.

    libvirt takes the arguments of several elements one behind the other. A `-cpu` there comes
    behind libvirt's, and QEMU heeds the last only. What `-global` arguments set holds where `-cpu`
    does not say otherwise.
    """
    arguments = [
        argument.get("value", "")
        for commandline in commandlines
        for argument in commandline.findall(f"{{{QEMU_NAMESPACE}}}arg")
    ]
    commandline = commandlines[-1]
    options = [(option_name(option), value) for option, value in pairwise(arguments)]
    where = document.where(commandline)
    for text in [value for option, value in options if option == "-cpu"][-1:]:
        request = _overridden(
            request, parse_cpu_option(text, name=document.name, line=commandline.sourceline)
        )
    values = [value for option, value in options if option == "-global"]
    said = {setting.name for setting in request.settings}
    settings: dict[str, Property] = {}
    for driver, key, value in cpu_globals(values, where):
        generic = driver.count("-") == 1
        if key not in said and (
            generic or request.model in (None, driver.rpartition("-cpu")[0].rpartition("-")[0])
        ):
            settings[key] = Property(PropertyName(key), value, origin("qemu:commandline"))
    machines = [value for option, value in options if option in ("-machine", "-M")]
    for key, value in cpu_machine_options(machines, where):
        settings[key] = Property(PropertyName(key), value, origin("qemu:commandline"))
    kept = [setting for setting in request.settings if setting.name not in settings]
    return replace(request, settings=(*kept, *settings.values()))


def _overridden(request: CpuRequest, option: CpuRequest) -> CpuRequest:
    """The CPU of the `-cpu` option, on the request's machine."""
    return replace(
        option,
        arch=request.arch,
        accel=request.accel,
        machine=request.machine,
        emulator=request.emulator,
        topology=request.topology,
        vcpus=request.vcpus,
    )


def _bare_cpu(document: Document) -> CpuRequest:
    cpu = document.root
    return CpuRequest(arch=_arch(document, cpu, cpu.findtext("arch")), **_cpu_fields(document, cpu))


def _arch(document: Document, element: Any, arch: str | None) -> str | None:
    if arch is not None and arch not in ARCHITECTURES:
        raise document.error(element, f"unknown architecture '{arch}'")
    return arch


def _accel(document: Document, domain: Any) -> Accel:
    kind = domain.get("type")
    if kind is None:
        raise document.error(domain, "missing required attribute 'type' in element 'domain'")
    if kind not in ACCELS:
        raise document.error(
            domain, f"domain type '{kind}' is none of {', '.join(ACCELS)}: no QEMU CPU to translate"
        )
    return ACCELS[kind]


def _vcpus(document: Document, vcpu: Any) -> int:
    count = c_integer(vcpu.text or "")
    if not count:
        raise document.error(vcpu, f"invalid number of vCPUs: '{vcpu.text}'")
    return count


def _cpu_fields(document: Document, cpu: Any) -> dict[str, Any]:
    """What a `<cpu>` says, by the names of `CpuRequest`."""
    mode: Mode | None = document.choice(cpu, "mode", MODES)
    model = first_child(cpu, "model")
    name = None if model is None else model.text or None
    if mode is None and name is not None:
        mode = "custom"
    topology = _topology(document, cpu)
    return {
        "by_libvirt": True,
        "mode": None if mode == "custom" and name is None else mode,
        "model": name if mode in ("custom", "host-model") else None,
        "match": document.choice(cpu, "match", MATCHES),
        "check": document.choice(cpu, "check", CHECKS),
        "fallback": _fallback(document, model),
        "migratable": _migratable(document, cpu, mode),
        "deprecated_features": document.switch(cpu, "deprecated_features"),
        "vendor": _vendor(document, cpu, name),
        "vendor_id": _vendor_id(document, model),
        "features": _features(document, cpu, mode, name),
        "cache": _cache(document, cpu),
        "maxphysaddr": _maxphysaddr(document, cpu),
        "topology": topology,
        "vcpus": 1 if topology is None else topology.count,
        "where": document.where(cpu),
    }


def _migratable(document: Document, cpu: Any, mode: Mode | None) -> bool | None:
    migratable = document.switch(cpu, "migratable")
    if migratable is not None and mode not in ("host-passthrough", "maximum"):
        raise document.error(
            cpu, "attribute migratable is only allowed for 'host-passthrough' / 'maximum' CPU mode"
        )
    return migratable


def _fallback(document: Document, model: Any) -> Fallback:
    fallback: Fallback | None = (
        None if model is None else document.choice(model, "fallback", FALLBACKS)
    )
    return fallback or "allow"


def _vendor_id(document: Document, model: Any) -> str | None:
    vendor_id: str | None = None if model is None else model.get("vendor_id")
    if vendor_id is None:
        return None
    if len(vendor_id.encode()) != 12:
        raise document.error(
            model, f"vendor_id must be exactly 12 characters long, not '{vendor_id}'"
        )
    if "," in vendor_id:
        raise document.error(model, f"vendor_id cannot contain a comma: '{vendor_id}'")
    return vendor_id


def _vendor(document: Document, cpu: Any, model: str | None) -> str | None:
    vendor = first_child(cpu, "vendor")
    name = None if vendor is None else vendor.text or None
    if name is not None and model is None:
        raise document.error(vendor, "CPU vendor specified without CPU model")
    return name


def _features(
    document: Document, cpu: Any, mode: Mode | None, model: str | None
) -> tuple[FeaturePolicy, ...]:
    elements = list(cpu.iterchildren("feature"))
    if elements and model is None and mode in (None, "custom"):
        raise document.error(elements[0], "non-empty feature list specified without CPU model")
    features: dict[str, FeaturePolicy] = {}
    for element in elements:
        name = element.get("name")
        if not name:
            raise document.error(element, "invalid CPU feature name: it is missing or empty")
        if name in features:
            raise document.error(
                element,
                f"CPU feature '{name}' specified more than once (first on line "
                f"{features[name].line})",
            )
        policy: PolicyName | None = document.choice(element, "policy", POLICIES)
        features[name] = FeaturePolicy(FeatureName(name), policy or "require", element.sourceline)
    return tuple(features.values())


def _cache(document: Document, cpu: Any) -> Cache | None:
    elements = list(cpu.iterchildren("cache"))
    if not elements:
        return None
    if len(elements) > 1:
        raise document.error(elements[1], "at most one CPU cache element may be specified")
    mode = document.choice(
        elements[0], "mode", ("emulate", "passthrough", "disable"), required=True
    )
    return Cache(mode, document.number(elements[0], "level", low=1, high=3))


def _maxphysaddr(document: Document, cpu: Any) -> MaxPhysAddr | None:
    element = first_child(cpu, "maxphysaddr")
    if element is None:
        return None
    mode = document.choice(element, "mode", ("emulate", "passthrough"), required=True)
    return MaxPhysAddr(mode, document.number(element, "bits"), document.number(element, "limit"))


def _topology(document: Document, cpu: Any) -> Topology | None:
    element = first_child(cpu, "topology")
    if element is None:
        return None

    def count(attribute: str, required: bool = False) -> int:
        return document.number(element, attribute, low=1, required=required) or 1

    return Topology(
        sockets=count("sockets", required=True),
        dies=count("dies"),
        cores=count("cores", required=True),
        threads=count("threads", required=True),
        clusters=count("clusters"),
    )
