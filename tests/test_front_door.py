"""The front door: what `dir(cpumap)` shows, and the forms in which it takes a document."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from lxml import etree

import cpumap
from tests.support.paths import TREE

EXAMPLE = TREE / "data/examples/web-server.xml"
CALLS = (
    *("translate", "parse_request", "explicit_cpu", "write", "open_source", "expand", "resolve"),
    *("convert", "lock", "audit", "check", "Wanted", "Choices", "Answers", "CpumapError"),
)


def test_dir_shows_the_calls_before_anything_is_imported() -> None:
    code = "import cpumap, sys; print(*dir(cpumap)); print('lxml' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=TREE, capture_output=True, text=True, check=True
    )
    names, imported = done.stdout.splitlines()
    assert set(CALLS) <= set(names.split())
    assert imported == "False"
    assert set(cpumap.__all__) <= set(dir(cpumap))
    for name in cpumap.__all__:
        assert getattr(cpumap, name).__module__.startswith("cpumap.")


@pytest.mark.parametrize("form", ["args", "xml", "cpu-xml", "json", "readconfig"])
def test_a_document_is_taken_in_any_form(form: Any) -> None:
    content = EXAMPLE.read_bytes()
    expected = cpumap.translate(content, format=form, recorded="7.2")
    for given in (content.decode(), EXAMPLE):
        assert cpumap.translate(given, format=form, recorded="7.2") == expected
    element = etree.fromstring(content)
    found = cpumap.translate(element, format=form, recorded="7.2")
    # lxml quotes attributes in its own way, and writes the element without what is around it.
    same = etree.canonicalize if form == "xml" else str
    assert same(found) == same(expected)
    cpu = element.find("cpu")
    assert cpu is not None
    assert cpumap.parse_request(cpu).model == cpumap.parse_request(content).model


def test_an_element_keeps_its_line_numbers() -> None:
    tree = etree.fromstring("<all>\n\n<domain type='kvm'>\n<cpu mode='wrong'/></domain></all>")
    with pytest.raises(cpumap.CpumapError, match=r"guest:4: invalid value for attribute 'mode'"):
        cpumap.parse_request(tree[0], name="guest")


def test_a_path_names_itself_in_complaints(tmp_path: Path) -> None:
    path = tmp_path / "guest.xml"
    path.write_text("<domain type='kvm'>\n<cpu mode='wrong'/></domain>")
    with pytest.raises(cpumap.CpumapError, match=rf"{path}:2: invalid"):
        cpumap.translate(path)
    with pytest.raises(cpumap.CpumapError, match="No such file"):
        cpumap.translate(tmp_path / "missing.xml")


def _choices(**wished: Any) -> cpumap.Choices:
    return cpumap.Choices(**wished)


WRONG: dict[str, tuple[Any, dict[str, Any], str]] = {
    "a format": (EXAMPLE, {"format": "yaml"}, "no format 'yaml'; there are args, xml"),
    "a style": (EXAMPLE, {"style": "minus"}, "no style 'minus'; there are plus, onoff"),
    "a pin": (EXAMPLE, {"choices": _choices(pin="all")}, "no pin 'all'"),
    "unavailable": (EXAMPLE, {"choices": _choices(unavailable="drop")}, "no unavailable 'drop'"),
    "an accelerator": (EXAMPLE, {"accel": "hvf"}, "no accel 'hvf'"),
    "a release": (EXAMPLE, {"recorded": "1.0"}, "1.0"),
    "no document": (7, {}, "a document is bytes, text, a path or an element, not int"),
    "nothing": (None, {}, "not NoneType"),
    "a -cpu string as XML": ("qemu64", {"format": "xml"}, "format xml rewrites a domain XML"),
    "a host": (EXAMPLE, {"host": "<domain/>"}, "host"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_a_cpumap_error(what: str) -> None:
    document, options, complaint = WRONG[what]
    with pytest.raises(cpumap.CpumapError, match=complaint):
        cpumap.translate(document, **{"recorded": "7.2", **options})


def test_a_document_with_a_comment_that_looks_like_a_cpu_is_written_where_it_stands() -> None:
    text = EXAMPLE.read_text().replace("<cpu ", "<!-- <cpu mode='x'/> --><cpu ", 1)
    element = etree.fromstring(text)
    written = cpumap.translate(element, format="xml", recorded="7.2")
    assert "<!-- <cpu mode='x'/> -->" in written
    as_text = cpumap.translate(text, format="xml", recorded="7.2")
    assert etree.canonicalize(written) == etree.canonicalize(as_text)
