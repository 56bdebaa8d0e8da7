import asyncio
import contextlib
import functools
import inspect
import threading
import types
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from typing import Any

import orjson
import pytest
from fakes import FakeQueue

import epsagon_fast as epsagon
from epsagon_fast.producer import current, scope
from epsagon_fast.producer.arguments import MAX_VALUE_BYTES
from epsagon_fast.protocol import ErrorCode, Kind

pytestmark = pytest.mark.usefixtures("each_block")


def names(queue: FakeQueue) -> list[str]:
    return [opened["runner"]["resource"]["name"] for opened in queue.bodies(Kind.OPEN)]


def labels_by_trace(queue: FakeQueue) -> dict[str, list[Any]]:
    """The keys of the labels of each trace, by its runner's name."""
    found: dict[bytes, list[Any]] = {}
    order = []
    for record in queue.records:
        if record.kind == Kind.OPEN:
            order.append((orjson.loads(record.payload)["runner"]["resource"]["name"], record.trace_id))
            found[record.trace_id] = []
        if record.kind == Kind.LABEL:
            found[record.trace_id].append(orjson.loads(record.payload)[0])
    return {name: found[trace_id] for name, trace_id in order}


def test_bare_decorator_takes_the_qualified_name(queue: FakeQueue) -> None:
    class Shop:
        @epsagon.trace
        def checkout(self, amount: int) -> int:
            """Check out."""
            return 2 * amount

        @staticmethod
        @epsagon.trace("static")
        def static() -> None: ...

        @classmethod
        @epsagon.trace
        def made(cls) -> "Shop":
            return cls()

    assert Shop.made().checkout(3) == 6
    Shop.static()
    local = "test_bare_decorator_takes_the_qualified_name.<locals>."
    assert names(queue) == [f"{local}Shop.made", f"{local}Shop.checkout", "static"]
    assert Shop.checkout.__name__ == "checkout"
    assert Shop.checkout.__doc__ == "Check out."


def test_decorators_of_methods_may_be_written_in_either_order(queue: FakeQueue) -> None:
    class Shop:
        @epsagon.trace("static")
        @staticmethod
        def static(amount: int) -> int:
            return amount

        @epsagon.trace
        @classmethod
        def named(cls) -> str:
            return cls.__name__

    assert (Shop.static(1), Shop().static(2), Shop.named(), Shop().named()) == (1, 2, "Shop", "Shop")
    local = "test_decorators_of_methods_may_be_written_in_either_order.<locals>."
    assert names(queue) == ["static", "static", f"{local}Shop.named", f"{local}Shop.named"]


def test_every_call_is_a_trace_of_its_own(queue: FakeQueue) -> None:
    @epsagon.trace("count")
    def count(number: int) -> int:
        return number if number == 0 else count(number - 1)

    count(0)
    count(0)
    assert queue.kinds == ["OPEN", "CLOSE"] * 2
    queue.records.clear()
    count(2)
    assert queue.kinds == ["OPEN", "EVENT", "EVENT", "CLOSE"]


def test_decorator_with_new_opens_a_separate_trace(queue: FakeQueue) -> None:
    @epsagon.trace(new=True)
    def work() -> None: ...

    with epsagon.trace("outer"):
        work()
    assert queue.kinds == ["OPEN", "OPEN", "CLOSE", "CLOSE"]


def test_kind_of_the_function_stays_what_it_was() -> None:
    def plain() -> None: ...
    async def coroutine() -> None: ...
    def generator() -> Iterator[int]:
        yield 1

    async def async_generator() -> AsyncIterator[int]:
        yield 1

    assert inspect.iscoroutinefunction(epsagon.trace(coroutine))
    assert inspect.isgeneratorfunction(epsagon.trace(generator))
    assert inspect.isasyncgenfunction(epsagon.trace(async_generator))
    assert inspect.isfunction(epsagon.trace(plain))


def test_generator_that_is_a_coroutine_stays_one(queue: FakeQueue) -> None:
    @epsagon.trace("old style")
    @types.coroutine
    def old(label: str) -> Generator[Any, Any, int]:
        epsagon.label(label, 1)
        yield from asyncio.sleep(0).__await__()
        return 5

    async def main() -> None:
        assert await old("k") == 5

    asyncio.run(main())
    assert labels_by_trace(queue) == {"old style": ["k"]}


@pytest.mark.parametrize("wrap", [lambda job: job, functools.partial], ids=["itself", "partial"])
def test_object_that_is_called_as_a_coroutine_is_traced_until_it_ends(queue: FakeQueue, wrap: Any) -> None:
    class Job:
        async def __call__(self) -> int:
            await asyncio.sleep(0)
            epsagon.label("k", 1)
            return 7

    assert asyncio.run(epsagon.trace("job")(wrap(Job()))()) == 7
    assert queue.kinds == ["OPEN", "LABEL", "CLOSE"]


def test_value_of_a_closed_generator_is_that_without_a_trace(queue: FakeQueue) -> None:
    def items() -> Iterator[int]:
        with contextlib.suppress(GeneratorExit):
            yield 1
        return "closed"  # type: ignore[return-value]

    def value_of(generator: Any) -> Any:
        next(generator)
        return generator.close()

    assert value_of(epsagon.trace("traced")(items)()) == value_of(items())
    assert queue.kinds == ["OPEN", "CLOSE"]


@pytest.mark.parametrize("target", [int, 5, [1]], ids=repr)
def test_what_is_no_function_is_refused_at_once(target: Any) -> None:
    with pytest.raises(TypeError, match="trace decorates functions"):
        epsagon.trace("name")(target)


def test_coroutine_is_traced_until_it_ends(queue: FakeQueue) -> None:
    @epsagon.trace("work")
    async def work(name: str) -> str:
        await asyncio.sleep(0)
        epsagon.label(name, 1)
        return name

    async def several() -> list[str]:
        return await asyncio.gather(work("a"), work("b"))

    assert asyncio.run(several()) == ["a", "b"]
    assert names(queue) == ["work", "work"]
    labelled = {record.trace_id for record in queue.records if record.kind == Kind.LABEL}
    assert len(labelled) == 2


def test_cancelled_coroutine_is_no_error(queue: FakeQueue) -> None:
    @epsagon.trace
    async def wait() -> None:
        await asyncio.sleep(3600)

    async def cancel() -> None:
        task = asyncio.create_task(wait())
        while not queue.records:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel())
    assert queue.kinds == ["OPEN", "CLOSE"]


def test_coroutine_that_awaits_a_cancelled_task_has_failed(queue: FakeQueue) -> None:
    @epsagon.trace
    async def wait() -> None:
        task = asyncio.ensure_future(asyncio.sleep(3600))
        task.cancel()
        with epsagon.event("inner"):
            await task

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(wait())
    [event] = queue.bodies(Kind.EVENT)
    [runner] = queue.bodies(Kind.RUNNER)
    [(_, error_code)] = queue.bodies(Kind.CLOSE)
    assert [event["error_code"], error_code] == [ErrorCode.EXCEPTION] * 2
    assert [failed["exception"]["type"] for failed in (event, runner)] == ["CancelledError"] * 2


# Generators.


@epsagon.trace("items")
def items(count: int) -> Generator[int, Any, str]:
    for number in range(count):
        received = yield number
        epsagon.label(f"item {number} {received}", 1)
    return "end"


def test_generator_is_not_current_between_its_steps(queue: FakeQueue) -> None:
    with epsagon.trace("consumer"):
        for number in epsagon.trace("own", new=True)(items.__wrapped__)(2):  # type: ignore[attr-defined]
            epsagon.label(f"consumer {number}", 1)
    assert labels_by_trace(queue) == {
        "consumer": ["consumer 0", "consumer 1"],
        "own": ["item 0 None", "item 1 None"],
    }


def test_generator_keeps_its_trace_to_itself(queue: FakeQueue) -> None:
    generator = items(2)
    next(generator)
    assert current.acting_trace() is None
    with epsagon.trace("consumer"):
        next(generator)
        epsagon.label("consumer", 1)
    assert labels_by_trace(queue) == {"items": ["item 0 None"], "consumer": ["consumer"]}


def test_values_exceptions_and_results_pass_through(queue: FakeQueue) -> None:
    @epsagon.trace("echo")
    def echo() -> Generator[Any, Any, str]:
        received = yield "first"
        try:
            while True:
                received = yield received
        except KeyError:
            yield "caught"
        return "result"

    generator = echo()
    assert next(generator) == "first"
    assert generator.send(1) == 1
    assert generator.throw(KeyError("k")) == "caught"
    with pytest.raises(StopIteration) as ended:
        next(generator)
    assert ended.value.value == "result"
    assert queue.kinds == ["OPEN", "CLOSE"]


def test_error_in_a_generator_is_recorded(queue: FakeQueue) -> None:
    @epsagon.trace("broken")
    def broken() -> Iterator[int]:
        yield 1
        raise ValueError("x")

    with pytest.raises(ValueError, match="x"):
        list(broken())
    assert queue.kinds == ["OPEN", "RUNNER", "CLOSE"]


def test_generator_that_is_closed_early_ends_without_error(queue: FakeQueue) -> None:
    cleaned = []

    @epsagon.trace("early")
    def early() -> Iterator[int]:
        try:
            yield 1
            yield 2
        finally:
            epsagon.label("cleaned", 1)
            cleaned.append(1)

    generator = early()
    next(generator)
    generator.close()  # type: ignore[attr-defined]
    assert cleaned == [1]
    assert queue.kinds == ["OPEN", "LABEL", "CLOSE"]


def test_generator_that_is_never_started_opens_no_trace(queue: FakeQueue) -> None:
    items(3).close()
    assert queue.records == []


def test_generator_may_move_between_threads(queue: FakeQueue) -> None:
    generator = items(3)
    for _ in range(3):
        thread = threading.Thread(target=next, args=(generator,))
        thread.start()
        thread.join(60)
    assert list(generator) == []
    assert queue.kinds == ["OPEN", "LABEL", "LABEL", "LABEL", "CLOSE"]


def test_trace_inside_a_generator_stays_inside(queue: FakeQueue) -> None:
    @epsagon.trace("outer")
    def outer() -> Iterator[int]:
        with epsagon.trace("inner", new=True):
            yield 1
            epsagon.label("in inner", 1)
        epsagon.label("in outer", 1)

    for _ in outer():
        epsagon.label("nowhere", 1)
    assert labels_by_trace(queue) == {"outer": ["in outer"], "inner": ["in inner"]}


def test_interleaved_generators_do_not_mix_up_traces(queue: FakeQueue) -> None:
    @epsagon.trace
    def counted(name: str) -> Iterator[str]:
        for _ in range(5):
            epsagon.label(name, 1)
            yield name

    for pair in zip(counted("a"), counted("b"), strict=True):
        assert pair == ("a", "b")
    by_trace: dict[bytes, set[bytes]] = {}
    for record in queue.records:
        if record.kind == Kind.LABEL:
            by_trace.setdefault(record.trace_id, set()).add(record.payload)
    assert sorted(map(sorted, by_trace.values())) == [[b'["a",1]'], [b'["b",1]']]


def test_async_generator_keeps_its_trace_to_itself(queue: FakeQueue) -> None:
    @epsagon.trace("items")
    async def items() -> AsyncGenerator[Any, Any]:
        try:
            received = None
            while True:
                await asyncio.sleep(0)
                epsagon.label(f"item {received}", 1)
                received = yield received
        except KeyError:
            epsagon.label("caught", 1)
            yield "caught"

    async def consume() -> None:
        generator = items()
        await anext(generator)
        with epsagon.trace("consumer"):
            assert await generator.asend(1) == 1
            epsagon.label("consumer", 1)
            assert await generator.athrow(KeyError("k")) == "caught"
        with pytest.raises(StopAsyncIteration):
            await anext(generator)
        assert current.acting_trace() is None

    asyncio.run(consume())
    assert labels_by_trace(queue) == {"items": ["item None", "item 1", "caught"], "consumer": ["consumer"]}
    assert queue.kinds.count("CLOSE") == 2
    assert "RUNNER" not in queue.kinds


def test_async_generator_that_is_closed_early_cleans_up_inside_its_trace(queue: FakeQueue) -> None:
    @epsagon.trace("early")
    async def early() -> AsyncGenerator[int, None]:
        try:
            yield 1
        finally:
            await asyncio.sleep(0)
            epsagon.label("cleaned", 1)

    async def consume() -> None:
        generator = early()
        await anext(generator)
        await generator.aclose()

    asyncio.run(consume())
    assert queue.kinds == ["OPEN", "LABEL", "CLOSE"]


# Arguments and return values.


def test_values_are_not_recorded_by_default(queue: FakeQueue) -> None:
    epsagon.trace("f")(lambda password: password)("hunter2")
    assert queue.kinds == ["OPEN", "CLOSE"]
    assert b"hunter2" not in b"".join(record.payload for record in queue.records)


def test_arguments_and_result_are_recorded_as_they_were_at_the_call(queue: FakeQueue) -> None:
    epsagon.init(metadata_only=False)

    class Shop:
        @epsagon.trace
        def buy(self, item: str, counts: list[int], *more: int, **options: bool) -> str:
            counts.clear()
            return item

    Shop().buy("tea", [1], 2, gift=True)
    first, second = (partial["resource"]["metadata"] for partial in queue.bodies(Kind.RUNNER))
    assert orjson.loads(first["arguments"]) == {"item": "tea", "counts": [1], "more": [2], "options": {"gift": True}}
    assert second == {"return_value": "tea"}


def test_inner_call_records_values_in_its_event(queue: FakeQueue) -> None:
    epsagon.init(metadata_only=False)

    @epsagon.trace
    async def add(a: int, b: int) -> int:
        return a + b

    async def both() -> int:
        with epsagon.trace("outer"):
            return await add(1, b=2)

    assert asyncio.run(both()) == 3
    [event] = queue.bodies(Kind.EVENT)
    assert event["resource"]["metadata"] == {"arguments": '{"a":1,"b":2}', "return_value": "3"}


def test_long_value_is_left_out_whole(queue: FakeQueue) -> None:
    epsagon.init(metadata_only=False)
    epsagon.trace("f")(lambda short, long: long)(1, "x" * (MAX_VALUE_BYTES + 1))
    first, second = (partial["resource"]["metadata"] for partial in queue.bodies(Kind.RUNNER))
    assert orjson.loads(first["arguments"]) == {"short": 1, "long": "<str of 1025 bytes>"}
    assert second == {"return_value": "<str of 1025 bytes>"}


def test_generator_records_its_arguments(queue: FakeQueue) -> None:
    epsagon.init(metadata_only=False)
    list(items(1))
    assert queue.bodies(Kind.RUNNER) == [{"resource": {"metadata": {"arguments": '{"count":1}'}}}]


def test_wrong_call_raises_what_it_would_without_tracing(queue: FakeQueue) -> None:
    epsagon.init(metadata_only=False)

    @epsagon.trace
    def f(a: int) -> None: ...

    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        f()  # type: ignore[call-arg]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_call_of_which_nothing_is_recorded_makes_no_trace(
    queue: FakeQueue, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    def add(value: int) -> int:
        # Ignored, and not counted.
        epsagon.add_event({"id": "a"})
        epsagon.label("k", "v")
        with epsagon.event("charge") as event:
            event.metadata["k"] = "v"
        assert event.duration == 0
        if value < 0:
            raise error
        return value

    @epsagon.trace
    def plain(value: int) -> int:
        return inner(value)

    @epsagon.trace
    def inner(value: int) -> int:
        return add(value)

    @epsagon.trace(new=True)
    async def coroutine(value: int) -> int:
        return add(value)

    @epsagon.trace
    def generator(value: int) -> Iterator[int]:
        yield add(value)

    @epsagon.trace
    async def async_generator(value: int) -> AsyncIterator[int]:
        yield add(value)

    async def last(items: AsyncIterator[int]) -> int:
        return [item async for item in items][-1]

    def check(value: int) -> None:
        before = current.anywhere()
        for call in (
            lambda: plain(value),
            lambda: next(generator(value)),
            lambda: asyncio.run(coroutine(value)),
            lambda: asyncio.run(last(async_generator(value))),
        ):
            with pytest.raises(error) if value < 0 else contextlib.nullcontext():
                assert call() == value
            assert current.anywhere() is before

    epsagon.init(disable=True)
    with epsagon.trace("silent"), monkeypatch.context() as patch:
        patch.setattr(scope, "Tracer", None)
        check(1)
        check(-1)
    monkeypatch.setattr(scope, "Tracer", None)
    check(1)
    check(-1)
    assert (queue.records, queue.counts) == ([], {})


def test_call_inside_a_recorded_trace_is_recorded_when_new_ones_are_not(queue: FakeQueue) -> None:
    @epsagon.trace
    def inside() -> None: ...

    @epsagon.trace(new=True)
    def apart() -> None:
        epsagon.add_event({"id": "ignored"})

    with epsagon.trace("run"):
        epsagon.init(disable=True)
        inside()
        apart()
        epsagon.add_event({"id": "last"})
    events = [event["resource"]["name"] or event["id"] for event in queue.bodies(Kind.EVENT)]
    assert [name.rpartition(".")[2] for name in events] == ["inside", "last"]
