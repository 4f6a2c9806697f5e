"""What a host's CPU is said to be: capabilities, domain capabilities, a host `<cpu>`, CPUID
data, or saved JSON.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from cpumap.arch.known import DEFAULT, must_compare
from cpumap.arch.x86.cpuid_formats import cpudata, is_records, read_cpuid
from cpumap.arch.x86.instlat import is_instlat
from cpumap.cpu.host import Cpu, HostCpu, Identity, ThisMachine
from cpumap.cpu.names import FeatureName
from cpumap.cpu.request import CpuRequest, FeaturePolicy, PolicyName
from cpumap.errors import DomainError, InputError
from cpumap.hosts.cpuinfo import is_cpuinfo, read_cpuinfo
from cpumap.hosts.saved import saved_hosts
from cpumap.libvirt.cpu_map.map import CpuMap
from cpumap.libvirt.domain import looks_like_xml, parse_request, request_of
from cpumap.system.xml_document import Document

_DECLARATION = re.compile(rb"<\?xml[^<>?]*\?>|<!DOCTYPE[^<>\[]*>")
"""Neither holds what begins another: a search goes over the text once."""


def read_cpus(data: bytes | str | Document, cpu_map: CpuMap, *, name: str = "<stdin>") -> list[Cpu]:
    """Every CPU in the input, in order: hosts and guests, one document or several after another.

    Takes `<capabilities>`, `<domainCapabilities>` (its host-model), a host or guest `<cpu>`,
    `<domain>`,
    `<cpudata>`, the output of `cpuid -r`, a dump as InstLatx64 has them,
    /proc/cpuinfo, the probe guest's records, a `-cpu` string and hosts
    saved as JSON. Raises
    `InputError` (`file:line`), also for a CPU of an architecture that nobody here knows.
    """
    cpus = _read(data, cpu_map, name)
    for cpu in cpus:
        if cpu.arch is not None:
            must_compare(cpu.arch, cpu.where)
    return cpus


def _read(data: bytes | str | Document, cpu_map: CpuMap, name: str) -> list[Cpu]:
    if isinstance(data, Document):
        return [_read_element(data, data.root, cpu_map)]
    raw = data.encode() if isinstance(data, str) else data
    if is_records(raw):
        return [_decoded(raw, cpu_map, name)]
    if looks_like_xml(raw):
        return [
            _read_element(document, element, cpu_map) for document, element in _documents(raw, name)
        ]
    text = raw.decode("utf-8", "replace").strip()
    if text.startswith(("{", "[")):
        return list(saved_hosts(text, name))
    if is_cpuinfo(text):
        return [_from_cpuinfo(text, cpu_map, name)]
    if text.startswith(("CPU", "0x")) or is_instlat(text):
        return [_decoded(raw, cpu_map, name)]
    return [parse_request(raw, name=name)]


def read_host(data: bytes | str, cpu_map: CpuMap, *, name: str = "<stdin>") -> HostCpu:
    """The one host that the input describes; a guest's `<cpu>` is taken as what a host has.
    Raises `InputError`.
    """
    cpus = read_cpus(data, cpu_map, name=name)
    if len(cpus) != 1:
        raise InputError(f"one host CPU is needed, and this describes {len(cpus)}", name)
    cpu = cpus[0]
    return cpu if isinstance(cpu, HostCpu) else as_host(cpu)


def as_host(request: CpuRequest) -> HostCpu:
    """A host with exactly the CPU that a guest asks for; what is optional there, it lacks."""
    if request.model is None:
        raise InputError("a CPU without a model says nothing of a host", request.where)
    features = tuple(
        FeaturePolicy(f.name, "require" if f.policy in ("force", "require") else "disable", f.line)
        for f in request.features
        if f.policy != "optional"
    )
    return HostCpu(
        request.arch or DEFAULT.name, request.model, request.vendor, features, where=request.where
    )


def _documents(raw: bytes, name: str) -> Iterator[tuple[Document, Any]]:
    """The document, or each of several that follow one another (virsh takes such files too)."""
    try:
        document = Document.parse(raw, name, InputError)
    except InputError:
        if len(_DECLARATION.findall(raw)) < 2 and not re.search(rb"</\w+>\s*<\w", raw):
            raise
        # An element around them all, on the first line, so that line numbers stay true.
        document = Document.parse(
            b"<cpumap>" + _DECLARATION.sub(b"", raw) + b"</cpumap>", name, InputError
        )
    if document.root.tag == "cpumap":
        yield from ((document, child) for child in document.root)
    else:
        yield document, document.root


def _read_element(document: Document, element: Any, cpu_map: CpuMap) -> Cpu:
    if element.tag == "capabilities":
        cpu = element.find("host/cpu")
        if cpu is None or cpu.find("model") is None:
            raise document.error(element, "no <host><cpu> with a model in <capabilities>")
        return _host_cpu(document, cpu)
    if element.tag == "domainCapabilities":
        return _host_model(document, element, cpu_map)
    if element.tag == "cpudata":
        return _from_cpuid(document, element, cpu_map)
    if element.tag == "cpu" and element.find("arch") is not None:
        return _host_cpu(document, element)
    return _request(document, element)


def _host_cpu(document: Document, cpu: Any) -> HostCpu:
    for attribute in ("mode", "match", "check"):
        if cpu.get(attribute) is not None:
            raise document.error(cpu, f"attribute {attribute} is only allowed for guest CPU")
    features = _features(document, cpu)
    for feature in features:
        if feature.policy != "require":
            raise document.error(cpu, f"a host CPU cannot {feature.policy} a feature")
    return HostCpu(
        arch=cpu.findtext("arch") or "x86_64",
        model=cpu.findtext("model"),
        vendor=cpu.findtext("vendor"),
        features=features,
        identity=_signature(document, cpu.find("signature")),
        where=document.where(cpu),
    )


def _host_model(document: Document, capabilities: Any, cpu_map: CpuMap) -> HostCpu:
    modes = {mode.get("name"): mode for mode in capabilities.iterfind("cpu/mode")}
    mode = modes.get("host-model")
    if mode is None or mode.get("supported") != "yes" or not mode.findtext("model"):
        raise document.error(capabilities, "these domain capabilities describe no host-model CPU")
    custom = modes.get("custom")
    models = [] if custom is None else custom.findall("model")
    return HostCpu(
        arch=capabilities.findtext("arch") or "x86_64",
        model=mode.findtext("model"),
        vendor=mode.findtext("vendor"),
        features=_in_own_order(_features(document, mode), cpu_map),
        fallback="forbid" if mode.find("model").get("fallback") == "forbid" else "allow",
        usable=tuple(model.text for model in models if model.get("usable") == "yes")
        if models
        else None,
        blockers={} if custom is None else _blockers(custom),
        where=document.where(mode),
    )


def _in_own_order(
    features: tuple[FeaturePolicy, ...], cpu_map: CpuMap
) -> tuple[FeaturePolicy, ...]:
    """The features in the order in which libvirt gives them to a guest.

    libvirt 12.8 shows them by the alphabet, and older ones as they are: by policy, then as the map
    lists them.
    """
    names = [feature.name for feature in features]
    if len(names) < 2 or names != sorted(names):
        return features
    ranks = {name: rank for rank, name in enumerate(cpu_map.aliases)}
    return tuple(
        sorted(features, key=lambda f: (f.policy != "require", ranks.get(f.name, len(ranks))))
    )


def _blockers(custom: Any) -> dict[str, tuple[str, ...]]:
    return {
        element.get("model", ""): tuple(
            feature.get("name", "") for feature in element.iterchildren("feature")
        )
        for element in custom.iterchildren("blockers")
    }


def _features(document: Document, cpu: Any) -> tuple[FeaturePolicy, ...]:
    features: dict[str, FeaturePolicy] = {}
    for element in cpu.iterchildren("feature"):
        name = element.get("name")
        policy: PolicyName = document.choice(element, "policy", ("require", "disable")) or "require"
        if not name:
            raise document.error(element, "<feature> without name=")
        if name in features:
            raise document.error(element, f"CPU feature {name!r} specified more than once")
        features[name] = FeaturePolicy(FeatureName(name), policy, element.sourceline)
    return tuple(features.values())


def _signature(document: Document, element: Any) -> Identity | None:
    if element is None:
        return None
    return Identity(
        *(
            document.number(element, key, required=True) or 0
            for key in ("family", "model", "stepping")
        )
    )


def _request(document: Document, element: Any) -> CpuRequest:
    return request_of(Document(document.name, DomainError, element))


def _from_cpuid(document: Document, element: Any, cpu_map: CpuMap) -> HostCpu:
    from cpumap.libvirt.rules.decode import host_of

    return replace(host_of(cpudata(document, element), cpu_map), where=document.where(element))


def _from_cpuinfo(text: str, cpu_map: CpuMap, name: str) -> HostCpu:
    from cpumap.libvirt.rules.decode import KnownCpu, host_known, without_broken_tsx

    found = read_cpuinfo(text, cpu_map, name=name)
    vendor = cpu_map.vendor_named(found.vendor)
    features = without_broken_tsx(found.features, found.identity, found.vendor)
    known = KnownCpu(features, vendor.name if vendor else None, found.identity)
    own = ThisMachine(features, None, partial=True)
    return replace(host_known(known, cpu_map), own=own, where=name)


def _decoded(raw: bytes, cpu_map: CpuMap, name: str) -> HostCpu:
    from cpumap.libvirt.rules.decode import host_of

    return replace(host_of(read_cpuid(raw, name=name), cpu_map), where=name)
