"""Spans that are made through OpenTelemetry's API, recorded by us: one context, and what becomes of a span."""

import asyncio
import contextlib
import contextvars
import gc
import json
import os
import time
import weakref
from collections.abc import AsyncIterator, Iterator
from http import HTTPMethod
from types import SimpleNamespace
from typing import Any

import pytest
from fakes import FakeQueue
from opentelemetry import baggage, context, propagate, trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode
from places import Place

import epsagon_fast as epsagon
from epsagon_fast.integrations.opentelemetry import EpsagonSpanProcessor
from epsagon_fast.integrations.opentelemetry.contexts import keep_apart, keep_as_one
from epsagon_fast.integrations.opentelemetry.limits import MOST
from epsagon_fast.integrations.opentelemetry.provider import SpanProvider, SpanTracer
from epsagon_fast.producer import current
from epsagon_fast.producer.process import process
from epsagon_fast.propagation import inject
from epsagon_fast.protocol import Kind
from epsagon_fast.testing import capture_traces
from epsagon_fast.testing.tree import Trace


@pytest.fixture
def spans(untraced: None) -> Iterator[SpanTracer]:
    """A tracer as a library gets it."""
    keep_as_one()
    yield SpanProvider().get_tracer("shop.db", "2.1")
    keep_apart()


@pytest.fixture
def traces(spans: SpanTracer) -> Iterator[list[Trace]]:
    with capture_traces() as captured:
        yield captured


def trees(traces: list[Trace]) -> list[str]:
    return [str(each.tree()) for each in traces]


def event(traces: list[Trace], name: str) -> dict[str, Any]:
    [found] = [each for one in traces for each in one["events"] if each["resource"]["name"] == name]
    return dict(found)


HEADER = f"00-{'ab' * 16}-{'cd' * 8}-01"
REMOTE = trace.set_span_in_context(
    trace.NonRecordingSpan(trace.SpanContext(int("ab" * 16, 16), int("cd" * 8, 16), True, trace.TraceFlags(1))),
    context.Context(),
)

# One context.


def test_our_events_and_their_spans_are_parents_of_each_other(traces: list[Trace], spans: SpanTracer) -> None:
    with (
        epsagon.trace("request"),
        spans.start_as_current_span("query"),
        epsagon.event("parse"),
        spans.start_as_current_span("lookup"),
        epsagon.trace("inner"),
    ):
        pass
    assert trees(traces) == ["request\n    query\n        parse\n            lookup\n                inner"]


def test_span_without_a_trace_is_a_trace(traces: list[Trace], spans: SpanTracer) -> None:
    with spans.start_as_current_span("job"), epsagon.event("step"):
        epsagon.label("user", 42)
    assert trees(traces) == ["job\n    step"]
    assert trace.get_current_span() is trace.INVALID_SPAN


def test_current_span_is_the_innermost_of_both(traces: list[Trace], spans: SpanTracer) -> None:
    with spans.start_as_current_span("outer") as outer:
        assert trace.get_current_span() is outer
        with epsagon.event("ours") as ours:
            standing = trace.get_current_span()
            assert f"{standing.get_span_context().span_id:016x}" == ours.id
            with spans.start_as_current_span("inner") as inner:
                assert trace.get_current_span() is inner
            assert trace.get_current_span().get_span_context() == standing.get_span_context()
        assert trace.get_current_span() is outer


def test_event_whose_id_is_none_of_a_span_stands_for_the_one_around_it(traces: list[Trace], spans: SpanTracer) -> None:
    with spans.start_as_current_span("outer") as outer, epsagon.event("ours") as ours:
        ours.id = "order-17"
        assert trace.get_current_span().get_span_context() == outer.get_span_context()
        assert written()[0]["traceparent"].split("-")[2] == f"{outer.get_span_context().span_id:016x}"
    with epsagon.trace("request") as tracer, epsagon.event("ours") as ours:
        ours.id = "order-17"
        assert f"{trace.get_current_span().get_span_context().span_id:016x}" == tracer.span_id


@pytest.mark.parametrize("attached", [REMOTE, context.Context()])
@pytest.mark.parametrize("is_open", [True, False])
def test_both_write_the_header_of_what_is_attached(
    each_block: None, traces: list[Trace], spans: SpanTracer, attached: context.Context, is_open: bool
) -> None:
    with epsagon.trace("request") if is_open else contextlib.nullcontext():
        token = context.attach(attached)
        try:
            first = written()
            with epsagon.event("ours"), epsagon.trace("inner"):
                inside = written()
            assert written() == first == ({"traceparent": HEADER} if attached else {}, {})
            assert inside[0]
            assert inside[1] == {}
        finally:
            context.detach(token)
    assert trees(traces) == (["request\n    ours\n        inner"] if is_open else ["inner"])
    if attached and not is_open:
        assert traces[0].runner["parent_id"] == "cd" * 8
        assert traces[0].runner["resource"]["metadata"]["http_trace_id"] == "ab" * 16


def test_contexts_that_are_never_detached_are_no_chain(traces: list[Trace], spans: SpanTracer) -> None:
    with epsagon.trace("consumer"):
        for _ in range(2000):
            context.attach(REMOTE)
        first = current.anywhere()
        assert first is not None
        assert first.outer is not None
        assert first.outer.outer is None
        assert written() == ({"traceparent": HEADER}, {})
        with epsagon.event("handle"):
            pass
    assert current.anywhere() is None
    assert trees(traces) == ["consumer\n    handle"]


@pytest.mark.parametrize("order", ["span in block", "block in span", "block in span in block"])
@pytest.mark.parametrize("block", ["event", "trace", "span"])
def test_unrecorded_spans_that_each_begin_in_the_one_before_are_no_chain(
    each_block: None, traces: list[Trace], spans: SpanTracer, block: str, order: str
) -> None:
    def blocks() -> contextlib.AbstractContextManager[Any]:
        made: dict[str, Any] = {"event": epsagon.event, "trace": epsagon.trace, "span": spans.start_as_current_span}
        return made[block]("block")  # type: ignore[no-any-return]

    def step() -> contextvars.Context:
        with contextlib.ExitStack() as stack:
            for each in order.split(" in ")[::-1]:
                if each == "block":
                    stack.enter_context(blocks())
                else:
                    context.attach(REMOTE)
            return contextvars.copy_context()

    with epsagon.trace("run"):
        last = contextvars.copy_context()
        for _ in range(100):
            last = last.run(step)
        assert outward(last.run(current.anywhere)) <= 6
        last.run(epsagon.trace("last")(lambda: None))
    assert event(traces, "last")


def outward(place: Any) -> int:
    """Return how many places are around one."""
    count = 0
    while (place := getattr(place, "outer", None)) is not None:
        count += 1
    return count


def written() -> tuple[dict[str, str], dict[str, str]]:
    """Return the header that both write, and what theirs has in another way."""
    ours: dict[str, str] = {}
    theirs: dict[str, str] = {}
    inject(ours)
    propagate.inject(theirs)
    return ours, {} if ours == theirs else theirs


@pytest.mark.parametrize("innermost", ["span", "event", "trace"])
def test_both_write_the_same_header(traces: list[Trace], spans: SpanTracer, innermost: str) -> None:
    ours: dict[str, str] = {}
    theirs: dict[str, str] = {}
    blocks = {"span": spans.start_as_current_span, "event": epsagon.event, "trace": epsagon.trace}
    with epsagon.trace("request"), spans.start_as_current_span("call"), blocks[innermost]("innermost"):
        inject(ours)
        propagate.inject(theirs)
    assert ours == theirs
    assert ours["traceparent"].split("-")[2] == event(traces, "innermost")["id"]


def test_baggage_stays_where_blocks_come_and_go(traces: list[Trace], spans: SpanTracer) -> None:
    with epsagon.trace("request"):
        token = context.attach(context.set_value("suppress_instrumentation", True, baggage.set_baggage("tenant", "7")))
        with spans.start_as_current_span("call"), epsagon.event("ours"):
            assert baggage.get_baggage("tenant") == "7"
            assert context.get_value("suppress_instrumentation")
        context.detach(token)
        assert baggage.get_baggage("tenant") is None


def test_span_that_is_used_later_is_the_parent_there(traces: list[Trace], spans: SpanTracer) -> None:
    with epsagon.trace("request"):
        kept = spans.start_span("kept")
        with epsagon.event("beside"):
            pass
        with trace.use_span(kept, end_on_exit=True), epsagon.event("below"):
            pass
    assert trees(traces) == ["request\n    kept\n        below\n    beside"]


def test_remote_parent_begins_a_trace_that_goes_on(traces: list[Trace], spans: SpanTracer) -> None:
    header = {"traceparent": f"00-{'ab' * 16}-{'cd' * 8}-01", "tracestate": "congo=1"}
    remote = propagate.extract(header)
    with epsagon.trace("consumer"), spans.start_as_current_span("message", context=remote, kind=SpanKind.CONSUMER):
        sent: dict[str, str] = {}
        propagate.inject(sent)
    message = event(traces, "message")
    assert message["parent_id"] == "cd" * 8
    assert message["resource"]["metadata"]["http_trace_id"] == "ab" * 16
    assert sent == {"traceparent": f"00-{'ab' * 16}-{message['id'][:16]}-01", "tracestate": "congo=1"}


def test_tasks_and_threads_keep_apart(traces: list[Trace], spans: SpanTracer) -> None:
    async def one(name: str) -> None:
        with spans.start_as_current_span(name):
            await asyncio.sleep(0)
            with epsagon.event(f"in {name}"):
                await asyncio.sleep(0)

    async def both() -> None:
        with spans.start_as_current_span("all"):
            await asyncio.gather(one("a"), one("b"))

    asyncio.run(both())
    assert sorted(trees(traces)[0].splitlines()) == sorted(["all", "    a", "        in a", "    b", "        in b"])


# A span's own end.


def test_span_that_outlives_its_trace_becomes_one(traces: list[Trace], spans: SpanTracer) -> None:
    with epsagon.trace("request"):
        late = spans.start_span("late")
        with trace.use_span(late), spans.start_as_current_span("early"):
            pass
    with trace.use_span(late), epsagon.event("after"):
        pass
    late.end()
    own = event(traces, "late")
    assert trees(traces) == ["request\n    early", "late\n    after"]
    assert own["id"][:16] == event(traces, "early")["parent_id"]
    assert own["resource"]["metadata"]["http_trace_id"] == traces[0]["events"][-1]["id"]


def test_what_an_exception_leaves(traces: list[Trace], spans: SpanTracer) -> None:
    with pytest.raises(ValueError, match="no"), spans.start_as_current_span("call"):
        raise ValueError("no")
    call = event(traces, "call")
    assert (call["error_code"], call["exception"]["type"], call["exception"]["message"]) == (2, "ValueError", "no")


@pytest.mark.parametrize("told", [{"record_exception": False}, {"set_status_on_exception": False}])
def test_what_is_told_not_to_leave(traces: list[Trace], spans: SpanTracer, told: dict[str, bool]) -> None:
    with pytest.raises(ValueError, match="no"), spans.start_as_current_span("call", **told):
        raise ValueError("no")
    call = event(traces, "call")
    assert (call["error_code"], "span.events" in call["resource"]["metadata"]) == (
        (1, False) if "record_exception" in told else (0, True)
    )


def test_decorated_functions_have_a_span_for_each_call(traces: list[Trace], spans: SpanTracer) -> None:
    @spans.start_as_current_span("work")
    def work() -> trace.Span:
        return trace.get_current_span()

    @spans.start_as_current_span("later")
    async def later() -> trace.Span:
        await asyncio.sleep(0)
        return trace.get_current_span()

    assert work() is not work()
    assert asyncio.run(later()).get_span_context().is_valid
    assert [each.runner["resource"]["name"] for each in traces] == ["work", "work", "later"]


def test_generators_keep_their_span_to_themselves(traces: list[Trace], spans: SpanTracer) -> None:
    @spans.start_as_current_span("plain")
    def plain() -> Iterator[trace.Span]:
        yield trace.get_current_span()
        with epsagon.event("in plain"):
            yield trace.get_current_span()

    @spans.start_as_current_span("async")
    async def steps() -> AsyncIterator[trace.Span]:
        yield trace.get_current_span()

    async def consume() -> None:
        async for each in steps():
            assert each is not trace.get_current_span()

    with epsagon.trace("request"):
        for _ in plain():
            with epsagon.event("outside"):
                pass
        asyncio.run(consume())
    [tree] = trees(traces)
    assert sorted(tree.splitlines()) == sorted(
        ["request", "    outside", "    outside", "    plain", "        in plain", "    async"]
    )


def test_context_is_detached_in_another_context(traces: list[Trace], spans: SpanTracer) -> None:
    async def steps() -> AsyncIterator[None]:
        with trace.use_span(spans.start_span("step"), end_on_exit=True):
            yield

    async def first(generator: AsyncIterator[None]) -> None:
        await anext(generator)

    async def main() -> None:
        generator = steps()
        await asyncio.create_task(first(generator))
        with pytest.raises(StopAsyncIteration):
            await anext(generator)
        assert trace.get_current_span() is trace.INVALID_SPAN

    asyncio.run(main())
    assert trees(traces) == ["step"]


def test_ok_is_final(traces: list[Trace], spans: SpanTracer) -> None:
    with spans.start_as_current_span("call") as call:
        call.set_status(StatusCode.OK)
        call.set_status(StatusCode.ERROR, "no")
    assert event(traces, "call")["error_code"] == 0
    assert event(traces, "call")["resource"]["metadata"]["otel.status_code"] == "OK"


# A process.

PROGRAM = """
from opentelemetry import trace
early = trace.get_tracer("early")
from epsagon_fast.integrations.opentelemetry import install
install()
install()
with early.start_as_current_span("a"), trace.get_tracer("b").start_as_current_span("b"):
    pass
import sys, epsagon_fast
assert "opentelemetry.sdk" not in sys.modules
print(epsagon_fast.flush(60))
"""


def test_installed_in_a_process_of_its_own(place: Place) -> None:
    assert place.run(PROGRAM).strip() == "True"


@pytest.mark.parametrize(("own", "name"), [("", "shop"), ("mine", "mine")])
def test_provider_says_what_the_process_is(
    untraced: None, monkeypatch: pytest.MonkeyPatch, own: str, name: str
) -> None:
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.name=shop,region=eu")
    monkeypatch.setenv("EPSAGON_APP_NAME", own)
    assert SpanProvider().resource.attributes == {"service.name": name, "region": "eu"}


# Beside the SDK.


@pytest.fixture
def sdk(traces: list[Trace]) -> trace.Tracer:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(EpsagonSpanProcessor())
    return provider.get_tracer("shop.db")


def test_spans_of_the_sdk_and_our_events_are_one_tree(traces: list[Trace], sdk: trace.Tracer) -> None:
    ours: dict[str, str] = {}
    theirs: dict[str, str] = {}
    outer = epsagon.trace("request"), sdk.start_as_current_span("query"), epsagon.event("parse")
    with outer[0], outer[1], outer[2], sdk.start_as_current_span("lookup"):
        inject(ours)
        propagate.inject(theirs)
    assert trees(traces) == ["request\n    query\n        parse\n            lookup"]
    assert ours == theirs


def test_span_of_the_sdk_without_a_trace_is_one(traces: list[Trace], sdk: trace.Tracer) -> None:
    with sdk.start_as_current_span("job") as job, epsagon.event("step"):
        pass
    assert trees(traces) == ["job\n    step"]
    ids = job.get_span_context()
    assert traces[0].runner["id"][:16] == f"{ids.span_id:016x}"
    assert traces[0].runner["resource"]["metadata"]["http_trace_id"] == f"{ids.trace_id:032x}"


def test_what_the_sdk_does_not_sample_is_not_recorded(traces: list[Trace]) -> None:
    provider = TracerProvider(ALWAYS_OFF, shutdown_on_exit=False)
    provider.add_span_processor(EpsagonSpanProcessor())
    with provider.get_tracer("shop.db").start_as_current_span("job"):
        pass
    assert traces == []


def test_span_that_is_lost_without_its_end_ends_its_trace(traces: list[Trace], spans: SpanTracer) -> None:
    lost = spans.start_span("lost")
    del lost
    gc.collect()
    assert traces[0].runner["resource"]["metadata"]["unfinished"] == "true"


def test_ended_spans_are_freed_without_the_garbage_collector(traces: list[Trace], spans: SpanTracer) -> None:
    gc.disable()
    try:
        with spans.start_as_current_span("root") as root, spans.start_as_current_span("child") as child:
            freed = [weakref.ref(root), weakref.ref(child)]
        del root, child
        assert [each() for each in freed] == [None, None]
    finally:
        gc.enable()


# The span that stands for ours.


@pytest.mark.parametrize("block", ["event", "inner", "trace"])
def test_what_is_set_on_our_block_lands_there(
    each_block: None, traces: list[Trace], spans: SpanTracer, block: str
) -> None:
    around = contextlib.nullcontext() if block == "trace" else epsagon.trace("request")
    with around, (epsagon.event if block == "event" else epsagon.trace)(block):
        standing = trace.get_current_span()
        assert standing.is_recording()
        tags = ["a"]
        standing.set_attributes({"tenant": 7, "tags": tags})
        tags.append("later")
        standing.add_event("cached", {"hit": True}, timestamp=5)
        standing.set_status(StatusCode.ERROR, "no")
        with spans.start_as_current_span("below"):
            trace.get_current_span().set_attribute("other", 1)
        trace.get_current_span().add_event("again", timestamp=6)
        trace.get_current_span().add_link(trace.get_current_span(REMOTE).get_span_context())
        standing.update_name("renamed")
    assert not standing.is_recording()
    standing.set_attribute("late", 1)
    standing.update_name("late")
    metadata = event(traces, "renamed")["resource"]["metadata"]
    assert (metadata["tenant"], metadata["tags"], metadata["otel.status_description"]) == ("7", '["a"]', "no")
    cached = '{"name":"cached","time_ns":5,"attributes":{"hit":true}}'
    assert metadata["span.events"] == f'[{cached},{{"name":"again","time_ns":6,"attributes":{{}}}}]'
    assert json.loads(metadata["span.links"])[0]["trace_id"] == "ab" * 16
    assert not {"other", "late"} & {*metadata}
    assert event(traces, "renamed")["error_code"] == 1


def test_what_is_too_much_for_our_block_is_counted_there(traces: list[Trace], spans: SpanTracer) -> None:
    with epsagon.trace("request"):
        for number in range(MOST + 2):
            trace.get_current_span().add_event(str(number))
    metadata = traces[0].runner["resource"]["metadata"]
    assert len(json.loads(metadata["span.events"])) == MOST
    assert metadata["otel.dropped_events_count"] == "2"


# Where it goes wrong.


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


def test_odd_values_break_nothing(traces: list[Trace], spans: SpanTracer) -> None:
    inside: list[object] = []
    inside.append(inside)
    with (
        pytest.raises(Mute),
        spans.start_as_current_span("odd", attributes={"itself": inside, "half": "\ud800"}) as odd,
    ):
        odd.set_attribute([], 1)  # type: ignore[arg-type]
        odd.set_attribute("object", object())
        odd.add_link(None)  # type: ignore[arg-type]
        odd.add_event("of itself", {"list": inside})  # type: ignore[dict-item]
        raise Mute
    metadata = event(traces, "odd")["resource"]["metadata"]
    assert metadata["half"] == "\ufffd"
    assert event(traces, "odd")["exception"]["type"].endswith("Mute")


def test_arguments_of_wrong_types_break_nothing(traces: list[Trace], spans: SpanTracer) -> None:
    wrong: Any = object()
    with epsagon.trace("request"):
        kinds: list[Any] = [None, 3, []]
        for kind in kinds:
            spans.start_span("kind", kind=kind, attributes=wrong, links=[wrong]).end()
        span = spans.start_span("span", start_time=wrong)
        span.set_attributes(wrong)
        span.add_event("event", wrong, timestamp=wrong)
        span.add_link(wrong, wrong)
        span.record_exception(wrong, wrong)
        span.end(2.5e18)  # type: ignore[arg-type]
    assert trees(traces) == ["request\n    kind\n    kind\n    kind\n    span"]


def test_names_of_attributes_may_be_of_a_class_of_texts(traces: list[Trace], spans: SpanTracer) -> None:
    name = HTTPMethod.PATCH
    with spans.start_as_current_span("work", attributes={name: 1}) as work:
        work.set_attribute(name, 2)
        work.set_attribute(5, "left out")  # type: ignore[arg-type]
    metadata = traces[0].runner["resource"]["metadata"]
    assert (metadata["PATCH"], "5" in metadata) == ("2", False)


def test_span_that_is_ended_while_it_ends_is_recorded_once(
    traces: list[Trace], spans: SpanTracer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def end_too() -> int:
        monkeypatch.undo()
        span.end()
        return time.time_ns()

    with epsagon.trace("request"):
        span = spans.start_span("once")
        monkeypatch.setattr("epsagon_fast.integrations.opentelemetry.span.time", SimpleNamespace(time_ns=end_too))
        span.end()
    assert trees(traces) == ["request\n    once"]


def test_forked_child_opens_its_own_and_ends_nothing_of_its_parent(queue: FakeQueue, spans: SpanTracer) -> None:
    with spans.start_as_current_span("parent") as parent:
        pid = os.fork()
        if not pid:
            try:
                before = len(queue.records)
                with spans.start_as_current_span("child") as child:
                    context = child.get_span_context()
                parent.end()
                [opened, *_] = queue.records[before:]
                is_apart = opened.kind == Kind.OPEN and b'"parent_id":"' + parent.span_id.encode() in opened.payload
                is_same = context.trace_id == parent.get_span_context().trace_id
                os._exit(0 if is_apart and is_same and len(queue.bodies(Kind.CLOSE)) == 1 else 1)
            finally:
                os._exit(2)
        assert os.waitpid(pid, 0)[1] == 0
    assert len(queue.bodies(Kind.CLOSE)) == 1


def test_ignored_work_makes_no_span(traces: list[Trace], spans: SpanTracer) -> None:
    with current.within(current.NOT_TRACED), spans.start_as_current_span("ignored") as ignored:
        assert not ignored.is_recording()
        with spans.start_as_current_span("below"):
            pass
    assert traces == []


def test_what_is_attached_in_ignored_work_is_ignored(traces: list[Trace], spans: SpanTracer) -> None:
    with current.within(current.NOT_TRACED):
        # By this, instrumentations of servers know a request that is the first thing they see.
        assert trace.get_current_span() is trace.INVALID_SPAN
        with spans.start_as_current_span("request", propagate.extract({"traceparent": HEADER})):
            pass
        token = context.attach(baggage.set_baggage("tenant", "7"))
        with spans.start_as_current_span("a"), spans.start_as_current_span("b", context.get_current()):
            pass
        context.detach(token)
        kept = context.get_current()
    token = context.attach(kept)
    with spans.start_as_current_span("in another thread"):
        pass
    with epsagon.trace("its own"), spans.start_as_current_span("inner", context.get_current()):
        pass
    context.detach(token)
    assert trees(traces) == ["its own\n    inner"]


def test_without_a_backend_a_span_hands_on_its_callers_ids(
    untraced: None, spans: SpanTracer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISABLE_EPSAGON", "true")
    header = {"traceparent": f"00-{'ab' * 16}-{'cd' * 8}-01"}
    sent: dict[str, str] = {}
    for _ in range(2):
        with spans.start_as_current_span("off", context=propagate.extract(header)) as off:
            assert not off.is_recording()
            propagate.inject(sent)
        assert sent == header
        with spans.start_as_current_span("alone"):
            assert trace.get_current_span() is trace.INVALID_SPAN


def test_another_provider_stays(place: Place) -> None:
    script = """
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
trace.set_tracer_provider(TracerProvider())
from epsagon_fast.integrations.opentelemetry import install
install()
print(isinstance(trace.get_tracer_provider(), TracerProvider))
"""
    assert place.run(script).strip() == "True"


def test_provisional_runner_says_what_is_known_at_the_start(
    queue: FakeQueue, spans: SpanTracer, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"db.system": "redis", "n": 7, "l": [1]}
    for url, number in (("http://127.0.0.1:1", "7"), ("otlp+http://127.0.0.1:1", 7)):
        monkeypatch.setenv("EPSAGON_COLLECTOR_URL", url)
        process.reset(make_writers=lambda here: queue)
        with spans.start_as_current_span("get", kind=SpanKind.CLIENT, attributes=given):
            runner = queue.bodies(Kind.OPEN)[-1]["runner"]
        resource = runner["resource"]
        assert (resource["name"], resource["type"], resource["metadata"]["n"]) == ("get", "redis", number)
        assert resource["metadata"]["span.kind"] == "client"


def test_trace_of_a_span_whose_beginning_is_interrupted_is_closed(
    traces: list[Trace], spans: SpanTracer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start_and_be_interrupted(tracer: epsagon.Tracer) -> None:
        start(tracer)
        raise KeyboardInterrupt

    start = epsagon.Tracer.start
    monkeypatch.setattr(epsagon.Tracer, "start", start_and_be_interrupted)
    with pytest.raises(KeyboardInterrupt), spans.start_as_current_span("cut"):
        pass
    gc.collect()
    assert traces[0].runner["resource"]["metadata"]["unfinished"] == "true"
