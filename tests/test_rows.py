"""Named tuples of ours do what those of typing do."""

import copy
import typing
from typing import Any

import pytest

from epsagon_fast import rows
from epsagon_fast.producer.context import Ids


def made(base: Any) -> Any:
    class Point(base):  # type: ignore[misc]
        """A point."""

        x: int
        y: int = 2
        why: str | None = None

        @property
        def length(self) -> int:
            return int(self.x + self.y)

    return Point


OURS, THEIRS = made(rows.NamedTuple), made(typing.NamedTuple)
GIVEN = (((1,), {}), ((1, 3), {"why": "because"}), ((), {"x": 1, "y": 5}), ((1, 2, "t"), {}))


@pytest.mark.parametrize(("args", "named"), GIVEN)
def test_it_is_made_and_shown_as_theirs(args: Any, named: Any) -> None:
    ours, theirs = OURS(*args, **named), THEIRS(*args, **named)
    assert isinstance(ours, tuple)
    assert (ours, repr(ours), hash(ours)) == (theirs, repr(theirs), hash(theirs))
    assert (ours.x, ours.y, ours.why, ours.length) == (theirs.x, theirs.y, theirs.why, theirs.length)
    assert ours._asdict() == theirs._asdict()
    assert ours._replace(y=7) == theirs._replace(y=7)
    assert copy.deepcopy(ours) == ours
    assert type(copy.copy(ours)) is OURS


def test_its_class_says_the_same() -> None:
    for name in ("_fields", "_field_defaults", "__match_args__", "__doc__", "__slots__", "__bases__"):
        assert getattr(OURS, name) == getattr(THEIRS, name), name
    assert OURS._make([1, 2, "t"]) == THEIRS._make([1, 2, "t"])
    assert OURS.__module__ == THEIRS.__module__


@pytest.mark.parametrize(
    ("args", "named"), [((), {}), ((1,), {"x": 1}), ((1,), {"z": 1}), ((1, 2, "", 4), {}), ((), {"y": 1})]
)
def test_wrong_arguments_raise_the_same_error(args: Any, named: Any) -> None:
    for first in (False, True):
        for cls in (made(rows.NamedTuple), THEIRS):
            if not first:
                cls(1)
            with pytest.raises(TypeError):
                cls(*args, **named)
    for cls in (OURS, THEIRS):
        with pytest.raises(TypeError):
            cls._make([1])
        with pytest.raises(ValueError, match="z"):
            cls(1)._replace(z=1)


def test_nothing_can_be_set() -> None:
    for cls in (OURS, THEIRS):
        with pytest.raises(AttributeError):
            cls(1).x = 2
        with pytest.raises(AttributeError):
            cls(1).other = 2


def test_a_field_without_a_default_must_come_first() -> None:
    for base in (rows.NamedTuple, typing.NamedTuple):
        with pytest.raises(TypeError):
            type(base)  # keep the name in use
            exec("class Wrong(base):\n    x: int = 1\n    y: int", {"base": base})


def test_the_constructor_is_made_once() -> None:
    cls = made(rows.NamedTuple)
    first = cls.__new__
    cls(1)
    made_one = cls.__new__
    assert made_one is not first
    cls(2)
    assert cls.__new__ is made_one


def test_subclasses_keep_their_class() -> None:
    class Further(Ids):
        pass

    assert type(Further("a", "b", "c")) is Further
