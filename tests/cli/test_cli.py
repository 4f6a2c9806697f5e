"""The command line's contract: exit codes, where output goes, and one clear line for whatever is
wrong.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cpumap.cli.main import COMMANDS, main, parser

NO_HOST = "cpumap: no host is known: the vendor is the model's own"
"""Said of every recording made under KVM, before anything can go wrong."""

NOTES = {
    NO_HOST,
    "cpumap: the answer is for tcg, since nothing names an accelerator: --accel kvm|tcg",
}

DOMAIN = """<domain type='qemu'>
  <os><type arch='x86_64' machine='pc-q35-7.2'>hvm</type></os>
  {cpu}
</domain>
"""
_ENTITIES = "".join(f'<!ENTITY {chr(98 + n)} "{f"&{chr(97 + n)};" * 10}">' for n in range(25))
ENTITY_BOMB = f'<!DOCTYPE d [<!ENTITY a "aaaaaaaaaa">{_ENTITIES}]><domain>&z;</domain>'
EXTERNAL_ENTITY = (
    '<!DOCTYPE d [<!ENTITY x SYSTEM "file:///etc/passwd">]><domain><name>&x;</name></domain>'
)


def _cpu(inner: str, attributes: str = "mode='custom' match='exact'") -> str:
    return DOMAIN.format(cpu=f"<cpu {attributes}>{inner}</cpu>")


BAD_DOCUMENTS = {
    "empty": ("", "domain.xml"),
    "not XML": ("<domain>", "domain.xml:1"),
    "wrong root": ("<network/>", "domain.xml:1"),
    "entity bomb": (ENTITY_BOMB, "domain.xml"),
    "external entity": (EXTERNAL_ENTITY, "domain.xml"),
    "unknown model": (_cpu("<model>NoSuchModel</model>"), "domain.xml:3: .*NoSuchModel"),
    "unknown feature": (
        _cpu("<model>Haswell</model>\n<feature policy='require' name='nosuch'/>"),
        "domain.xml:4: .*nosuch",
    ),
    "duplicate feature": (
        _cpu(
            "<model>Haswell</model>\n<feature name='avx' policy='require'/>\n<feature name='avx' "
            "policy='disable'/>"
        ),
        "domain.xml:5: .*avx",
    ),
    "bad policy": (
        _cpu("<model>Haswell</model>\n<feature policy='maybe' name='avx'/>"),
        "domain.xml:4: .*maybe",
    ),
    "bad mode": (_cpu("<model>Haswell</model>", "mode='odd'"), "domain.xml:3: .*odd"),
    "bad match": (_cpu("<model>Haswell</model>", "match='nearly'"), "domain.xml:3: .*nearly"),
    "unknown machine": (DOMAIN.format(cpu="").replace("pc-q35-7.2", "pc-q35-99"), "pc-q35-99"),
    "NUL bytes": ("\0\0\0", "domain.xml"),
}


@pytest.mark.parametrize(("document", "message"), BAD_DOCUMENTS.values(), ids=BAD_DOCUMENTS)
def test_bad_documents(
    document: str,
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("domain.xml").write_text(document)
    _assert_refused(["translate", "domain.xml", "--recorded", "7.2"], 2, message, capsys)


def _assert_refused(
    words: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    said = [line for line in captured.err.splitlines() if line not in NOTES]
    assert len(said) == 1, captured.err
    assert re.search(message, said[-1]), captured.err


def _directory(path: Path) -> None:
    path.mkdir()


def _unreadable(path: Path) -> None:
    path.symlink_to(path)


def _hundred_megabytes(path: Path) -> None:
    with path.open("wb") as stream:
        stream.write(b"<domain><!--")
        stream.truncate(100_000_000)


@pytest.mark.parametrize("make", [_directory, _unreadable, _hundred_megabytes, lambda path: None])
def test_files_that_cannot_be_read(
    make: Callable[[Path], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "domain.xml"
    make(path)
    _assert_refused(["translate", str(path), "--recorded", "7.2"], 2, "domain.xml", capsys)


def test_file_without_permission(tmp_path: Path) -> None:
    path = tmp_path / "domain.xml"
    path.write_text(DOMAIN.format(cpu=""))
    path.chmod(0)
    like_a_user = (
        ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    )
    done = subprocess.run(
        [*like_a_user, sys.executable, "-m", "cpumap", "translate", str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1 and "Permission denied" in done.stderr


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["expand", "NoSuch", "--recorded", "7.2"], 2, "NoSuch"),
        (["expand", "Haswell,nosuch=on", "--recorded", "7.2"], 2, "nosuch"),
        (["expand", "Haswell", "--recorded", "1.0"], 2, "no recording of QEMU 1.0"),
        (["expand", "Haswell", "--recorded", "/no/such/file.json"], 3, "No such file"),
        (["expand", "Haswell", "--qemu", "/no/such/qemu"], 3, "cannot start /no/such/qemu"),
        (["expand", "Haswell", "--qmp", "/no/such/socket"], 3, "No such file"),
        (["expand", "Haswell", "--recorded", "7.2", "--machine", "pc-q35-99"], 2, "pc-q35-99"),
        (
            ["expand", "Haswell", "--recorded", "7.2", "--cpu-map", "/no/such/map"],
            2,
            "/no/such/map",
        ),
        (["expand", "host", "--recorded", "7.2", "--accel", "kvm"], 1, "means the host's CPU"),
    ],
)
def test_sources_and_names_that_are_not_there(
    words: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _assert_refused(words, code, message, capsys)


@pytest.mark.parametrize("words", [[], ["nosuch"], ["expand"], ["translate", "x", "--pin", "hard"]])
def test_usage(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and "usage: cpumap" in captured.err


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_exit_codes(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, "--help"]) == 0
    assert "exit codes:" in capsys.readouterr().out


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_completion_knows_every_command(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--print-completion", shell]) == 0
    printed = capsys.readouterr().out
    assert all(command in printed for command in COMMANDS)


def test_args_are_one_line_with_enforce(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "domain.xml"
    path.write_text(_cpu("<model>qemu64</model>"))
    assert main(["translate", str(path), "--recorded", "7.2"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("-cpu ") and printed.count("\n") == 1
    assert ",enforce" in printed and "+sse2" in printed and "-avx" in printed


def test_a_file_may_be_standard_input() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "cpumap", "translate", "-", "--recorded", "7.2", "--style", "onoff"],
        input=_cpu("<model>qemu64</model>"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0 and ",sse2=on," in done.stdout


def test_a_reader_that_has_enough_is_no_error() -> None:
    command = (
        f"{sys.executable} -m cpumap expand Haswell --recorded 7.2 | head -1; exit "
        f"${{PIPESTATUS[0]}}"
    )
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, env={**os.environ}, check=False
    )
    assert (done.returncode, done.stdout, "Traceback" in done.stderr) == (0, "{\n", False)


@pytest.mark.parametrize(
    ("model", "kind", "static", "migration_safe"),
    [
        ("Haswell", "static", True, True),
        ("Haswell", "full", False, True),
        ("max", "full", False, False),
        ("max", "static", True, True),
        ("base", "full", True, True),
    ],
)
def test_expand_says_what_qapi_means(
    model: str, kind: str, static: bool, migration_safe: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["expand", model, "--type", kind, "--recorded", "7.2"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["schema"] == "cpumap.expand/1"
    assert (answer["static"], answer["migration-safe"]) == (static, migration_safe)
    assert answer["model"]["name"] == (
        "base" if kind == "static" else {"Haswell": "Haswell-v1"}.get(model, model)
    )


def test_parser_of_one_command_imports_no_other() -> None:
    code = (
        "import sys; from cpumap.cli.main import parser; parser('translate'); "
        "print('cpumap.sources.record' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
    assert parser().format_help().startswith("usage: cpumap")


@pytest.mark.parametrize(
    "option", ["--qemu", "--recorded", "--host", "--machine", "--target-qemu", "--cpu-map", "--qmp"]
)
@pytest.mark.parametrize("form", [["{}", ""], ["{}="]])
def test_an_empty_value_names_nothing(
    option: str, form: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    words = [word.format(option) for word in form]
    assert main(["translate", *words, "data/examples/web-server.xml"]) == 2
    assert f"argument {option}: is empty" in capsys.readouterr().err


def test_what_nobody_foresaw_is_one_line_and_exit_code_3(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(arguments: object) -> int:
        raise RecursionError(f"two\nlines \x1b of {arguments.__class__.__name__}")

    monkeypatch.setattr("cpumap.cli.inspect.run_models", fails)
    assert main(["models", "--recorded", "7.2"]) == 3
    said = capsys.readouterr().err
    assert said.startswith(
        "cpumap: unforeseen, please report it: RecursionError: two lines \\u001b"
    )
    assert said.count("\n") == 1
    monkeypatch.setenv("CPUMAP_TRACEBACK", "1")
    main(["models", "--recorded", "7.2"])
    assert "Traceback" in capsys.readouterr().err
