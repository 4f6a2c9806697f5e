"""What the README shows is what cpumap does."""

from __future__ import annotations

import re
import shlex

import pytest

from cpumap.cli.main import COMMANDS, main
from tests.support.paths import TREE

README = (TREE / "README.md").read_text()
SHOWN = re.findall(r"^```console\n\$ cpumap (.*)\n((?s:.*?))^```$", README, re.MULTILINE)
"""Each command line shown, and the output shown, in which `…` stands for anything left out."""


@pytest.mark.parametrize(
    ("command", "output"), SHOWN, ids=lambda text: text.partition("\n")[0][:60]
)
def test_example(
    command: str, output: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(TREE)
    code = main(shlex.split(command))
    captured = capsys.readouterr()
    printed = captured.out or captured.err
    pattern = ".*".join(re.escape(part) for part in output.strip().split("…"))
    assert re.fullmatch(pattern, printed.strip(), re.DOTALL), f"exit {code}\n{printed[:2000]}"


def test_the_table_of_commands_is_complete() -> None:
    assert re.findall(r"^\| `([a-z]+)", README, re.MULTILINE) == list(COMMANDS)
