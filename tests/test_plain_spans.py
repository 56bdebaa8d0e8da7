"""Events that are written as spans at once: the bytes are those of the longer way, whatever the event holds."""

import json
import random
import struct
import subprocess
from pathlib import Path
from typing import Any

import orjson
import pytest
import sanitizing
from hypothesis import example, given, settings
from hypothesis import strategies as st
from records import TRACE_ID, exception_fields
from strategies import json_shaped

from epsagon_fast.collector.formats import FittedTrace, otlp_json
from epsagon_fast.collector.formats.plain import IMPLEMENTATION, _head, written
from epsagon_fast.collector.formats.plain_terms import TERMS
from epsagon_fast.collector.formats.spans import SpanIds, spans_of
from epsagon_fast.protocol import NANOSECONDS_FROM

ID, OTHER_ID = "00f067aa0ba902b7", "b7ad6b7169203331"
WORDS = [("shop.test:8080", "http", "GET"), ("shop", "http", "?"), ("run", "python_function", "invoke"), ("", "", "")]
# Names that mean something, and names that metadata become.
KEYS = sorted({key.decode() for terms in TERMS.values() if terms for of_one in terms for key in of_one})

pytestmark = pytest.mark.skipif(IMPLEMENTATION != "compiled", reason="without the compiled reader no event is plain")


def event(metadata: dict[str, Any], words: tuple[str, str, str] = WORDS[0], **more: Any) -> dict[str, Any]:
    name, kind, operation = words
    resource = {"name": name, "type": kind, "operation": operation, "metadata": metadata}
    own = {"id": ID, "start_time": 1_700_000_000.123456, "resource": resource, "origin": "urllib3", "duration": 0.25}
    return {**own, "error_code": 0, "exception": None, **more}


def is_plain(text: bytes, span_id: str | None = None) -> bool:
    return written(text, span_id, 0, SpanIds(TRACE_ID, {}, True), 5) is not None


def same(*events: bytes, place: int | None = 0) -> bool:
    """Say whether both ways give the same bytes, or the same error, for a trace; `place`: its runner's."""
    trace = FittedTrace(TRACE_ID, events, place, [])
    found = []
    for write in (written, None):
        try:
            found.append(otlp_json.part(b"{}", "1", spans_of(trace, write)))
        except (ValueError, TypeError) as error:
            found.append(type(error).__name__.encode())
    return found[0] == found[1]


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8) | st.sampled_from(["", "{}", "200", "404", "07"])
scalars = texts | st.booleans() | st.integers(-(2**64), 2**64) | st.floats(allow_nan=False, allow_infinity=False)


@settings(max_examples=60)
@given(
    st.dictionaries(st.sampled_from(KEYS) | texts, scalars | json_shaped(), max_size=6),
    st.sampled_from(WORDS) | st.tuples(texts, st.sampled_from(["http", "celery", "sql"]), texts),
    st.sampled_from([1_700_000_000.1234567, 0, 7, NANOSECONDS_FROM, 2**63, 2**70, -1.0, 1e300, 0.1, None, "7"]),
    st.sampled_from([ID, OTHER_ID, "0" * 16, "é", None]),
)
@example({"port": "443", "status_code": 404}, WORDS[0], 7, ID)
@example({"port": "443", "server.port": "1", "path": "/", "url.path": "/"}, WORDS[1], 7, ID)
@example({"db.system": "x", "db.system.name": "y", "epsagon.type": "z"}, WORDS[2], 7, ID)
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
        ({}, WORDS[2]),
    ],
)
def test_what_integrations_record_is_plain(metadata: dict[str, Any], words: tuple[str, str, str]) -> None:
    for more in ({}, {"parent_id": OTHER_ID}, {"start_time": 1_700_000_000_123_456_789}):
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
    assert is_plain(runner, ID)
    assert not is_plain(runner.replace(b'"{}"', rb'"{\"a\":1}"'), ID)
    assert same(runner)


def test_long_names_are_not_remembered() -> None:
    _head.cache_clear()
    for number in range(9):
        text = orjson.dumps(event({}, (f"{number}" * 300, "http", "GET")))
        assert is_plain(text)
        assert same(text, place=None)
    assert _head.cache_info().currsize == 0
    assert is_plain(orjson.dumps(event({})))
    assert _head.cache_info().currsize == 1


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
        PLAIN.replace(b"-7", b"1" * 19),
        PLAIN.replace(b"-7", b"1.0"),
        PLAIN.replace(b"-7", b"-"),
        PLAIN.replace(b"0.25", b"25e-2"),
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
        PLAIN.replace(b'"path"', b'"otel.scope.name"'),
        PLAIN.replace(b'"path"', b'"span.kind"'),
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
    collector = sanitizing.SOURCES.with_name("collector")
    program = sanitizing.build_core(tmp_path, f"-I{collector}", what="plain")
    events = tmp_path / "events"
    kept = [PLAIN, orjson.dumps(event({"a": 'b"', "c": 12}, WORDS[2])), *sanitizing.corpus()[:2]]
    events.write_bytes(b"".join(struct.pack("=I", len(each)) + each for each in kept))
    run = subprocess.run([program, events, "50000", "1"], capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    tried, plain, _ = run.stdout.split()
    assert int(tried) > int(plain) > 1000
