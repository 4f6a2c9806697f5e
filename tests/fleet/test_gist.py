"""What a document is without what says nothing of a CPU, and that documents which share a gist
are converted as each would be alone.
"""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cpumap.errors import CpumapError
from cpumap.fleet.convert import Answers
from cpumap.fleet.gist import Gist
from cpumap.fleet.gist import read_gist as gist_of
from cpumap.fleet.inputs import Input
from cpumap.fleet.run import Converted, Inline, convert_all
from cpumap.libvirt.cpu_map.load import load_cpu_map
from cpumap.libvirt.layout import QEMU_NAMESPACE
from cpumap.libvirt.words import libvirt_map
from cpumap.pin.translate import translate
from cpumap.sources.choose import Wanted
from cpumap.system.xml_document import Document

PLAIN = b"""\
<domain type='kvm'>
  <name>a</name>
  <vcpu placement='static'>2</vcpu>
  <os><type arch='x86_64' machine="pc-q35-5.2">hvm</type></os>
  <cpu mode='custom'><model>Haswell</model></cpu>
  <devices></devices>
</domain>
"""
ARGUMENTS = (
    f"<devices></devices><q:commandline xmlns:q='{QEMU_NAMESPACE}'>"
    "<q:arg value='-global'/><q:arg value='x86_64-cpu.level=9'/></q:commandline>"
).encode()
TOPOLOGY = b"</model><topology sockets='1' cores='2' threads='1'/></cpu>"
TELLING = {
    "emulator": (b"<devices></devices>", b"<devices><emulator>/bin/false</emulator></devices>"),
    "panic device": (b"<devices></devices>", b"<devices><panic model='hyperv'/></devices>"),
    "feature": (
        b"<devices></devices>",
        b"<features><pmu state='off'/></features><devices></devices>",
    ),
    "argument": (b"<devices></devices>", ARGUMENTS),
    "vCPUs that no topology gives": (b"</model></cpu>", TOPOLOGY, b">2</vcpu>", b">3</vcpu>"),
    "no number": (b">2</vcpu>", b">two</vcpu>"),
    "no vCPU": (b">2</vcpu>", b">0</vcpu>"),
    "a number for no vCPU": (b">2</vcpu>", b"/>", b"</domain>", b"<vcpu>2</vcpu></domain>"),
    "an attribute that ends no tag": (b"'static'>2<", b"'>1'>2>1<"),
    "where the last element ends": (b"</devices>\n", b"</devices>\n\n"),
    "an element that should not be there": (
        b"<devices></devices>",
        b"<features><hyperv></hyperv></features><devices></devices>",
        b"<hyperv>",
        b"<hyperv><title>a</title>",
    ),
    "a title that ends the domain": (b"\n</domain>", b"\n<title>a</title>\n</domain>"),
    "a title in another margin": (b"  <os>", b"    <title>a</title>\n  <os>"),
    "the first child's margin": (b"  <name>", b"    <name>"),
}
UNSHARED = {
    "line ends": (b"\n", b"\r\n"),
    "not ASCII": (b"<name>a", "<name>é".encode()),
    "CDATA": (b">Haswell<", b"><![CDATA[Haswell]]><"),
    "a comment": (b"</model></cpu>", b"</model><!-- --></cpu>"),
    "a processing instruction": (b"</model>", b"</model><?a b?>"),
    "a document type": (b"<domain", b"<!DOCTYPE domain>\n<domain"),
    "an encoding": (b"<domain", b"<?xml version='1.0' encoding='utf-7'?><domain"),
}
SHARED = {
    "another name": (b">a<", b">b.example<"),
    "a disk": (b"<devices></devices>", b"<devices>\n    <disk>\n<name/></disk>  </devices>"),
    "a header": (b"<domain", b"<?xml version=\"1.0\" encoding='UTF-8'?>\n<!-- <cpu/> -->\n<domain"),
    "a title": (b"  <os>", b"  <title>a</title>\n  <os>"),
    "metadata": (b"  <vcpu", b"  <metadata><a:cpu xmlns:a='urn:a'/></metadata>\n  <vcpu"),
    "more vCPUs": (b">2</vcpu>", b">16</vcpu>"),
    "a placement": (b"'static'>", b"'auto' current='1'>"),
}


def read_gist(document: bytes) -> Gist | None:
    return gist_of(document, Document.parse(document, "a.xml").root)


def changed(case: tuple[bytes, ...]) -> bytes:
    """The document with each first replaced by its second."""
    document = PLAIN
    for old, new in zip(case[::2], case[1::2], strict=True):
        assert old in document
        document = document.replace(old, new)
    return document


@pytest.mark.parametrize("case", TELLING)
def test_what_says_something_is_never_overlooked(case: str) -> None:
    first, other = changed(TELLING[case][:2]), changed(TELLING[case])
    plain, told = read_gist(PLAIN if len(TELLING[case]) == 2 else first), read_gist(other)
    assert plain is not None and told is not None and plain.text != told.text


@pytest.mark.parametrize("case", UNSHARED)
def test_what_takes_a_closer_look(case: str) -> None:
    assert read_gist(changed(UNSHARED[case])) is None


@pytest.mark.parametrize("case", SHARED)
def test_what_says_nothing(case: str) -> None:
    plain, other = read_gist(PLAIN), read_gist(changed(SHARED[case]))
    assert plain is not None and other is not None and plain.text == other.text


def test_an_edit_in_a_hole_is_not_remembered() -> None:
    gist = read_gist(PLAIN)
    assert gist is not None
    start = PLAIN.index(b"<vcpu")
    end = PLAIN.index(b"</vcpu>") + len(b"</vcpu>")
    assert gist.within([(start + 1, start + 1, b"!")]) is None
    assert gist.within([(start - 3, end + 3, b"!")]) is None
    for at in (start, end):
        within = gist.within([(at, at, b"!")])
        assert within is not None and gist.outside(within) == [(at, at, b"!")]


MODELS = ("Haswell", "Nehalem", "EPYC")
names = st.sampled_from(
    [
        "<name>{n}</name>",
        "<name >{n}</name>",
        "<name>{n}</name >",
        "<name><![CDATA[{n}]]></name>",
        "<name>{n}</name><!-- <name>x</name> -->",
        "<name a='>'>{n}</name>",
    ]
)
uuids = st.sampled_from(
    [
        "",
        "\n  <uuid>1-{n}</uuid>",
        "\n<uuid>1-{n}</uuid >",
        "<uuid\n>1</uuid>",
        "\n    <uuid>{n}<!-- </uuid> --></uuid>",
    ]
)
counts = st.sampled_from(
    [
        "<vcpu placement='static'>{c}</vcpu>",
        "<vcpu>{c}</vcpu>",
        "<vcpu a='>1'>{c}</vcpu>",
        "<vcpu a='b'><![CDATA[{c}]]></vcpu>",
        "<vcpu a='b'><!--3-->{c}</vcpu>",
        "<vcpu a='b'>{c}x</vcpu>",
        "<vcpu a='b'/><foo><vcpu a='b'>{c}</vcpu></foo>",
    ]
)
models = st.sampled_from(
    [
        "<model>{m}</model>",
        "<model><![CDATA[{m}]]></model>",
        "<model >{m}</model >",
        "<model>{m}<!-- Penryn --></model>",
        "<model>{m}</model><feature name='avx' policy='disable'/>",
        "<model>{m}</model><!-- <feature name='avx' policy='disable'/> -->",
        "<model>{m}</model><topology sockets='1' cores='2' threads='1'/>",
        "<model>{m}</model><topology sockets='1' cores='2' threads='1' a=' xmlns:a=\"b\"'/>",
        "<model>{m}</model><numa a='>'><name>{n}</name></numa>",
    ]
)
silences = st.sampled_from(
    [
        "",
        "<title>t</title>",
        "<title>t</title>{margin}<metadata><title/></metadata>",
        "<cputune a='>'/>",
        "<features><hyperv><title>t</title><relaxed state='on'/></hyperv></features>",
        "<features><hyperv><relaxed state='on'/></hyperv></features>",
        "<features><hyperv><title xmlns='urn:a'>t</title></hyperv></features><title>t</title>",
        "<metadata xmlns='urn:a'/>",
        "<description>d</description><title>t</title>",
    ]
)
devices = st.sampled_from(
    [
        "<devices/>",
        "<devices></devices>",
        "<devices><disk><emulator>/x</emulator></disk></devices>",
        "<devices><panic model='hyperv'/></devices>",
        "<devices><![CDATA[</devices>]]></devices>",
        "<devices a='<!--'></devices><foo>--></foo>".replace("<!", "&lt;!"),
        "<devices>\n<devices><panic model='hyperv'/></devices><disk/></devices >",
        "<devices><disk/></devices><metadata><a:cpu xmlns:a='urn:a'><cpu/></a:cpu></metadata>",
        "<metadata><devices><panic model='hyperv'/></devices></metadata><devices></devices>",
        "<metadata a='</metadata>'/>".replace("</", "&lt;/") + "<devices></devices>",
        ARGUMENTS.decode(),
    ]
)
headers = st.sampled_from(
    [
        "",
        "\n",
        "<!-- by hand -->\n",
        "<?xml version='1.0'?>\n",
        "<?xml version='1.0' encoding='UTF-8'?><!-- a --><?b c?>",
        "<!DOCTYPE domain>",
    ]
)


@st.composite
def domains(draw: st.DrawFn) -> bytes:
    """A legal document, plain or odd, of few kinds of CPU."""
    margin = draw(st.sampled_from(["\n  ", "\n    ", "", " "]))
    parts = [
        draw(names),
        draw(uuids),
        draw(counts),
        draw(silences).replace("{margin}", margin),
        "<os><type arch='x86_64' machine='pc-q35-5.2'>hvm</type></os>",
        f"<cpu mode='custom'>{draw(models)}</cpu>",
        draw(devices),
        *draw(st.sampled_from([[], ["<title>t</title>"]])),
    ]
    words = {"{n}": str(draw(st.integers(1, 2))), "{c}": str(draw(st.integers(2, 3)))}
    words["{m}"] = draw(st.sampled_from(MODELS))
    text = f"{draw(headers)}<domain type='kvm'>{margin}{margin.join(parts)}{margin}</domain>\n"
    for word, value in words.items():
        text = text.replace(word, value)
    return text.lstrip("\n").encode() if text.lstrip("\n").startswith("<?") else text.encode()


def alone(document: bytes) -> bytes | None:
    """What `translate` makes of it; None where it refuses."""
    try:
        return translate(document, format="xml", recorded="7.2").encode()
    except CpumapError:
        return None


def together(documents: list[bytes]) -> list[bytes | None]:
    """What `convert` makes of them in one run."""
    answers = Answers(Wanted(recorded="7.2"), load_cpu_map(), libvirt_map())
    inputs = [Input(f"{n}.xml", f"{n}.xml", data=data) for n, data in enumerate(documents)]
    try:
        found = [one for group in convert_all(inputs, Inline(), answers) for one in group]
    finally:
        answers.close()
    return [content_of(one) for one in found]


def content_of(one: Converted) -> bytes | None:
    if one.outcome.status not in ("converted", "explicit"):
        return None
    return one.old if one.content is None else one.content


CDATA = PLAIN.replace(b"Haswell", b"<![CDATA[Haswell]]>")


@given(domains(), domains())
@example(CDATA, CDATA.replace(b"Haswell", b"Nehalem"))
@settings(max_examples=60, deadline=None)
def test_documents_converted_together_become_what_each_becomes_alone(
    first: bytes, second: bytes
) -> None:
    assert together([first, second, first]) == [alone(first), alone(second), alone(first)]
