"""What a plain `translate` does not need, it does not import: a script calls it once per domain."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from typing import Any

import pytest

from cpumap.cli.main import main, parser
from tests.support.paths import TREE

EXAMPLE = TREE / "data/examples/web-server.xml"

PROBE = """
import json, sys
before = set(sys.modules)
from cpumap.cli.main import main
code = main(["translate", "--recorded", "7.2", sys.argv[1]])
own = [module for name, module in sys.modules.items() if name.startswith("cpumap.")]
compiled = [
    f"{kind.__module__}.{kind.__name__}"
    for module in own
    for kind in vars(module).values()
    if isinstance(kind, type) and "__dataclass_params__" in vars(kind)
]
imported = sorted(set(sys.modules) - before)
print(json.dumps({"code": code, "imported": imported, "compiled": sorted(set(compiled))}))
"""

HEAVY = {
    "asyncio", "bz2", "concurrent.futures", "decimal", "email", "hashlib", "jinja2", "logging",
    "lzma", "multiprocessing", "platformdirs", "qemu", "random", "rich", "shutil", "socket",
    "subprocess", "tempfile", "threading", "tomllib", "urllib.request", "uuid", "xml", "zipfile",
}  # fmt: skip
"""What other commands need. None of it comes with lxml, which every command has."""

OTHERS = {"fleet", "hooks", "hosts", "move", "proof", "runnable"}
"""Packages of which a CPU that stays where it is needs nothing."""


@pytest.fixture(scope="module")
def loaded() -> dict[str, list[str]]:
    """What a process has after one `translate`, beside what Python itself starts with."""
    command = [sys.executable, "-c", PROBE, str(EXAMPLE)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert answer["code"] == 0
    return answer


def test_no_heavy_module_is_imported(loaded: dict[str, list[str]]) -> None:
    assert {"lxml.etree", "argparse", "json"} <= {*loaded["imported"], *sys.modules}
    assert HEAVY.isdisjoint(loaded["imported"])


def test_no_package_of_another_command_is_imported(loaded: dict[str, list[str]]) -> None:
    packages = {name.split(".")[1] for name in loaded["imported"] if name.startswith("cpumap.")}
    assert "pin" in packages
    assert OTHERS.isdisjoint(packages)


def test_no_class_is_compiled_while_it_is_imported(loaded: dict[str, list[str]]) -> None:
    assert loaded["compiled"] == []


def test_help_lists_every_command_and_imports_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    printed = capsys.readouterr().out
    assert "    translate " in printed
    assert "    record " in printed


def test_help_is_as_wide_as_the_terminal() -> None:
    """The reference is argparse's own formatter, which asks `shutil`."""
    for columns in ("60", "100", "250"):
        environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(TREE), "COLUMNS": columns}
        command = [sys.executable, "-m", "cpumap", "--help"]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("COLUMNS", columns)
            reference = parser("")
            reference.formatter_class = argparse.RawDescriptionHelpFormatter
            assert done.stdout == reference.format_help()
