"""Events that are written as spans at once: the bytes are those of the longer way, whatever the event holds."""

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import orjson
import pytest
import sanitizing
from hypothesis import example, given, settings
from hypothesis import strategies as st
from records import TRACE_ID, exception_fields
from strategies import json_shaped

from epsagon_fast.collector.formats import FittedTrace, otlp_json, otlp_protobuf
from epsagon_fast.collector.formats.plain import (
    IMPLEMENTATION,
    MAX_HEADS,
    Writing,
    pure_part,
    pure_span_count,
    span_count,
)
from epsagon_fast.collector.formats.plain_terms import TERMS
from epsagon_fast.collector.formats.spans import SpansOfTrace
from epsagon_fast.protocol import NANOSECONDS_FROM

ID, OTHER_ID = "00f067aa0ba902b7", "b7ad6b7169203331"
WORDS = [("shop.test:8080", "http", "GET"), ("shop", "http", "?"), ("run", "python_function", "invoke"), ("", "", "")]
# Names that mean something, and names that metadata become.
KEYS = sorted({key for terms in TERMS for of_one in terms for key in of_one})

if TYPE_CHECKING or IMPLEMENTATION == "compiled":
    from epsagon_fast.collector.formats._plain import counted, written

pytestmark = pytest.mark.skipif(IMPLEMENTATION != "compiled", reason="without the compiled writer no event is plain")


def event(metadata: dict[str, Any], words: tuple[str, str, str] = WORDS[0], **more: Any) -> dict[str, Any]:
    name, kind, operation = words
    resource = {"name": name, "type": kind, "operation": operation, "metadata": metadata}
    own = {"id": ID, "start_time": 1_700_000_000.123456, "resource": resource, "origin": "urllib3", "duration": 0.25}
    return {**own, "error_code": 0, "exception": None, **more}


class Noting(Writing):
    """Notes which events were left to Python."""

    def __init__(self, encoding: Any) -> None:
        super().__init__(encoding)
        self.left: list[int] = []

    def other(self, spans: SpansOfTrace, number: int) -> Any:
        self.left.append(number)
        return super().other(spans, number)


ENCODINGS = (otlp_json, otlp_protobuf)
NOTING = [Noting(encoding) for encoding in ENCODINGS]


def is_plain(text: bytes, is_runner: bool = False) -> bool:
    """Say whether an event is written without Python, in both encodings."""
    events, place = ([text], 0) if is_runner else ([PLAIN_RUNNER, text], 0)
    return all(left_by(each, FittedTrace(TRACE_ID, events, place, [])) == [] for each in NOTING)


def left_by(noting: Noting, trace: FittedTrace) -> list[int] | None:
    """Return the events that are left to Python; None: all are."""
    noting.left.clear()
    try:
        return None if written(trace, b"{}", noting) is None else noting.left.copy()
    except ValueError:
        return None


def same(*events: bytes, place: int | None = 0, exceptions: Sequence[bytes] = ()) -> bool:
    """Say whether both ways give the same bytes, or the same error, for a trace; `place`: its runner's."""
    trace = FittedTrace(TRACE_ID, events, place, exceptions)
    for noting in NOTING:
        found = []
        for way in (lambda noting=noting: written(trace, b"{}", noting), lambda noting=noting: pure(trace, noting)):
            try:
                found.append(way())
            except (ValueError, TypeError) as error:
                found.append(type(error).__name__.encode())
        if found[0] is not None and found[0] != found[1]:
            return False
    return True


def pure(trace: FittedTrace, noting: Noting) -> bytes:
    return pure_part(trace, b"{}", noting.encoding)


SAID = ["", "{}", '{"a":1,"b":"c\\n"}', "[]", "200", "404", "07", "1.5", "true", "OK", "server", "a=b", "1" * 32]
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8) | st.sampled_from(SAID)
scalars = texts | st.booleans() | st.integers(-(2**64), 2**64) | st.floats(allow_nan=False, allow_infinity=False)


@settings(max_examples=60)
@given(
    st.dictionaries(st.sampled_from(KEYS) | texts, scalars | json_shaped(), max_size=6),
    st.sampled_from(WORDS)
    | st.tuples(texts, st.sampled_from(["http", "celery", "sql"]), texts | st.sampled_from(["execute", "publish"])),
    st.sampled_from([1_700_000_000.1234567, 0, 7, NANOSECONDS_FROM, 2**63, 2**70, -1.0, 1e300, 0.1, None, "7"]),
    st.sampled_from([ID, OTHER_ID, "0" * 16, "é", None]),
)
@example({"port": "443", "status_code": 404}, WORDS[0], 7, ID)
@example({"port": "443", "server.port": "1", "path": "/", "url.path": "/"}, WORDS[1], 7, ID)
@example({"db.system": "x", "db.system.name": "y", "epsagon.type": "z"}, WORDS[2], 7, ID)
@example(
    {"otel.scope.name": "x", "otel.scope.version": "", "span.kind": "client", "otel.status_code": "OK"}, WORDS[2], 7, ID
)
@example({"otel.scope.name": "x", "labels": "{}", "http_trace_id": "1" * 32, "tracestate": "a=b"}, WORDS[2], 7, ID)
@example({"labels": '{"a":"b","c":1.5}', "labels.a": "d", "tracestate": "a=b"}, WORDS[2], 7, ID)
@example({"sampling_weight": "2", "is_trimmed": "true", "dropped_events": "3"}, WORDS[1], 1e-7, ID)
@example({"time_limit_s": "2", "expired": "true", "retries": "-3"}, ("pack", "celery", "execute"), 0.1234567890123, ID)
@example({"k": 10**18, "l": -(10**17), "m": True, "n": '\x7f\u2028"\\/\n'}, WORDS[2], 7, ID)
def test_any_event_becomes_what_the_longer_way_makes_of_it(
    metadata: dict[str, Any], words: tuple[str, str, str], time: Any, said: Any
) -> None:
    first = event(metadata, words, start_time=time, parent_id=said)
    second = event(metadata, words, id=said, duration=time, parent_id=ID)
    both = [json.dumps(each, separators=(",", ":")).encode() for each in (first, second)]
    assert all(same(*both, place=place) for place in (None, 0, 1))
    assert all(same(*(text.replace(b":", b": ") for text in both), place=place) for place in (None, 0))
    with_bytes = [
        json.dumps(each, separators=(",", ":"), ensure_ascii=False).encode(errors="surrogatepass")
        for each in (first, second)
    ]
    assert same(*with_bytes)


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"path": "/cart", "port": "443", "status_code": "200", "query": "a=1"}, ("shop.test", "http", "GET")),
        ({"path": "/cart", "status_code": 201, "é": 'a "quoted"\n日'}, WORDS[0]),
        ({"db.system.name": "sqlite", "rows": 3, "fresh": True}, WORDS[2]),
        ({"db.system": "postgresql", "db.statement": 'SELECT "a"\nFROM b', "sql.params": "null"}, WORDS[2]),
        ({"task_id": "7", "queue": "q", "retries": "0", "hostname": "h"}, ("pack", "celery", "publish")),
        ({"task_id": "7", "time_limit_s": "2.5", "expired": "true", "state": "OK"}, ("pack", "celery", "execute")),
        ({"task_id": "7"}, ("pack", "celery", "revoke")),
        ({"a": 1.5, "b": -1e-7, "c": 10**18, "d": None, "e": [1, "two", 3.5], "f": {"g": [None]}}, WORDS[2]),
        ({"db.system": "redis", "net.peer.port": 6379, "otel.scope.name": "redis", "span.kind": "client"}, WORDS[2]),
        ({"otel.scope.name": "asgi", "otel.scope.version": "0.5", "otel.status_code": "OK"}, WORDS[0]),
        ({"span.kind": "server", "otel.status_description": "fine"}, WORDS[2]),
        ({}, WORDS[2]),
    ],
)
def test_what_integrations_record_is_plain(metadata: dict[str, Any], words: tuple[str, str, str]) -> None:
    for more in (
        *(
            {},
            {"parent_id": OTHER_ID},
            {"start_time": 1_700_000_000_123_456_789},
            {"start_time": 1_700_000_000.1234567},
        ),
        *({"duration": each} for each in (1e-9, 2.5e-5, 0, 3, 1e9, 0.12345678901234567, 123456.789)),
    ):
        text = orjson.dumps(event(metadata, words, **more))
        assert is_plain(text)
        assert same(text, orjson.dumps(event(metadata, words, id="")))


def test_a_runner_is_plain() -> None:
    metadata = {
        "path": "/cart/7",
        "route": "/cart/{id}",
        "status_code": "500",
        "labels": "{}",
        "http_trace_id": "1" * 32,
    }
    runner = orjson.dumps(event(metadata, ("shop", "http", "GET"), origin="runner"))
    assert is_plain(runner, True)
    labelled = runner.replace(b'"{}"', rb'"{\"a\":1,\"b\":\"\\\"\"}"')
    assert is_plain(labelled, True)
    assert not is_plain(labelled.replace(b"http_trace_id", b"labels.a"), True)
    assert same(runner)
    assert same(labelled)
    assert same(labelled.replace(b"http_trace_id", b"labels.a"))


def test_long_names_are_not_remembered() -> None:
    heads = NOTING[0].heads
    heads.clear()
    for number in range(9):
        text = orjson.dumps(event({}, (f"{number}" * 400, "http", "GET")))
        assert is_plain(text)
        assert same(text, place=None)
    # That of the runner beside them.
    assert len(heads) == 1
    assert is_plain(orjson.dumps(event({})))
    assert len(heads) == 2


def test_heads_are_forgotten_before_they_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    noting = Noting(otlp_json)
    for number in range(MAX_HEADS + 5):
        trace = FittedTrace(TRACE_ID, [orjson.dumps(event({}, (f"{number}", "sql", "")))], None, [])
        assert written(trace, b"{}", noting) is not None
    assert len(noting.heads) == 5


PLAIN_RUNNER = orjson.dumps(event({"path": "/", "labels": "{}"}, ("shop", "http", "GET"), origin="runner"))
PLAIN = orjson.dumps(event({"path": "/", "key": "é", "number": -7, "is": False}, parent_id=OTHER_ID))


@pytest.mark.parametrize(
    "odd",
    [
        PLAIN.replace(b'"key"', b'"path"'),
        PLAIN.replace(b'"path"', rb'"p\u0061th"'),
        PLAIN.replace(b'"/"', rb'"\/"'),
        PLAIN.replace(b'"id":', b'"id":"","id":'),
        PLAIN.replace(b'"resource":', b'"resource":{"metadata":{}},"resource":'),
        PLAIN.replace(b'"metadata":', b'"metadata":{},"metadata":'),
        PLAIN.replace(b'"name":', b'"name":"","name":'),
        PLAIN.replace(b"-7", b"-0"),
        PLAIN.replace(b"-7", b"07"),
        PLAIN.replace(b"-7", b"1" * 20),
        PLAIN.replace(b"-7", b"1e999"),
        PLAIN.replace(b"-7", b"1e1000"),
        PLAIN.replace(b"-7", b"1.e1"),
        PLAIN.replace(b"-7", b"1e"),
        PLAIN.replace(b"-7", b"-0e1"),
        PLAIN.replace(b"-7", b"[1,]"),
        PLAIN.replace(b"-7", b"[" * 33 + b"]" * 33),
        PLAIN.replace(b"-7", b"[}"),
        PLAIN.replace(b"-7", b"[1"),
        PLAIN.replace(b"-7", b"-"),
        PLAIN.replace("é".encode(), b"\xff"),
        PLAIN.replace("é".encode(), b"\xed\xa0\x80"),
        PLAIN.replace("é".encode(), b"\t"),
        PLAIN.replace("é".encode(), b"\0"),
        PLAIN.replace("é".encode(), b"\\\0"),
        PLAIN + b" ",
        PLAIN + b"}",
        b" " + PLAIN,
        PLAIN.replace(b'"error_code":0', b'"error_code":1'),
        PLAIN.replace(b"null", orjson.dumps(exception_fields())),
        PLAIN.replace(b'"path"', b'"otel.scope.version"'),
        PLAIN.replace(b'"path"', b'"span.events"'),
        PLAIN.replace(b'"origin"', b'"more":0,"origin"'),
        orjson.dumps(event({f"key {number}": "" for number in range(49)})),
        b"",
        b"{}",
        *(PLAIN.replace(f'"{key}":'.encode(), b'"":') for key in ("id", "start_time", "duration", "exception", "type")),
    ],
)
def test_what_is_unlike_other_events_takes_the_longer_way(odd: bytes) -> None:
    assert is_plain(PLAIN)
    assert not is_plain(odd)
    assert same(odd, place=None)


def test_damaged_events_are_not_mistaken_for_others() -> None:
    dice = random.Random(7)
    for _ in range(1500):
        damaged = bytearray(PLAIN)
        for _ in range(dice.randrange(1, 3)):
            damaged[dice.randrange(len(damaged))] = dice.choice(b'"\\{}:,0-.e \x00\xc3' + bytes(range(32, 127)))
        assert same(bytes(damaged), place=None), damaged


def test_reader_touches_no_byte_outside_damaged_events(tmp_path: Path) -> None:
    run = sanitizing.run_plain(tmp_path, 50_000, 1, *sanitizing.QUICK)
    assert sanitizing.fault({"plain": run}) is None


MARK = b'"startTimeUnixNano":"'


@given(st.lists(st.sampled_from([MARK, MARK[:-1], MARK[1:], MARK[:11], b"UU", b'\\"', b"x" * 40])).map(b"".join))
@example(MARK * 3)
@example(b"")
def test_spans_of_a_json_part_are_counted_alike(part: bytes) -> None:
    assert span_count(part, otlp_json) == pure_span_count(part, otlp_json)


digits = st.text("0123456789", max_size=12)


@given(st.integers(0, 10**11), digits, st.sampled_from(["", "e-0", "E-1", "e-6", "e-07", "e-009", "e-10", "e3", "e+2"]))
@example(9, "9", "e-6")
@example(18446744073, "7095", "e-0")
def test_times_are_read_alike_however_they_are_written(whole: int, part: str, exponent: str) -> None:
    time = f"{whole}.{part}{exponent}" if part else f"{whole}{exponent}"
    text = json.dumps(event({}), separators=(",", ":"))
    assert same(text.replace("0.25", time).encode(), text.replace("1700000000.123456", time).encode())


def test_durations_of_whole_nanoseconds_are_read_without_python(monkeypatch: pytest.MonkeyPatch) -> None:
    durations = (1e-9, 8.51e-7, 9.9e-6, 0.000086891, 0.25, 3.0)
    events = [orjson.dumps(event({}, start_time=1_700_000_000_123_456_789, duration=each)) for each in durations]
    assert b"e-" in events[2]
    for noting in NOTING:
        monkeypatch.setattr(noting, "nanoseconds", None)
        assert left_by(noting, FittedTrace(TRACE_ID, events, None, [])) == []


def counted_by(count: Callable[[bytes, ModuleType], int], part: bytes) -> int | str:
    try:
        return count(part, otlp_protobuf)
    except (ValueError, IndexError):
        return "no part"


# Tags of members with a length, of others, of two bytes; sizes of one byte and of more.
@given(st.lists(st.sampled_from([b"\x0a", b"\x12", b"\x08", b"\x8a\x01", b"\x00", b"\x02", b"\x04", b"\x80"])))
@example([b"\x0a", b"\xff" * 9 + b"\x01"])
@example([b"\x0a\x05\x12\x03\x12\x01\x00"])
def test_spans_of_a_binary_part_are_counted_alike_whatever_it_holds(pieces: list[bytes]) -> None:
    part = b"".join(pieces)
    assert counted_by(span_count, part) == counted_by(pure_span_count, part)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_spans_of_a_part_are_counted_without_python(encoding: ModuleType) -> None:
    for count in (1, 9, 300):
        trace = FittedTrace(TRACE_ID, [json.dumps(event({"a": "x" * 200})).encode()] * count, None, [])
        assert counted(pure_part(trace, b"{}", encoding), encoding is otlp_json) == count
