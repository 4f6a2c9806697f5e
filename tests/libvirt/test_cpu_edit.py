"""What a `<cpu>` says of something else than the CPU stays, byte for byte: comments, quotes,
indentation, topology.
"""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from cpumap.cpu.names import FeatureName
from cpumap.libvirt.cpu_edit import ExplicitElement
from cpumap.libvirt.edit import replace_cpu
from cpumap.pin.translate import translate

NEW = ExplicitElement(
    "none",
    "Haswell",
    None,
    tuple((FeatureName(name), on) for name, on in (("aes", True), ("avx", False), ("sse", True))),
)
ADDED = (("require", "aes"), ("disable", "avx"), ("require", "sse"))
MODELS = {
    "<model>Penryn</model>": "<model fallback='forbid'>Haswell</model>",
    '<model  fallback="forbid" >Haswell</model>': '<model  fallback="forbid" >Haswell</model>',
    '<model vendor_id="abcdefghijkl" fallback="allow">Pen<!-- <model> -->ryn</model >': (
        '<model fallback="forbid">Haswell<!-- <model> --></model >'
    ),
    "<model><![CDATA[Penryn]]></model>": "<model fallback='forbid'>Haswell</model>",
    "<model/>": "<model fallback='forbid'>Haswell</model>",
}
FEATURES = {
    '<feature\tname="avx"  policy="require"/>': '<feature\tname="avx"  policy="disable"/>',
    "<feature name='aes' ></feature>": "<feature name='aes' ></feature>",
    "<feature policy='optional' name='sse' />": "<feature policy='require' name='sse' />",
    "<feature name='cmt'><!-- not ours --></feature>": "",
}
GONE = {
    "<vendor>Intel</vendor>": "",
    "<maxphysaddr mode='emulate' bits='42'/>": "",
    "<cache mode='passthrough'/>": "",
}
STAYS = (
    "<!-- <feature name='avx'> é -->",
    "<!---->",
    '<?note <cpu a=">"?>',
    "<topology sockets=\"1\"  cores='2'\n threads='1' x:dies='1' xmlns:x='urn:x'/>",
    "<numa>\n\t<cell id='0' cpus=\"0-1\"\n memory='1' ><!-- a --></cell></numa>",
    "<cache level='3' mode=\"emulate\"  />",
    "<unheard-of>a &amp; b<![CDATA[ </cpu> ]]></unheard-of>",
)
SAME = {piece: piece for piece in STAYS}
PIECES = [*FEATURES.items(), *GONE.items(), *SAME.items()]
SPACES = ("", " ", "\n    ", "\n\t", "\n\n      ")


def laid_out(pieces: list[tuple[str, str]], spaces: list[str]) -> list[str]:
    """Each piece with the white space before it: on lines of its own or not."""
    return [space + piece for (piece, _), space in zip(pieces, spaces[: len(pieces)], strict=True)]


def expected(pieces: list[tuple[str, str]], spaces: list[str]) -> list[str]:
    """The same pieces less what goes, each where it was."""
    kept = []
    for (_, new), space in zip(pieces, spaces[: len(pieces)], strict=True):
        left = space.rpartition("\n")[0] if "\n" in space else space
        kept.append(space + new if new else left)
    return kept


def stands_in(pieces: list[str], text: str) -> bool:
    """Whether all of them are there, one behind the other."""
    position = 0
    for piece in pieces:
        position = text.find(piece, position)
        if position < 0:
            return False
        position += len(piece)
    return True


@given(
    st.permutations(PIECES).flatmap(lambda all_: st.integers(0, 8).map(lambda n: all_[:n])),
    st.sampled_from([*MODELS.items()]),
    st.lists(st.sampled_from(SPACES), min_size=9, max_size=9),
    st.sampled_from(["", " ", "\n  ", "\n"]),
)
def test_all_else_stays(
    pieces: list[tuple[str, str]], model: tuple[str, str], spaces: list[str], tail: str
) -> None:
    children = [*pieces[:2], model, *pieces[2:]]
    features = [new for _, new in children if new.startswith("<feature")]
    in_order = features == sorted(features, key=feature_name)
    document = "<domain>\n  <cpu mode='custom' match='exact' check='none'>{}</cpu>\n</domain>\n"
    content = "".join(laid_out(children, spaces)) + tail
    written = replace_cpu(document.format(content).encode(), NEW).decode()
    assert replace_cpu(written.encode(), NEW).decode() == written
    assert [policy_and_name(e) for e in features_of(written)] == list(ADDED)
    texts = zip(children, expected(children, spaces), strict=True)
    left = [text for (_, new), text in texts if in_order or not new.startswith("<feature")]
    assert stands_in(left, written)
    others = written.removeprefix(document.partition("{}")[0]).rpartition("</cpu>")[0]
    for text in left:
        others = others.replace(text, "", 1)
    assert "<" not in re.sub("<feature[^>]*>(</feature>)?", "", others)


def feature_name(text: str) -> str:
    found = re.search("name=['\"](.*?)['\"]", text)
    assert found is not None
    return found[1]


def features_of(document: str) -> list[etree._Element]:
    return etree.fromstring(document.encode()).findall("cpu/feature")


def policy_and_name(element: etree._Element) -> tuple[str, str]:
    return element.get("policy", "require"), element.get("name", "")


DOMAIN = """\
<domain type='kvm'>
  <name>a</name>
  <vcpu>4</vcpu>
  <os><type arch='x86_64' machine='pc-q35-7.2'>hvm</type></os>
  <cpu mode="custom" match='exact' check='none'>
    <!-- agreed with the storage team -->
    <model fallback='forbid'>Haswell</model> <!-- since 2021 -->
    <topology sockets="1" dies='1' cores='4'   threads='1'/>
        <feature name="avx2" policy="disable"/>  <!-- no AVX2 -->
    <numa>
          <cell id='0' cpus='0-3' memory='1048576' unit='KiB'/>
    </numa>
  </cpu>
  <devices/>
</domain>
"""


def test_every_line_of_a_document_stays_in_its_place() -> None:
    written = translate(DOMAIN, format="xml", recorded="7.2")
    plain = written.replace(" vendor_id='GenuineIntel'", "")
    assert stands_in([line for line in DOMAIN.splitlines() if line.startswith("    ")], plain)
    names = [feature_name(line) for line in written.splitlines() if "<feature" in line]
    assert len(names) > 100 and names == sorted(names)
    assert translate(written, format="xml", recorded="7.2") == written


def test_features_in_another_order_keep_their_spelling() -> None:
    odd = '<feature  name="pdpe1gb" />', "<feature name='avx2' policy=\"disable\"></feature>"
    document = DOMAIN.replace("<topology", f"{odd[0]}\n {odd[1]}<!-- here -->\n    <topology")
    document = document.replace('<feature name="avx2" policy="disable"/>', "")
    written = translate(document, format="xml", recorded="7.2")
    assert all(f"\n    {element}\n" in written for element in odd)
    names = [feature_name(line) for line in written.splitlines() if "<feature" in line]
    assert names == sorted(names)
    assert "<!-- here -->\n    <topology" in written
    assert translate(written, format="xml", recorded="7.2") == written
