"""What a document is without what says nothing of a CPU, and that edits found once are right for
all of one gist.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpumap.fleet.gist import Gist, read_gist
from cpumap.libvirt.edit import cpu_edits, edited
from cpumap.libvirt.layout import QEMU_NAMESPACE, read_layout

PLAIN = b"""\
<domain type='kvm'>
  <name>a</name>
  <vcpu placement='static'>2</vcpu>
  <os><type arch='x86_64' machine="pc-q35-5.2">hvm</type></os>
  <cpu mode='custom'><model>Haswell</model></cpu>
  <devices></devices>
</domain>
"""
COMMANDLINE = (
    f"<devices></devices><q:commandline xmlns:q='{QEMU_NAMESPACE}'>"
    "<q:arg value='-global'/><q:arg value='x86_64-cpu.level=9'/></q:commandline>"
).encode()
TELLING = {
    "emulator": (b"<devices></devices>", b"<devices><emulator>/bin/false</emulator></devices>"),
    "feature": (
        b"<devices></devices>",
        b"<features><pmu state='off'/></features><devices></devices>",
    ),
    "feature in a comment": (b"</model></cpu>", b"</model><!-- --><feature name='avx'/></cpu>"),
    "where the last element ends": (b"</devices>\n", b"</devices>\n<!-- -->\n"),
    "argument": (b"<devices></devices>", COMMANDLINE),
}
ODD = {
    "panic device": (b"<devices></devices>", b"<devices><panic model='hyperv'/></devices>"),
    "twice": (b"<devices></devices>", b"<devices></devices><devices></devices>"),
    "self-closing": (b"<devices></devices>", b"<devices/>"),
    "vCPUs one by one": (b"</vcpu>", b"</vcpu><vcpus><vcpu id='0' enabled='no'/></vcpus>"),
    "another's end": (
        b"  <os>",
        b"<numatune><memory mode='strict'/></numatune>  <os>",
        b"</domain>",
        b"<memory>1</memory></domain>",
    ),
    "a number for no vCPU": (b">2</vcpu>", b"/>", b"</domain>", b"<vcpu>2</vcpu></domain>"),
    "no number": (b">2</vcpu>", b">two</vcpu>"),
    "line ends": (b"\n", b"\r\n"),
    "not ASCII": (b"<name>a", "<name>é".encode()),
    "nested": (b"<name>a</name>", b"<name>a<name>b</name></name>"),
}


def changed(case: tuple[bytes, ...]) -> bytes:
    """The document with each first replaced by its second."""
    document = PLAIN
    for old, new in zip(case[::2], case[1::2], strict=True):
        assert old in document
        document = document.replace(old, new)
    return document


@pytest.mark.parametrize("case", TELLING)
def test_what_says_something_of_the_cpu_is_never_overlooked(case: str) -> None:
    plain, other = read_gist(PLAIN), read_gist(changed(TELLING[case]))
    assert plain is not None and other is not None and plain.text != other.text


@pytest.mark.parametrize("case", ODD)
def test_what_takes_a_closer_look(case: str) -> None:
    assert read_gist(changed(ODD[case])) is None


def without(silent: bytes) -> Gist:
    gist = read_gist(PLAIN.replace(b"  <os>", silent + b"  <os>"))
    assert gist is not None
    return gist


silences = st.lists(
    st.sampled_from(
        [
            b"  <title>cpu</title>\n",
            b"<description>\n<!-- <cpu/> </description> -->\n</description>\n",
            b"  <metadata>\n    <a:cpu xmlns:a='urn:a'><cpu/><name>x</name></a:cpu>\n  "
            b"</metadata>\n",
            b"  <memory unit='KiB'>4194304</memory>\n",
            b"    <currentMemory unit='KiB'>1</currentMemory>\n",
            b"\t<cputune>\n    <vcpupin vcpu='0' cpuset='1'/>\n  </cputune>\n",
        ]
    ),
    unique=True,
)
devices = st.sampled_from(
    [b"<devices></devices>", b"<devices>\n    <disk/>\n<!-- <panic/> -->  </devices>"]
)
headers = st.sampled_from([b"", b"<!-- by hand -->\n", b"\n<?some thing?>\n\n"])
cpus = st.sampled_from([None, "<cpu>\n  <model>EPYC</model>\n</cpu>\n"])
arguments = st.sampled_from([(), ("-global", "x86_64-cpu.level=13"), ("-cpu", "base,+avx")])
machines = st.sampled_from([None, "pc-q35-7.2"])


@given(silences, devices, headers, cpus, arguments, machines)
def test_edits_found_once_are_right_for_every_document_of_the_gist(
    silent: list[bytes],
    device: bytes,
    header: bytes,
    cpu: str | None,
    extra: tuple[str, ...],
    machine: str | None,
) -> None:
    def edits(document: bytes) -> list[tuple[int, int, bytes]]:
        return cpu_edits(
            document, cpu, extra, layout=read_layout(document), name="a.xml", machine=machine
        )

    other = header + PLAIN.replace(b"  <os>", b"".join(silent) + b"  <os>").replace(
        b"<devices></devices>", device
    )
    mine, theirs = read_gist(PLAIN), read_gist(other)
    assert mine is not None and theirs is not None and mine.text == theirs.text
    lasting = mine.within(edits(PLAIN))
    assert lasting is not None
    assert edited(other, theirs.outside(lasting)) == edited(other, edits(other))
    assert theirs.within(edits(other)) == lasting


def test_an_edit_in_what_was_cut_out_is_not_remembered() -> None:
    gist = read_gist(PLAIN)
    assert gist is not None
    start = PLAIN.index(b"<vcpu") - 3
    end = PLAIN.index(b"</vcpu>") + len(b"</vcpu>")
    assert gist.within([(start, start, b"!")]) is None and gist.within([(end, end, b"!")]) is None
    assert gist.within([(start - 30, end + 3, b"!")]) is None
    assert gist.within([(end + 3, end + 3, b"!")]) is not None
