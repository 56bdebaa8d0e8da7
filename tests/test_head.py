"""The decision at the head: who is left out, what the others are told, and that a caller's decision holds."""

import asyncio
import random
from collections.abc import Iterable, Iterator
from math import sqrt
from typing import Any

import pytest
from fakes import FakeQueue
from opentelemetry import trace as otel

import epsagon_fast as epsagon
from epsagon_fast import Outcome
from epsagon_fast.integrations import asgi, wsgi
from epsagon_fast.integrations.opentelemetry.contexts import keep_apart, keep_as_one
from epsagon_fast.integrations.opentelemetry.provider import SpanProvider
from epsagon_fast.producer import current, head, left_out
from epsagon_fast.producer.context import TraceContext
from epsagon_fast.producer.left_out import LeftOut
from epsagon_fast.producer.process import process
from epsagon_fast.propagation import continue_context, extract, inject
from epsagon_fast.protocol import Kind
from epsagon_fast.testing import capture_traces
from epsagon_fast.thresholds import passed, randomness_of, threshold_of

SHARED_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT_ID = "00f067aa0ba902b7"
SAMPLED, LEFT = (f"00-{SHARED_ID}-{PARENT_ID}-{flags}" for flags in ("01", "00"))


@pytest.fixture(autouse=True)
def at_rate(queue: FakeQueue, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing that begins here is recorded."""
    monkeypatch.setenv("EPSAGON_SAMPLE_RATE", "0")
    yield


def sent() -> dict[str, str]:
    """The headers of a message that is sent now."""
    headers: dict[str, str] = {}
    inject(headers)
    return headers


def flag(headers: dict[str, str]) -> int | None:
    found = extract(headers)
    return None if found is None else found.flags


def call(app: Any, **environ: str) -> bytes:
    """Answer a request as a WSGI server does."""
    said = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "SERVER_NAME": "here", "SERVER_SOFTWARE": "test", **environ}
    body = app(said, lambda status, headers, exc_info=None: lambda data: None)
    try:
        return b"".join(body)
    finally:
        if hasattr(body, "close"):
            body.close()


def test_trace_that_is_left_out_records_nothing_and_tells_whom_it_calls(queue: FakeQueue) -> None:
    with epsagon.trace("main") as tracer:
        epsagon.add_event({})
        epsagon.label("k", "v")
        with epsagon.event("call"), epsagon.trace("inner"):
            headers = sent()
        assert not tracer.recording
    assert (queue.records, process.refusals(), flag(headers)) == ([], {}, 0)
    assert tracer.stop() == Outcome.SAMPLED
    # What is called is left out under the same id.
    callee = epsagon.create_tracer()
    assert continue_context(callee, extract(headers)) == tracer.trace_id
    callee.start()
    assert callee.stop() == Outcome.SAMPLED
    assert queue.records == []


def test_exception_of_work_that_is_left_out_goes_on(queue: FakeQueue) -> None:
    with pytest.raises(KeyError), epsagon.trace("main"):
        raise KeyError


@pytest.mark.parametrize(("traceparent", "recorded"), [(SAMPLED, True), (LEFT, False)])
@pytest.mark.parametrize("rate", ["0", "0.5", "0.999999"])
def test_flag_of_the_caller_decides(
    queue: FakeQueue, monkeypatch: pytest.MonkeyPatch, traceparent: str, recorded: bool, rate: str
) -> None:
    monkeypatch.setenv("EPSAGON_SAMPLE_RATE", rate)
    headers: list[dict[str, str]] = []

    def app(environ: Any, start_response: Any) -> list[bytes]:
        headers.append(sent())
        return [b"ok"]

    assert call(wsgi.TracingMiddleware(app), HTTP_TRACEPARENT=traceparent, HTTP_TRACESTATE="a=b") == b"ok"
    assert ("OPEN" in queue.kinds) == recorded
    assert flag(headers[0]) == recorded
    assert headers[0]["traceparent"].split("-")[1] == SHARED_ID
    assert headers[0]["tracestate"] == "a=b"


def test_without_a_rate_a_flag_of_the_caller_changes_nothing(queue: FakeQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EPSAGON_SAMPLE_RATE")
    call(wsgi.TracingMiddleware(lambda environ, start: [b""]), HTTP_TRACEPARENT=LEFT)
    assert queue.kinds[0] == "OPEN"


def test_share_of_what_begins_is_recorded_and_says_for_how_many_it_stands(
    queue: FakeQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EPSAGON_SAMPLE_RATE", "25%")
    app = wsgi.TracingMiddleware(lambda environ, start: [b""])
    for number in range(1000):
        if number % 2:
            call(app)
        else:
            with epsagon.trace("main"):
                pass
    opened = [record for record in queue.records if record.kind == Kind.OPEN]
    assert abs(len(opened) - 250) <= 5 * sqrt(1000 * 0.25 * 0.75)
    assert all(randomness_of(record.trace_id.hex()) >= threshold_of(0.25) for record in opened)
    told = [body["resource"]["metadata"] for body in queue.bodies(Kind.RUNNER) if "sampling" in str(body)]
    assert len(told) == len(opened)
    assert {each["http_trace_id"] for each in told} == {record.trace_id.hex() for record in opened}
    expected = {"tracestate": "ot=th:c", "sampling": "head", "sampling_weight": "4"}
    assert all(expected.items() <= each.items() for each in told)


def test_what_is_recorded_hands_on_its_threshold(queue: FakeQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EPSAGON_SAMPLE_RATE", "0.9999")
    with epsagon.trace("main") as tracer:
        if tracer.recording:
            assert passed(sent()["tracestate"]) == threshold_of(0.9999)


def test_decision_is_the_threshold_of_the_ids_random_bits() -> None:
    ids, rate = random.Random(1), 0.1
    contexts = [head.begun(f"{ids.getrandbits(128):032x}", PARENT_ID, rate) for _ in range(20_000)]
    kept = [context for context in contexts if context.flags]
    assert abs(len(kept) - 2000) <= 5 * sqrt(20_000 * 0.1 * 0.9)
    assert {context.tracestate for context in kept} == {"ot=th:e666"}
    assert {context.tracestate for context in contexts if not context.flags} == {""}


def test_threshold_that_the_callers_flag_contradicts_is_not_believed() -> None:
    high = "ot=th:f"
    assert randomness_of(SHARED_ID) < threshold_of(1 / 16)
    assert head.checked(TraceContext(SHARED_ID, PARENT_ID, 1, f"{high},a=b")).tracestate == "a=b"
    for context in (
        TraceContext(SHARED_ID, PARENT_ID, 0, high),
        TraceContext(SHARED_ID, PARENT_ID, 1, "ot=th:8"),
        TraceContext(SHARED_ID, PARENT_ID, 1, "a=b"),
    ):
        assert head.checked(context) is context


def test_runner_keeps_what_sampling_needs_of_a_long_tracestate() -> None:
    state = "ot=th:8," + ",".join(f"member{number}={'x' * 100}" for number in range(10))
    assert head.marks(TraceContext(SHARED_ID, PARENT_ID, 1, state), 1.0) == {"tracestate": "ot=th:8"}
    assert head.marks(TraceContext(SHARED_ID, PARENT_ID, 1, state[8:]), 1.0) == {}


class Steps:
    """A body that a server can only iterate over."""

    def __init__(self) -> None:
        self.flags: list[int | None] = []
        self.status = "mine"

    def __iter__(self) -> Iterator[bytes]:
        for _ in range(3):
            self.flags.append(flag(sent()))
            yield b"x"

    def close(self) -> None:
        self.flags.append(flag(sent()))


def test_steps_of_an_answer_are_left_out_too(queue: FakeQueue) -> None:
    body, bodies = Steps(), list[Any]()

    def server(environ: Any, start_response: Any) -> Iterable[bytes]:
        bodies.append(wsgi.TracingMiddleware(lambda environ, start: body)(environ, start_response))
        return bodies[0]  # type: ignore[no-any-return]

    assert call(server) == b"xxx"
    assert body.flags == [0] * 4
    assert bodies[0].status == "mine"
    assert current.anywhere() is None
    assert queue.records == []


@pytest.mark.parametrize("body", [[b"a"], (b"a",), b"a", {b"a": 1}])
def test_body_that_a_server_may_know_is_handed_on_as_it_is(body: Any) -> None:
    app = wsgi.TracingMiddleware(lambda environ, start: body)
    assert app({}, lambda *_: None) is body


def test_middleware_inside_another_leaves_out_the_same_request(queue: FakeQueue) -> None:
    seen: list[Any] = []

    def app(environ: Any, start_response: Any) -> list[bytes]:
        seen.append(current.anywhere())
        # As an adapter calls an application: with an environ of its own.
        if len(seen) == 1:
            call(wsgi.TracingMiddleware(app))
        return [b""]

    call(wsgi.TracingMiddleware(wsgi.TracingMiddleware(app)))
    assert type(seen[0]) is LeftOut
    assert seen[1] is seen[0]


def test_next_request_in_a_context_that_was_left_behind_is_decided_anew(
    queue: FakeQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    places: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        places.append(current.anywhere())
        if len(places) == 1:
            # The connection goes on in a task of its own.
            tasks.append(asyncio.create_task(after()))

    async def after() -> None:
        await over.wait()
        await asgi.TracingMiddleware(app)(dict(scope), None, None)  # type: ignore[arg-type]

    async def serve() -> None:
        await asgi.TracingMiddleware(app)(dict(scope), None, None)  # type: ignore[arg-type]
        over.set()
        await asyncio.gather(*tasks)

    scope = {"type": "http", "path": "/", "method": "GET", "headers": [(b"traceparent", LEFT.encode())]}
    tasks: list[asyncio.Task[None]] = []
    over = asyncio.Event()
    asyncio.run(serve())
    first, second = places
    assert type(first) is type(second) is LeftOut
    assert first is not second
    assert first.open_trace().context == extract({"traceparent": LEFT})
    assert queue.records == []


def test_what_a_request_that_is_left_out_adds_is_ignored(queue: FakeQueue) -> None:
    @epsagon.trace
    def step() -> int | None:
        with epsagon.event("call"):
            epsagon.add_event({})
            return flag(sent())

    def app(environ: Any, start_response: Any) -> list[bytes]:
        epsagon.label("k", "v")
        flags = [epsagon.bind(step)(), step(), flag(sent())]
        with epsagon.trace("block") as tracer:
            flags.append(flag(sent()))
        assert flags == [0] * 4
        assert (tracer.recording, epsagon.current_ids(), process.refusals()) == (False, None, {})
        return [b"ok"]

    assert call(wsgi.TracingMiddleware(app)) == b"ok"
    assert queue.records == []


def test_place_makes_no_tracer_that_nothing_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(left_out, "Tracer", None)
    assert call(wsgi.TracingMiddleware(lambda environ, start: [b"ok"])) == b"ok"


def test_each_trace_that_is_left_out_is_counted_once(queue: FakeQueue) -> None:
    def app(environ: dict[str, Any], start: Any) -> list[bytes]:
        assert flag(sent()) == 0 and epsagon.current_ids() is None
        return [b""]

    call(wsgi.TracingMiddleware(app))
    call(wsgi.TracingMiddleware(lambda environ, start: [b""]), HTTP_TRACEPARENT=LEFT)
    with epsagon.trace("main"), epsagon.trace("a block of it"):
        pass
    # No ring is made for it.
    assert (process.own.left_out, queue.asked) == (3, 0)
    process.tell_left_out()
    assert queue.left_out == 0
    epsagon.init(sample_rate=1.0)
    with epsagon.trace("recorded"):
        assert (process.own.left_out, queue.left_out) == (0, 3)


def test_nothing_is_left_out_while_a_test_captures(queue: FakeQueue) -> None:
    with capture_traces() as traces:
        with epsagon.trace("main"):
            pass
        call(wsgi.TracingMiddleware(lambda environ, start: [b""]), HTTP_TRACEPARENT=LEFT)
    assert len(traces) == 2


def test_attached_process_and_later_work_hear_of_it(queue: FakeQueue) -> None:
    with epsagon.trace("main") as tracer:
        handle = tracer.handle()
        place = current.current_place()
    assert place is not None
    with epsagon.attach(handle):
        epsagon.add_event({})
        assert flag(sent()) == 0
    with current.within(place):
        assert place.heritage() is not None
    assert queue.records == []


def test_spans_of_opentelemetry_are_left_out_together(queue: FakeQueue) -> None:
    keep_as_one()
    tracer = SpanProvider().get_tracer("library")
    with tracer.start_as_current_span("outer") as outer, tracer.start_as_current_span("inner") as inner:
        contexts = [span.get_span_context() for span in (outer, inner)]
        assert not outer.is_recording()
        assert not inner.is_recording()
        assert flag(sent()) == 0
    assert {context.trace_flags for context in contexts} == {otel.TraceFlags(0)}
    assert len({context.trace_id for context in contexts}) == 1
    assert contexts[0].is_valid
    assert queue.records == []
    keep_apart()
