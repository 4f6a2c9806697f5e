"""Sphinx's settings: `make docs` builds the site, which needs no network to be read."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import cpumap
from cpumap.cli.main import parsers

project = "cpumap"
author = "the cpumap developers"
release = cpumap.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["report.html"]
html_theme = "alabaster"
html_theme_options = {
    "description": "A guest's CPU should not change because a default changed.",
    "page_width": "1100px",
}
html_show_sourcelink = False
# Links from the pages to files of the tree, that are no pages.
suppress_warnings = ["myst.xref_missing", "myst.header"]
autodoc_member_order = "bysource"

REFERENCE = Path(__file__).with_name("reference")
"""Written anew by each build, from the parser and the docstrings."""


def _help() -> str:
    pages = ["# Every command's help"]
    for name, command in parsers()[1].items():
        pages.append(f"## {name}\n\n```text\n{command.format_help()}```")
    return "\n\n".join(pages) + "\n"


def _api() -> str:
    names = [f".. autoclass:: cpumap.{name}" for name in cpumap.__all__ if name[0].isupper()]
    names += [f".. autofunction:: cpumap.{name}" for name in cpumap.__all__ if name[0].islower()]
    return "# From Python: every name\n\n```{eval-rst}\n" + "\n".join(names) + "\n```\n"


REFERENCE.mkdir(exist_ok=True)
(REFERENCE / "help.md").write_text(_help())
(REFERENCE / "api.md").write_text(_api())
