"""Putting a `<cpu>` back: what is around it stays as it was, byte for byte."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpumap.cpu.names import FeatureName
from cpumap.errors import DomainError
from cpumap.libvirt.cpu_edit import ExplicitElement
from cpumap.libvirt.domain import parse_request
from cpumap.libvirt.edit import replace_cpu
from cpumap.libvirt.layout import QEMU_NAMESPACE, WRAPPERS
from cpumap.libvirt.surroundings import attribute

CPU = ExplicitElement("none", "Haswell", None, ((FeatureName("avx"), False),))
BARE = ExplicitElement("none", "Haswell", None, ())
DECLARATION = f" xmlns:qemu='{QEMU_NAMESPACE}'"
OURS = ("-global", "Haswell-x86_64-cpu.model-id=Intel, <no> 'TSX' & é")

ATTRIBUTES = "mode='custom' match='exact' check='none'"
MODEL = "<model fallback='forbid'>Haswell</model>"
AVX = "<feature policy='disable' name='avx'/>"
NEW_CPU = f"<cpu {ATTRIBUTES}>{{n}}  {MODEL}{{n}}  {AVX}{{n}}</cpu>"
CPUS = {
    "<cpu/>": NEW_CPU,
    "<cpu mode='host-passthrough' />": NEW_CPU.replace("check='none'", "check='none' "),
    "<cpu></cpu >": NEW_CPU.replace("</cpu", "</cpu "),
    "<cpu a='>'><!-- </cpu> --><model>Penryn</model><feature name='a'/></cpu>": (
        f"<cpu a='>' {ATTRIBUTES}><!-- </cpu> -->{MODEL}{{n}}  {AVX}{{n}}</cpu>"
    ),
    "<cpu><numa>\n<cell id='0'/></numa>\n<cpu/></cpu>": (
        f"<cpu {ATTRIBUTES}>{{n}}  {MODEL}<numa>\n<cell id='0'/></numa>\n<cpu/>"
        f"{{n}}  {AVX}{{n}}</cpu>"
    ),
    (
        "<cpu check = \"partial\"  migratable='on'\n mode=\"host-passthrough\" x:mode='x' "
        "xmlns:x='urn:x'><model vendor_id='a' ><!--é-->Pen<?r y?>ryn</model>"
        '<vendor>AMD</vendor><feature policy="force" name="avx"/><!-- off --></cpu>'
    ): (
        "<cpu check = \"none\"\n mode=\"custom\" x:mode='x' xmlns:x='urn:x' match='exact'>"
        "<model fallback='forbid' >Haswell<!--é--><?r y?></model>"
        '<feature policy="disable" name="avx"/><!-- off --></cpu>'
    ),
}
FILLERS = (
    "",
    "<!-- <cpu/> <domain> -->",
    "<metadata><m:x xmlns:m='urn:m'><cpu><m:cpu/></cpu><domain/><![CDATA[<cpu>]]></m:x></metadata>",
    "<?pi <cpu/> ?>",
    "<clock offset='utc'><timer name='rtc' tickpolicy=\"catchup\"/></clock>",
    "<description>é &amp; &#x20AC; ]] > </description>",
)
DOCTYPE = """<!DOCTYPE d [
<!NOTATION n SYSTEM "<cpu >"><!-- it's <cpu> ]> --><!ELEMENT cpu ANY><?a "<domain> ]> ?>
]>
"""
USERS_ARGS = "<qemu:arg value='-s'/><qemu:env name='A' value='-cpu'/>"
FORMER = (
    "<qemu:arg value='-global'/><qemu:arg value='x86_64-cpu.level=13'/>",
    "<qemu:arg value='-cpu'/>\n<qemu:arg value='base,level=13'></qemu:arg>",
)


def arguments(values: tuple[str, ...], margin: str, step: str = "  ") -> str:
    return "".join(
        f"{margin}{step if margin else ''}<qemu:arg value={attribute(value)}/>" for value in values
    )


layouts = st.fixed_dictionaries(
    {
        "newline": st.sampled_from(["\n", "\r\n"]),
        "indent": st.sampled_from(["  ", "\t", "", "      "]),
        "one_line": st.booleans(),
        "encoding": st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"]),
        "before": st.lists(st.sampled_from(FILLERS), max_size=3),
        "between": st.lists(st.sampled_from(FILLERS), max_size=3),
        "after": st.lists(st.sampled_from(FILLERS), max_size=3),
        "attributes": st.sampled_from(
            ["", " type='kvm'", ' type="kvm" id=\'1\'\n xmlns:x="urn:x"']
        ),
        "wrapper": st.sampled_from(["", *WRAPPERS]),
        "old": st.sampled_from(["", *CPUS]),
        "header": st.sampled_from(
            ["", DOCTYPE, "<!--\nWARNING: THIS IS AN AUTO-GENERATED FILE\n-->\n"]
        ),
    }
)


class Sheet:
    """A document with slots: the same text around whatever stands in them."""

    def __init__(self, **layout: object) -> None:
        self.layout = layout
        newline = "\n" if layout["one_line"] else str(layout["newline"])
        self.newline = newline
        self.margin = "" if layout["one_line"] else f"{newline}{layout['indent']}"
        self.indent = "" if layout["one_line"] else str(layout["indent"])

    def lines(self, slot: str) -> str:
        texts = self.layout[slot]
        assert isinstance(texts, list)
        return "".join(f"{self.margin}{text}" for text in texts if text)

    def document(self, cpu: str, declaration: str = "", commandline: str = "") -> bytes:
        encoding = str(self.layout["encoding"])
        wrapper = str(self.layout["wrapper"])
        start, end = (f"<{wrapper}>", f"</{wrapper}>") if wrapper else ("", "")
        prolog = (
            f"<?xml version='1.0' encoding='{encoding.removesuffix('-sig')[:6].rstrip('-')}'?>\n"
        )
        text = (
            f"{prolog}{self.layout['header']}{start}"
            f"<domain{declaration}{self.layout['attributes']}>"
            f"{self.margin}<name>a</name>{self.lines('before')}"
            f"{self.margin}<os>"
            f"<type>hvm</type></os>{cpu}{self.lines('between')}{self.margin}<devices/>"
            f"{self.lines('after')}{commandline}{self.newline}</domain>{self.newline}{end}"
        )
        return text.encode(encoding)

    def old_cpu(self) -> str:
        return f"{self.margin}{self.layout['old']}" if self.layout["old"] else ""

    def new_cpu(self) -> str:
        new = CPUS.get(str(self.layout["old"]), NEW_CPU)
        return self.margin + new.replace("{n}", self.newline + self.indent)

    def commandline(self, inside: str) -> str:
        return f"{self.margin}<qemu:commandline>{inside}{self.margin}</qemu:commandline>"


@given(layouts)
def test_only_the_cpu_changes(layout: dict[str, object]) -> None:
    sheet = Sheet(**layout)
    changed = replace_cpu(sheet.document(sheet.old_cpu()), CPU)
    assert changed == sheet.document(sheet.new_cpu())
    assert replace_cpu(changed, CPU) == changed


@given(layouts)
def test_only_the_cpu_and_the_command_line_change(layout: dict[str, object]) -> None:
    sheet = Sheet(**layout)
    changed = replace_cpu(sheet.document(sheet.old_cpu()), CPU, OURS)
    commandline = sheet.commandline(arguments(OURS, sheet.margin))
    wide = str(layout["encoding"]).startswith("utf-16")
    expected = sheet.document(
        sheet.new_cpu(), DECLARATION, commandline if wide else commandline.replace("é", "&#233;")
    )
    assert changed == expected
    assert replace_cpu(changed, CPU, OURS) == changed
    assert replace_cpu(changed, CPU) == sheet.document(sheet.new_cpu(), DECLARATION)


@given(layouts, st.sampled_from(["", USERS_ARGS]), st.sampled_from(["", *FORMER]))
def test_the_users_arguments_stay_and_ours_are_replaced(
    layout: dict[str, object], users: str, former: str
) -> None:
    sheet = Sheet(**layout)
    declared = sheet.document(sheet.old_cpu(), DECLARATION, sheet.commandline(former + users))
    kept = users + arguments(("-global", "x86_64-cpu.level=20"), sheet.margin)
    changed = replace_cpu(declared, CPU, ("-global", "x86_64-cpu.level=20"))
    assert changed == sheet.document(sheet.new_cpu(), DECLARATION, sheet.commandline(kept))
    unpinned = replace_cpu(declared, CPU)
    empty = not users and bool(former)
    assert unpinned == sheet.document(
        sheet.new_cpu(), DECLARATION, "" if empty else sheet.commandline(users)
    )


@given(
    layouts,
    st.text(
        st.characters(exclude_categories=["Cs"], exclude_characters="\0\x0b\x0c\ufffe\uffff"),
        max_size=20,
    ),
)
def test_what_was_put_in_is_read_again(layout: dict[str, object], text: str) -> None:
    value = "".join(character for character in text if character >= " " or character in "\t\n\r")
    sheet = Sheet(**{**layout, "attributes": " type='kvm'"})
    changed = replace_cpu(
        sheet.document(sheet.old_cpu()), CPU, ("-global", f"Haswell-x86_64-cpu.model-id={value}")
    )
    request = parse_request(changed)
    assert (request.mode, request.model, request.match) == ("custom", "Haswell", "exact")
    assert [(feature.name, feature.policy) for feature in request.features] == [("avx", "disable")]
    assert [(setting.name, setting.value) for setting in request.settings] == [("model-id", value)]


def test_a_line_end_or_bracket_in_a_value_is_kept() -> None:
    assert attribute("a'b\"<&>\t\r\n") == "'a&apos;b\"&lt;&amp;&gt;&#9;&#13;&#10;'"


def test_place_where_there_was_no_cpu() -> None:
    document = b"<domain>\n  <features/>\n  <os/>\n  <clock/>\n</domain>"
    assert replace_cpu(document, BARE) == (
        b"<domain>\n  <features/>\n  <cpu mode='custom' match='exact' check='none'>\n"
        b"    <model fallback='forbid'>Haswell</model>\n  </cpu>\n  <os/>\n  <clock/>\n</domain>"
    )
    document = b"<domain>\n    <name/>\n\n    <os>\n    </os>\n\n    <clock/>\n</domain>"
    assert replace_cpu(document, BARE).startswith(
        b"<domain>\n    <name/>\n\n    <os>\n    </os>\n    <cpu mode='custom'"
    )


def test_another_prefix_for_the_qemu_namespace() -> None:
    document = f"<domain xmlns:q='{QEMU_NAMESPACE}'>\n<name/>\n<cpu/>\n</domain>".encode()
    assert b"</cpu>\n<q:commandline>\n  <q:arg value='-s'/>\n</q:commandline>\n" in replace_cpu(
        document, BARE, ["-s"]
    )
    document = f"<domain>\n<name/>\n<q:commandline xmlns:q='{QEMU_NAMESPACE}'/>\n</domain>".encode()
    changed = replace_cpu(document, BARE, ["-s"])
    assert parse_request(changed.replace(b"<domain", b"<domain type='kvm'")).model == "Haswell"
    assert b"/>\n</q:commandline>\n</domain>" in changed
    document = b"<domain xmlns:qemu='urn:other'>\n<name/>\n</domain>"
    assert f"xmlns:libvirt-qemu='{QEMU_NAMESPACE}'".encode() in replace_cpu(document, BARE, ["-s"])


def test_several_command_lines_count_as_one() -> None:
    one, other = "<qemu:arg value='-cpu'/>", "<qemu:arg value='Penryn,level=9'/>"
    kept = "<qemu:arg value='-s'/>"
    document = (
        f"<domain type='kvm'{DECLARATION}><name/><os/><qemu:commandline>{{}}</qemu:commandline>"
        f"<devices/><q:commandline xmlns:q='{QEMU_NAMESPACE}'>{{}}</q:commandline></domain>"
    )
    split = document.format(kept + one, other.replace("qemu:", "q:"))
    request = parse_request(split)
    assert (request.model, request.by_libvirt) == ("Penryn", False)
    assert replace_cpu(split.encode(), None).decode() == document.format(kept, "")
    again = replace_cpu(split.encode(), None, ("-cpu", "max")).decode()
    assert again == document.format(kept, "<q:arg value='-cpu'/><q:arg value='max'/>")
    alone = document.format(one, other.replace("qemu:", "q:"))
    assert b"commandline" not in replace_cpu(alone.encode(), None)


def test_the_qemu_namespace_as_the_default_one() -> None:
    whole = (
        f"<domain>{{}}<commandline xmlns='{QEMU_NAMESPACE}'>{{}}<env name='A' value='b'/>"
        f"</commandline></domain>"
    )
    document = whole.format("", "<arg value='-s'/>").encode()
    written = replace_cpu(document, None, ("-a",)).decode()
    assert written == whole.format("", "<arg value='-s'/>").replace(
        "</comm", "<arg value='-a'/></comm"
    )
    former = whole.format(
        "<metadata><arg xmlns='urn:x'/></metadata>", "<arg value='-cpu'/><arg value='base'/>"
    )
    again = replace_cpu(former.encode(), None, ("-cpu", "max")).decode()
    assert again.endswith(
        "<env name='A' value='b'/><arg value='-cpu'/><arg value='max'/></commandline></domain>"
    )
    assert "'base'" not in again and "<arg xmlns='urn:x'/>" in again


def test_other_bytes_in_a_single_byte_encoding() -> None:
    document = (
        "<?xml version='1.0' encoding='iso-8859-15'?><domain><name>é€</name><cpu/></domain>".encode(
            "iso-8859-15"
        )
    )
    changed = replace_cpu(document, replace(BARE, vendor_id="é"))
    assert changed == document.replace(
        b"<cpu/>",
        f"<cpu {ATTRIBUTES}>\n  <model fallback='forbid' vendor_id='&#233;'>Haswell</model>\n"
        "</cpu>".encode(),
    )


def test_a_cpu_alone() -> None:
    assert replace_cpu(b"<!-- host -->\n<cpu><arch/></cpu>\n", BARE) == (
        f"<!-- host -->\n<cpu {ATTRIBUTES}>\n  {MODEL}<arch/></cpu>\n".encode()
    )


REFUSED = {
    "not XML": (b"<domain>\n<name>", 2, "not well-formed XML: Premature end of data"),
    "wrong root": (b"<network/>", 1, "expected <domain> or <cpu>, found <network>"),
    "no domain": (b"<domstatus/>", 1, "no <domain> and no <cpu>"),
    "entities": (
        b"<!DOCTYPE d [\n<!ENTITY a 'b'>]><domain>&a;</domain>",
        1,
        "XML entities are not accepted",
    ),
    "no place": (b"<domain/>", 1, "no place for a <cpu> in this <domain>"),
    "no place for arguments": (b"<cpu/>", 1, "QEMU arguments need a <domain> to stand in"),
    "encoding": (
        b"<?xml version='1.0' encoding='bogus'?><domain/>",
        1,
        "not well-formed XML: Unsupported encoding",
    ),
    "not in ASCII": (
        b"<?xml version='1.0' encoding='iso-2022-jp'?><domain/>",
        1,
        "this XML cannot be edited",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str) -> None:
    document, line, message = REFUSED[case]
    with pytest.raises(DomainError) as caught:
        replace_cpu(document, BARE, ["-s"], name="guest.xml")
    assert str(caught.value).startswith(f"guest.xml:{line}: {message}")
