import asyncio
import contextlib
import contextvars
import gc
import json
import multiprocessing
import os
import signal
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Any

import pytest
from fakes import FakeQueue
from hostile import HostileError, HostileExit

import epsagon_fast as epsagon
from epsagon_fast import ErrorCode
from epsagon_fast.producer import current, entering
from epsagon_fast.producer.process import process
from epsagon_fast.protocol import Kind, Record

pytestmark = pytest.mark.usefixtures("each_block")


def of(queue: FakeQueue, tracer: epsagon.Tracer) -> list[Record]:
    return [record for record in queue.records if record.trace_id.hex() == tracer.trace_id]


def test_trace_has_a_runner_of_its_own(queue: FakeQueue) -> None:
    with epsagon.trace("checkout") as tracer:
        pass
    [opened] = queue.bodies(Kind.OPEN)
    runner = opened["runner"]
    assert runner["id"] == tracer.trace_id
    assert runner["origin"] == "runner"
    assert runner["resource"] == {
        "name": "checkout",
        "type": "python-function",
        "operation": "invoke",
        "metadata": {},
    }
    assert runner["start_time"] == pytest.approx(opened["opened_at"], abs=60)
    [(duration_s, error_code)] = queue.bodies(Kind.CLOSE)
    assert duration_s >= 0
    assert error_code == -1


def test_a_trace_lasts_from_its_start_also_where_a_collector_has_to_be_launched_first(
    queue: FakeQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, writer_for = [100.0], type(process).writer_for

    def launching(self: Any, wanted: Any) -> Any:
        now[0] += 0.5
        return writer_for(self, wanted)

    monkeypatch.setattr(type(process), "writer_for", launching)
    monkeypatch.setattr("epsagon_fast.producer.tracer.time.perf_counter_ns", lambda: int(now[0] * 1e9))
    with epsagon.trace("work"):
        pass
    [(duration_s, _)] = queue.bodies(Kind.CLOSE)
    assert duration_s == 0.5


def test_trace_inside_a_trace_is_a_timed_event(queue: FakeQueue) -> None:
    with epsagon.trace("outer") as outer, epsagon.trace("inner") as inner:
        assert inner is outer
    assert queue.kinds == ["OPEN", "EVENT", "CLOSE"]
    [event] = queue.bodies(Kind.EVENT)
    assert event["resource"]["name"] == "inner"
    assert event["origin"] != "runner"
    assert event["id"]
    assert event["start_time"] > 0
    assert event["duration"] >= 0


def test_new_opens_a_separate_trace(queue: FakeQueue) -> None:
    with epsagon.trace("outer") as outer, epsagon.trace("inner", new=True) as inner:
        epsagon.label("k", 1)
    assert inner.trace_id != outer.trace_id
    assert [Kind(record.kind).name for record in of(queue, inner)] == ["OPEN", "LABEL", "CLOSE"]
    assert [Kind(record.kind).name for record in of(queue, outer)] == ["OPEN", "CLOSE"]


def test_outer_trace_is_current_again_after_an_inner_one(queue: FakeQueue) -> None:
    with epsagon.trace("outer") as outer:
        with epsagon.trace("inner", new=True):
            pass
        with epsagon.trace("event"):
            pass
        epsagon.label("k", 1)
    assert [Kind(record.kind).name for record in of(queue, outer)] == ["OPEN", "EVENT", "LABEL", "CLOSE"]


def test_event_is_timed_and_takes_changes_until_the_end(queue: FakeQueue) -> None:
    with epsagon.trace("a"), epsagon.event("charge", type="http", operation="POST") as event:
        event.metadata["card"] = "visa"
        event.metadata["amount"] = 3
    [sent] = queue.bodies(Kind.EVENT)
    assert sent["id"] == event.id
    assert sent["start_time"] == event.start_time > 0
    assert sent["duration"] == event.duration >= 0
    assert sent["error_code"] == 0
    assert sent["exception"] is None
    assert sent["resource"] == {
        "name": "charge",
        "type": "http",
        "operation": "POST",
        "metadata": {"card": "visa", "amount": "3"},
    }


def test_event_without_a_trace_is_counted(queue: FakeQueue) -> None:
    with epsagon.event("charge"):
        pass
    assert process.refusals() == {"no_trace": 1}


def test_event_belongs_to_the_trace_in_which_it_began(queue: FakeQueue) -> None:
    with epsagon.trace("a") as tracer:
        event = epsagon.event("charge")
        event.__enter__()
        with epsagon.trace("b", new=True):
            event.__exit__(None, None, None)
    assert [Kind(record.kind).name for record in of(queue, tracer)] == ["OPEN", "EVENT", "CLOSE"]


# Exceptions that leave a block.


def test_exception_that_leaves_a_trace_is_recorded_and_goes_on(queue: FakeQueue) -> None:
    with pytest.raises(ValueError, match="no stock"), epsagon.trace("a"):
        raise ValueError("no stock")
    [partial] = queue.bodies(Kind.RUNNER)
    assert partial["error_code"] == ErrorCode.EXCEPTION
    assert (partial["exception"]["type"], partial["exception"]["message"]) == ("ValueError", "no stock")
    assert "no stock" in partial["exception"]["traceback"]
    [(_, error_code)] = queue.bodies(Kind.CLOSE)
    assert error_code == ErrorCode.EXCEPTION


def test_exception_that_leaves_an_event_is_recorded_and_goes_on(queue: FakeQueue) -> None:
    with epsagon.trace("a"):
        with pytest.raises(KeyError), epsagon.event("charge"):
            raise KeyError("k")
        with pytest.raises(KeyError), epsagon.trace("inner"):
            raise KeyError("k")
    for event in queue.bodies(Kind.EVENT):
        assert event["error_code"] == ErrorCode.EXCEPTION
        assert event["exception"]["type"] == "KeyError"
    [(_, error_code)] = queue.bodies(Kind.CLOSE)
    assert error_code == -1


@pytest.mark.parametrize("error", [GeneratorExit(), asyncio.CancelledError(), SystemExit(), SystemExit(0)])
def test_leaving_in_good_order_is_no_error(queue: FakeQueue, error: BaseException) -> None:
    with pytest.raises(type(error)), epsagon.trace("a"):
        with pytest.raises(type(error)), epsagon.event("b"):
            raise error
        raise error
    assert queue.kinds == ["OPEN", "EVENT", "CLOSE"]
    assert queue.bodies(Kind.EVENT)[0]["error_code"] == 0


@pytest.mark.parametrize("error", [SystemExit(1), SystemExit("no disk"), KeyboardInterrupt(), Exception()])
def test_leaving_otherwise_is_an_error(queue: FakeQueue, error: BaseException) -> None:
    with pytest.raises(type(error)), epsagon.trace("a"):
        raise error
    assert queue.kinds == ["OPEN", "RUNNER", "CLOSE"]


# Threads, tasks, processes.


def test_threads_do_not_mix_up_traces(queue: FakeQueue) -> None:
    barrier = threading.Barrier(8)

    def work(name: str) -> None:
        for _ in range(20):
            with epsagon.trace(name):
                barrier.wait(60)
                epsagon.label("name", name)
                with epsagon.event(name):
                    barrier.wait(60)

    threads = [threading.Thread(target=work, args=(str(number),)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    opened = {record.trace_id: body for record, body in zip(opens(queue), queue.bodies(Kind.OPEN), strict=True)}
    assert len(opened) == 160
    for record in queue.records:
        name = opened[record.trace_id]["runner"]["resource"]["name"]
        if record.kind == Kind.LABEL:
            assert record.payload == f'["name","{name}"]'.encode()
        if record.kind == Kind.EVENT:
            assert f'"name":"{name}"'.encode() in record.payload


def opens(queue: FakeQueue) -> list[Record]:
    return [record for record in queue.records if record.kind == Kind.OPEN]


def test_tasks_do_not_mix_up_traces(queue: FakeQueue) -> None:
    seen: dict[str, set[str]] = {}

    async def work(name: str) -> None:
        with epsagon.trace(name) as tracer:
            for _ in range(10):
                await asyncio.sleep(0)
                with epsagon.trace("inner") as here:
                    await asyncio.sleep(0)
                seen.setdefault(name, set()).add(here.trace_id)
        assert seen[name] == {tracer.trace_id}

    async def all_of_them() -> None:
        await asyncio.gather(*(work(str(number)) for number in range(20)))

    asyncio.run(all_of_them())
    assert len(set.union(*seen.values())) == 20


def test_task_that_outlives_its_request_opens_a_trace_of_its_own(queue: FakeQueue) -> None:
    async def afterwards(requested: asyncio.Event) -> str:
        await requested.wait()
        with epsagon.trace("afterwards") as tracer:
            return tracer.trace_id

    async def request() -> tuple[str, str]:
        done = asyncio.Event()
        with epsagon.trace("request") as tracer:
            task = asyncio.create_task(afterwards(done))
        done.set()
        return tracer.trace_id, await task

    first, second = asyncio.run(request())
    assert first != second
    assert queue.kinds == ["OPEN", "CLOSE", "OPEN", "CLOSE"]


def test_forked_child_opens_a_trace_of_its_own_and_closes_nothing_inherited(queue: FakeQueue) -> None:
    with epsagon.trace("parent") as tracer, epsagon.event("shared"):
        pid = os.fork()
        if pid == 0:
            with epsagon.trace("child") as own:
                pass
            epsagon.label("k", 1)
            ok = own.trace_id != tracer.trace_id and queue.kinds == ["OPEN", "OPEN", "CLOSE", "LABEL"]
        else:
            # Once the parent has left its trace, the child is in none.
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    if pid == 0:
        # Both blocks were left above.
        ok = ok and queue.kinds == ["OPEN", "OPEN", "CLOSE", "LABEL"]
        os._exit(0 if ok else 1)
    assert queue.kinds == ["OPEN", "EVENT", "CLOSE"]


def test_error_in_a_forked_child_is_not_the_parents(queue: FakeQueue) -> None:
    pid = 0
    try:
        with epsagon.trace("parent"):
            pid = os.fork()
            if pid == 0:
                raise SystemExit(1)
    except SystemExit:
        os._exit(0 if queue.kinds == ["OPEN"] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_one_trace_object_serves_nested_blocks_and_threads(queue: FakeQueue) -> None:
    work = epsagon.trace("work")
    with work, work:
        pass
    assert queue.kinds == ["OPEN", "EVENT", "CLOSE"]
    queue.records.clear()
    barrier = threading.Barrier(2)

    def hold() -> None:
        with work:
            barrier.wait(60)
            barrier.wait(60)

    thread = threading.Thread(target=hold)
    with work as tracer:
        thread.start()
        barrier.wait(60)
    assert tracer.stopped
    assert queue.kinds == ["OPEN", "OPEN", "CLOSE"]
    barrier.wait(60)
    thread.join(60)
    assert queue.kinds == ["OPEN", "OPEN", "CLOSE", "CLOSE"]


def test_one_trace_object_serves_overlapping_tasks(queue: FakeQueue) -> None:
    step = epsagon.trace("step")
    apart = epsagon.trace("apart", new=True)

    async def first(entered: asyncio.Event, left: asyncio.Event) -> None:
        with pytest.raises(KeyError), step:
            await entered.wait()
            raise KeyError("first")
        left.set()

    async def second(entered: asyncio.Event, left: asyncio.Event) -> None:
        with step, apart:
            entered.set()
            await left.wait()
            epsagon.label("second", 1)

    async def both() -> None:
        entered, left = asyncio.Event(), asyncio.Event()
        with epsagon.trace("request"), step:
            await asyncio.gather(first(entered, left), second(entered, left))

    asyncio.run(both())
    ended = [(event["duration"], event["exception"] is not None) for event in queue.bodies(Kind.EVENT)]
    # The first task's, the second's, the one around both.
    assert [failed for _, failed in ended] == [True, False, False]
    # Between the beginnings of the two tasks the machine may have done something else.
    assert max(ended[0][0], ended[1][0]) < ended[2][0]
    assert queue.kinds.count("CLOSE") == 2


def test_exception_that_leaves_an_event_keeps_nothing_alive(queue: FakeQueue) -> None:
    class Local: ...

    def fail(left: list[weakref.ref[Local]]) -> None:
        local = Local()
        left.append(weakref.ref(local))
        with epsagon.event("query"):
            raise KeyError("no row")

    gc.collect()
    gc.disable()
    try:
        for call in (fail, epsagon.trace(fail)):
            left: list[weakref.ref[Local]] = []
            with epsagon.trace("request"), contextlib.suppress(KeyError):
                call(left)
            assert left[0]() is None
    finally:
        gc.enable()


def test_signal_handler_may_trace(queue: FakeQueue) -> None:
    def handle(number: int, frame: object) -> None:
        with epsagon.trace("handler", new=True):
            pass

    before = signal.signal(signal.SIGUSR1, handle)
    try:
        with epsagon.trace("work"):
            signal.raise_signal(signal.SIGUSR1)
            epsagon.label("k", 1)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert queue.kinds == ["OPEN", "OPEN", "CLOSE", "LABEL", "CLOSE"]


def test_leaving_a_plain_generator_late_does_not_take_away_the_trace_of_its_consumer(queue: FakeQueue) -> None:
    def items() -> object:
        with epsagon.trace("items"):
            yield 1

    generator = items()
    next(generator)  # type: ignore[call-overload]
    with epsagon.trace("consumer", new=True) as tracer:
        assert list(generator) == []  # type: ignore[call-overload]
        epsagon.label("k", 1)
    # What was current when the consumer's trace began is so again: the one that the generator had left open.
    assert current.current_trace() is None
    assert entering.current.get() is not None
    entering.current.set(None)
    assert [Kind(record.kind).name for record in of(queue, tracer)] == ["OPEN", "LABEL", "CLOSE"]


@pytest.mark.parametrize(("kind", "code"), [(HostileError, 2), (HostileExit, 0)], ids=["error", "exit"])
def test_exception_that_answers_no_question_goes_on_its_way(
    queue: FakeQueue, kind: type[BaseException], code: int
) -> None:
    error = kind()
    try:
        with epsagon.trace("outer"), epsagon.event("inner"):
            raise error
    except BaseException as caught:
        assert caught is error
    epsagon.error(kind())
    [inner] = queue.bodies(Kind.EVENT)
    assert inner["error_code"] == code


# Work that outlives the trace that it is part of.


def test_traced_coroutine_that_outlives_its_trace_becomes_a_trace_of_its_own_with_the_same_id(queue: FakeQueue) -> None:
    ended = asyncio.Event()

    @epsagon.trace("background")
    async def background() -> None:
        epsagon.label("k", "before")
        await ended.wait()
        with epsagon.event("query"):
            pass
        epsagon.label("k", "after")

    async def main() -> epsagon.Tracer:
        with epsagon.trace("request") as tracer:
            task = asyncio.create_task(background())
            await asyncio.sleep(0)
        ended.set()
        await task
        return tracer

    request = asyncio.run(main())
    own = [record for record in queue.records if record.trace_id.hex() != request.trace_id]
    assert [Kind(record.kind).name for record in of(queue, request)] == ["OPEN", "LABEL", "CLOSE"]
    assert [Kind(record.kind).name for record in own] == ["OPEN", "EVENT", "LABEL", "CLOSE"]
    runner = json.loads(own[0].payload)["runner"]
    assert runner["resource"]["name"] == "background"
    assert runner["resource"]["metadata"]["http_trace_id"] == request.trace_id
    assert queue.counts == {}


@pytest.mark.parametrize("outer_ends_first", [False, True])
def test_block_that_ends_after_its_trace_is_in_time_and_error_a_trace(queue: FakeQueue, outer_ends_first: bool) -> None:
    tracer = epsagon.create_tracer()
    with tracer, current.within(tracer):
        block = epsagon.trace("block")
        block.__enter__()
        if outer_ends_first:
            tracer.send_stop_signal()
        block.__exit__(ValueError, ValueError("x"), None)
    kinds = ["OPEN", "CLOSE", "OPEN", "RUNNER", "CLOSE"] if outer_ends_first else ["OPEN", "EVENT", "CLOSE"]
    assert queue.kinds == kinds
    assert queue.counts == {}


def test_child_that_was_forked_inside_a_trace_sees_its_end(queue: FakeQueue) -> None:
    ended, told = os.pipe()
    looked, saw = os.pipe()
    with epsagon.trace("request"):
        pid = os.fork()
        if pid == 0:
            inside = current.acting_trace() is not None
            os.write(saw, b"x")
            os.read(ended, 1)
            os._exit(0 if inside and current.acting_trace() is None else 1)
        os.read(looked, 1)
        # Others that end and begin meanwhile are not it.
        for _ in range(300):
            with epsagon.trace("other", new=True):
                pass
    with epsagon.trace("next"):
        os.write(told, b"x")
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@pytest.mark.parametrize("kind", ["executor", "pool"])
def test_worker_of_a_pool_that_was_made_inside_a_trace_is_in_none(queue: FakeQueue, kind: str) -> None:
    context = multiprocessing.get_context("fork")
    with epsagon.trace("request"):
        if kind == "pool":
            with context.Pool(1) as pool:
                assert pool.apply(current.acting_trace) is None
        else:
            with ProcessPoolExecutor(1, mp_context=context) as executor:
                assert executor.submit(current.acting_trace).result(30) is None
        assert current.acting_trace() is not None


def test_context_that_outlives_a_trace_does_not_hold_it(queue: FakeQueue) -> None:
    with epsagon.trace("request") as tracer, epsagon.trace("inner"):
        kept = contextvars.copy_context()
    gone = weakref.ref(tracer)
    del tracer
    assert gone() is None
    assert kept.run(current.current_trace) is None


def test_failed_generator_leaves_nothing_to_the_garbage_collector(queue: FakeQueue) -> None:
    class Failure(Exception):
        pass

    @epsagon.trace
    def items() -> Iterator[int]:
        yield 1

    def fail() -> None:
        generator = items()
        next(generator)
        with pytest.raises(Failure):
            generator.throw(Failure())  # type: ignore[attr-defined]

    fail()
    gc.collect()
    gc.disable()
    try:
        fail()
        assert gc.collect() == 0
    finally:
        gc.enable()


@pytest.mark.parametrize("make", [epsagon.trace, epsagon.event, partial(epsagon.trace, new=True)])
@pytest.mark.parametrize("error", [None, ValueError("x")])
def test_a_block_that_is_left_without_having_been_entered_does_nothing(
    queue: FakeQueue, make: Any, error: BaseException | None
) -> None:
    left = (type(error) if error else None, error, None)
    assert make("before").__exit__(*left) is None
    with epsagon.trace("run"):
        here = current.anywhere()
        assert make("inside").__exit__(*left) is None
        assert current.anywhere() is here
    assert queue.kinds == ["OPEN", "CLOSE"]
