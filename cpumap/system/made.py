"""Values made from JSON by the types of their fields."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, NewType, TypeVar, Union, get_args, get_origin, get_type_hints

from cpumap.cpu.frozen import Frozen
from cpumap.system.shape import Shaped

F = TypeVar("F", bound=Frozen)


Readers = Mapping[Any, Callable[[Shaped], Any]]
"""Type → what reads it, where JSON has it in another form than its fields."""


_PLAIN: Readers = {
    str: lambda shaped: shaped.text,
    int: lambda shaped: shaped.number,
    bool: lambda shaped: shaped.switch,
    NoneType: lambda shaped: shaped.nothing,
}


NO_READERS: Readers = {}


def made(kind: type[F], shaped: Shaped, readers: Readers = NO_READERS) -> F:
    """The value with these fields; one that is not there has its default.

    Raises the error of `shaped`, which names the place, for a field that is unknown, missing or of
    another type.
    """
    hints = _hints(kind)
    values = {}
    for name, entry in shaped.items():
        if name not in hints:
            raise entry.error(f"no {name!r} in {shaped.place or 'it'}")
        values[name] = read(hints[name], entry, readers)
    try:
        return kind(**values)
    except TypeError as err:
        raise shaped.error(f"all of {', '.join(hints)}") from err


def read(hint: Any, shaped: Shaped, readers: Readers = NO_READERS) -> Any:
    """The value, which must be of this type. Errors as `made`."""
    if hint in readers:
        return readers[hint](shaped)
    if hint in _PLAIN:
        return _PLAIN[hint](shaped)
    if isinstance(hint, NewType):
        return read(hint.__supertype__, shaped, readers)
    of = get_origin(hint)
    if of is Literal:
        return shaped.among(get_args(hint))
    if of in (Union, UnionType):
        return _one_of(get_args(hint), shaped, readers)
    if of is tuple:
        return _row(get_args(hint), shaped, readers)
    if of is Mapping:
        _, value = get_args(hint)
        return {name: read(value, entry, readers) for name, entry in shaped.items()}
    return made(hint, shaped, readers)


def _one_of(kinds: tuple[Any, ...], shaped: Shaped, readers: Readers) -> Any:
    """A value of one of several types: those of JSON itself tell which, and None comes before."""
    if type(shaped.value) in kinds:
        return shaped.value
    others = [kind for kind in kinds if kind not in _PLAIN]
    if len(others) != 1:
        raise shaped.error(" or ".join(kind.__name__ for kind in kinds))
    return read(others[0], shaped, readers)


def _row(kinds: tuple[Any, ...], shaped: Shaped, readers: Readers) -> tuple[Any, ...]:
    entries = list(shaped.entries())
    if kinds[-1] is Ellipsis:
        return tuple(read(kinds[0], entry, readers) for entry in entries)
    if len(entries) != len(kinds):
        raise shaped.error(f"{len(kinds)} values")
    return tuple(read(kind, entry, readers) for kind, entry in zip(kinds, entries, strict=True))


@cache
def _hints(kind: type[Frozen]) -> Mapping[str, Any]:
    """Field → type."""
    hints = get_type_hints(kind)
    return {name: hints[name] for name in kind.__match_args__}
