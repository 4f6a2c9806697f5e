"""The base of cpumap's values, beside what the standard library makes of the same class."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Mapping
from dataclasses import FrozenInstanceError, asdict, dataclass, field, fields, is_dataclass, replace
from functools import cached_property
from typing import Any

import pytest

from cpumap.cpu.frozen import NONE_YET, Frozen


class Guest(Frozen):
    """Ours."""

    name: str
    vcpus: int = 1
    options: Mapping[str, str] = NONE_YET

    @property
    def label(self) -> str:
        return f"{self.name} ({self.vcpus})"


@dataclass(frozen=True, slots=True)
class Judge:
    """The standard library's."""

    name: str
    vcpus: int = 1
    options: Mapping[str, str] = field(default_factory=dict)


class Counted(Frozen):
    """With something that is computed once."""

    words: tuple[str, ...]

    @cached_property
    def letters(self) -> list[int]:
        return [len(word) for word in self.words]


CALLS = [
    ((), {"name": "web"}),
    (("web",), {}),
    (("web", 4), {"options": {"a": "b"}}),
    (("web", 4, {"a": "b"}), {}),
    ((), {}),
    (("web", 4, {}, 5), {}),
    (("web",), {"name": "db"}),
    (("web",), {"size": 3}),
]


@pytest.mark.parametrize(("values", "named"), CALLS)
def test_it_is_made_as_a_dataclass_is(values: tuple[object, ...], named: dict[str, object]) -> None:
    made: list[object] = []
    kinds: tuple[Any, ...] = (Guest, Judge)
    for kind in kinds:
        try:
            one = kind(*values, **named)
            made.append((one.name, one.vcpus, dict(one.options)))
        except TypeError:
            made.append(TypeError)
    assert made[0] == made[1]


def test_it_says_what_a_dataclass_says() -> None:
    assert repr(Guest("web", 2, {})).replace("Guest", "Judge") == repr(Judge("web", 2, {}))


def test_its_hash_is_that_of_its_values() -> None:
    assert hash(Counted(("a",))) == hash(Counted(("a",)))
    with pytest.raises(TypeError):
        hash(Guest("web", options={"a": "b"}))


def test_equal_values_of_one_class_are_equal_and_no_others() -> None:
    assert Guest("web") == Guest("web", 1)
    assert Guest("web") != Guest("web", 2)
    assert Guest("web") != Judge("web")
    assert Guest("web") != ("web", 1, {})
    assert len({Counted(("a",)), Counted(("a",)), Counted(("b",))}) == 2


@pytest.mark.parametrize("kind", [Guest, Judge])
def test_nothing_can_be_set_or_deleted(kind: Callable[[str], Any]) -> None:
    one = kind("web")
    with pytest.raises((AttributeError, FrozenInstanceError)):
        one.vcpus = 2
    with pytest.raises((AttributeError, FrozenInstanceError)):
        del one.name
    with pytest.raises((AttributeError, TypeError)):
        one.other = 2
    assert (one.name, one.vcpus) == ("web", 1)


def test_the_standard_library_takes_it_for_a_dataclass() -> None:
    one = Guest("web", options={"a": "b"})
    assert replace(one, vcpus=3) == Guest("web", 3, {"a": "b"})
    assert asdict(one) == {"name": "web", "vcpus": 1, "options": {"a": "b"}}
    assert [one.name for one in fields(Guest)] == ["name", "vcpus", "options"]
    wrong: Any = {"size": 3}
    with pytest.raises(TypeError):
        replace(one, **wrong)
    assert is_dataclass(one)


def test_it_is_copied_and_sent_to_other_processes() -> None:
    for one in (Guest("web", 2, {"a": "b"}), Guest("web")):
        assert pickle.loads(pickle.dumps(one)) == copy.copy(one) == copy.deepcopy(one) == one


def test_what_is_computed_once_is_kept() -> None:
    one: Any = Counted(("a", "bc"))
    assert one.letters is one.letters
    assert one.letters == [1, 2]
    with pytest.raises(AttributeError):
        one.words = ()


def test_it_keeps_no_dictionary_that_it_does_not_need() -> None:
    assert not hasattr(Guest("web"), "__dict__")
    assert Guest("web").label == "web (1)"
