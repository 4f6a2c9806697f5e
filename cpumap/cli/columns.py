"""Text in columns, for people and for `cut`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from cpumap.cpu.bits import register_words

if TYPE_CHECKING:
    from cpumap.proof.difference import GuestDifference


def columns(rows: Iterable[Sequence[str]]) -> str:
    """The rows as lines, each column as wide as its widest cell, the last one free."""
    cells = list(rows)
    widths = (
        [max(len(cell) for cell in column) for column in zip(*cells, strict=True)][:-1]
        if cells
        else []
    )
    return "".join(
        "  ".join(
            [*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]
        ).rstrip()
        + "\n"
        for row in cells
    )


def bit_lines(bits: Iterable[GuestDifference]) -> list[str]:
    """A line for each register that two guests read differently."""
    rows = [
        [
            register_words((bit.leaf, bit.subleaf, bit.register))
            + ("" if bit.vcpu is None else f", vCPU {bit.vcpu}"),
            f"{_hex(bit.a)} -> {_hex(bit.b)}",
            f"bits {', '.join(map(str, bit.bits))}"
            + (f" ({', '.join(bit.names)})" if bit.names else ""),
            ("expected: " if bit.predicted else "") + bit.cause,
        ]
        for bit in bits
    ]
    return columns(rows).splitlines()


def _hex(value: int | None) -> str:
    return "none" if value is None else f"0x{value:x}"
