"""Traces as OTLP, read by OpenTelemetry's own messages, which refuse what they do not know."""

import base64
import gzip
import itertools
import json
import random
import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
import rotel as rotel_package
from google.protobuf import json_format
from hypothesis import example, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTracePartialSuccess as PartialSuccess
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from places import Place, until
from records import (
    CONFIG,
    OPENED_AT,
    RING,
    TRACE_ID,
    added,
    closed,
    event,
    event_fields,
    exception_fields,
    label,
    opened,
    own_runner,
)
from strategies import json_shaped, metadata_values, trace_records
from waiting import TIMEOUT_S

from epsagon_fast.backend import Backend, timeline
from epsagon_fast.collector.assembling import body
from epsagon_fast.collector.assembling.assembly import Assembly
from epsagon_fast.collector.formats import FittedTrace, conventions, otlp_protobuf
from epsagon_fast.collector.formats.otlp import (
    GZIP_FROM_BYTES,
    MOST_BYTES,
    MOST_SPANS,
    OTLP,
    OTLP_PROTOBUF,
    Otlp,
    address,
)
from epsagon_fast.collector.formats.shapes import MAX_NS, moment, nanoseconds
from epsagon_fast.collector.parcel import Destination, Parcel
from epsagon_fast.producer.encoding import encode_event
from epsagon_fast.protocol import NANOSECONDS_FROM, NO_TRACE, UNFINISHED, Kind, Record

URL = "otlp+http://there:1"
PROTOBUF_URL = "otlp-protobuf+http://127.0.0.1:1"
THERE = Destination(URL, "", 1.0)
ID, OTHER_ID = "00f067aa0ba902b7", "b7ad6b7169203331"
RUNNER_ID = TRACE_ID[:8].hex()


def read(part: bytes) -> ExportTraceServiceRequest:
    """Return the message of a trace's body; an unknown field, or a value of a wrong type, raises."""
    request = json.loads(sent([part]))
    for resource in request["resourceSpans"]:
        for scope in resource["scopeSpans"]:
            for span in scope["spans"]:
                for key in ("traceId", "spanId", "parentSpanId"):
                    # Their JSON is hexadecimal, unlike that of all other protobuf.
                    span[key] = base64.b64encode(bytes.fromhex(span[key])).decode()
    return json_format.ParseDict(request, ExportTraceServiceRequest())


def sent(parts: list[bytes]) -> bytes:
    """Return the body of the request that carries these."""
    post = OTLP.post([Parcel(TRACE_ID, THERE, part) for part in parts])
    return gzip.decompress(post.body) if "Content-Encoding" in post.headers else post.body


def spans(part: bytes) -> list[Span]:
    [resource] = read(part).resource_spans
    return [span for scope in resource.scope_spans for span in scope.spans]


# How a trace ends: by a CLOSE of its process, or because that left or died.
ENDINGS: dict[str, Record | None] = {
    "closed": closed(0.25),
    "failed": closed(0.25, 2),
    "unfinished": closed(flags=UNFINISHED),
    "left": Record(Kind.BYE, 0, 0, NO_TRACE, b""),
    "died": None,
}


def built(first: Record, *records: Record, url: str = URL, ending: str = "closed", **config: Any) -> bytes | None:
    """Return the body of a trace. `first`: its OPEN. `config`: overrides that of the OPEN."""
    said = orjson.loads(first.payload)
    said["config"] |= {"collector_url": url, **config}
    assembly = Assembly()
    last = ENDINGS[ending]
    for each in (first._replace(payload=orjson.dumps(said)), *records, *([last] if last else [])):
        assembly.feed(RING, assembly.masked(each), 0.0)
    if last is None:
        assembly.ring_died(RING, OPENED_AT + 1, 7)
    (only,) = [*assembly.end_pass(0.0), *assembly.end_pass(0.0)]
    return body.build(only).data


def one(fields: dict[str, Any] | None = None, runner: dict[str, Any] | None = None, **more: Any) -> list[Span]:
    """Return the spans of a trace with one event, the event's first."""
    events = [orjson.dumps({**event_fields(), "id": ID, **(fields or {}), **more})]
    runners = [] if runner is None else [orjson.dumps(runner)]
    trace = FittedTrace(TRACE_ID, [*events, *runners], 1 if runners else None, [])
    by_origin = spans(OTLP.envelope(CONFIG, "python 3.11.7").body(trace))
    return sorted(by_origin, key=lambda span: span.span_id.hex() != ID)


def values(pairs: Any) -> dict[str, Any]:
    """Return attributes by their keys, each as the type that it was sent as."""
    return {pair.key: value(pair) for pair in pairs}


def value(pair: KeyValue) -> Any:
    return getattr(pair.value, pair.value.WhichOneof("value"))


def resource(kind: str, operation: str, name: str = "shop.test", **metadata: Any) -> dict[str, Any]:
    return {"resource": {"name": name, "type": kind, "operation": operation, "metadata": metadata}}


def http_runner(**metadata: Any) -> dict[str, Any]:
    return own_runner() | resource("http", "GET", **metadata)


def with_typed(given: Record, values: list[Any], time_ns: int) -> Record:
    """Return an event as a worker records it for OTLP, with more metadata; another record as it is."""
    if given.kind != Kind.EVENT:
        return given
    event = orjson.loads(given.payload)
    event["resource"]["metadata"] |= {f"more{number}": value for number, value in enumerate(values)}
    return given._replace(payload=encode_event({**event, "start_time": time_ns}, typed=True).data)


@settings(max_examples=40)
@given(
    trace_records(),
    st.lists(metadata_values(), max_size=3),
    st.sampled_from([0, NANOSECONDS_FROM, 1_700_000_000_123_456_789]),
    st.sampled_from(sorted(ENDINGS)),
    st.sampled_from(["strip", "shorten"]),
)
def test_any_trace_is_otlp_with_each_of_its_events_once(
    records: list[Record], more: list[Any], time_ns: int, ending: str, trimming: str
) -> None:
    records = [with_typed(each, more, time_ns) for each in records]
    urls = (URL, "http://here/", PROTOBUF_URL)
    part, own, binary = (built(*records, url=url, ending=ending, trimming=trimming) for url in urls)
    assert (part is None) == (own is None)
    if part is None or own is None or binary is None:
        return
    told, events = spans(part), orjson.loads(own)["events"]
    assert len({span.span_id for span in told}) == len(told) == max(len(events), bool(orjson.loads(own)["exceptions"]))
    assert all(len(span.span_id) == 8 and span.trace_id == TRACE_ID for span in told)
    assert OTLP.shared([Parcel(TRACE_ID, THERE, part)]) == 1
    assert ExportTraceServiceRequest.FromString(binary) == read(part)
    thrown = len(orjson.loads(own)["exceptions"]) + sum(bool(each["exception"]) for each in events)
    assert sum(len(span.events) for span in told) == thrown


def test_tracestate_of_a_request_is_that_of_every_span_in_both_encodings() -> None:
    runner = http_runner(tracestate="ot=th:c,a=b", sampling="rate", sampling_weight="4")
    trace = FittedTrace(TRACE_ID, [event(1), orjson.dumps(runner)], 1, [])
    part, binary = (form.envelope(CONFIG, "p").body(trace) for form in (OTLP, OTLP_PROTOBUF))
    assert ExportTraceServiceRequest.FromString(binary) == read(part)
    assert [span.trace_state for span in spans(part)] == ["ot=th:c,a=b"] * 2
    (root,) = [span for span in spans(part) if not span.parent_span_id]
    told = values(root.attributes)
    assert (told["sampling"], told["sampling_weight"]) == ("rate", 4.0)
    assert "tracestate" not in told


@pytest.mark.parametrize("thrown_s, at_ns", [(100.1, 100_100_000_000), (100.5, 100_200_000_000), (0, 100_200_000_000)])
def test_an_exception_lies_within_its_span(thrown_s: float, at_ns: int) -> None:
    """Its own time may be later than its span's end, which is known before the exception is looked at."""
    [span] = one(start_time=100.0, duration=0.2, exception={"type": "KeyError", "time": thrown_s})
    assert [happening.time_unix_nano for happening in span.events] == [at_ns]


@settings(max_examples=20)
@given(st.lists(json_shaped(), max_size=3), st.lists(json_shaped(), max_size=2), json_shaped())
@example([{"id": ID}, {"id": ID}], [], None)
@example([{"resource": {"metadata": {"n": 2**64, "labels": '{"a":'}}, "start_time": -1e300}], [], None)
@example([], [{"additional_data": [1], "time": "now"}], None)
def test_an_event_may_hold_anything(events: list[Any], exceptions: list[Any], inner: Any) -> None:
    odd = {"resource": {"metadata": inner, "name": inner}, "exception": inner, "error_code": inner, "parent_id": inner}
    encoded = [json.dumps(each).encode() for each in (*events, odd, {"resource": {"metadata": {"it": inner}}})]
    thrown = [json.dumps(each).encode() for each in exceptions]
    for place in (None, 0):
        trace = FittedTrace(TRACE_ID, encoded, place, thrown)
        part, binary = (form.envelope(CONFIG, "p").body(trace) for form in (OTLP, OTLP_PROTOBUF))
        assert len(spans(part)) == len(encoded)
        assert ExportTraceServiceRequest.FromString(binary) == read(part)


def test_what_is_no_json_is_counted_and_the_rest_arrives() -> None:
    broken = Record(Kind.EVENT, 0, 0, TRACE_ID, b'{"id":')
    part = built(opened(own_runner()), added(event(1)), broken)
    assert part is not None
    assert len(spans(part)) == 3


def test_the_runner_is_the_root_and_events_are_below_their_parents() -> None:
    caller, shared = "a" * 16, "4bf92f3577b34da6a3ce929d0e0e4736"
    runner = own_runner(http_trace_id=shared) | {"id": TRACE_ID.hex(), "parent_id": caller}
    child, root = one(runner=runner)
    assert (root.span_id.hex(), root.parent_span_id.hex(), child.parent_span_id.hex()) == (RUNNER_ID, caller, RUNNER_ID)
    assert {child.trace_id.hex(), root.trace_id.hex()} == {shared}
    child, _ = one(parent_id=OTHER_ID, runner=own_runner())
    assert (child.span_id.hex(), child.parent_span_id.hex(), child.trace_id) == (ID, OTHER_ID, TRACE_ID)
    # Without a runner it is a root.
    assert one()[0].parent_span_id == b""


def test_names_kinds_and_attributes_are_those_of_the_conventions() -> None:
    _, served = one(runner=http_runner(path="/cart/7", route="/cart/{id}", status_code="200", request_bytes="0", a="1"))
    assert (served.name, served.kind) == ("GET /cart/{id}", Span.SPAN_KIND_SERVER)
    assert values(served.attributes) == {
        "server.address": "shop.test",
        "http.request.method": "GET",
        "url.path": "/cart/7",
        "http.route": "/cart/{id}",
        "http.response.status_code": 200,
        "http.request.body.size": 0,
        "a": "1",
    }
    asked, _ = one(
        resource("http", "POST", "backend", path="/pay", port="8443"), origin="urllib3", runner=http_runner(path="/")
    )
    assert (asked.name, asked.kind) == ("POST", Span.SPAN_KIND_CLIENT)
    assert values(asked.attributes).items() >= {"server.address": "backend", "server.port": 8443}.items()
    named, _ = one(resource("http", "POST", "charge"), runner=own_runner())
    assert (named.name, values(named.attributes)) == ("charge", {"http.request.method": "POST"})
    sending, run = one(resource("celery", "publish", "shop.pack", queue="q", task_id="t"), runner=own_runner())
    assert (sending.name, sending.kind, run.kind) == (
        "shop.pack publish",
        Span.SPAN_KIND_PRODUCER,
        Span.SPAN_KIND_INTERNAL,
    )
    assert values(sending.attributes) == {
        "messaging.system": "celery",
        "messaging.operation.name": "publish",
        "messaging.operation.type": "send",
        "messaging.destination.name": "q",
        "messaging.message.id": "t",
    }
    _, run = one(runner=own_runner() | resource("celery", "execute", "shop.pack"))
    assert (run.name, run.kind) == ("shop.pack process", Span.SPAN_KIND_CONSUMER)
    own, _ = one(resource("sql", "SELECT", "my query", **{"db.system.name": "mysql", "rows": 3}), runner=own_runner())
    assert (own.name, own.kind) == ("my query", Span.SPAN_KIND_CLIENT)
    assert values(own.attributes)["rows"] == 3


@pytest.mark.parametrize(
    ("host", "address", "port"),
    [
        ("shop.test", "shop.test", None),
        ("shop.test:8000", "shop.test", 8000),
        ("::1", "::1", None),
        ("[::1]:80", "[::1]", 80),
        ("shop.test:", "shop.test:", None),
    ],
)
def test_a_host_may_name_its_port(host: str, address: str, port: int | None) -> None:
    _, root = one(runner=own_runner() | resource("http", "GET", host))
    said = values(root.attributes)
    assert (said["server.address"], said.get("server.port")) == (address, port)


def test_an_error_is_a_status_and_an_exception_a_happening() -> None:
    thrown = exception_fields("no money", "Traceback") | {"additional_data": {"order": 7}}
    failed, root = one(error_code=2, exception=thrown, runner=own_runner() | {"error_code": 3})
    assert (failed.status.code, failed.status.message) == (Status.STATUS_CODE_ERROR, "no money")
    [happening] = failed.events
    assert (happening.name, happening.time_unix_nano) == ("exception", 1_000_000_000)
    assert values(happening.attributes) == {
        "exception.type": "ValueError",
        "exception.message": "no money",
        "exception.stacktrace": "Traceback",
        "order": 7,
    }
    assert values(failed.attributes)["error.type"] == "ValueError"
    assert (root.status.code, values(root.attributes)["error.type"]) == (Status.STATUS_CODE_ERROR, "timeout")
    _, answered = one(runner=http_runner(status_code="503") | {"error_code": 1})
    assert values(answered.attributes)["error.type"] == "503"
    assert one()[0].status.code == Status.STATUS_CODE_UNSET


@pytest.mark.parametrize(("status", "failed"), [("399", False), ("404", True), ("503", True), ("", False)])
def test_what_a_client_is_refused_is_its_error_and_not_the_servers(status: str, failed: bool) -> None:
    asked, served = one(resource("http", "GET", path="/", status_code=status), runner=http_runner(status_code=status))
    assert (asked.status.code == Status.STATUS_CODE_ERROR, values(asked.attributes).get("error.type")) == (
        failed,
        status if failed else None,
    )
    assert served.status.code == Status.STATUS_CODE_UNSET


def test_texts_of_our_integrations_become_what_the_conventions_want() -> None:
    told = {"client_closed": "true", "status_code": "200", "retries": "3", "unfinished": "true", "is_trimmed": "true"}
    _, served = one(runner=http_runner(path="/", sampling_weight="10", close_code="1000", **told))
    said = values(served.attributes)
    assert (said["client_closed"], said["http.response.status_code"], said["close_code"]) == (True, 200, 1000)
    assert (said["unfinished"], said["is_trimmed"], type(said["sampling_weight"])) == (True, True, float)
    _, run = one(runner=own_runner() | resource("celery", "execute", retries="3", time_limit_s="10", expired="true"))
    assert values(run.attributes).items() >= {"retries": 3, "time_limit_s": 10.0, "expired": True}.items()
    # What an application says is a text stays one.
    child, _ = one(resource("sql", "SELECT", **told), runner=own_runner())
    assert values(child.attributes).items() >= told.items()
    odd = {"status_code": "teapot", "port": "", "request_bytes": "nan", "response_bytes": "9" * 30}
    child, _ = one(resource("http", "GET", **odd), runner=own_runner())
    assert set(odd.values()) <= set(values(child.attributes).values())


@given(st.integers(1 - 10**17, 10**17) | st.floats(allow_nan=False, allow_infinity=False, width=16))
@example(1e300)
def test_a_number_may_be_told_as_a_text(value: float) -> None:
    found = conventions.number_of(str(value))
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    "text", ["1_0", " 7", "7\n", "+7", "0x1", "1e999", "nan", "-inf", "1.", ".5", "\u0661", "", "-"]
)
def test_a_text_that_says_no_number_stays_one(text: str) -> None:
    assert conventions.number_of(text) == text


@pytest.mark.parametrize(
    ("method", "name", "told"),
    [
        ("GET", "GET /", {"http.request.method": "GET"}),
        ("patch", "PATCH /", {"http.request.method": "PATCH", "http.request.method_original": "patch"}),
        ("BREW", "HTTP /", {"http.request.method": "_OTHER", "http.request.method_original": "BREW"}),
    ],
)
def test_a_method_that_the_conventions_do_not_know_keeps_its_name_elsewhere(
    method: str, name: str, told: dict[str, str]
) -> None:
    _, served = one(runner=own_runner() | resource("http", method, path="/", route="/"))
    said = values(served.attributes)
    assert served.name == name
    assert {key: said[key] for key in said if key.startswith("http.request.method")} == told


TABLE = (Path(__file__).parent.parent / "docs" / "otlp.md").read_text()
# An event of each kind that the table names.
OF = {
    "`http`": resource("http", "GET"),
    "`celery`": resource("celery", "execute"),
    "any runner": resource("", ""),
}
# What each type that the table names is told of, and what it becomes.
TYPES: dict[str, tuple[str, Any]] = {"text": ("7x", "7x"), "int": ("7", 7), "float": ("7", 7.0), "bool": ("true", True)}


def rows() -> dict[tuple[str, str], tuple[str, str]]:
    """Return the table of our integrations' metadata in docs/otlp.md: of, our name -> attribute, type."""
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in TABLE.splitlines()]
    return {(of, key): (said, kind) for of, key, said, kind in (line for line in lines if len(line) == 4) if of in OF}


@pytest.mark.parametrize(("of", "key"), [each for each in rows() if each[1].startswith("`")], ids=" ".join)
def test_the_table_of_attributes_is_true(of: str, key: str) -> None:
    attribute, kind = (cell.strip("`") for cell in rows()[of, key])
    text, expected = TYPES.get(kind, ("", None))
    if attribute.endswith(("NAME", "REASON")):
        text, expected, attribute = '{"it":7}', 7, attribute.rpartition(".")[0] + ".it"
    metadata = {key.strip("`"): text}
    _, root = one(runner=own_runner() | {"resource": {**OF[of]["resource"], "metadata": metadata}})
    said = {**values(root.attributes), "the spans' `traceState": root.trace_state}
    assert (said[attribute], type(said[attribute])) == (expected, type(expected))


def test_the_table_of_attributes_is_complete() -> None:
    (http, _), (celery, _), (others, runner) = conventions.OF_HTTP, conventions.OF_CELERY, conventions.OF_OTHERS
    tables = {"`http`": http, "`celery`": celery, "any runner": runner}
    known = {(of, key) for of, terms in tables.items() for key in terms if key not in others}
    assert {(of, key.strip("`")) for of, key in rows() if key.startswith("`")} == known


def test_what_a_process_lost_and_how_it_ended_is_told() -> None:
    lost = {"dropped_records": '{"queue_full":3,"late":1}', "unfinished": "true"}
    _, root = one(
        runner=own_runner(**lost) | {"error_code": 2, "exception": exception_fields() | {"type": "ProcessDied"}}
    )
    said = values(root.attributes)
    assert (said["dropped_records.queue_full"], said["dropped_records.late"]) == (3, 1)
    assert (said["error.type"], root.events[0].name) == ("ProcessDied", "exception")


def test_labels_and_marks_keep_their_types() -> None:
    part = built(opened(own_runner()), label("user", "ada"), label("items", 3), label("vip", True), label("rate", 0.5))
    assert part is not None
    said = values(spans(part)[0].attributes)
    assert [said[f"labels.{key}"] for key in ("user", "items", "vip", "rate")] == ["ada", 3, True, 0.5]
    room = 900
    part = built(opened(own_runner(), max_trace_size_bytes=room), *(added(event(n, weak="x" * 300)) for n in range(9)))
    assert part is not None
    marks = values(next(span for span in spans(part) if span.span_id.hex() == RUNNER_ID).attributes)
    assert marks["is_trimmed"] is True
    assert isinstance(marks["dropped_events"], int)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (1_700_000_000.1, 1_700_000_000_100_000_000),
        (1_700_000_000.123456, 1_700_000_000_123_456_000),
        (0.000123457, 123_457),
        (7, 7_000_000_000),
        (True, 0),
        ("7", 0),
        (-1.0, 0),
        (1e300, 0),
        (18446744073.709552, MAX_NS),
    ],
)
def test_times_have_no_error_of_floats(seconds: Any, expected: int) -> None:
    assert nanoseconds(seconds) == expected


def test_whole_nanoseconds_stay_what_they_are() -> None:
    start_ns = 1_700_000_000_123_456_789
    thrown = exception_fields() | {"time": start_ns + 1}
    only, *_ = one(start_time=start_ns, duration=0.000000007, exception=thrown)
    assert (only.start_time_unix_nano, only.end_time_unix_nano) == (start_ns, start_ns + 7)
    assert only.events[0].time_unix_nano == start_ns + 1
    assert [moment(each) for each in (10**17, 10**17 - 1, 2**64, True)] == [10**17, 0, 0, 0]


def test_a_span_ends_its_duration_after_its_start() -> None:
    only, *_ = one(start_time=1_700_000_000.1, duration=0.000001)
    assert only.end_time_unix_nano - only.start_time_unix_nano == 1000


def test_what_has_no_time_is_shown_at_that_of_its_trace() -> None:
    runner = own_runner() | {"start_time": 7, "duration": 2}
    child, _ = one(start_time=None, duration=1, exception={"type": "E"}, runner=runner)
    assert (child.start_time_unix_nano, child.end_time_unix_nano) == (7_000_000_000, 8_000_000_000)
    assert child.events[0].time_unix_nano == 8_000_000_000


@pytest.mark.parametrize(
    ("kind", "scope"),
    [("http", "epsagon_fast.http"), ("celery", "epsagon_fast.celery"), ("python-function", "epsagon_fast.python")],
)
def test_a_scope_says_what_recorded(kind: str, scope: str) -> None:
    runner = orjson.dumps(own_runner() | resource(kind, "execute"))
    trace = FittedTrace(TRACE_ID, [event(origin="urllib3"), runner], 1, [])
    [part_of] = read(OTLP.envelope(CONFIG, "p").body(trace)).resource_spans
    assert [each.scope.name for each in part_of.scope_spans] == sorted(["epsagon_fast.urllib3", scope])


def test_a_resource_says_who_it_was() -> None:
    config = CONFIG | {"resource_attributes": {"process.pid": 7, "spot": True, "load": 0.5, "team": "a", "odd": [1]}}
    part = OTLP.envelope(config, "p").body(FittedTrace(TRACE_ID, [event()], None, []))
    [part_of] = read(part).resource_spans
    said = values(part_of.resource.attributes)
    assert (said.pop("service.name"), said.pop("telemetry.sdk.name")) == ("shop", "epsagon_fast")
    assert [said[key] for key in ("process.pid", "spot", "load", "team")] == [7, True, 0.5, "a"]
    assert [scope.scope.name for scope in part_of.scope_spans] == ["epsagon_fast.sdk"]


def parcel(part: bytes) -> Parcel:
    return Parcel(TRACE_ID, THERE, part)


@pytest.mark.parametrize("form", [OTLP, OTLP_PROTOBUF])
def test_as_many_traces_share_a_request_as_have_no_more_spans_than_it_may_carry(form: Otlp) -> None:
    envelope = form.envelope(CONFIG, "p")
    sizes = [1, 3, 40, 150, 299, 400, 2500]
    parts = {size: parcel(envelope.body(FittedTrace(TRACE_ID, [b"{}"] * size, None, []))) for size in sizes}
    dice = random.Random(7)
    for _ in range(30):
        counts = dice.choices(sizes, [9, 9, 9, 3, 3, 3, 1], k=80)
        allowed = max(1, sum(total <= MOST_SPANS for total in itertools.accumulate(counts)))
        assert form.shared([parts[size] for size in counts]) == allowed


def test_requests_are_bounded_in_bytes_and_in_spans() -> None:
    envelope = OTLP.envelope(CONFIG, "p")
    small = parcel(envelope.body(FittedTrace(TRACE_ID, [event()] * 500, None, [])))
    assert OTLP.shared([small] * 9) == MOST_SPANS // 500
    binary = parcel(OTLP_PROTOBUF.envelope(CONFIG, "p").body(FittedTrace(TRACE_ID, [event()] * 500, None, [])))
    assert OTLP.shared([binary] * 9) == MOST_SPANS // 500
    assert [OTLP.shared([small, small, binary]), OTLP.shared([binary, small])] == [2, 1]
    large = parcel(b"{" * (MOST_BYTES // 2))
    assert OTLP.shared([large] * 3) == 1
    assert OTLP.shared([parcel(b"{" * (2 * MOST_BYTES)), small]) == 1


def test_a_request_holds_the_traces_that_share_it() -> None:
    part = OTLP.envelope(CONFIG, "p").body(FittedTrace(TRACE_ID, [event()], None, []))
    post = OTLP.post([parcel(part)] * 5)
    assert (post.url, post.headers["Content-Encoding"]) == ("http://there:1/v1/traces", "gzip")
    assert "Authorization" not in post.headers
    assert json.loads(gzip.decompress(post.body)) == {"resourceSpans": [json.loads(part)] * 5}
    binary = OTLP_PROTOBUF.envelope(CONFIG, "p").body(FittedTrace(TRACE_ID, [event()], None, []))
    post = OTLP.post([parcel(binary)] * 5)
    assert post.headers["Content-Type"] == "application/x-protobuf"
    assert len(ExportTraceServiceRequest.FromString(gzip.decompress(post.body)).resource_spans) == 5
    assert len(part) < GZIP_FROM_BYTES
    post = OTLP.post([Parcel(TRACE_ID, THERE._replace(token="t"), part)])
    assert "Content-Encoding" not in post.headers
    assert post.headers["Authorization"] == "Bearer t"


@pytest.mark.parametrize(
    ("url", "posted"),
    [
        ("otlp+http://here:4318", "http://here:4318/v1/traces"),
        ("otlp+https://here/", "https://here/"),
        ("OTLP+http://here/a+b/v1/traces?k=v", "http://here/a+b/v1/traces?k=v"),
        ("otlp+http://here?k=v", "http://here/v1/traces?k=v"),
    ],
)
def test_a_url_without_a_path_gets_that_of_otlp(url: str, posted: str) -> None:
    assert address(url) == posted


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"", None),
        (b"{}", None),
        (b"[]", None),
        (b'{"partialSuccess":{}}', None),
        (b'{"partialSuccess":null}', None),
        (b'{"partialSuccess":{"errorMessage":"slow down"}}', None),
        (b'{"partialSuccess":{"rejectedSpans":"3","errorMessage":"too old"}}', "partial_success: too old"),
        (b'{"partialSuccess":{"rejectedSpans":3}}', "partial_success: "),
        (b'{"partialSuccess":{"rejectedSpans":"3_0"}}', None),
        (b'\r\n {"partialSuccess":{"rejectedSpans":3,"errorMessage":null}}\n', "partial_success: "),
        (PartialSuccess(rejected_spans=300, error_message="too old"), "partial_success: too old"),
        (PartialSuccess(error_message="slow down"), None),
    ],
)
def test_a_partial_success_is_a_refusal(answer: Any, reason: str | None) -> None:
    if isinstance(answer, PartialSuccess):
        answer = ExportTraceServiceResponse(partial_success=answer).SerializeToString()
    assert OTLP.refusal(answer, URL) == reason


NESTED = f"""
import epsagon_fast as epsagon
with epsagon.trace("work"):
    with epsagon.event("outer"):
        epsagon.add_event({{"id": "{ID}", "resource": {{"name": "inner"}}}})
    epsagon.label("user", 42)
print(epsagon.flush(60))
"""


@pytest.fixture
def rotel(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A collector of another maker: its URL, and the file to which it prints each span that it took."""
    ports = [free_port() for _ in range(2)]
    agent, printed = Path(rotel_package.__file__).parent / "rotel-agent", tmp_path / "printed"
    places = ["--otlp-http-endpoint", f"127.0.0.1:{ports[0]}", "--otlp-grpc-endpoint", f"127.0.0.1:{ports[1]}"]
    files = ["--pid-file", str(tmp_path / "pid"), "--log-file", str(tmp_path / "log")]
    logged = ["--debug-log", "traces", "--debug-log", "metrics", "--debug-log-verbosity", "detailed"]
    printing = ["--exporter", "blackhole", *logged]
    with printed.open("wb") as output:
        process = subprocess.Popen([str(agent), "start", *places, *files, *printing], stdout=output, stderr=output)
    until(lambda: answers(ports[0]), "rotel listens")
    yield f"http://127.0.0.1:{ports[0]}", printed
    process.kill()
    process.wait(TIMEOUT_S)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), TIMEOUT_S).close()
    except ConnectionRefusedError:
        return False
    return True


@pytest.mark.parametrize("scheme", ["otlp+", "otlp-protobuf+"])
def test_a_collector_of_another_maker_takes_each_span(rotel: tuple[str, Path], place: Place, scheme: str) -> None:
    url, printed = rotel
    place.env |= {"EPSAGON_COLLECTOR_URL": scheme + url, "EPSAGON_TOKEN": ""}
    assert place.run(NESTED) == "True\n"
    until(lambda: printed.read_text().count("labels.user") == 1, f"the root is printed; {place.log()}")
    place.until_left()
    until(lambda: "Count: 1\nSum: " in printed.read_text(), "the metrics are printed")
    said = printed.read_text()
    assert "-> Name: epsagon_fast.request.errors" in said and "-> name: Str(work)" in said
    assert re.findall("  Name +: (.+)", said) == ["inner", "outer", "work"]
    ids, parents = re.findall("  ID +: (.*)", said), re.findall("  Parent ID +: (.*)", said)
    assert (parents, ids[0]) == ([ids[1], ids[2], ""], ID)
    assert "labels.user: Int(42)" in said


@pytest.mark.parametrize("scheme", ["otlp+", "otlp-protobuf+"])
def test_a_traced_program_speaks_otlp_without_a_token(backend: Backend, place: Place, scheme: str) -> None:
    place.env |= {"EPSAGON_COLLECTOR_URL": scheme + backend.url, "EPSAGON_TOKEN": ""}
    place.run(NESTED)
    until(lambda: backend.store.counts()["traces"] == 1, f"the trace arrives; {place.log()}")
    [(trace_id, data)] = backend.store.bodies()
    found = timeline.build([(trace_id, data)])
    assert [(node.depth, node.title) for node in found.nodes] == [(0, "work"), (1, "outer"), (2, "inner")]
    assert found.nodes[0].event["resource"]["metadata"]["labels.user"] == "42"


def test_long_keys_are_not_remembered() -> None:
    otlp_protobuf._key.cache_clear()
    for key in ("short", "k" * 300):
        assert key.encode() in otlp_protobuf.resource({key: 1})
    assert otlp_protobuf._key.cache_info().currsize == 1
