"""A trace is a tree: each event names the event in whose block it was recorded, wherever that block was entered."""

import asyncio
import contextvars
import json
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import Any

import gevent
import pytest
from fakes import FakeQueue
from rings import exit_code, in_child
from test_wsgi import environ_of

import epsagon_fast as epsagon
from epsagon_fast import propagation
from epsagon_fast.backend import shape
from epsagon_fast.integrations import wsgi
from epsagon_fast.producer.entering import current
from epsagon_fast.protocol import EVENT_FIELDS, Kind
from epsagon_fast.testing import capture_traces
from epsagon_fast.trimming import trim

pytestmark = pytest.mark.usefixtures("each_block")

READY: dict[str, Any] = {
    "id": "ready",
    "start_time": 1.5,
    "resource": {"name": "ready", "type": "t", "operation": "o", "metadata": {"k": "v"}},
    "origin": "sdk",
    "duration": 0.5,
    "error_code": 0,
    "exception": None,
}


def tree(trace: dict[str, Any]) -> dict[str, str | None]:
    """Return the name of each event's parent by the event's own; None: the runner."""
    names = {event["id"]: event["resource"]["name"] for event in trace["events"]}
    return {event["resource"]["name"]: names.get(event.get("parent_id")) for event in trace["events"][:-1]}


@pytest.fixture
def traces(untraced: None) -> Iterator[list[dict[str, Any]]]:
    with capture_traces() as captured:
        yield captured


def record(name: str) -> None:
    with epsagon.event(name):
        pass


@epsagon.trace("traced")
def traced() -> None:
    record("in traced")


def test_event_hangs_below_the_innermost_block(traces: list[dict[str, Any]]) -> None:
    with epsagon.trace("run"):
        record("first")
        with epsagon.event("outer") as outer:
            with epsagon.event("inner") as inner:
                epsagon.add_event(READY)
            traced()
        record("last")
    assert tree(traces[0]) == {
        "first": None,
        "outer": None,
        "inner": "outer",
        "ready": "inner",
        "traced": "outer",
        "in traced": "traced",
        "last": None,
    }
    assert (outer.parent_id, inner.parent_id) == (None, outer.id)
    assert len(inner.id) == 16


def test_parent_is_the_last_member_and_absent_below_the_runner(queue: FakeQueue) -> None:
    with epsagon.trace("run") as tracer, epsagon.event("outer") as outer:
        epsagon.add_event(READY)
        # Incomplete, so the fast path leaves it to the slow one.
        tracer.add_event({"id": "loose"})
    ready, loose, above = queue.bodies(Kind.EVENT)
    assert list(ready) == list(loose) == [*EVENT_FIELDS, "parent_id"]
    assert ready["parent_id"] == loose["parent_id"] == outer.id
    assert tuple(above) == EVENT_FIELDS
    assert list(queue.bodies(Kind.OPEN)[0]["runner"]) == list(EVENT_FIELDS)


def test_event_may_name_its_parent_itself(queue: FakeQueue) -> None:
    with epsagon.trace("run") as tracer, epsagon.event("outer") as outer:
        tracer.add_event({**READY, "parent_id": "00000000000000ab"})
        tracer.add_event({**READY, "parent_id": "no span"})
    own, wrong, _ = queue.bodies(Kind.EVENT)
    assert (own["parent_id"], wrong["parent_id"]) == ("00000000000000ab", outer.id)
    assert queue.counts == {"malformed": 1}


class RaisesWhenCompared:
    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        raise ValueError


@pytest.mark.parametrize("fails", [False, True], ids=["passes", "fails"])
@pytest.mark.parametrize(
    ("given", "written"),
    [
        ('a"b', 'a"b'),
        ("\ud800", "\ufffd"),
        ("", ""),
        (5, None),
        (b"b", None),
        (["l"], None),
        (RaisesWhenCompared(), None),
    ],
)
def test_parent_that_is_set_is_written_if_it_is_a_text(queue: FakeQueue, given: Any, written: Any, fails: bool) -> None:
    with epsagon.trace("run"), suppress(LookupError), epsagon.event("outer") as event:
        event.parent_id = given
        if fails:
            raise LookupError
    [body, *_] = queue.bodies(Kind.EVENT)
    assert body.get("parent_id") == written
    assert queue.counts == ({"malformed": 1} if written is None else {})


def test_event_of_another_trace_is_no_parent(queue: FakeQueue) -> None:
    other = epsagon.create_tracer()
    other.start()
    other.has_blocks = True
    with epsagon.trace("run"), epsagon.event("outer"):
        other.add_event(READY)
    assert "parent_id" not in queue.bodies(Kind.EVENT)[0]


def test_block_of_the_global_tracer_is_a_parent_and_opens_no_trace(queue: FakeQueue) -> None:
    epsagon.create_global_tracer().start()
    with epsagon.event("outer") as outer:
        record("inner")
        with epsagon.trace("own"):
            record("of its own trace")
    inner, own, above = queue.bodies(Kind.EVENT)
    assert inner["parent_id"] == outer.id
    assert "parent_id" not in own
    assert "parent_id" not in above
    assert queue.kinds.count("OPEN") == 2


def test_each_thread_and_task_has_its_own_parent(traces: list[dict[str, Any]]) -> None:
    async def work(number: int) -> None:
        with epsagon.event(f"task {number}"):
            await asyncio.sleep(0)
            record(f"in task {number}")

    async def main() -> None:
        with epsagon.event("main"):
            await asyncio.gather(*map(work, range(3)))

    with epsagon.trace("run"):
        asyncio.run(main())
        with epsagon.event("starts a thread"):
            context = contextvars.copy_context()
            thread = threading.Thread(target=context.run, args=(record, "in thread"))
            thread.start()
            thread.join(10)
    found = tree(traces[0])
    assert {found[f"task {number}"] for number in range(3)} == {"main"}
    assert all(found[f"in task {number}"] == f"task {number}" for number in range(3))
    assert found["in thread"] == "starts a thread"


def test_parent_that_has_ended_is_still_the_parent(traces: list[dict[str, Any]]) -> None:
    async def late(over: asyncio.Event) -> None:
        await over.wait()
        record("child")

    async def main() -> None:
        over = asyncio.Event()
        with epsagon.event("parent"):
            task = asyncio.create_task(late(over))
            await asyncio.sleep(0)
        over.set()
        await task

    with epsagon.trace("run"):
        asyncio.run(main())
    assert tree(traces[0])["child"] == "parent"


def test_generators_keep_their_parents_to_themselves(traces: list[dict[str, Any]]) -> None:
    @epsagon.trace("steps")
    def steps() -> Iterator[int]:
        with epsagon.event("in steps"):
            yield 1
            record("second step")
            yield 2

    @epsagon.trace("asteps")
    async def asteps() -> AsyncIterator[int]:
        with epsagon.event("in asteps"):
            yield 1
            record("second astep")

    async def consume() -> None:
        async for _ in asteps():
            record("consumes asteps")

    with epsagon.trace("run"):
        for number in steps():
            record(f"consumes {number}")
        asyncio.run(consume())
    assert tree(traces[0]) == {
        "consumes 1": None,
        "second step": "in steps",
        "consumes 2": None,
        "in steps": "steps",
        "steps": None,
        "consumes asteps": None,
        "second astep": "in asteps",
        "in asteps": "asteps",
        "asteps": None,
    }


def test_each_greenlet_has_its_own_parent(traces: list[dict[str, Any]]) -> None:
    def work(number: int) -> None:
        with epsagon.event(f"greenlet {number}"):
            gevent.sleep(0)
            record(f"in {number}")

    with epsagon.trace("run"), epsagon.event("outer"):
        gevent.joinall([gevent.spawn(contextvars.copy_context().run, work, number) for number in range(2)], timeout=10)
    found = tree(traces[0])
    assert (found["in 0"], found["in 1"], found["greenlet 0"]) == ("greenlet 0", "greenlet 1", "outer")


def test_forked_child_hangs_below_the_event_in_which_it_was_forked(queue: FakeQueue) -> None:
    with epsagon.trace("run"), epsagon.event("forks") as forks:

        def work() -> None:
            with epsagon.event("in child") as mine:
                epsagon.add_event(READY)
            ready, own = queue.bodies(Kind.EVENT)
            assert (ready["parent_id"], own["parent_id"]) == (mine.id, forks.id)

        assert exit_code(in_child(work)) == 0


def test_attached_process_hangs_below_the_event_in_which_the_handle_was_made(queue: FakeQueue) -> None:
    with epsagon.trace("run") as tracer:
        assert tracer.handle().parent_id is None
        with epsagon.event("sends the handle") as event:
            handle = tracer.handle()
    attached = epsagon.attach(handle)
    attached.add_event(READY)
    with attached:
        record("in block")
        assert attached.handle().parent_id == event.id
    assert [body["parent_id"] for body in queue.others["/fake"].bodies(Kind.EVENT)] == [event.id] * 2


def test_block_that_becomes_a_trace_is_the_parent_of_what_began_in_it(traces: list[dict[str, Any]]) -> None:
    async def outlives() -> None:
        with epsagon.trace("block"), epsagon.event("child"):
            await over.wait()
            record("grandchild")

    over = asyncio.Event()

    async def main() -> asyncio.Task[None]:
        with epsagon.trace("request"), epsagon.event("asks"):
            task = asyncio.create_task(outlives())
            await asyncio.sleep(0)
        over.set()
        await task
        return task

    asyncio.run(main())
    request, block = traces
    assert tree(block) == {"grandchild": "child", "child": None}
    assert block["events"][-1]["parent_id"] == request["events"][0]["id"]


def test_caller_of_a_request_is_the_parent_of_its_runner(traces: list[dict[str, Any]]) -> None:
    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        headers: dict[str, str] = {}
        with epsagon.event("calls on") as event:
            propagation.inject(headers)
        assert headers["traceparent"].split("-")[2] == event.id
        propagation.inject(headers)
        sent.append(headers["traceparent"])
        return [b"ok"]

    sent: list[str] = []
    came = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    [*wsgi.TracingMiddleware(app)(environ_of(HTTP_TRACEPARENT=came), lambda *_: None)]
    [trace] = traces
    runner = trace["events"][-1]
    assert runner["parent_id"] == "00f067aa0ba902b7"
    assert list(runner) == [*EVENT_FIELDS, "parent_id"]
    assert sent[0].split("-")[2] == runner["id"][:16]


def test_trimming_keeps_the_parent() -> None:
    event = json.dumps({**READY, "parent_id": "00000000000000ab"}).encode()
    [trimmed] = trim([event], len(event) - 1).events
    assert json.loads(trimmed)["parent_id"] == "00000000000000ab"


def test_backend_takes_a_parent_that_is_a_text() -> None:
    def body(parent_id: Any) -> bytes:
        events = [{**READY, "parent_id": parent_id}]
        trace = {"app_name": "a", "token": "t", "events": events, "exceptions": [], "version": "1", "platform": "p"}
        return json.dumps(trace).encode()

    assert shape.checked(body("00000000000000ab"))["events"][0]["parent_id"] == "00000000000000ab"
    with pytest.raises(shape.NotATrace, match="parent_id must be a string"):
        shape.checked(body(7))


def test_deep_nesting_costs_no_depth(traces: list[dict[str, Any]]) -> None:
    with epsagon.trace("run"):
        events = [epsagon.event(f"{number}") for number in range(3000)]
        for event in events:
            event.__enter__()
        for event in reversed(events):
            event.__exit__(None, None, None)
    assert events[-1].parent_id == events[-2].id


def outward(place: Any) -> int:
    """Return how many places are around one."""
    return 0 if (outer := getattr(place, "outer", None)) is None else 1 + outward(outer)


def test_blocks_that_each_begin_in_the_one_before_make_no_chain(traces: list[dict[str, Any]]) -> None:
    @epsagon.trace("call")
    def call() -> contextvars.Context:
        return contextvars.copy_context()

    def event() -> contextvars.Context:
        with epsagon.event("event"):
            return contextvars.copy_context()

    with epsagon.trace("run"):
        context = contextvars.copy_context()
        for block in (call, event, event, call) * 500:
            context = context.run(block)
        assert outward(context[current]) <= 2
        context.run(record, "last")
    context.run(call)
    run, own = traces
    *events, _ = run["events"]
    assert [event.get("parent_id") for event in events] == [None, *(event["id"] for event in events[:-1])]
    assert own["events"][-1]["resource"]["name"] == "call"


def test_blocks_may_nest_deeper_than_calls(traces: list[dict[str, Any]]) -> None:
    with epsagon.trace("request"):
        blocks = [epsagon.trace(f"{number}") for number in range(1200)]
        for block in blocks:
            block.__enter__()
        context = contextvars.copy_context()
    assert context.run(epsagon.current_ids) is None
    context.run(record, "late")
    for block in reversed(blocks):
        context.run(block.__exit__, None, None, None)
    _, heir = traces
    assert heir["events"][-1]["resource"]["name"] == "0"
    assert tree(heir)["late"] == "1199"
