"""The same little programs on our recorder and on OpenTelemetry's SDK: the same spans come out, as OTLP."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fakes import FakeQueue
from opentelemetry import context, trace
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags, Tracer

import epsagon_fast as epsagon
from epsagon_fast.collector.assembling import body
from epsagon_fast.collector.assembling.assembly import Assembly
from epsagon_fast.integrations.opentelemetry import EpsagonSpanProcessor
from epsagon_fast.integrations.opentelemetry.contexts import keep_apart, keep_as_one
from epsagon_fast.integrations.opentelemetry.limits import MOST, Limits, from_environment
from epsagon_fast.integrations.opentelemetry.provider import SpanProvider
from epsagon_fast.producer import current
from epsagon_fast.producer.process import process
from epsagon_fast.producer.runner import new_runner

Program = Callable[[Tracer], Any]
PROGRAMS: list[Program] = []
CALLER = SpanContext(int("ab" * 16, 16), int("cd" * 8, 16), is_remote=True, trace_flags=TraceFlags(1))
# What no two runs have in common.
UNLIKE = ("exception.stacktrace",)


def program(function: Program) -> Program:
    PROGRAMS.append(function)
    return function


@program
def attributes(tracer: Tracer) -> None:
    listed = ["a", "b"]
    with tracer.start_as_current_span(
        "all", attributes={"text": "é", "int": 2**40, "bool": True, "float": 0.5}
    ) as span:
        span.set_attribute("texts", listed)
        listed.append("later")
        span.set_attributes({"ints": (1, 2), "bools": [True], "floats": [0.25, 1.0], "empty": "", "none": []})
        span.set_attribute("int", 7)
        span.set_attribute("odd", 3 + 4j)


@program
def times_and_names(tracer: Tracer) -> None:
    span = tracer.start_span("first", start_time=1_700_000_000_123_456_789, kind=SpanKind.PRODUCER)
    span.add_event("happened", {"n": 1}, timestamp=1_700_000_000_123_456_790)
    span.update_name("second")
    inner = tracer.start_span("inner", trace.set_span_in_context(span), start_time=1_700_000_000_200_000_001)
    inner.end(1_700_000_000_200_000_003)
    span.end(1_700_000_001_000_000_001)
    span.end(5)
    span.set_attribute("late", 1)
    span.update_name("third")
    span.add_event("late")
    span.set_status(StatusCode.ERROR)
    assert not span.is_recording()


@program
def kinds(tracer: Tracer) -> None:
    for kind in SpanKind:
        with tracer.start_as_current_span(kind.name, kind=kind):
            pass


@program
def statuses(tracer: Tracer) -> None:
    said: list[list[Any]] = [
        [StatusCode.OK],
        [StatusCode.ERROR, "no"],
        [Status(StatusCode.ERROR, "not so")],
        [StatusCode.UNSET],
        [StatusCode.OK, "text"],
    ]
    for number, first in enumerate(said):
        for second in said:
            with tracer.start_as_current_span(f"{number} {said.index(second)}") as span:
                span.set_status(*first)
                span.set_status(*second)


@program
def links(tracer: Tracer) -> None:
    with tracer.start_as_current_span("linked", links=[Link(CALLER, {"why": "sent"})]) as span:
        span.add_link(CALLER, {"n": [1, 2]})
        span.add_link(trace.INVALID_SPAN_CONTEXT)


@program
def exceptions(tracer: Tracer) -> None:
    for told in ({}, {"record_exception": False}, {"set_status_on_exception": False}):
        for error in (ValueError("no"), KeyboardInterrupt(), asyncio.CancelledError(), GeneratorExit()):
            for block in ("current", "used", "own"):
                name = f"{told} {type(error).__name__} {block}"
                with pytest.raises(type(error)):
                    if block == "current":
                        with tracer.start_as_current_span(name, **told):
                            raise error
                    elif block == "used":
                        with trace.use_span(tracer.start_span(name), end_on_exit=True, **told):
                            raise error
                    else:
                        with tracer.start_span(name, **told):
                            raise error


@program
def recorded_by_hand(tracer: Tracer) -> None:
    with tracer.start_as_current_span("hand") as span:
        for number in range(2):
            span.record_exception(
                LookupError("gone"), {"attempt": number}, timestamp=1_700_000_000_000_000_001 + number
            )
        span.add_event("between", timestamp=1_700_000_000_000_000_002)
        span.record_exception(ZeroDivisionError(), escaped=True, timestamp=1_700_000_000_000_000_009)
        span.set_status(StatusCode.ERROR)


@program
def left_open(tracer: Tracer) -> None:
    with tracer.start_as_current_span("open", end_on_exit=False) as span:
        pass
    assert span.is_recording()
    span.set_attribute("still", True)
    span.end()


@program
def parents(tracer: Tracer) -> None:
    remote = trace.set_span_in_context(trace.NonRecordingSpan(CALLER))
    with tracer.start_as_current_span("called", remote), tracer.start_as_current_span("below"):
        with tracer.start_as_current_span("apart", context.Context()):
            pass
        token = context.attach(remote)
        with tracer.start_as_current_span("attached"):
            pass
        context.detach(token)
        with tracer.start_as_current_span("below again"):
            pass


@program
def decorated(tracer: Tracer) -> None:
    @tracer.start_as_current_span("plain")
    def plain() -> None:
        asyncio.run(later())

    @tracer.start_as_current_span("later")
    async def later() -> None:
        await asyncio.gather(inner(), inner())

    async def inner() -> None:
        with tracer.start_as_current_span("inner"):
            await asyncio.sleep(0)

    plain()
    plain()


@program
def too_much(tracer: Tracer) -> None:
    with tracer.start_as_current_span("much") as span:
        for number in range(130):
            span.set_attribute(f"a{number}", number)
            span.add_event(f"e{number}")
            span.add_link(CALLER, {"n": number})


LIMITS = {
    "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "5",
    "OTEL_SPAN_EVENT_COUNT_LIMIT": "3",
    "OTEL_SPAN_LINK_COUNT_LIMIT": "2",
    "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT": "4",
}


def limited(tracer: Tracer) -> None:
    too_much(tracer)
    with tracer.start_as_current_span("long", attributes={"text": "longer", "n": 123456}) as span:
        span.set_attribute("texts", ["longer", "é" * 9])


def values(pairs: Any) -> dict[str, Any]:
    return {pair.key: str(pair.value) for pair in pairs if pair.key not in UNLIKE}


def told(request: ExportTraceServiceRequest) -> list[Any]:
    """Return all that a request says but the ids, and the times that a program has not given."""
    scopes = [(scope.scope, scope.spans) for part in request.resource_spans for scope in part.scope_spans]
    names = {span.span_id: span.name for _, spans in scopes for span in spans}
    return sorted(
        (
            span.name,
            names.get(span.parent_span_id, span.parent_span_id.hex()),
            (scope.name, scope.version, span.kind, span.status.code, span.status.message),
            (span.dropped_attributes_count, span.dropped_events_count, span.dropped_links_count),
            [given(span.start_time_unix_nano), given(span.end_time_unix_nano)],
            sorted(values(span.attributes).items()),
            [(each.name, given(each.time_unix_nano), sorted(values(each.attributes).items())) for each in span.events],
            [(each.trace_id, each.span_id, sorted(values(each.attributes).items())) for each in span.links],
        )
        for scope, spans in scopes
        for span in spans
    )


def given(time_ns: int) -> int:
    return time_ns if time_ns < 1_700_001_000_000_000_000 else 0


@pytest.fixture
def ours(queue: FakeQueue, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeQueue]:
    monkeypatch.setenv("EPSAGON_COLLECTOR_URL", "otlp-protobuf+http://127.0.0.1:1")
    keep_as_one()
    yield queue
    keep_apart()


def recorded(queue: FakeQueue) -> ExportTraceServiceRequest:
    assembly = Assembly()
    for record in queue.records:
        assembly.feed(b"", assembly.masked(record), 0.0)
    closed = [*assembly.end_pass(0.0), *assembly.end_pass(0.0)]
    return ExportTraceServiceRequest.FromString(b"".join(body.build(each).data or b"" for each in closed))


def of_the_sdk(program: Program, *processors: SpanProcessor) -> ExportTraceServiceRequest:
    """Run a program with the SDK, and return what its own exporter would send."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    for processor in (SimpleSpanProcessor(exporter), *processors):
        provider.add_span_processor(processor)
    program(provider.get_tracer("shop.db", "2.1"))
    return encode_spans(exporter.get_finished_spans())


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_spans_are_those_of_the_sdk(ours: FakeQueue, program: Program) -> None:
    program(SpanProvider().get_tracer("shop.db", "2.1"))
    keep_apart()
    assert told(recorded(ours)) == told(of_the_sdk(program))


def test_limits_of_the_environment_are_those_of_the_sdk(ours: FakeQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in LIMITS.items():
        monkeypatch.setenv(name, value)
    limited(SpanProvider().get_tracer("shop.db", "2.1"))
    keep_apart()
    assert told(recorded(ours)) == told(of_the_sdk(limited))


@pytest.mark.parametrize("block", [epsagon.trace, epsagon.event])
def test_what_is_said_of_our_block_is_a_spans_own(ours: FakeQueue, block: Any) -> None:
    with epsagon.trace("request"), block("block"):
        for number in range(MOST + 1):
            trace.get_current_span().add_event("happened", timestamp=1_700_000_000_000_000_000 + number)
        trace.get_current_span().add_link(CALLER, {"why": "sent"})
        trace.get_current_span().set_status(StatusCode.ERROR, "no")
    [span] = [each for each in spans_in(recorded(ours)) if each.name == "block"]
    assert (span.status.code, span.status.message) == (StatusCode.ERROR.value, "no")
    assert (len(span.events), span.dropped_events_count) == (MOST, 1)
    assert [(link.trace_id.hex(), values(link.attributes).keys()) for link in span.links] == [("ab" * 16, {"why"})]
    assert not [pair.key for pair in span.attributes if pair.key.startswith(("span.", "otel."))]


def test_request_keeps_its_host_when_it_is_renamed(ours: FakeQueue) -> None:
    with epsagon.Tracer(process.config(), new_runner("host", "http", "GET", {}, 1)) as tracer, current.within(tracer):
        trace.get_current_span().update_name("renamed")
        with epsagon.event("other", type="http", operation="GET"):
            trace.get_current_span().update_name("renamed")
    assert "renamed" not in str(recorded(ours))


@pytest.mark.parametrize("value", ["", "-1", "many", "9" * 10])
def test_limits_that_are_none_are_ignored(untraced: None, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    for name in LIMITS:
        monkeypatch.setenv(name, value)
    assert from_environment() == Limits()


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_processor_records_the_very_spans_of_the_sdk(ours: FakeQueue, program: Program) -> None:
    theirs = of_the_sdk(program, EpsagonSpanProcessor())
    assert told(recorded(ours)) == told(theirs)
    assert ids(recorded(ours)) == ids(theirs)


def ids(request: ExportTraceServiceRequest) -> set[tuple[bytes, bytes, bytes]]:
    return {(span.trace_id, span.span_id, span.parent_span_id) for span in spans_in(request)}


def spans_in(request: ExportTraceServiceRequest) -> list[Any]:
    return [span for part in request.resource_spans for scope in part.scope_spans for span in scope.spans]
