"""Who may import whom, computed from the code, and that importing cpumap costs little."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.support.paths import TREE

PACKAGE = TREE / "cpumap"

ORDER = (
    *("errors", "cpu", "system", "arch", "qemu", "libvirt", "sources", "hosts"),
    *("pin", "move", "proof", "runnable", "fleet", "hooks", "cli"),
)
"""The packages from the ground up: each imports from those before it, and from itself."""

FRONT_DOOR = frozenset({"cpumap", "cpumap.__main__"})
"""What stands before all packages: it may import any, and only its version is imported."""

HEAVY = ("jinja2", "rich", "libvirt", "qemu", "distributed", "shtab")
"""Imported where they are used, never by importing cpumap."""


def module_name(path: Path) -> str:
    """The dotted name of a file of the package."""
    parts = path.relative_to(TREE).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def package_of(module: str) -> str:
    """The package that a module belongs to: `pin` of `cpumap.pin.resolve`."""
    return module.split(".")[1]


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Every cpumap module that the file imports, anywhere in it, and the line."""
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        match node:
            case ast.Import(names=names):
                found = [name.name for name in names]
            case ast.ImportFrom(module=str(module), names=names, level=0):
                found = [_most_exact(module, name.name) for name in names]
            case ast.ImportFrom():
                raise AssertionError(f"{path}:{node.lineno}: a relative import")
            case _:
                continue
        yield from ((node.lineno, name) for name in found if name.split(".")[0] == "cpumap")


def _most_exact(module: str, name: str) -> str:
    return f"{module}.{name}" if f"{module}.{name}" in MODULES else module


GRAPH: Mapping[str, Mapping[str, int]] = {
    module: {target: line for line, target in imports(path) if target != module}
    for module, path in MODULES.items()
}
"""Module → the modules that it imports, each with a line that does."""


def test_every_package_has_its_place_in_the_order() -> None:
    assert {package_of(module) for module in MODULES.keys() - FRONT_DOOR} == set(ORDER)


def test_no_arrow_leads_back() -> None:
    ranks = {package: rank for rank, package in enumerate(ORDER)}
    back = [
        f"{MODULES[module]}:{line}: {module} must not import {target}"
        for module, targets in GRAPH.items()
        if module not in FRONT_DOOR
        for target, line in targets.items()
        if target not in FRONT_DOOR and ranks[package_of(target)] > ranks[package_of(module)]
    ]
    assert not back, "\n".join(back)


def test_no_module_imports_the_front_door_but_for_its_version() -> None:
    users = {module for module, targets in GRAPH.items() if "cpumap" in targets}
    for module in users:
        tree = ast.parse(MODULES[module].read_text())
        taken = {
            name.name
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and node.module == "cpumap"
            for name in node.names
        }
        assert taken <= {"__version__"}, f"{module} imports {taken} from the front door"


def test_no_circle_between_modules() -> None:
    circles = [" → ".join(circle) for circle in _circles()]
    assert not circles, "\n".join(circles)


def _circles() -> Iterator[list[str]]:
    """A way from each module back to itself, where there is one."""
    for start in GRAPH:
        ways = [[start]]
        seen = {start}
        while ways:
            way = ways.pop()
            for target in GRAPH[way[-1]].keys() - FRONT_DOOR:
                if target == start:
                    yield [*way, start]
                    ways.clear()
                    break
                if target not in seen:
                    seen.add(target)
                    ways.append([*way, target])


def test_nobody_asks_which_kind_of_source_it_is() -> None:
    asked = [
        f"{path}:{node.lineno}: {ast.unparse(node)}"
        for path in MODULES.values()
        for node in ast.walk(ast.parse(path.read_text(), str(path)))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) in ("isinstance", "issubclass", "getattr", "hasattr", "type")
        and re.search(r"\w+Source\b|\bsource\b|\btarget\b,", ast.unparse(node))
    ]
    assert not asked, "\n".join(asked)


def _public_names(tree: ast.Module) -> Iterator[str]:
    """Classes, functions and types that a module defines; constants are its own."""
    for node in tree.body:
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name):
                yield name
            case ast.Assign(targets=[ast.Name(id=name)]) if not name.isupper():
                yield name
            case ast.AnnAssign(target=ast.Name(id=name)) if not name.isupper():
                yield name


def test_a_name_has_one_meaning_in_the_whole_project() -> None:
    places: dict[str, list[str]] = {}
    for module, path in MODULES.items():
        for name in _public_names(ast.parse(path.read_text())):
            if not name.startswith("_") and name != "main":  # what a program begins with
                places.setdefault(name, []).append(module)
    twice = {name: modules for name, modules in places.items() if len(modules) > 1}
    assert not twice, twice


def test_every_package_says_what_belongs_in_it_and_what_does_not() -> None:
    for module, path in MODULES.items():
        if path.name == "__init__.py" and module != "cpumap":
            said = ast.get_docstring(ast.parse(path.read_text())) or ""
            assert len(re.findall(r"[.:]\s", said)) >= 1, (
                f"{path}: two sentences: what belongs here, what does not"
            )


def test_importing_cpumap_imports_nothing_heavy() -> None:
    modules = [name for name in MODULES if not name.endswith("__main__")]
    code = f"""
import sys, importlib
for name in {modules!r}:
    importlib.import_module(name)
    heavy = {set(HEAVY)!r} & sys.modules.keys()
    if heavy:
        sys.exit(f"importing {{name}} imports {{heavy}}")
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=TREE, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
