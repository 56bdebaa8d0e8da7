"""Spans of OpenTelemetry, sent as its exporters send them."""

import gzip
import json
from typing import Any

import pytest
import urllib3
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue
from waiting import TIMEOUT_S

from epsagon_fast.backend import Backend, otlp, otlp_intake, otlp_traces, timeline
from epsagon_fast.backend.shape import checked

TRACE = "0af7651916cd43dd8448eb211c80319c"
JSON, PROTOBUF = "application/json", "application/x-protobuf"
AT_NS = 1_700_000_000_000_000_000


def span(number: int, parent: int = 0, name: str = "work", kind: int = 1, **more: Any) -> dict[str, Any]:
    return {
        "traceId": TRACE,
        "spanId": f"{number:016x}",
        "parentSpanId": f"{parent:016x}" if parent else "",
        "name": name,
        "kind": kind,
        "startTimeUnixNano": str(AT_NS + number * 1_000_000),
        "endTimeUnixNano": str(AT_NS + 500_000_000),
        **more,
    }


def attributes(**values: str) -> list[dict[str, Any]]:
    return [{"key": key.replace("__", "."), "value": {"stringValue": value}} for key, value in values.items()]


def request(*spans: dict[str, Any], service: str = "cart") -> dict[str, Any]:
    resource = {"attributes": attributes(service__name=service, telemetry__sdk__language="go")}
    return {"resourceSpans": [{"resource": resource, "scopeSpans": [{"scope": {"name": "s"}, "spans": [*spans]}]}]}


def protobuf(said: dict[str, Any]) -> bytes:
    """The same request in protobuf."""
    made = ExportTraceServiceRequest()
    for resource in said["resourceSpans"]:
        part = made.resource_spans.add()
        part.resource.attributes.extend(_pairs(resource["resource"]["attributes"]))
        for each in resource["scopeSpans"][0]["spans"]:
            added = part.scope_spans.add().spans.add(
                trace_id=bytes.fromhex(each["traceId"]),
                span_id=bytes.fromhex(each["spanId"]),
                parent_span_id=bytes.fromhex(each["parentSpanId"]),
                name=each["name"],
                kind=each["kind"],
                start_time_unix_nano=int(each["startTimeUnixNano"]),
                end_time_unix_nano=int(each["endTimeUnixNano"]),
                attributes=_pairs(each.get("attributes", [])),
            )
            added.status.code = each.get("status", {}).get("code", 0)
            for event in each.get("events", []):
                added.events.add(name=event["name"], attributes=_pairs(event["attributes"]))
    return made.SerializeToString()


def _pairs(said: list[dict[str, Any]]) -> list[KeyValue]:
    return [KeyValue(key=pair["key"], value=AnyValue(string_value=pair["value"]["stringValue"])) for pair in said]


def send(backend: Backend, body: Any, content_type: str = JSON, **headers: str) -> urllib3.BaseHTTPResponse:
    data = json.dumps(body).encode() if isinstance(body, dict) else body
    with urllib3.PoolManager(retries=False, timeout=TIMEOUT_S) as client:
        sent = {"Content-Type": content_type, **headers}
        return client.request("POST", backend.url + "/v1/traces", body=data, headers=sent)


RAISED = {"name": "exception", "attributes": attributes(exception__type="IOError", exception__message="gone", at="db")}
SPANS = (
    span(2, 1, "SELECT cart", 3, attributes=attributes(db__system="postgresql", db__statement="SELECT 1")),
    span(1, 9, "GET /cart", 2, attributes=attributes(http__request__method="GET", http__route="/cart")),
    span(3, 1, "charge", 3, status={"code": 2}, events=[RAISED]),
)


@pytest.mark.parametrize("form", [JSON, PROTOBUF])
@pytest.mark.parametrize("packed", [False, True])
def test_spans_are_a_trace_like_any_other(backend: Backend, form: str, packed: bool) -> None:
    data = json.dumps(request(*SPANS)).encode() if form == JSON else protobuf(request(*SPANS))
    answer = (
        send(backend, gzip.compress(data), form, **{"Content-Encoding": "gzip"})
        if packed
        else send(backend, data, form)
    )
    assert (answer.status, answer.headers["content-type"]) == (200, form)
    assert answer.data == (b"{}" if form == JSON else b"")
    [row] = backend.store.page(9)
    assert (row["app_name"], row["name"], row["type"], row["event_count"]) == ("cart", "GET /cart", "http", 3)
    assert (row["http_trace_id"], row["status"]) == (TRACE, "ok")
    [(trace_id, body)] = backend.store.bodies()
    checked(body)
    found = timeline.build([(trace_id, body)])
    assert [("  " * node.depth + node.title, node.kind, node.status) for node in found.nodes] == [
        ("GET /cart", "http GET", "ok"),
        ("  SELECT cart", "postgresql", "ok"),
        ("  charge", "span client", "error"),
    ]
    failed = found.nodes[2].event["exception"]
    assert (failed["type"], failed["message"], failed["additional_data"]) == ("IOError", "gone", {"at": "db"})


def test_spans_that_come_later_join_their_trace_and_those_that_come_twice_do_not(backend: Backend) -> None:
    for each in (SPANS[0], SPANS[2], SPANS[1], SPANS[1]):
        assert send(backend, request(each)).status == 200
    send(backend, request(span(8, 3, "pay", 2), service="payments"))
    assert {row["app_name"]: row["event_count"] for row in backend.store.page(9)} == {"cart": 3, "payments": 1}
    rows = backend.store.request(TRACE, 9)
    found = timeline.build([(row["trace_id"], backend.store.body(row["trace_id"]) or b"") for row in rows])
    assert ["  " * node.depth + node.title for node in found.nodes] == [
        "GET /cart",
        "  SELECT cart",
        "  charge",
        "    pay",
    ]


def test_values_of_all_kinds_become_texts(backend: Backend) -> None:
    values: dict[str, Any] = {
        "i": {"intValue": "7"},
        "b": {"boolValue": True},
        "d": {"doubleValue": 0.5},
        "l": {"arrayValue": {"values": [{"intValue": 1}, {"stringValue": "é"}]}},
        "m": {"kvlistValue": {"values": [{"key": "k", "value": {"boolValue": False}}]}},
        "n": {},
    }
    send(backend, request(span(1, attributes=[{"key": key, "value": value} for key, value in values.items()])))
    [(_, body)] = backend.store.bodies()
    metadata = json.loads(body)["events"][0]["resource"]["metadata"]
    assert {key: metadata[key] for key in values} == {
        "i": "7",
        "b": "true",
        "d": "0.5",
        "l": '[1, "é"]',
        "m": '{"k": false}',
        "n": "null",
    }
    listed = AnyValue(array_value=ArrayValue(values=[AnyValue(int_value=1), AnyValue(bytes_value=b"x")]))
    assert otlp._protobuf_value(listed) == [1, "eA=="]


@pytest.mark.parametrize("form", [JSON, PROTOBUF])
def test_what_is_no_span_is_refused_and_counted_and_the_rest_is_taken(backend: Backend, form: str) -> None:
    said = request(span(1), {**span(2), "traceId": "0" * 32}, {**span(3), "spanId": ""})
    answer = send(backend, said) if form == JSON else send(backend, protobuf(said), PROTOBUF)
    assert answer.status == 200
    if form == JSON:
        assert answer.json()["partialSuccess"]["rejectedSpans"] == "2"
    else:
        assert ExportTraceServiceResponse.FromString(answer.data).partial_success.rejected_spans == 2
    assert [row["event_count"] for row in backend.store.page(9)] == [1]


def test_a_trace_has_its_bound(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(otlp_traces, "MAX_SPANS", 5)
    for first in (1, 4):
        answer = send(backend, request(*(span(number) for number in range(first, first + 3))))
    assert answer.json()["partialSuccess"]["rejectedSpans"] == "1"
    assert [row["event_count"] for row in backend.store.page(9)] == [5]
    monkeypatch.setattr(otlp_traces, "MAX_SPANS", 100)
    monkeypatch.setattr(otlp_intake, "MAX_TRACE_BYTES", 500)
    assert send(backend, request(span(9))).json()["partialSuccess"]["rejectedSpans"] == "1"


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"{", {}, 400),
        (b"[]", {}, 400),
        (b'{"resourceSpans": 7}', {}, 400),
        (b'{"resourceSpans": [{"scopeSpans": [{"spans": [{"traceId": "", "spanId": "", "kind": 1e400}]}]}]}', {}, 400),
        (b'{"resourceSpans": [{"scopeSpans": [{"spans": [{"traceId": 7}]}]}]}', {}, 400),
        (json.dumps(request({**span(1), "spanId": "abc"})).encode(), {}, 400),
        (json.dumps(request({**span(1), "endTimeUnixNano": "9" * 400})).encode(), {}, 400),
        (json.dumps(request({**span(1), "endTimeUnixNano": "1_0"})).encode(), {}, 400),
        (json.dumps(request({**span(1), "endTimeUnixNano": "\u0663"})).encode(), {}, 400),
        (b"[" * 100_000, {}, 400),
        (b"\xff\xff", {"Content-Type": PROTOBUF}, 400),
        (b"{}", {"Content-Type": "text/plain"}, 415),
        (b"{}", {"Content-Encoding": "br"}, 415),
        (b"{}", {"Content-Encoding": "gzip"}, 400),
        (gzip.compress(b" " * 10**7), {"Content-Encoding": "gzip"}, 413),
        (b"{}", {"Sec-Fetch-Site": "cross-site"}, 403),
        (b"{}", {}, 200),
        (b"", {"Content-Type": PROTOBUF}, 200),
    ],
)
def test_what_is_not_otlp_is_refused(backend: Backend, body: bytes, headers: dict[str, str], status: int) -> None:
    assert send(backend, body, content_type=headers.pop("Content-Type", JSON), **headers).status == status
    assert backend.store.counts()["traces"] == 0


def test_lone_surrogates_and_markup_are_no_hindrance(backend: Backend) -> None:
    said = request(span(1, name="\ud800<b>", attributes=attributes(**{"\udfff": "\ud800"})))
    assert send(backend, said).status == 200
    assert len(list(backend.store.bodies())) == 1


def test_without_the_extra_protobuf_is_refused_and_json_taken(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "opentelemetry.proto.collector.trace.v1.trace_service_pb2", None)
    answer = send(backend, b"", PROTOBUF)
    assert answer.status == 415 and "epsagon-fast[otlp]" in answer.json()["error"]
    assert send(backend, request(span(1))).status == 200
