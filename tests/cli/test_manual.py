"""The manual pages and the shells' completion, as the build of the package writes them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from cpumap.cli.main import COMMANDS, parsers
from tests.support.paths import TREE


@pytest.fixture(scope="module")
def share(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What goes below /usr/share."""
    directory = tmp_path_factory.mktemp("share")
    subprocess.run([sys.executable, TREE / "tools/manual.py", directory], check=True)
    return directory


def _read(page: Path) -> tuple[str, str]:
    """A page as groff sets it, without the terminal's ways of making it bold; and its warnings."""
    words = ["groff", "-ww", "-man", "-Kutf8", "-Tutf8", "-P-cbou", str(page)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return done.stdout, done.stderr


def test_every_command_has_a_page_that_groff_has_nothing_to_say_of(share: Path) -> None:
    pages = sorted((share / "man/man1").iterdir())
    names = {"cpumap.1"} | {f"cpumap-{name}.1" for name in COMMANDS}
    assert {page.name for page in pages} == names
    for page in pages:
        text, warnings = _read(page)
        assert warnings == "", page.name
        for title in ("NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "EXIT STATUS", "SEE ALSO"):
            assert f"\n{title}\n" in text, page.name


def test_a_page_has_every_option_and_example(share: Path) -> None:
    _, commands = parsers()
    for name, command in commands.items():
        text, _ = _read(share / f"man/man1/cpumap-{name}.1")
        for option in command.options():
            assert re.search(rf"^ +(?:-\w, )?{re.escape(option)}\b", text, re.MULTILINE) or (
                f"{option}, " in text
            ), (name, option)
        assert "EXAMPLES\n" in text
        assert f"cpumap {name} " in text


def _completed(share: Path, line: str) -> list[str]:
    """What bash offers for the last word of this line."""
    script = f"""
    source {share / "bash-completion/completions/cpumap"}
    COMP_WORDS=({line}); [[ '{line}' = *' ' ]] && COMP_WORDS+=('')
    COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); COMP_LINE='{line}'; COMP_POINT=${{#COMP_LINE}}
    _shtab_cpumap
    printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_bash_completes(share: Path) -> None:
    assert _completed(share, "cpumap trans") == ["translate"]
    assert set(COMMANDS) <= set(_completed(share, "cpumap "))
    assert "--format" in _completed(share, "cpumap translate --for")
    assert set(_completed(share, "cpumap translate --pin ")) == {"model", "custom", "none"}


def test_fish_has_every_option(share: Path) -> None:
    text = (share / "fish/vendor_completions.d/cpumap.fish").read_text()
    _, commands = parsers()
    for name, command in commands.items():
        for option in command.options():
            if option.startswith("--"):
                assert f"__fish_seen_subcommand_from {name}'" in text
                assert f"-l '{option[2:]}'" in text
    # Every line is balanced: fish has single quotes only, and a backslash before those within.
    for line in text.splitlines():
        assert re.sub(r"\\[\\']", "", line).count("'") % 2 == 0


def test_the_build_asks_for_what_it_needs() -> None:
    declared = (TREE / "pyproject.toml").read_text()
    assert '"shtab>=' in declared and '"lxml>=' in declared
