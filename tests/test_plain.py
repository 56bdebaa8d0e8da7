"""Any Python value becomes valid JSON in valid UTF-8."""

import collections
import contextlib
import datetime
import decimal
import json
import os
import re
import subprocess
import sys
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hostile import Box, BrokenMapping, Colour, Count, Faceless, Loud, ViewOf, Word
from hypothesis import example, given
from naming import named
from strategies import anything, json_shaped, wild_text

from epsagon_fast.producer._fast_path import exact_json
from epsagon_fast.producer.plain import (
    CUT,
    MAX_CHARACTERS,
    MAX_DEPTH,
    MAX_VALUES,
    Copy,
    clean,
    json_bytes,
    metadata_text,
    printed,
)


def strictly(data: bytes) -> Any:
    """Parse JSON as the standard says it: no NaN, valid UTF-8."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(data.decode("utf-8"), parse_constant=refuse)


def nested(levels: int, innermost: Any = 1) -> Any:
    for _ in range(levels):
        innermost = [innermost]
    return innermost


@given(anything())
@example(nested(300))
@example({2**70: Loud()})
@example([float("nan"), {float("inf"): 2**64}])
def test_anything_becomes_valid_json(value: Any) -> None:
    strictly(json_bytes(value))
    strictly(json.dumps(metadata_text(value)).encode())
    metadata_text(value).encode()


@given(json_shaped())
def test_what_is_json_already_keeps_its_value(value: Any) -> None:
    assert strictly(json_bytes(value)) == value


@given(wild_text())
@example("\ud83d")
@example("a\ud83d\ude00\ude00")
def test_each_lone_surrogate_becomes_a_replacement_character(text: str) -> None:
    joined = re.sub("[\ud800-\udbff][\udc00-\udfff]", _pair, text)
    assert clean(text) == re.sub("[\ud800-\udfff]", "\ufffd", joined)


def _pair(found: re.Match[str]) -> str:
    high, low = found[0]
    return chr(0x10000 + ((ord(high) - 0xD800) << 10) + (ord(low) - 0xDC00))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("as it is", "as it is"),
        ("", ""),
        (Word("word"), "word"),
        (None, "null"),
        (True, "true"),
        (7, "7"),
        (Count(7), "7"),
        (2**70, str(2**70)),
        (-(2**70), str(-(2**70))),
        (1.5, "1.5"),
        (float("nan"), "null"),
        (float("-inf"), "null"),
        ([1, "a", None], '[1,"a",null]'),
        ((1, 2), "[1,2]"),
        ({"a": {"b": 2}}, '{"a":{"b":2}}'),
        ({1: 2, None: 3, False: 4.5}, '{"1":2,"null":3,"false":4.5}'),
        ({(1, 2): 3}, '{"[1,2]":3}'),
        ({b"k": 1, Colour.RED: 2}, '{"k":1,"red":2}'),
        ({"n": 2**70, "f": float("inf")}, '{"n":1180591620717411303424,"f":null}'),
        (ViewOf({"a": 1}), '{"a":1}'),
        (collections.deque([1, 2]), "[1,2]"),
        (collections.OrderedDict(a=1), '{"a":1}'),
        ({3}, "[3]"),
        (b"ab\xff", "ab\ufffd"),
        (bytearray(b"ab"), "ab"),
        (memoryview(b"ab"), "ab"),
        (decimal.Decimal("1.50"), "1.50"),
        (datetime.datetime(2026, 11, 1, 12, 30), "2026-11-01T12:30:00"),
        ([datetime.date(2026, 11, 1), 2**70], f'["2026-11-01",{2**70}]'),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (Box(1), '{"content":1}'),
        ([Box(b"x"), 2**70], f'[{{"content":"x"}},{2**70}]'),
        (Colour.RED, "red"),
        (Colour.LIST, '["a",1]'),
        (ValueError("said"), "said"),
        (range(3), "range(0, 3)"),
        (int, "<class 'int'>"),
        ("\ud800", "\ufffd"),
        (["\ud800"], '["\ufffd"]'),
        ({"\ud800": 1}, '{"\ufffd":1}'),
    ],
    ids=named,
)
def test_a_metadata_value_is_a_string_or_its_json_text(value: Any, text: str) -> None:
    assert metadata_text(value) == text


def test_a_value_that_cannot_be_printed_is_named_by_its_type() -> None:
    assert re.fullmatch(r"<hostile\.Loud object at 0x[0-9a-f]+>", metadata_text(Loud()))
    assert metadata_text([BrokenMapping()]).startswith('["<hostile.BrokenMapping object at')


def test_a_broken_part_leaves_the_rest() -> None:
    text = metadata_text({"good": 1, "bad": BrokenMapping(), "loud": Loud(), "more": 2**70})
    assert strictly(text.encode()) | {"bad": 0, "loud": 0} == {"good": 1, "bad": 0, "loud": 0, "more": 2**70}


def test_a_generator_is_not_consumed() -> None:
    numbers = (number for number in range(3))
    metadata_text({"numbers": numbers})
    assert list(numbers) == [0, 1, 2]


def test_a_value_inside_itself_is_cut_there() -> None:
    values: list[Any] = [1]
    values.append(values)
    assert strictly(json_bytes(values)) == [1, CUT]
    members: dict[str, Any] = {}
    members["again"] = ViewOf(members)
    assert CUT in json_bytes(members).decode()


def test_a_value_twice_in_another_is_written_twice() -> None:
    shared = [2**70]
    assert strictly(json_bytes([shared, shared])) == [[2**70], [2**70]]


def test_what_is_deep_is_cut_at_a_depth() -> None:
    text = json_bytes(nested(300))
    assert text == b"[" * MAX_DEPTH + b'"..."' + b"]" * MAX_DEPTH
    assert json_bytes(nested(MAX_DEPTH)) == b"[" * MAX_DEPTH + b"1" + b"]" * MAX_DEPTH


def test_objects_that_all_name_each_other_are_cut_and_not_followed_for_ever() -> None:
    """Twenty of them have more than 10**18 paths."""
    friends: list[Box] = [Box([]) for _ in range(20)]
    for one in friends:
        one.content = [other for other in friends if other is not one]
    data = json_bytes(friends)
    strictly(data)
    assert CUT.encode() in data
    assert len(data) < 50 * MAX_VALUES


def test_a_value_that_holds_another_twice_at_every_level_is_cut() -> None:
    """Sixty levels of two have 2**60 leaves."""
    value: Any = []
    for _ in range(60):
        value = [value, {"again": value}]
    data = json_bytes(value)
    strictly(data)
    assert len(data) < 50 * MAX_VALUES


@pytest.mark.parametrize("value", [0, 2**70, decimal.Decimal(7)])
def test_what_is_too_long_for_a_trace_is_cut_and_says_how_much_is_missing(value: Any) -> None:
    plain = strictly(json_bytes(value))
    assert strictly(json_bytes([value] * MAX_VALUES)) == [plain] * MAX_VALUES
    copy = Copy()
    assert strictly(copy.json([value] * (MAX_VALUES + 3))) == [*[plain] * MAX_VALUES, "... 3 more"]
    names = {str(number): value for number in range(MAX_VALUES + 4)}
    assert list(strictly(copy.json(names)).items())[-1] == (CUT, "... 4 more")
    assert strictly(copy.json([list(names), [value]]))[1] == ["... 1 more"]
    assert copy.left_out == 3 + 4 + 6 + 1


LONG = 100_000


@pytest.mark.parametrize("value", ["x" * LONG, b"x" * LONG, Word("x" * LONG), Path("x" * LONG)], ids=type)
@pytest.mark.parametrize("contain", [list, tuple, lambda values: [{"value": each} for each in values]])
def test_a_long_text_that_is_named_many_times_is_written_as_often_as_a_trace_has_room(value: Any, contain: Any) -> None:
    copy = Copy()
    data = copy.json(contain([value] * (MAX_VALUES // 2)))
    assert MAX_CHARACTERS - LONG <= len(data) <= MAX_CHARACTERS + 50 * MAX_VALUES
    assert copy.left_out == MAX_VALUES // 2 - MAX_CHARACTERS // LONG
    assert strictly(copy.json([value] * 2)) == ["x" * LONG] * 2


def test_so_is_a_long_name() -> None:
    data = json_bytes([{"x" * LONG: 1}] * (MAX_VALUES // 2))
    assert MAX_CHARACTERS - LONG <= len(data) <= MAX_CHARACTERS + 50 * MAX_VALUES


class Unhashable(type):
    def __hash__(cls) -> int:
        raise RuntimeError


class Secrets(dict[str, str], metaclass=Unhashable):
    """Of a class that no cache can hold."""


class ClosedShelf(BrokenMapping):
    """Cannot be read any more, and prints what it once had."""

    def items(self) -> Any:
        raise OSError

    def __repr__(self) -> str:
        return "{'password': 'hunter2'}"


@pytest.mark.parametrize("value", [Secrets(password="hunter2"), ClosedShelf()], ids=type)
def test_what_cannot_be_read_is_not_printed_with_what_it_holds(value: Any) -> None:
    for text in (metadata_text(value), metadata_text([value])):
        assert "hunter2" not in text
        assert "object at" in text


def test_each_way_to_cut_is_counted() -> None:
    copy = Copy()
    values: list[Any] = [nested(300)]
    values.append(values)
    copy.text(values)
    assert copy.left_out == 2


@pytest.mark.parametrize("first", [b"1", 1], ids=named)
def test_of_keys_that_are_the_same_in_json_no_value_is_lost(first: Any) -> None:
    """As a list under their key, so that masking finds all of them."""
    assert strictly(json_bytes({first: "a", "2": 0, "1": "b"})) == {"1": ["a", "b"], "2": 0}
    assert Copy().metadata({first: "a", "2": 0, "1": {"b": 1}}, False) == {"1": '["a",{"b":1}]', "2": "0"}
    assert strictly(json_bytes(dict([("\ud800", 1), ("\udfff", 2)]))) == {"\ufffd": [1, 2]}


def test_private_fields_of_a_dataclass_stay_private() -> None:
    @dataclass
    class Account:
        name: str
        _secret: str

    assert metadata_text(Account("me", "x")) == '{"name":"me"}'
    assert metadata_text([Account("me", "x"), 2**70]) == f'[{{"name":"me"}},{2**70}]'


def test_an_int_of_more_digits_than_python_prints_is_hexadecimal() -> None:
    assert metadata_text(10**5000) == hex(10**5000)
    assert strictly(json_bytes({"n": 10**5000})) == {"n": hex(10**5000)}


def test_the_recursion_limit_is_not_the_applications_problem() -> None:
    outcomes = []

    def descend() -> None:
        with contextlib.suppress(RecursionError):
            descend()
        # On the way up there is a little more room in every frame: from none at all to plenty.
        try:
            outcomes.append(json_bytes({"n": 2**70, "deep": nested(50)}))
        except RecursionError:
            # Not even the call itself had room.
            outcomes.append(b"null")

    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(400)
    try:
        descend()
    finally:
        sys.setrecursionlimit(limit)
    assert len(outcomes) > 200
    for outcome in outcomes:
        strictly(outcome)
    assert strictly(outcomes[-1]) == {"n": 2**70, "deep": nested(50)}


def test_an_object_without_a_class_is_printed() -> None:
    assert "Faceless object at" in printed(Faceless())
    assert "Faceless object at" in metadata_text(Faceless())
    assert "Faceless object at" in json_bytes([Faceless(), 2**70]).decode()


@pytest.mark.parametrize("implementation", ["compiled", "reference"])
def test_what_changes_while_it_is_looked_at_ends_no_process(implementation: str) -> None:
    """orjson would read memory that is free by then. EPSAGON_TEST_ROUNDS=100000 looks longer."""
    rounds = int(os.environ.get("EPSAGON_TEST_ROUNDS", "200"))
    program = [sys.executable, "-X", "faulthandler", str(Path(__file__).with_name("mutating.py")), str(rounds)]
    environment = {**os.environ, "EPSAGON_FAST_IMPL": implementation}
    done = subprocess.run(program, env=environment, capture_output=True, text=True, timeout=60 + rounds, check=False)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, str(4 * rounds), "")


@pytest.mark.parametrize(
    "value", [None, True, 7, 1.5, "text", [], {}, [1, {"a": [None]}], {"a": {"b": "c"}}], ids=named
)
def test_exact_values_need_no_copy(value: Any) -> None:
    assert exact_json(value, 10, 10, 5) == json_bytes(value)


OTHER_VALUES = [
    *[
        Word("a"),
        Count(1),
        (1,),
        {1: 2},
        {Word("a"): 1},
        [Word("a")],
        {"a": Count(1)},
        decimal.Decimal(1),
        {1},
        b"",
        "12345",
    ],
    *[datetime.date(1, 1, 1), collections.OrderedDict(), [[[]]], [1, 2, 3, 4], {"a": [1, 2, 3]}, Box(1)],
    *["\ud800", "12345", ["123", "45"], {"123": "45"}],
]


@pytest.mark.parametrize("value", OTHER_VALUES, ids=type)
def test_any_other_value_is_copied(value: Any) -> None:
    """Three values, four characters, two levels."""
    assert exact_json(value, 3, 4, 2) is None


class Proxy:
    """Stands for another object, as Flask's `session` and `current_user` do."""

    def __init__(self, target: Any) -> None:
        object.__setattr__(self, "_target", target)

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return type(self._target)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._target, name)

    def __iter__(self) -> Any:
        return iter(self._target)

    def __str__(self) -> str:
        return str(self._target)


class Headers:
    """A mapping in all but its name, as werkzeug's Headers."""

    def __init__(self, *pairs: tuple[str, str]) -> None:
        self._pairs = pairs

    def items(self) -> Any:
        return iter(self._pairs)

    def keys(self) -> Any:
        raise NotImplementedError

    values = __getitem__ = keys


class Client:
    """A database's client: to ask it for its keys would be to ask the database."""

    def keys(self) -> Any:
        raise AssertionError("asked")

    __getitem__ = keys

    def __str__(self) -> str:
        return "client"


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (Proxy({"password": 1}), {"password": 1}),
        (Proxy(Box({"password": 1})), {"content": {"password": 1}}),
        (Proxy(Headers(("password", "x"))), {"password": "x"}),
        (Headers(("cookie", "a"), ("password", "x"), ("cookie", "b")), {"cookie": ["a", "b"], "password": "x"}),
        (Proxy([{"password": 1}]), [{"password": 1}]),
        (Proxy("text"), "text"),
        (Client(), "client"),
    ],
    ids=range(7),
)
def test_what_stands_for_a_mapping_is_written_as_one(value: Any, plain: Any) -> None:
    """As text masking could not look into it."""
    assert strictly(json_bytes(value)) == plain
    assert strictly(json_bytes([value, decimal.Decimal(1)])) == [plain, "1"]


def test_a_mapping_that_cannot_be_read_is_not_printed() -> None:
    class Broken(ViewOf):
        def __iter__(self) -> Any:
            raise OSError("gone")

        def __repr__(self) -> str:
            return "password=x"

    assert "password" not in metadata_text(Broken({}))
