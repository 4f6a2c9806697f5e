"""Values from outside (JSON answers, caches, locks, recordings) taken apart, their types checked on
the way; a complaint names the file and the place in it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, cast

from cpumap.cpu.frozen import Frozen
from cpumap.cpu.names import PropertyName, Value
from cpumap.errors import InputError

SHOWN = 60
"""Characters of a value that is not what it should be."""


class Shaped(Frozen):
    """A value, where it came from, and its place there: `lock.json`, `cpus.1.model`."""

    value: Any
    source: str
    place: str = ""
    error_class: type[Exception] = InputError

    def error(self, expected: str) -> Exception:
        """The error to raise where something else was expected."""
        shown = repr(self.value)
        shown = shown[:SHOWN] + "…" * (len(shown) > SHOWN)
        at = f"{self.place}: " if self.place else ""
        return self.error_class(f"{self.source}: {at}expected {expected}, not {shown}")

    def at(self, key: str | int, value: Any) -> Shaped:
        """A value inside this one."""
        place = f"{self.place}.{key}" if self.place else str(key)
        return Shaped(value, self.source, place, self.error_class)

    @property
    def mapping(self) -> dict[str, Any]:
        """The value as an object, whose keys are text."""
        if not isinstance(self.value, dict) or not all(isinstance(key, str) for key in self.value):
            raise self.error("an object")
        return cast(dict[str, Any], self.value)

    def key(self, name: str) -> Shaped:
        """What the object has under this name, which it must have."""
        if name not in self.mapping:
            raise self.error(f"an object with {name!r}")
        return self.at(name, self.mapping[name])

    def optional(self, name: str) -> Shaped | None:
        """What the object has under this name, if it has and it is not null."""
        value = self.mapping.get(name)
        return None if value is None else self.at(name, value)

    def items(self) -> Iterator[tuple[str, Shaped]]:
        """The object's entries."""
        return ((name, self.at(name, value)) for name, value in self.mapping.items())

    def members(self) -> Iterator[Shaped]:
        """The values of the object's entries."""
        return (entry for _, entry in self.items())

    def entries(self) -> Iterator[Shaped]:
        """The list's entries."""
        if not isinstance(self.value, list):
            raise self.error("a list")
        return (self.at(number, value) for number, value in enumerate(self.value))

    def row(self, length: int) -> tuple[Shaped, ...]:
        """The list's entries, which must be so many."""
        entries = tuple(self.entries())
        if len(entries) != length:
            raise self.error(f"{length} values")
        return entries

    @property
    def text(self) -> str:
        """The value as text."""
        if not isinstance(self.value, str):
            raise self.error("text")
        return self.value

    @property
    def number(self) -> int:
        """The value as a whole number, which true and false are not."""
        if not isinstance(self.value, int) or isinstance(self.value, bool):
            raise self.error("a whole number")
        return self.value

    @property
    def switch(self) -> bool:
        """The value as true or false."""
        if not isinstance(self.value, bool):
            raise self.error("true or false")
        return self.value

    @property
    def nothing(self) -> None:
        """The value as null."""
        if self.value is not None:
            raise self.error("null")

    def among(self, choices: tuple[Any, ...]) -> Any:
        """The value as one of these."""
        if self.value not in choices or isinstance(self.value, bool):
            raise self.error(" or ".join(map(repr, choices)))
        return self.value

    @property
    def texts(self) -> tuple[str, ...]:
        """The value as a list of texts."""
        return tuple(entry.text for entry in self.entries())

    @property
    def scalar(self) -> Value:
        """The value of a CPU property: true or false, a whole number, or text."""
        if not isinstance(self.value, bool | int | str):
            raise self.error("true, false, a whole number or text")
        return self.value

    @property
    def values(self) -> dict[PropertyName, Value]:
        """The value as CPU properties."""
        return {PropertyName(name): entry.scalar for name, entry in self.items()}


def read_json(data: bytes | str, source: str, error_class: type[Exception] = InputError) -> Shaped:
    """JSON from outside, to be taken apart. The error says what is wrong with it, and where."""
    try:
        return at_top(json.loads(data), source, error_class)
    except RecursionError as err:
        raise error_class(f"{source}: not JSON: too deep") from err
    except ValueError as err:  # also of bytes that are no text, and of numbers with 5,000 digits
        raise error_class(f"{source}: not JSON: {err}") from err


def at_top(value: Any, source: str, error_class: type[Exception] = InputError) -> Shaped:
    """A whole answer or file, to be taken apart."""
    return Shaped(value, source, "", error_class)
