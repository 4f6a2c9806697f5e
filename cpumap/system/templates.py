"""Text made from the templates that cpumap ships."""

from __future__ import annotations

from functools import cache
from typing import Any

from cpumap.errors import InputError


def filled(name: str, **values: object) -> str:
    """The template of this name in `templates/`, filled in."""
    return str(
        _environment(name.endswith((".xml.j2", ".html.j2"))).get_template(name).render(values)
    )


@cache  # it keeps compiled templates: a fleet fills the same one for every kind of CPU
def _environment(autoescape: bool) -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    from cpumap.system.data import template_path

    environment = Environment(
        loader=FileSystemLoader(template_path()),
        undefined=StrictUndefined,
        autoescape=autoescape,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["qemu_quoted"] = _qemu_quoted
    return environment


def _qemu_quoted(text: str) -> str:
    """A string as QEMU's config file reader takes it: in quotes, without escapes; it cannot hold
    a quote itself.
    """
    if '"' in text or "\n" in text:
        raise InputError(f"cannot be written in a -readconfig file: {text!r}")
    return f'"{text}"'
