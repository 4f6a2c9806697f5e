"""What the command line says of itself: help, examples that run, and what was probably meant."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cpumap.cli.examples import EXAMPLES
from cpumap.cli.main import COMMANDS, main
from tests.support.paths import TREE

ANSWERS_NO = {("audit", 0), ("audit", 1), ("check", 0), ("compare", 0), ("diff", 0), ("hook", 0)}
"""Examples whose answer is no, by command and place: exit code 1."""

STARTS_QEMU = {"measure", "record", "verify"}

SHOWN = [
    (command, number)
    for command, examples in EXAMPLES.items()
    for number in range(len(examples))
    if command in COMMANDS and command not in STARTS_QEMU
]

RUN = f"""cpumap() {{ {sys.executable} -m cpumap "$@"; }}
set -o pipefail
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A copy of the examples, to work in."""
    return shutil.copytree(TREE / "data/examples", tmp_path / "examples")


@pytest.mark.parametrize(("command", "number"), SHOWN)
def test_every_example_runs(command: str, number: int, place: Path) -> None:
    example = EXAMPLES[command][number]
    done = subprocess.run(
        ["bash", "-c", RUN + example.line],
        cwd=place,
        env={**os.environ, "PYTHONPATH": str(TREE)},
        capture_output=True,
        text=True,
        check=False,
    )
    expected = int((command, number) in ANSWERS_NO)
    assert done.returncode == expected, done.stderr
    if not {"-o", "--output-dir"} & set(example.line.splitlines()[-1].split()):
        assert done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_shows_its_examples(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["help", command]) == 0
    helped = capsys.readouterr().out
    assert main([command, "--help"]) == 0
    assert helped == capsys.readouterr().out
    assert re.search(rf"^examples:\n  # .+\n  cpumap {command} ", helped, re.MULTILINE) or (
        command == "audit" and "  cpumap audit fleet.lock" in helped
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("transalte x.xml", "no command 'transalte'; did you mean translate?"),
        ("nosuch", "no command 'nosuch', see `cpumap help`"),
        ("help chekc", "no command 'chekc'; did you mean check?"),
        ("check --recoded 7.2", "no option --recoded; did you mean --recorded?"),
        ("translate --formt json x.xml", "no option --formt; did you mean --format?"),
        ("convert --nonsense=3", "no option --nonsense"),
        ("--recorded 7.2 translate x.xml", "no option --recorded: options stand after the command"),
        ("translate --format jsn x.xml", "did you mean json?"),
        ("hook libvrt", "did you mean libvirt?"),
    ],
)
def test_what_was_meant(words: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    """An option that there is not is blamed alone: not its value, nor a file that is missing."""
    assert main(words.split()) == 2
    captured = capsys.readouterr()
    first, second = captured.err.splitlines()
    assert first.endswith(said)
    assert second.startswith("cpumap: usage: cpumap")
    assert captured.out == ""


def test_an_option_may_be_shortened(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--record", "10.0", "--form=json", "--accel", "kvm"]) == 0
    assert json.loads(capsys.readouterr().out)["schema"] == "cpumap.models/1"


@pytest.mark.parametrize("before", [True, False])
def test_quiet_says_only_what_is_wrong(before: bool, capsys: pytest.CaptureFixture[str]) -> None:
    def run(loud: str, file: str) -> str:
        words = ["translate", "--recorded", "7.2", file]
        main([loud, *words] if before else [*words, loud])
        return capsys.readouterr().err

    good, bad = str(TREE / "data/examples/web-server.xml"), "/no/such.xml"
    assert run("--quiet", good) == run("-q", good) == ""
    assert "No such file" in run("-q", bad)
    assert re.search(r"^cpumap: reads the recording .*7\.2.*_kvm\.json$", run("-v", good), re.M)


def test_tcg_is_no_silent_default(capsys: pytest.CaptureFixture[str]) -> None:
    def said(*words: str) -> bool:
        command = [sys.executable, "-m", "cpumap", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return "the answer is for tcg" in done.stderr

    assert said("expand", "Haswell", "--recorded", "7.2")
    assert said("machines", "--recorded", "7.2")
    assert said("diff", "Haswell", "Broadwell", "--recorded", "7.2")
    assert not said("expand", "Haswell", "--recorded", "7.2", "--accel", "tcg")


def test_a_summary_instead_of_450_properties(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(TREE / "data/examples/web-server.xml")
    assert main(["translate", file, "--recorded", "10.0", "--summary"]) == 0
    printed = capsys.readouterr().out
    assert "libvirt would pass: -cpu Haswell-noTSX-IBRS,ssbd=on,md-clear=on,avx2=off\n" in printed
    assert "every property has the value that it would have then on this QEMU\n" in printed
    total = re.search(r": (\d+) properties named", printed)
    besides = re.search(r"no default decides them: (\d+)\n", printed)
    groups = re.findall(r"^  \S.*: (\d+)$", printed, re.MULTILINE)
    assert total and besides
    # The three that libvirt passes itself are those of the document.
    assert int(total[1]) - 3 == int(besides[1]) == sum(map(int, groups))
    assert "\n  machine type pc-q35-7.2: " in printed


def _defaults(path: Path, text: str, mode: int = 0o600) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


@pytest.fixture
def defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Writes the user's file of defaults."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("CPUMAP_CONFIG", raising=False)
    path = tmp_path / "config/cpumap/config.toml"
    return lambda text, mode=0o600: _defaults(path, text, mode)


def test_defaults_hold_where_the_command_line_says_nothing(
    defaults: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    defaults('recorded = "7.2"\naccel = "kvm"\nquiet = true\n[models]\nformat = "json"\n')
    assert main(["models"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["machine"] == "pc-i440fx-7.2"
    assert captured.err == ""
    assert main(["models", "--recorded", "10.0"]) == 0
    assert json.loads(capsys.readouterr().out)["machine"] == "pc-i440fx-10.0"
    # Another source excludes the default one, as two on the command line would.
    assert main(["models", "--qemu", "/no/such/qemu"]) == 3
    assert "cannot start /no/such/qemu" in capsys.readouterr().err


def test_defaults_do_not_turn_a_question_into_another(
    defaults: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["compare", "data/examples/hosts/westmere.xml", "data/examples/old-amd.xml", "--error"]
    main(words)
    before = capsys.readouterr()
    defaults('recorded = "7.2"\n')
    main(words)
    assert capsys.readouterr() == before


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("recoded = '7.2'", "no setting recoded for every command; did you mean recorded?"),
        ("[models]\nformt = 'json'", "models has no option formt; did you mean format?"),
        ("accel = 'xen'", "accel is kvm or tcg, not 'xen'"),
        ("quiet = 'yes'", "quiet is true or false"),
        ("recorded = true", "recorded is a word or a number"),
        ("models = 3", "[models] is a table"),
        ("recorded = ", "cannot be read: "),
        ("\0", "cannot be read: "),
    ],
)
def test_wrong_defaults_name_their_file(
    text: str, said: str, defaults: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    path = defaults(text)
    assert main(["models"]) == 2
    assert f"cpumap: {path}: {said}" in capsys.readouterr().err


def test_defaults_of_somebody_else_are_not_obeyed(
    defaults: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    path = defaults('recorded = "7.2"\n', 0o666)
    assert main(["models"]) == 2
    assert f"{path}: is not obeyed: {path} can be written by others" in capsys.readouterr().err


def test_an_environment_variable_names_the_file_or_none(
    defaults: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    defaults("nonsense = 1\n")
    other = _defaults(tmp_path / "other.toml", 'recorded = "7.2"\n[models]\nformat = "json"\n')
    monkeypatch.setenv("CPUMAP_CONFIG", str(other))
    assert main(["models"]) == 0
    assert json.loads(capsys.readouterr().out)["machine"] == "pc-i440fx-7.2"
    monkeypatch.setenv("CPUMAP_CONFIG", "")
    assert main(["models", "--recorded", "10.0"]) == 0
