"""cpumap as people install it: a wheel, an sdist, editable, and straight from the tree."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from collections.abc import Callable
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from cpumap.cli.main import COMMANDS
from tests.support.paths import TREE

EXAMPLE = TREE / "data/examples/web-server.xml"
SITE_PACKAGES = Path(pytest.__file__).parent.parent
"""Where this Python's installed packages are: lent to the fresh environments, so that nothing is
downloaded.
"""


def _run(*command: str | Path, cwd: Path | None = None) -> str:
    """What the command prints. Nothing of this test's own environment leads it back to the tree."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "VIRTUAL"))
    }
    done = subprocess.run(
        command, cwd=cwd or Path("/"), env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}: exit {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clean copy of the tree, as git would give it: building writes into it."""
    copy = tmp_path_factory.mktemp("tree")
    tracked = _run(
        "git", "-C", TREE, "ls-files", "-z", "--cached", "--others", "--exclude-standard"
    ).split("\0")
    for name in filter(None, tracked):
        if (TREE / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes((TREE / name).read_bytes())
    return copy


@pytest.fixture(scope="module")
def archives(clone: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The sdist, and the wheel built from that sdist."""
    out = tmp_path_factory.mktemp("dist")
    _run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, clone)
    return next(out.glob("*.tar.gz")), next(out.glob("*.whl"))


@pytest.fixture
def fresh(tmp_path: Path) -> Callable[..., Path]:
    """Makes a virtual environment with cpumap installed as told, and gives its bin directory.

    cpumap's requirements are found in the test's own environment; that they are all declared is
    another test.
    """

    def install(*what: str | Path) -> Path:
        venv.create(tmp_path / "venv")
        site = next((tmp_path / "venv/lib").glob("python*/site-packages"))
        (site / "lent.pth").write_text(f"{SITE_PACKAGES}\n")
        pip = (sys.executable, "-m", "pip", "--python", tmp_path / "venv/bin/python")
        offline = ("--no-deps", "--no-index", "--no-build-isolation", "--ignore-installed")
        _run(*pip, "install", "--quiet", *offline, *what)
        return tmp_path / "venv/bin"

    return install


def _check_works(cpumap: list[str | Path], cwd: Path | None = None) -> None:
    assert _run(*cpumap, "--version", cwd=cwd).startswith("cpumap 0.")
    assert _run(*cpumap, "translate", "--recorded", "7.2", EXAMPLE, cwd=cwd).startswith("-cpu ")


def _files(directory: Path) -> set[str]:
    return {
        str(path.relative_to(directory))
        for path in directory.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_the_tree_works() -> None:
    _check_works([sys.executable, "-m", "cpumap"], cwd=TREE)


def test_the_wheel_works(archives: tuple[Path, Path], fresh: Callable[..., Path]) -> None:
    _check_works([fresh(archives[1]) / "cpumap"])


def test_the_sdist_works(archives: tuple[Path, Path], fresh: Callable[..., Path]) -> None:
    _check_works([fresh(archives[0]) / "cpumap"])


def test_the_editable_install_works(clone: Path, fresh: Callable[..., Path]) -> None:
    _check_works([fresh("--editable", clone) / "cpumap"])


@pytest.mark.parametrize("directory", ["data", "templates"])
def test_the_wheel_holds_the_files_of(
    directory: str, clone: Path, archives: tuple[Path, Path]
) -> None:
    names = zipfile.ZipFile(archives[1]).namelist()
    prefix = f"cpumap/_{directory}/"
    assert {name.removeprefix(prefix) for name in names if name.startswith(prefix)} == _files(
        clone / directory
    )


def test_the_wheel_holds_the_manual_and_completion(archives: tuple[Path, Path]) -> None:
    """They are made while it is built, and need nothing of what made them."""
    wheel = zipfile.ZipFile(archives[1])
    shared = {
        name.partition(".data/data/share/")[2]: wheel.read(name).decode()
        for name in wheel.namelist()
        if ".data/data/share/" in name
    }
    assert {f"man/man1/cpumap-{name}.1" for name in COMMANDS} | {"man/man1/cpumap.1"} < set(shared)
    assert "complete -" in shared["bash-completion/completions/cpumap"]
    assert shared["zsh/site-functions/_cpumap"].startswith("#compdef cpumap\n")
    assert "complete -c cpumap " in shared["fish/vendor_completions.d/cpumap.fish"]
    assert not [name for name, text in shared.items() if str(TREE) in text]


def test_the_wheel_holds_every_module(clone: Path, archives: tuple[Path, Path]) -> None:
    names = {name for name in zipfile.ZipFile(archives[1]).namelist() if name.endswith(".py")}
    assert names == {f"cpumap/{name}" for name in _files(clone / "cpumap") if name.endswith(".py")}


@pytest.mark.parametrize("directory", ["data", "templates", "tests", "tools"])
def test_the_sdist_holds_the_files_of(
    directory: str, clone: Path, archives: tuple[Path, Path]
) -> None:
    with tarfile.open(archives[0]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {f"{directory}/{name}" for name in _files(clone / directory)} <= names


def test_every_package_imported_is_required() -> None:
    """Each third-party import of cpumap is named in setup.cfg, as a requirement or in an extra."""
    nodes = [
        node
        for path in (TREE / "cpumap").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
    ]
    modules = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    modules |= {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
    third_party = (
        {name.partition(".")[0] for name in modules} - set(sys.stdlib_module_names) - {"cpumap"}
    )
    declared = (TREE / "setup.cfg").read_text().lower()
    owners = dict(packages_distributions())
    owners |= {
        name: ["libvirt-python"] for name in ("libvirt", "libvirt_qemu")
    }  # also where it is not installed
    missing = {
        name for name in third_party if f"{owners.get(name, [name])[0].lower()}>=" not in declared
    }
    assert third_party and not missing


@pytest.mark.live
def test_the_wheel_installs_with_its_requirements(
    archives: tuple[Path, Path], tmp_path: Path
) -> None:
    """With nothing lent: the requirements come from the package index."""
    venv.create(tmp_path / "venv", with_pip=True)
    _run(tmp_path / "venv/bin/pip", "install", "--quiet", archives[1])
    _check_works([tmp_path / "venv/bin/cpumap"])
    _run(tmp_path / "venv/bin/python", "-c", "import jinja2, lxml, platformdirs, rich")
