"""Where the files that cpumap ships are: beside the package in a source tree, inside it in a
wheel.
"""

from __future__ import annotations

from pathlib import Path

from cpumap.errors import SourceError

_PACKAGE = Path(__file__).resolve().parent.parent


def data_path(*parts: str) -> Path:
    """The path of something in `data/`, whether it is there or not. SourceError when `data/`
    itself is missing.
    """
    return _root("data").joinpath(*parts)


def template_path(*parts: str) -> Path:
    """The path of something in `templates/`, whether it is there or not. SourceError when
    `templates/` is missing.
    """
    return _root("templates").joinpath(*parts)


def _root(name: str) -> Path:
    for root in (_PACKAGE / f"_{name}", _PACKAGE.parent / name):
        if root.is_dir():
            return root
    raise SourceError(f"cpumap's own files are not installed: no {name}/ in or beside {_PACKAGE}")
