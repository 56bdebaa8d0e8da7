"""Frozen classes of ours do what those of dataclasses do."""

import copy
import dataclasses
import inspect
import pickle
from collections.abc import Callable
from dataclasses import FrozenInstanceError, dataclass
from typing import Any

import pytest

import epsagon_fast.frozen as ours_made
from epsagon_fast import Config, Handle, Outcome
from epsagon_fast.frozen import frozen


def made(decorate: Callable[[Any], Any], words: Any) -> Any:
    field = words.field

    class Point:
        """A point."""

        x: int
        y: int = 2
        secret: str = field(default="s", repr=False)
        why: str | None = field(default=None, compare=False)
        notes: tuple[str, ...] = field(default_factory=tuple)
        _: words.KW_ONLY
        color: str = "red"

        def __post_init__(self) -> None:
            object.__setattr__(self, "length", self.x + self.y)

    return decorate(Point)


OURS, THEIRS = made(frozen, ours_made), made(dataclass(frozen=True), dataclasses)
POSITIONS = (((1,), {}), ((1, 3), {"color": "blue"}), ((), {"x": 1, "why": "because"}), ((1, 2, "t", None, ("n",)), {}))


def told(value: Any) -> list[Any]:
    fields = dataclasses.fields(value)
    return [(each.name, each.type, each.default, each.repr, each.compare, each.kw_only) for each in fields]


@pytest.mark.parametrize(("args", "named"), POSITIONS)
def test_it_is_made_and_shown_as_a_dataclass(args: Any, named: Any) -> None:
    ours, theirs = OURS(*args, **named), THEIRS(*args, **named)
    assert repr(ours) == repr(theirs)
    assert dataclasses.asdict(ours) == dataclasses.asdict(theirs)
    assert vars(ours) == vars(theirs)
    assert repr(dataclasses.replace(ours, y=7)) == repr(dataclasses.replace(theirs, y=7))
    assert copy.deepcopy(ours) == ours
    assert told(ours) == told(theirs)


@pytest.mark.parametrize("one", POSITIONS)
@pytest.mark.parametrize("other", POSITIONS)
def test_equality_and_hash_are_those_of_a_dataclass(one: Any, other: Any) -> None:
    ours = [OURS(*args, **named) for args, named in (one, other)]
    theirs = [THEIRS(*args, **named) for args, named in (one, other)]
    assert (ours[0] == ours[1]) is (theirs[0] == theirs[1])
    assert (hash(ours[0]) == hash(ours[1])) is (hash(theirs[0]) == hash(theirs[1]))
    assert ours[0] != theirs[0]


@pytest.mark.parametrize(
    ("args", "named"), [((), {}), ((1,), {"x": 1}), ((1,), {"z": 1}), ((1, 2, "", "", (), "red"), {})]
)
def test_wrong_arguments_raise_the_same_error(args: Any, named: Any) -> None:
    for cls in (OURS, THEIRS):
        with pytest.raises(TypeError):
            cls(*args, **named)


def test_nothing_can_be_set_or_deleted() -> None:
    point = OURS(1)
    with pytest.raises(FrozenInstanceError):
        point.x = 2
    with pytest.raises(FrozenInstanceError):
        del point.x
    assert point.x == 1


def test_the_signature_is_that_of_a_dataclass() -> None:
    theirs = inspect.signature(THEIRS)
    ours = inspect.signature(OURS)
    assert [(each.name, each.kind, each.annotation) for each in ours.parameters.values()] == [
        (each.name, each.kind, each.annotation) for each in theirs.parameters.values()
    ]


@pytest.mark.parametrize("base", [OURS, THEIRS])
def test_dataclass_may_have_it_as_its_base(base: Any) -> None:
    @dataclass(frozen=True)
    class Wider(base):  # type: ignore[misc]
        size: float = 1.5

    assert vars(Wider(1, size=2.5)) == {**vars(base(1)), "size": 2.5}
    with pytest.raises(TypeError):
        dataclass(type("Thawed", (base,), {}))


def test_dataclasses_know_that_it_is_frozen() -> None:
    assert repr(OURS.__dataclass_params__) == repr(THEIRS.__dataclass_params__)


@pytest.mark.parametrize(
    "value", [Config(token="t"), Outcome.DELIVERED.because("x"), Handle("a" * 32, "", 1, True, False)]
)
def test_public_classes_are_dataclasses_that_pickles_and_copies_keep(value: Any) -> None:
    assert dataclasses.is_dataclass(value)
    assert pickle.loads(pickle.dumps(value)) == copy.copy(value) == dataclasses.replace(value) == value
