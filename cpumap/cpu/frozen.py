"""The base of the values that flow through cpumap: frozen, and cheap to define."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from copy import copy
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, dataclass_transform

if TYPE_CHECKING:
    from dataclasses import Field

NONE_YET: Mapping[Any, Any] = {}
"""The default of a field that is a mapping: one for all, so its type is one that nobody fills."""


class _Fields:
    """The names of the fields as `dataclasses` describes them, made when asked for."""

    def __get__(self, instance: object, owner: type[Frozen]) -> dict[str, Field[Any]]:
        described = {name: _described(name) for name in owner.__match_args__}
        owner.__dataclass_fields__ = described
        return described


@cache
def _example() -> Field[Any]:
    """A field as `dataclasses` makes it: to make one for each class would cost as much as to make
    the class one.
    """
    from dataclasses import fields, make_dataclass

    (made,) = fields(make_dataclass("Example", ["example"]))
    return made


def _described(name: str) -> Field[Any]:
    described = copy(_example())
    described.name = name
    return described


class _Definition(type):
    """Turns annotated names into slots, and what is assigned to them into defaults."""

    def __new__(cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any]) -> _Definition:
        fields = tuple(
            field
            for field, kind in namespace.get("__annotations__", {}).items()
            if not kind.startswith("ClassVar")
        )
        defaults = {field: namespace.pop(field) for field in fields if field in namespace}
        computed = any(isinstance(value, cached_property) for value in namespace.values())
        # What a cached property computes is kept in the instance's dictionary.
        slots = (*fields, "__dict__") if computed else fields
        namespace |= {"__slots__": slots, "__match_args__": fields, "_defaults": defaults}
        return super().__new__(cls, name, bases, namespace)


@dataclass_transform(frozen_default=True)
class Frozen(metaclass=_Definition):
    """What `@dataclass(frozen=True, slots=True)` makes of a class, without compiling code for it.

    To define a dataclass takes half a millisecond, as methods are written out and compiled; thirty
    of them were a third of what a short command cost. Here the methods are written once, for all.
    `dataclasses.replace`, `asdict` and `fields` take these values as well. A subclass has its own
    fields only; a default is shared, so it must be one that nobody can change.
    """

    _defaults: ClassVar[dict[str, Any]]
    _setters: ClassVar[tuple[Callable[[Any, Any], None], ...]]
    __match_args__: ClassVar[tuple[str, ...]]
    if TYPE_CHECKING:
        __dataclass_fields__: ClassVar[dict[str, Field[Any]]]
    else:
        __dataclass_fields__ = _Fields()

    def __init_subclass__(cls) -> None:
        cls._setters = tuple(vars(cls)[name].__set__ for name in cls.__match_args__)

    def __init__(self, *values: Any, **named: Any) -> None:
        setters = self._setters
        if named or len(values) != len(setters):
            values = self._completed(values, named)
        for put, value in zip(setters, values, strict=True):
            put(self, value)

    @classmethod
    def _completed(cls, values: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, ...]:
        """A value for each field. `TypeError` as a function's call has it."""
        names = cls.__match_args__
        by_place = dict(zip(names, values, strict=False))
        given = {**cls._defaults, **by_place, **named}
        twice = by_place.keys() & named.keys()
        unknown = named.keys() - set(names)
        missing = [name for name in names if name not in given]
        if twice or unknown or missing or len(values) > len(names):
            wrong = sorted({*twice, *unknown, *missing}) or [f"{len(values)} values"]
            raise TypeError(f"{cls.__name__} has fields {names}; wrong here: {', '.join(wrong)}")
        return tuple([given[name] for name in names])

    def _values(self) -> Iterator[Any]:
        return (getattr(self, name) for name in self.__match_args__)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, type(self)):
            return NotImplemented
        return tuple(self._values()) == tuple(other._values())

    def __hash__(self) -> int:
        return hash(tuple(self._values()))

    def __repr__(self) -> str:
        shown = (f"{name}={getattr(self, name)!r}" for name in self.__match_args__)
        return f"{type(self).__name__}({', '.join(shown)})"

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"{type(self).__name__} is frozen: {name} cannot be set")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"{type(self).__name__} is frozen: {name} cannot be deleted")

    def __reduce__(self) -> tuple[Any, ...]:
        """How it is copied, and sent to another process."""
        return type(self), tuple(self._values())
