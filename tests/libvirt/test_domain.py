"""Reading: every element that makes the CPU, and every way in which an input can be bad."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest

from cpumap.cpu.names import Value
from cpumap.cpu.request import (
    Cache,
    Check,
    CpuRequest,
    Fallback,
    Match,
    MaxPhysAddr,
    Mode,
    PolicyName,
)
from cpumap.cpu.topology import Topology
from cpumap.errors import DomainError, InputError
from cpumap.libvirt.domain import ACCELS, parse_request
from cpumap.libvirt.layout import QEMU_NAMESPACE, WRAPPERS
from cpumap.libvirt.settings import ENLIGHTENMENT_EXTRAS, ENLIGHTENMENTS, KVM_FEATURES, TIMERS

BOMB = "<!DOCTYPE d [<!ENTITY a 'aaaaaaaaaa'>" + "".join(
    f"<!ENTITY {chr(98 + n)} '{f'&{chr(97 + n)};' * 10}'>" for n in range(9)
)


def domain(inside: str, attributes: str = "type='kvm'") -> str:
    return f"<domain {attributes}>\n{inside}\n</domain>"


BAD: dict[str, tuple[str | bytes, int, str]] = {
    "empty": ("", 1, "empty"),
    "not XML": ("<domain", 1, "not well-formed XML"),
    "mismatched tags": ("<domain>\n<a>\n</b></domain>", 3, "not well-formed XML"),
    "text": ("this is not a domain", 1, "neither XML nor a -cpu string"),
    "binary": (b"\x7fELF\x02\x01\x01\0\xff", 1, "neither XML nor a -cpu string"),
    "wrong bytes": (b"<domain>\n\xff</domain>", 2, "not well-formed XML"),
    "unknown encoding": (
        b"<?xml version='1.0' encoding='bogus'?><domain/>",
        1,
        "not well-formed XML",
    ),
    "wrong root": ("<network/>", 1, "expected <domain>, <cpu> or one of"),
    "capabilities": (
        "<domainCapabilities><domain>kvm</domain></domainCapabilities>",
        1,
        "found <domainCapabilities>",
    ),
    "wrapper without domain": (
        "<domstatus>\n</domstatus>",
        1,
        "no domain definition in <domstatus>",
    ),
    "old snapshot": (
        "<domainsnapshot><domain><uuid>x</uuid></domain></domainsnapshot>",
        1,
        "no domain definition",
    ),
    "entity bomb": (f"{BOMB}]><domain type='kvm'>&j;</domain>", 1, "not well-formed XML"),
    "entity bomb in an attribute": (f"{BOMB}]><domain type='&j;'/>", 1, "not well-formed XML"),
    "external entity": (
        "<!DOCTYPE d [<!ENTITY a SYSTEM 'file:///etc/passwd'>]><domain>&a;</domain>",
        1,
        "XML entities",
    ),
    "parameter entity": (
        "<!DOCTYPE d [<!ENTITY % a SYSTEM 'file:///etc/passwd'>%a;]><domain/>",
        1,
        "XML entities",
    ),
    "undeclared entity": (
        "<domain type='kvm'>&a;</domain>",
        1,
        "not well-formed XML: Entity 'a' not defined",
    ),
    "too large": (
        b"<domain type='kvm'>" + b"<a/>" * 5_000_000 + b"</domain>",
        0,
        "too large: the limit is 16 MiB",
    ),
    "no type": ("<domain/>", 1, "missing required attribute 'type'"),
    "other hypervisor": ("<domain type='xen'/>", 1, "domain type 'xen' is none of kvm, qemu"),
    "architecture": (
        domain("<os><type arch='x87'>hvm</type></os>"),
        2,
        "unknown architecture 'x87'",
    ),
    "no vCPUs": (domain("<vcpu>0</vcpu>"), 2, "invalid number of vCPUs: '0'"),
    "vCPUs in words": (domain("<vcpu>two</vcpu>"), 2, "invalid number of vCPUs: 'two'"),
    "mode": (
        "<cpu mode='x'/>",
        1,
        "invalid value for attribute 'mode' in element 'cpu': 'x' (expected custom,",
    ),
    "match": ("<cpu match='x'/>", 1, "'match'"),
    "check": ("<cpu check='x'/>", 1, "'check'"),
    "fallback": ("<cpu>\n<model fallback='x'>A</model></cpu>", 2, "'fallback'"),
    "migratable": ("<cpu mode='maximum' migratable='x'/>", 1, "'migratable'"),
    "migratable elsewhere": (
        "<cpu mode='host-model' migratable='on'/>",
        1,
        "attribute migratable is only allowed for",
    ),
    "policy": (
        "<cpu><model>A</model>\n\n<feature policy='x' name='a'/></cpu>",
        3,
        "'policy' in element 'feature': 'x'",
    ),
    "nameless feature": (
        "<cpu><model>A</model>\n<feature policy='force'/></cpu>",
        2,
        "invalid CPU feature name",
    ),
    "duplicate feature": (
        "<cpu><model>A</model>\n<feature name='a'/>\n<feature policy='disable' name='a'/></cpu>",
        3,
        "CPU feature 'a' specified more than once (first on line 2)",
    ),
    "features alone": (
        "<cpu>\n<feature name='a'/></cpu>",
        2,
        "non-empty feature list specified without CPU model",
    ),
    "vendor alone": (
        "<cpu>\n<vendor>Intel</vendor></cpu>",
        2,
        "CPU vendor specified without CPU model",
    ),
    "short vendor_id": (
        "<cpu><model vendor_id='x'>A</model></cpu>",
        1,
        "exactly 12 characters long, not 'x'",
    ),
    "comma in vendor_id": (
        "<cpu><model vendor_id='Genuine,ntel'>A</model></cpu>",
        1,
        "cannot contain a comma",
    ),
    "cache without mode": (
        "<cpu>\n<cache/></cpu>",
        2,
        "missing required attribute 'mode' in element 'cache'",
    ),
    "cache level": (
        "<cpu><cache mode='emulate' level='4'/></cpu>",
        1,
        "(expected a number from 1 to 3)",
    ),
    "two caches": (
        "<cpu><cache mode='disable'/>\n<cache mode='disable'/></cpu>",
        2,
        "at most one CPU cache element",
    ),
    "address bits": (
        "<cpu><maxphysaddr mode='emulate' bits='many'/></cpu>",
        1,
        "'bits' in element 'maxphysaddr'",
    ),
    "address mode": (
        "<cpu><maxphysaddr/></cpu>",
        1,
        "missing required attribute 'mode' in element 'maxphysaddr'",
    ),
    "no threads": (
        "<cpu>\n<topology sockets='1' cores='1'/></cpu>",
        2,
        "missing required attribute 'threads'",
    ),
    "no sockets": (
        "<cpu><topology sockets='0' cores='1' threads='1'/></cpu>",
        1,
        "'sockets' in element 'topology'",
    ),
    "enlightenment": (
        domain("<features>\n<hyperv><bogus state='on'/></hyperv></features>"),
        3,
        "unsupported HyperV Enlightenment feature: bogus",
    ),
    "enlightenment state": (
        domain("<features><hyperv><ipi state='x'/></hyperv></features>"),
        2,
        "'state' in element 'ipi'",
    ),
    "no state": (
        domain("<features><hyperv><ipi/></hyperv></features>"),
        2,
        "missing required attribute 'state'",
    ),
    "hyperv mode": (
        domain("<features><hyperv mode='x'/></features>"),
        2,
        "'mode' in element 'hyperv'",
    ),
    "hyperv host-model": (
        domain("<features><hyperv mode='host-model'/></features>"),
        2,
        "depends on the host",
    ),
    "no retries": (
        domain("<features><hyperv><spinlocks state='on'/></hyperv></features>"),
        2,
        "'retries'",
    ),
    "few retries": (
        domain("<features><hyperv><spinlocks state='on' retries='4094'/></hyperv></features>"),
        2,
        "HyperV spinlock retry count must be at least 4095",
    ),
    "no hyperv vendor": (
        domain("<features><hyperv><vendor_id state='on'/></hyperv></features>"),
        2,
        "missing 'value'",
    ),
    "long hyperv vendor": (
        domain(
            "<features><hyperv><vendor_id state='on' value='1234567890123'/></hyperv></features>"
        ),
        2,
        "not be more than 12 characters",
    ),
    "comma in hyperv vendor": (
        domain("<features><hyperv><vendor_id state='on' value='a,b'/></hyperv></features>"),
        2,
        "it contains a comma",
    ),
    "kvm feature": (
        domain("<features>\n<kvm>\n<bogus state='on'/></kvm></features>"),
        4,
        "unsupported KVM feature: bogus",
    ),
    "timer": (domain("<clock><timer name='x'/></clock>"), 2, "'name' in element 'timer': 'x'"),
    "timer present": (domain("<clock><timer name='tsc' present='x'/></clock>"), 2, "'present'"),
    "timer frequency": (
        domain("<clock><timer name='tsc' frequency='x'/></clock>"),
        2,
        "'frequency'",
    ),
    "frequency of another timer": (
        domain("<clock><timer name='kvmclock' frequency='1'/></clock>"),
        2,
        "timer kvmclock doesn't support setting of timer frequency",
    ),
    "panic model": (
        domain("<devices><panic model='x'/></devices>"),
        2,
        "'model' in element 'panic'",
    ),
    "two panics": (
        domain("<devices><panic model='hyperv'/><panic model='hyperv'/></devices>"),
        2,
        "multiple panic",
    ),
    "two -cpu": ("-cpu A -cpu B", 1, "expected one -cpu option, found 2"),
    "open quote": ("-cpu 'A", 1, "not a command line: No closing quotation"),
    "property": ("A,b c=d", 1, "'b c' is no CPU property name"),
    "tsc-freq": ("A,tsc-freq=fast", 1, "bad numerical value 'fast' for tsc-freq"),
    "their own -cpu": (
        domain(
            f"<q:commandline xmlns:q='{QEMU_NAMESPACE}'>\n<q:arg value='-cpu'/><q:arg "
            "value='?'/></q:commandline>"
        ),
        2,
        "'?' is no CPU model name",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_clear_line(case: str) -> None:
    content, line, message = BAD[case]
    with pytest.raises(DomainError) as caught:
        parse_request(content, name="guest.xml")
    text = str(caught.value)
    assert text.startswith(f"guest.xml:{line}: " if line else "guest.xml: ")
    assert message in text
    assert "\n" not in text
    assert caught.value.exit_code == 2


@contextmanager
def nobody() -> Iterator[None]:
    """Without root's right to read everything."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


def test_unreadable_files(tmp_path: Path) -> None:
    locked, large = tmp_path / "locked.xml", tmp_path / "large.xml"
    locked.write_text("<cpu/>")
    locked.chmod(0)
    with large.open("wb") as file:
        file.truncate(100 * 1024 * 1024)
    started = time.monotonic()
    for path, message in (
        (tmp_path, "Is a directory"),
        (tmp_path / "missing.xml", "No such file or directory"),
        (large, "too large: the limit is 16 MiB"),
    ):
        with pytest.raises(InputError, match=f"{path}: {message}"):
            parse_request(path)
    with nobody(), pytest.raises(InputError, match=f"{locked}: Permission denied"):
        parse_request(locked)
    assert time.monotonic() - started < 1


PENRYN = "<model>Penryn</model>"
CPUS: dict[str, CpuRequest] = {
    "<cpu/>": CpuRequest(),
    "<cpu mode='custom' match='exact' check='none'/>": CpuRequest(match="exact", check="none"),
    f"<cpu>{PENRYN}</cpu>": CpuRequest(mode="custom", model="Penryn"),
    f"<cpu mode='custom' match='minimum' check='partial'>{PENRYN}</cpu>": CpuRequest(
        mode="custom", model="Penryn", match="minimum", check="partial"
    ),
    "<cpu match='strict' check='full'><model fallback='forbid'>A</model></cpu>": CpuRequest(
        mode="custom", model="A", match="strict", check="full", fallback="forbid"
    ),
    "<cpu><model fallback='allow' "
    "vendor_id='GenuineIntel'>A</model><vendor>Intel</vendor></cpu>": CpuRequest(
        mode="custom", model="A", vendor="Intel", vendor_id="GenuineIntel"
    ),
    "<cpu mode='host-model' deprecated_features='off'><model/></cpu>": CpuRequest(
        mode="host-model", deprecated_features=False
    ),
    "<cpu mode='host-passthrough' migratable='off'><model>ignored</model></cpu>": CpuRequest(
        mode="host-passthrough", migratable=False
    ),
    "<cpu mode='maximum' migratable='on'/>": CpuRequest(mode="maximum", migratable=True),
    "<cpu><cache mode='emulate' level='3'/></cpu>": CpuRequest(cache=Cache("emulate", 3)),
    "<cpu><cache mode='passthrough'/></cpu>": CpuRequest(cache=Cache("passthrough")),
    "<cpu><cache mode='disable'/></cpu>": CpuRequest(cache=Cache("disable")),
    "<cpu><maxphysaddr mode='emulate' bits='42'/></cpu>": CpuRequest(
        maxphysaddr=MaxPhysAddr("emulate", 42)
    ),
    "<cpu><maxphysaddr mode='passthrough' limit='39'/></cpu>": CpuRequest(
        maxphysaddr=MaxPhysAddr("passthrough", None, 39)
    ),
    "<cpu><topology sockets='2' dies='3' clusters='2' cores='4' threads='1'/></cpu>": CpuRequest(
        topology=Topology(2, 3, 4, 1, 2), vcpus=48
    ),
    "<cpu><arch>i686</arch></cpu>": CpuRequest(arch="i686"),
    "<cpu><numa><cell id='0' cpus='0' memory='1'/></numa></cpu>": CpuRequest(),
}


@pytest.mark.parametrize("xml", CPUS)
def test_cpu_element(xml: str) -> None:
    assert replace(parse_request(xml), where="") == replace(CPUS[xml], by_libvirt=True)
    assert parse_request(xml).where == "<stdin>:1"


def test_policies_in_order_with_their_lines() -> None:
    policies = get_args(PolicyName)
    features = "\n".join(f"<feature policy='{policy}' name='f-{policy}'/>" for policy in policies)
    request = parse_request(f"<cpu>{PENRYN}\n{features}\n<feature name='plain'/></cpu>")
    assert [(f.name, f.policy, f.line) for f in request.features] == [
        *((f"f-{policy}", policy, number) for number, policy in enumerate(policies, 2)),
        ("plain", "require", len(policies) + 2),
    ]


SETTINGS: dict[str, list[tuple[str, Value, str]]] = {
    "<features><acpi/><pae/><apic/></features>": [],
    "<features><apic eoi='on'/></features>": [("kvm-pv-eoi", True, "apic eoi")],
    "<features><apic eoi='off'/></features>": [("kvm-pv-eoi", False, "apic eoi")],
    "<features><pvspinlock/></features>": [("kvm-pv-unhalt", True, "pvspinlock")],
    "<features><pvspinlock state='off'/></features>": [("kvm-pv-unhalt", False, "pvspinlock")],
    "<features><pmu/></features>": [("pmu", True, "pmu")],
    "<features><pmu state='off'/></features>": [("pmu", False, "pmu")],
    "<features><kvm><hidden state='on'/></kvm></features>": [("kvm", False, "kvm hidden")],
    "<features><kvm><hidden state='off'/></kvm></features>": [],
    "<features><kvm><hint-dedicated state='on'/></kvm></features>": [
        ("kvm-hint-dedicated", True, "kvm hint-dedicated")
    ],
    "<features><kvm><poll-control state='on'/></kvm></features>": [
        ("kvm-poll-control", True, "kvm poll-control")
    ],
    "<features><kvm><pv-ipi state='off'/></kvm></features>": [("kvm-pv-ipi", False, "kvm pv-ipi")],
    "<features><kvm><pv-ipi state='on'/><dirty-ring state='on' size='4096'/></kvm></features>": [],
    "<features><hyperv mode='passthrough'/></features>": [
        ("hv-passthrough", True, "hyperv passthrough")
    ],
    "<features><hyperv mode='custom'><relaxed state='off'/></hyperv></features>": [],
    "<features><hyperv><spinlocks state='on' retries='0x1fff'/></hyperv></features>": [
        ("hv-spinlocks", 8191, "hyperv spinlocks")
    ],
    "<features><hyperv><vendor_id state='on' value='KVM Hv'/></hyperv></features>": [
        ("hv-vendor-id", "KVM Hv", "hyperv vendor_id")
    ],
    "<features><hyperv><stimer state='on'><direct state='on'/></stimer></hyperv></features>": [
        ("hv-stimer", True, "hyperv stimer"),
        ("hv-stimer-direct", True, "hyperv stimer direct"),
    ],
    "<features><hyperv><stimer state='off'><direct state='on'/></stimer></hyperv></features>": [],
    "<features><hyperv><tlbflush state='on'>"
    "<direct state='on'/><extended state='on'/></tlbflush></hyperv></features>": [
        ("hv-tlbflush", True, "hyperv tlbflush"),
        ("hv-tlbflush-direct", True, "hyperv tlbflush direct"),
        ("hv-tlbflush-ext", True, "hyperv tlbflush extended"),
    ],
    "<clock><timer name='kvmclock' present='no'/><timer name='hypervclock' "
    "present='yes'/></clock>": [
        ("kvmclock", False, "timer kvmclock"),
        ("hv-time", True, "timer hypervclock"),
    ],
    "<clock><timer name='tsc' frequency='3000000000' mode='native'/></clock>": [
        ("tsc-frequency", 3_000_000_000, "timer tsc")
    ],
    "<clock>"
    + "".join(f"<timer name='{name}'/>" for name in ("platform", "pit", "rtc", "hpet", "armvtimer"))
    + "</clock>": [],
    "<devices><panic model='hyperv'/><panic model='isa'/></devices>": [
        ("hv-crash", True, "panic hyperv")
    ],
}
for tag, name in ENLIGHTENMENTS.items():
    if tag not in ("spinlocks", "vendor_id"):
        SETTINGS[f"<features><hyperv><{tag} state='on'/></hyperv></features>"] = [
            (name, True, f"hyperv {tag}")
        ]


@pytest.mark.parametrize("inside", SETTINGS)
def test_settings(inside: str) -> None:
    request = parse_request(domain(inside))
    assert [
        (setting.name, setting.value, str(setting.origin)) for setting in request.settings
    ] == SETTINGS[inside]


def test_every_value_has_a_case() -> None:
    text = "\n".join([*CPUS, *SETTINGS])
    wanted = [f"mode='{mode}'" for mode in get_args(Mode)]
    wanted += [f"match='{match}'" for match in get_args(Match)]
    wanted += [f"check='{check}'" for check in get_args(Check)]
    wanted += [f"fallback='{fallback}'" for fallback in get_args(Fallback)]
    wanted += [f"<cache mode='{mode}'" for mode in ("emulate", "passthrough", "disable")]
    wanted += [f"<maxphysaddr mode='{mode}'" for mode in ("emulate", "passthrough")]
    wanted += [f"<{tag} state='on'" for tag in ENLIGHTENMENTS]
    wanted += [
        f"<{extra} state='on'" for extras in ENLIGHTENMENT_EXTRAS.values() for extra in extras
    ]
    wanted += [f"<{tag} state=" for tag in KVM_FEATURES]
    wanted += [f"<timer name='{name}'" for name in TIMERS]
    assert [value for value in wanted if value not in text] == []


def test_a_whole_domain() -> None:
    request = parse_request(
        domain(
            "<vcpu current='2'>8</vcpu><os><type arch='i686' machine='q35'>hvm</type></os>\n"
            "<cpu><model>qemu32</model><topology sockets='1' cores='8' threads='1'/></cpu>"
            "<devices><emulator>/usr/bin/qemu-system-i386</emulator></devices>",
            "type='qemu'",
        )
    )
    assert request == CpuRequest(
        by_libvirt=True,
        arch="i686",
        accel="tcg",
        machine="q35",
        emulator="/usr/bin/qemu-system-i386",
        mode="custom",
        model="qemu32",
        topology=Topology(cores=8),
        vcpus=8,
        where="<stdin>:3",
    )
    assert parse_request(domain("<name>a</name>")) == CpuRequest(where="<stdin>:1")


@pytest.mark.parametrize("kind", ACCELS)
def test_accelerator(kind: str) -> None:
    assert parse_request(f"<domain type='{kind}'/>").accel == ACCELS[kind]


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_wrapped_domains(wrapper: str) -> None:
    other = "<inactiveDomain type='kvm'><os/><cpu><model>Haswell</model></cpu></inactiveDomain>"
    inner = domain(f"<os/><cpu>{PENRYN}</cpu>")
    for content in (f"{inner}{other}", f"{other}<name>x</name>{inner}"):
        assert parse_request(f"<{wrapper}>{content}</{wrapper}>").model == "Penryn"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "iso-8859-1"])
def test_encodings(encoding: str) -> None:
    xml = (
        f"<?xml version='1.0' encoding='{encoding.removesuffix('-sig')}'?>\n<!-- é --><cpu>"
        f"\n{PENRYN}</cpu>"
    )
    request = parse_request(xml.encode(encoding))
    assert (request.model, request.where) == ("Penryn", "<stdin>:2")
    assert parse_request(xml).where == "<stdin>:2"


def test_a_file_is_read_by_its_path(tmp_path: Path) -> None:
    path = tmp_path / "guest.xml"
    path.write_text(domain(f"<cpu>{PENRYN}</cpu>"))
    assert parse_request(path).where == f"{path}:2"


CPU_STRINGS: dict[str, tuple[str | None, str | None, dict[str, Value]]] = {
    "Haswell": ("custom", "Haswell", {}),
    " -cpu Haswell-v1\n": ("custom", "Haswell-v1", {}),
    "Haswell,+vmx,-avx": ("custom", "Haswell", {"vmx": True, "avx": False}),
    "Haswell,+avx,avx=off": ("custom", "Haswell", {"avx": True}),
    "Haswell,-avx,+avx,avx=on": ("custom", "Haswell", {"avx": False}),
    "Haswell,avx=off,avx=on": ("custom", "Haswell", {"avx": True}),
    "Haswell,avx,,aes=no": ("custom", "Haswell", {"avx": True, "aes": False}),
    "Haswell,hv_relaxed=on,hv-spinlocks=0x1fff,level=13": (
        "custom",
        "Haswell",
        {"hv-relaxed": True, "hv-spinlocks": 8191, "level": 13},
    ),
    "Haswell,vendor=GenuineIntel,model-id=486,enforce": (
        "custom",
        "Haswell",
        {"vendor": "GenuineIntel", "model-id": "486", "enforce": True},
    ),
    "Haswell,tsc-freq=2.5G": ("custom", "Haswell", {"tsc-frequency": 2_500_000_000}),
    "host,migratable=off,kvm=off": ("host-passthrough", None, {"kvm": False}),
    "max": ("maximum", None, {}),
    "-cpu 'Haswell,model-id=a b' -global x86_64-cpu.model-id=c"
    " -global Haswell-x86_64-cpu.sse4.1=off -global e1000.a=b": (
        "custom",
        "Haswell",
        {"model-id": "a b", "sse4.1": False},
    ),
}


@pytest.mark.parametrize("text", CPU_STRINGS)
def test_cpu_string(text: str) -> None:
    request = parse_request(text)
    settings = {str(setting.name): setting.value for setting in request.settings}
    assert (request.mode, request.model, settings) == CPU_STRINGS[text]


def test_command_line() -> None:
    request = parse_request("-M pc-q35-7.2,accel=tcg -cpu host,migratable=off -smp 4")
    assert (request.machine, request.accel, request.migratable) == ("pc-q35-7.2", "tcg", False)
    assert parse_request("-machine type=pc -enable-kvm -cpu max").machine == "pc"


def commandline(*arguments: str) -> str:
    values = "".join(f"<q:arg value='{argument}'/>" for argument in arguments)
    return f"<q:commandline xmlns:q='{QEMU_NAMESPACE}'>{values}</q:commandline>"


def test_the_guests_own_globals() -> None:
    request = parse_request(
        domain(
            f"<features><pmu state='on'/></features><cpu>{PENRYN}</cpu>"
            + commandline(
                *(
                    "-global",
                    "Penryn-x86_64-cpu.model-id=a, b",
                    "-global",
                    "x86_64-cpu.pmu=off",
                    "-s",
                ),
                *(
                    "-global",
                    "Haswell-x86_64-cpu.level=1",
                    "-global",
                    "x86_64-cpu.xlevel=2",
                    "-global",
                    "e1000.a=b",
                ),
            )
        )
    )
    assert [(setting.name, setting.value, str(setting.origin)) for setting in request.settings] == [
        ("pmu", True, "pmu"),
        ("model-id", "a, b", "qemu:commandline"),
        ("xlevel", 2, "qemu:commandline"),
    ]


def test_the_guests_own_cpu_overrides() -> None:
    xml = domain(
        f"<vcpu>3</vcpu><features><pmu/></features><cpu>{PENRYN}</cpu>"
        + commandline("-cpu", "base,level=13")
    )
    request = parse_request(xml)
    assert (request.model, request.vcpus, request.where) == ("base", 3, "<stdin>:2")
    assert [(setting.name, setting.value) for setting in request.settings] == [("level", 13)]
