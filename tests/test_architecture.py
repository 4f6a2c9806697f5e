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
    frozenset({"errors", "data", "files", "interrupts", "layers"}),
    frozenset({"cpu"}),
    frozenset({"cpu_map", "cpu_option", "cpuid", "domain", "kvm", "qmp", "render", "resolve", "xml_document"})
    | frozenset({"libvirt_map"}),
    frozenset({"sources", "record"}),
    frozenset({"compact", "expansion", "libvirt_args"}),
    frozenset(
        {
            "adapt",
            "available",
            "baseline",
            "check",
            "compare",
            "decode",
            "described",
            "diff",
            "difference",
            "explain",
            "guest",
            "hold",
            "host",
            "lack",
            "predict",
            "target",
            "translation",
            "update",
            "verify",
        }
    ),
    frozenset({"audit", "convert", "hooks", "lock", "report"}),
    frozenset({"commands"}),
    frozenset({"cli", "__main__"}),
)
"""Lowest first: a module imports from its own floor and from those below, never from above.

A module split off another carries its name (`domain_edit`, `cpu_map_xml`) and is on its floor.
"""

HEAVY = ("jinja2", "rich", "libvirt", "qemu", "distributed", "shtab")
"""Imported where they are used, never by importing cpumap."""


def _room(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def _floor(room: str) -> int:
    floors = {name: number for number, rooms in enumerate(FLOORS) for name in rooms}
    family = room
    while family not in floors:
        assert "_" in family, f"cpumap/{room} is on no floor: put it into FLOORS, and into ARCHITECTURE.md"
        family = family.rpartition("_")[0]
    return floors[family]


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


def test_importing_cpumap_imports_nothing_heavy() -> None:
    names = [".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts) for path in MODULES]
    modules = [name.removesuffix(".__init__") for name in names if not name.endswith("__main__")]
    code = f"""
import sys, importlib
for name in {modules!r}:
    importlib.import_module(name)
    heavy = {set(HEAVY)!r} & sys.modules.keys()
    if heavy:
        sys.exit(f"importing {{name}} imports {{heavy}}")
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
