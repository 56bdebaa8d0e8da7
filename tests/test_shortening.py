"""Shortening what is longest: each property over both implementations, beside an oracle that tries every level."""

import json
import os
import re
from bisect import bisect_right
from collections.abc import Callable
from functools import lru_cache
from operator import itemgetter
from random import Random
from typing import Any

import pytest
import strategies
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import Parts
from test_trimming import ANSWERS, BALLAST, HARD_EVENTS, NOT_JSON, NOTHING_TO_STRIP

from epsagon_fast.pages import see
from epsagon_fast.protocol import STRONG_KEYS
from epsagon_fast.trimming import Shortened, TraceTooBig, Trimmed, _reference, at_level, trim

Shortener = Callable[..., Shortened]
SHORTENERS: dict[str, Shortener] = {"reference": _reference.shorten}
if os.environ.get("EPSAGON_FAST_PURE") != "1" and os.environ.get("EPSAGON_FAST_IMPL") != "reference":
    # A build that is missing is an error here, never a test left out.
    from epsagon_fast.trimming import _compiled

    SHORTENERS["compiled"] = _compiled.shorten

LEAST = 64
# The oracle takes its time; `make fuzz` gives it more.
half_as_often = settings(max_examples=settings.default.max_examples // 2)
MARK = re.compile(r"\.\.\. ([0-9]+) bytes left out( \.\.\.)?")


@pytest.fixture(params=SHORTENERS.values(), ids=SHORTENERS, scope="module")
def shorten(request: pytest.FixtureRequest) -> Shortener:
    """Each implementation in turn."""
    return request.param


# ---- the oracle: the rule once more, on events of which the parts are known


class Value:
    """A value that may be shortened, and what each limit leaves of it."""

    def __init__(self, text: str, content: str, has_two_ends: bool) -> None:
        head, tail, gone = parted(content, has_two_ends)
        total = size(head) + size(tail) * (tail is not head) + gone
        heads, tails = cuts(head), cuts(tail)[::-1]
        self.text, self.length, self.share = text, size(text) - 2, 4 if has_two_ends else 1
        # The longest of what is left for so many bytes of its own, for each length it may have with its mark.
        self.left: dict[int, str] = {}
        # One end may be short, and the other gets no more than half of the room.
        for room in range(2 * size(content) + 1 if has_two_ends else min(total, size(content)) + 1):
            first, last = ((room + 1) // 2, room // 2) if has_two_ends else (room, 0)
            kept = head[: heads[bisect_right(heads, first, key=itemgetter(1)) - 1][0]]
            rest = tail[tails[bisect_right(tails, last, key=itemgetter(2)) - 1][0] :]
            mark = f"... {total - size(kept) - size(rest)} bytes left out" + " ..." * has_two_ends
            self.left[size(kept) + size(mark) + size(rest)] = f'"{kept}{mark}{rest}"'

    def at(self, level: int) -> str:
        limit = level * self.share
        return self.text if self.length <= limit else self.left[max(left for left in self.left if left <= limit)]


def size(text: str) -> int:
    return len(text.encode())


def value_of(text: str, has_two_ends: bool = False) -> Value | None:
    if text[0] not in '"[{' or (has_two_ends and text[0] != '"'):
        return None
    return Value(text, text[1:-1] if text[0] == '"' else json.dumps(text, ensure_ascii=False)[1:-1], has_two_ends)


def parted(content: str, two_ends: bool) -> tuple[str, str, int]:
    """Return what stands before a mark and behind it, and its number; without a mark, the content twice."""
    for mark in MARK.finditer(content):
        number, between = mark.groups()
        if number[0] != "0" and len(number) <= 15 and (between if two_ends else mark.end() == len(content)):
            return content[: mark.start()], content[mark.end() :], int(number)
    return content, content, 0


@lru_cache(maxsize=1000)
def cuts(content: str) -> list[tuple[int, int, int]]:
    """Return where a string may be cut in two that mean, one behind the other, what the whole means.

    With the bytes before it, and those behind it.
    """
    whole = json.loads(f'"{content}"')
    places = range(len(content) + 1)
    if whole != content:
        places = [at for at in places if meaning(content[:at]) + meaning(content[at:]) == whole]
    return [(at, size(content[:at]), size(content[at:])) for at in places]


def meaning(content: str) -> str:
    try:
        return json.loads(f'"{content}"')
    except ValueError:
        return "\0 not a string"


class Oracle:
    """A trace at each level, built from its parts."""

    def __init__(self, trace: list[Parts]) -> None:
        self.trace = trace
        self.values = [
            [
                *(None if name in STRONG_KEYS else value_of(value) for _, name, value in parts.members),
                value_of(parts.message, True),
                value_of(parts.traceback, True),
            ]
            for parts in trace
        ]

    def at(self, level: int) -> list[str]:
        return [
            parts.built([value.at(level) if value else None for value in values])
            for parts, values in zip(self.trace, self.values, strict=True)
        ]

    def top(self) -> int:
        return max((value.length for values in self.values for value in values if value), default=0)

    def highest(self, room: int) -> int | None:
        levels = range(max(LEAST, self.top()), LEAST - 1, -1)
        return next((level for level in levels if joined(self.at(level)) <= room), None)


def joined(events: list[str]) -> int:
    return size(",".join(events))


def encoded(trace: list[Parts]) -> list[bytes]:
    return [parts.built().encode() for parts in trace]


def answer(shorten: Shortener, *args: Any, **sizes: Any) -> Any:
    """Return what is given, or the type and text of the error."""
    try:
        return shorten(*args, **sizes)
    except Exception as error:
        text, page, more = str(error).partition(see("trimming"))
        # Python itself says what is no number and no sequence.
        assert not more and (page or isinstance(error, TypeError))
        return type(error), text


@st.composite
def asked(draw: st.DrawFn) -> tuple[list[Parts], int, dict[str, int]]:
    """A trace, a limit near a size that matters, an envelope and a reserve."""
    trace = draw(strategies.long_traces())
    envelope, reserve = draw(st.sampled_from([0, 1, 100])), draw(st.sampled_from([0, 0, 1, 20, 10**6]))
    oracle = Oracle(trace)
    level = draw(st.integers(LEAST - 30, max(LEAST, oracle.top())))
    near = joined(oracle.at(max(level, LEAST))) if level > LEAST - 20 else joined(oracle.at(LEAST)) * 2 // 3
    limit = envelope + near + draw(st.sampled_from([0, 0, 1, -1, 7])) + draw(st.sampled_from([0, min(reserve, 20)]))
    return trace, max(0, limit), {"envelope_bytes": envelope, "reserve_bytes": reserve}


@half_as_often
@given(asked())
def test_level_is_the_highest_of_all_at_which_the_trace_fits(
    shorten: Shortener, asked: tuple[list[Parts], int, dict[str, int]]
) -> None:
    trace, limit, sizes = asked
    events, envelope = encoded(trace), sizes["envelope_bytes"]
    room = limit - sizes["reserve_bytes"] - envelope
    got = answer(shorten, events, limit, **sizes)
    if envelope + len(b",".join(events)) <= limit:
        assert got == Shortened(events, envelope + len(b",".join(events)), limit, 0, 0)
        return
    oracle = Oracle(trace)
    level = oracle.highest(room)
    least = [event.encode() for event in oracle.at(level or LEAST)]
    expected = answer(trim, least, max(0, room), envelope_bytes=0) if level is None else Trimmed(least, 0, 0)
    if not isinstance(expected, Trimmed):
        assert got[0] is TraceTooBig
        return
    assert (got.events, got.level_bytes, got.stripped_count) == (
        expected.events,
        level or LEAST,
        expected.stripped_count,
    )
    assert got.size_bytes == envelope + len(b",".join(got.events)) <= limit - sizes["reserve_bytes"]
    changed = [
        value and value.at(got.level_bytes) != value.text and (number >= got.stripped_count or value.share > 1)
        for number, values in enumerate(oracle.values)
        for value in values
    ]
    assert got.shortened_count == sum(map(bool, changed))


@half_as_often
@given(strategies.long_traces(), st.integers(LEAST, 400), st.integers(LEAST, 400))
def test_a_level_and_then_a_lower_one_leave_what_the_lower_one_alone_leaves(
    shorten: Shortener, trace: list[Parts], one: int, other: int
) -> None:
    lower, higher = sorted((one, other))
    oracle = Oracle(trace)
    limits = [joined(oracle.at(level)) for level in (lower, higher)]
    events = encoded(trace)
    at_once = shorten(events, limits[0])
    in_steps = shorten(shorten(events, limits[1]).events, limits[0])
    assert in_steps.events == at_once.events
    assert in_steps.level_bytes == at_once.level_bytes or limits[0] == len(b",".join(in_steps.events))


@given(strategies.long_traces(), st.integers(0, 110))
def test_what_is_left_is_json_and_shortening_it_again_changes_nothing(
    shorten: Shortener, trace: list[Parts], percent: int
) -> None:
    events = encoded(trace)
    limit = len(b",".join(events)) * percent // 100
    once = answer(shorten, events, limit)
    if isinstance(once, Shortened):
        assert [sorted(json.loads(event)) for event in once.events] == [sorted(json.loads(event)) for event in events]
        twice = shorten(once.events, limit)
        assert twice == Shortened(once.events, once.size_bytes, limit, 0, 0)
        assert all(second is first for second, first in zip(twice.events, once.events, strict=True))


@half_as_often
@given(strategies.long_traces(), st.integers(30, 100), st.randoms(use_true_random=False))
def test_what_is_left_of_an_event_does_not_hang_on_its_place(
    shorten: Shortener, trace: list[Parts], percent: int, chance: Random
) -> None:
    events = encoded(trace)
    order = chance.sample(range(len(events)), len(events))
    limit = len(b",".join(events)) * percent // 100
    one, other = (answer(shorten, each, limit) for each in (events, [events[place] for place in order]))
    if isinstance(one, Shortened) and one.stripped_count == 0:
        assert other == one._replace(events=[one.events[place] for place in order])


@half_as_often
@given(strategies.long_traces(), st.integers(LEAST, 400))
def test_a_level_is_what_the_oracle_says_whatever_the_size(trace: list[Parts], level: int) -> None:
    expected = [event.encode() for event in Oracle(trace).at(level)]
    for each in (_reference.at_level, at_level):
        assert each(encoded(trace), level) == expected


@pytest.mark.parametrize("each", [_reference.at_level, at_level])
def test_a_level_that_no_value_could_have_is_refused(each: Callable[..., list[bytes]]) -> None:
    assert answer(each, [BALLAST], LEAST - 1) == (ValueError, "level_bytes is less than 64: 63")
    assert answer(each, [BALLAST, b"{"], LEAST) == (ValueError, "event 1 is not JSON")
    assert each([BALLAST], 2**100)[0] is BALLAST


# ---- events of any kind


@given(st.lists(strategies.failed_event_texts(), max_size=3), st.integers(0, 110))
def test_both_give_the_same_bytes_and_the_same_errors(events: list[bytes], percent: int) -> None:
    first, *others = (answer(each, events, len(b",".join(events)) * percent // 100) for each in SHORTENERS.values())
    assert all(other == first for other in others)


@pytest.mark.parametrize("name", HARD_EVENTS)
def test_both_shorten_hard_events_alike(name: str) -> None:
    events = [HARD_EVENTS[name][0], BALLAST]
    first, *others = (answer(each, events, len(events[0]) * 2 // 3) for each in SHORTENERS.values())
    assert all(other == first for other in others)


@pytest.mark.parametrize("given", NOTHING_TO_STRIP)
def test_an_event_with_nothing_to_shorten_is_the_same_object(shorten: Shortener, given: bytes) -> None:
    long = BALLAST.replace(b"w" * 50, b"w" * 200)
    assert shorten([given, long], len(given) + len(long)).events[0] is given


@half_as_often
@given(strategies.mangled(strategies.failed_event_texts()))
def test_damaged_events_are_refused_or_shortened(shorten: Shortener, event: bytes) -> None:
    got = answer(shorten, [event, BALLAST], len(event))
    if isinstance(got, Shortened):
        assert got.size_bytes == len(b",".join(got.events))
    else:
        assert got in [(ValueError, "event 0 is not JSON"), (TraceTooBig, got[1])]


@pytest.mark.parametrize(("args", "sizes", "expected"), ANSWERS)
def test_answers_and_errors_are_those_of_trimming(
    shorten: Shortener, args: Any, sizes: dict[str, Any], expected: Any
) -> None:
    got = answer(shorten, *args, **sizes)
    if isinstance(expected, Trimmed) and isinstance(got, Shortened):
        assert (got.events, got.size_bytes, got.stripped_count) == expected
    elif isinstance(expected, Trimmed):
        # Trimming did not come as far as this event.
        assert got == (ValueError, "event 1 is not JSON")
    else:
        assert got == expected


@pytest.mark.parametrize("given", NOT_JSON)
def test_what_is_not_json_is_refused_with_its_index(shorten: Shortener, given: bytes) -> None:
    assert answer(shorten, [BALLAST, given], 10) == (ValueError, "event 1 is not JSON")


def test_events_that_nothing_else_holds_are_still_there_when_they_are_written(shorten: Shortener) -> None:
    got = shorten((BALLAST.replace(b"w", b"w" * 9 + bytes([letter])) for letter in range(97, 120)), 9000)
    assert [event.count(b" bytes left out") for event in got.events] == [1] * 23


def test_where_a_value_is_cut(shorten: Shortener) -> None:
    """Fifty ordinary values keep every byte; the two that are long give way, both to the same length."""
    short = [b'{"resource":{"metadata":{"k":"%b"}}}' % (b"s" * 90)] * 50
    (sql, rows) = b"SELECT " + b"x" * 100_000, b"[" + b'{"id":1},' * 9000 + b"{}]"
    long = [b'{"resource":{"metadata":{"sql":"%b","region":"%b"}}}' % (sql, b"r" * 500)]
    long += [b'{"resource":{"metadata":{"rows":%b,"count":5}}}' % rows]
    got = shorten([*short, *long], 20_000)
    assert got[1:] == (20_000, 6577, 2, 0)
    assert got.events[:50] == short
    sql_left, rows_left = (json.loads(event)["resource"]["metadata"] for event in got.events[50:])
    assert sql_left["region"] == "r" * 500
    assert re.fullmatch(r"SELECT x+\.\.\. 93454 bytes left out", sql_left["sql"])
    assert rows_left["rows"].startswith('[{"id":1},') and rows_left["count"] == 5
    assert re.search(r"\.\.\. \d+ bytes left out$", rows_left["rows"])


NO_UTF8 = [b'["' + b"b" * 60 + b'\\"' + b"\x80" * 99 + b'"]', b'["' + b"a\x80" * 50 + b'\\n\x80\x80\x80\x80"]']
MARKED = b'"' + b"m" * 100 + b'... 999999999999990 bytes left out"'


@pytest.mark.parametrize("value", [*NO_UTF8, MARKED])
def test_every_level_leaves_the_same_bytes_at_once_and_in_steps(value: bytes) -> None:
    event = b'{"resource":{"metadata":{"k":%b}},"exception":{"message":"%b"}}' % (value, value[2:-2].strip(b'"') * 4)
    for level in range(LEAST, 160):
        left = _reference.at_level([event], level)
        assert at_level([event], level) == left
        assert at_level(at_level([event], level + 20), level) == left
        assert json.loads(left[0].decode("latin-1"))


def test_a_cut_does_not_walk_through_a_long_run_of_continuations() -> None:
    """That took two minutes, as each step of the search went back over the run."""
    events = [b'{"resource":{"metadata":{"k":"a%b"}}}' % (b"\x80" * 25_000)] * 40
    assert at_level(events, 1000)[0].endswith(b'\x80... 24025 bytes left out"}}}')
