"""Golden cases: what `cpumap translate` writes for the domains in tests/pin/cases, each directory
one case.

    domain.xml        its first comment says what the case pins
    context           command-line options, shell-quoted, one to a line; one of them is --recorded
    expected.FORMAT   what stdout must be with that --format; several formats may be pinned
    expected.err      instead: the exit code, then what stderr must be

`pytest tests/pin/test_cases.py --regenerate` rewrites the expected files there are (for a new case:
makes the first one), and fails once where something changed. To pin another format, make its file
empty and regenerate.
"""

from __future__ import annotations

import difflib
import shlex
from pathlib import Path

import pytest

from tests.support.paths import TREE

CASES = Path(__file__).parent / "cases"
FORMATS = {"args": "args", "xml": "xml", "cpu-xml": "cpu-xml", "cfg": "readconfig", "json": "json"}
"""What comes after `expected.`, and the --format it stands for."""


def _cases() -> list[Path]:
    return sorted(path for path in CASES.iterdir() if path.is_dir())


def _options(case: Path) -> list[str]:
    options = shlex.split((case / "context").read_text(), comments=True)
    assert "--recorded" in options, (
        f"{case.name}/context: a golden case names the recorded QEMU it asks"
    )
    assert "--format" not in options, (
        f"{case.name}/context: the expected files' names say the format"
    )
    return options


def _translate(
    case: Path, format_name: str, capsys: pytest.CaptureFixture[str]
) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of the command line, run in the case's directory; paths in
    stderr from the tree.
    """
    from cpumap.cli.main import main

    try:
        code = main(["translate", "domain.xml", "--format", format_name, *_options(case)])
    except SystemExit as exit_:  # argparse refuses an option so
        code = int(exit_.code or 0)
    captured = capsys.readouterr()
    return code, captured.out, captured.err.replace(f"{TREE}/", "")


def _outcome(case: Path, name: str, capsys: pytest.CaptureFixture[str]) -> str:
    """What the file expected.`name` must hold."""
    code, out, err = _translate(case, FORMATS.get(name, "args"), capsys)
    if name == "err":
        assert (code != 0, out) == (True, ""), f"{case.name}: no error: exit {code}, stdout {out!r}"
        return f"exit {code}\n{err}"
    assert code == 0, f"{case.name}: exit {code}\n{err}"
    return out


def _first_name(case: Path, capsys: pytest.CaptureFixture[str]) -> str:
    return "args" if _translate(case, "args", capsys)[0] == 0 else "err"


@pytest.mark.parametrize("case", _cases(), ids=lambda case: case.name)
def test_case(
    case: Path,
    regenerate: bool,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(case)
    names = sorted(path.name.removeprefix("expected.") for path in case.glob("expected.*"))
    if not names and regenerate:
        names = [_first_name(case, capsys)]
    assert names, (
        f"{case.name} has no expected file: pytest {Path(__file__).name} --regenerate makes one"
    )
    changes = [_compare(case, name, _outcome(case, name, capsys), regenerate) for name in names]
    assert not any(changes), "\n".join(["rewritten:" if regenerate else "differs:", *changes])


def _compare(case: Path, name: str, outcome: str, regenerate: bool) -> str:
    """The difference from the golden file as a diff, empty when there is none."""
    path = case / f"expected.{name}"
    golden = path.read_text() if path.exists() else ""
    if regenerate:
        path.write_text(outcome)
    label = f"{case.name}/{path.name}"
    diff = difflib.unified_diff(
        golden.splitlines(), outcome.splitlines(), label, label, lineterm=""
    )
    return "\n".join(diff) or ("" if golden == outcome else f"{label}: line ends differ")


@pytest.mark.parametrize("case", _cases(), ids=lambda case: case.name)
def test_says_what_it_pins(case: Path) -> None:
    assert "<!--" in (case / "domain.xml").read_text(errors="replace"), (
        f"{case.name}/domain.xml has no comment"
    )


@pytest.mark.parametrize("case", _cases(), ids=lambda case: case.name)
def test_holds_only_files_of_a_case(case: Path) -> None:
    allowed = {"domain.xml", "context", "expected.err", *(f"expected.{name}" for name in FORMATS)}
    assert {path.name for path in case.iterdir()} <= allowed | {"host.xml"}
