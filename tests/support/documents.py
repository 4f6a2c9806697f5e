"""Small domain documents to convert, put into directories and read back."""

from __future__ import annotations

from pathlib import Path

from cpumap.cli.main import main

RECORDED = ("--recorded", "7.2")
SMALL = """\
<!-- guest -->\r
<domain type='kvm'>\r
  <name>{name}</name>\r
  <os><type arch='x86_64' machine="{machine}">hvm</type></os>\r
  <cpu mode='custom'><model>{model}</model></cpu><!-- <cpu/> -->\r
  <devices/>\r
</domain>\r
"""


def small(name: str = "a", model: str = "Haswell", machine: str = "pc-q35-5.2") -> bytes:
    return SMALL.format(name=name, model=model, machine=machine).encode()


def kinds(count: int) -> dict[str, bytes]:
    """So many documents with two kinds of CPU: more than one process converts them, and soon."""
    return {f"{n:03}.xml": small(str(n), ("Haswell", "EPYC")[n % 2]) for n in range(count)}


def stored(directory: Path, documents: dict[str, bytes]) -> Path:
    for name, data in documents.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return directory


def content(directory: Path) -> dict[str, bytes]:
    """Every file below the directory, hidden ones too."""
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file()
    }


def convert(*words: object) -> int:
    return main(["convert", *map(str, words), *RECORDED])
