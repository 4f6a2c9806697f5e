"""What the README and the pages in docs/ show is what cpumap does."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

import pytest

from cpumap.cli.main import COMMANDS, main
from tests.support.paths import TREE

PAGES = (TREE / "README.md", *sorted((TREE / "docs").glob("*.md")))
SHOWN = re.compile(r"^```console\n\$ cpumap (.*)\n((?s:.*?))^```$", re.MULTILINE)
"""Each command line shown, and the output shown, in which `…` stands for anything left out."""


def _examples() -> Iterator[tuple[str, str, str]]:
    for page in PAGES:
        for command, output in SHOWN.findall(page.read_text()):
            yield page.name, command, output


@pytest.mark.parametrize(
    ("page", "command", "output"), list(_examples()), ids=lambda text: text.partition("\n")[0][:60]
)
def test_example(
    page: str,
    command: str,
    output: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(TREE)
    code = main(shlex.split(command))
    captured = capsys.readouterr()
    printed = captured.out or captured.err
    pattern = ".*".join(re.escape(part) for part in output.strip().split("…"))
    assert re.fullmatch(pattern, printed.strip(), re.DOTALL), (
        f"{page}, exit {code}\n{printed[:2000]}"
    )


def test_the_table_of_commands_is_complete() -> None:
    page = (TREE / "docs/commands.md").read_text()
    assert re.findall(r"^\| `([a-z]+)", page, re.MULTILINE) == list(COMMANDS)


def test_every_environment_variable_is_documented() -> None:
    page = (TREE / "docs/commands.md").read_text()
    code = "".join(path.read_text() for path in (TREE / "cpumap").rglob("*.py"))
    read = set(re.findall(r'"((?:CPUMAP|XDG)_[A-Z_]+|NO_COLOR|COLUMNS)"', code))
    assert {"CPUMAP_LIBVIRT", "CPUMAP_CACHE", "CPUMAP_CONFIG", "NO_COLOR"} <= read
    assert not {name for name in read if f"`{name}`" not in page}


def test_every_page_is_linked_from_the_readme_and_every_link_leads_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
    readme = (TREE / "README.md").read_text()
    unlinked = [page.name for page in PAGES[1:] if f"](docs/{page.name})" not in readme]
    assert not unlinked


def test_the_readme_is_for_the_first_ten_minutes() -> None:
    assert len((TREE / "README.md").read_text().splitlines()) <= 130
