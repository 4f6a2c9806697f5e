"""The rule of who may import whom, and that importing cpumap costs little."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "cpumap"

FLOORS: tuple[frozenset[str], ...] = (
    frozenset({"errors", "data"}),
    frozenset({"cpu"}),
    frozenset({"cpu_map", "cpu_map_xml", "cpu_option", "cpuid", "qmp", "render", "resolve"})
    | frozenset({"domain", "domain_edit", "domain_layout", "domain_settings", "xml_document"}),
    frozenset({"sources", "record"}),
    frozenset({"expansion", "libvirt_args"}),
    frozenset({"verify", "guest", "compare"}),
    frozenset({"convert", "lock", "hooks", "report"}),
    frozenset({"cli", "__main__"}),
)
"""Lowest first: a module imports from its own floor and from those below, never from above."""

HEAVY = ("jinja2", "rich", "libvirt", "qemu", "qemu.qmp", "distributed", "shtab")
"""Imported where they are used, never by importing cpumap."""


def _room(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def _floor(room: str) -> int:
    for number, rooms in enumerate(FLOORS):
        if room in rooms:
            return number
    raise AssertionError(f"cpumap/{room} is on no floor: put it into FLOORS, and into ARCHITECTURE.md")


def _imported(path: Path) -> Iterator[tuple[int, str]]:
    """Each import of a cpumap module in the file: its line and the room imported."""
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        match node:
            case ast.Import(names=names):
                modules = [name.name for name in names]
            case ast.ImportFrom(module="cpumap", names=names):
                modules = [f"cpumap.{name.name}" for name in names]
            case ast.ImportFrom(module=module, level=level):
                assert level == 0, f"{path}:{node.lineno}: a relative import"
                modules = [module or ""]
            case _:
                continue
        yield from ((node.lineno, module.split(".")[1]) for module in modules if module.startswith("cpumap."))


MODULES = sorted(path for path in PACKAGE.rglob("*.py") if _room(path) != "__init__")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_only_from_below(path: Path) -> None:
    floor = _floor(_room(path))
    for line, room in _imported(path):
        is_name = not (PACKAGE / f"{room}.py").exists() and not (PACKAGE / room).is_dir()
        assert is_name or _floor(room) <= floor, f"{path}:{line}: {_room(path)} must not import {room}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_importing_a_module_imports_nothing_heavy(path: Path) -> None:
    if path.name == "__main__.py":
        return  # importing it is running it
    module = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
    code = f"import sys, {module}; print(*sorted(set({HEAVY!r}) & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr
