import asyncio
import functools
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from fakes import FakeQueue

import epsagon_fast as epsagon
from epsagon_fast.producer import current, entering
from epsagon_fast.producer.process import process
from epsagon_fast.protocol import Kind


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


def traces_of(queue: FakeQueue, kind: Kind) -> list[str]:
    return [record.trace_id.hex() for record in queue.records if record.kind == kind]


def test_bound_function_runs_in_the_trace_of_its_binder(queue: FakeQueue, pool: ThreadPoolExecutor) -> None:
    with epsagon.trace("a") as first:
        label_first = epsagon.bind(epsagon.label)
    with epsagon.trace("b") as second:
        label_second = epsagon.bind(epsagon.label)
        pool.submit(label_second, "k", 1).result(10)
        pool.submit(label_second, key="k", value=2).result(10)
        # The first trace has ended.
        pool.submit(label_first, "k", 3).result(10)
    assert traces_of(queue, Kind.LABEL) == [second.trace_id] * 2
    assert first.trace_id != second.trace_id
    assert process.refusals() == {"no_trace": 1}


def test_what_is_bound_comes_back_as_it_went(queue: FakeQueue) -> None:
    def work(number: int) -> int:
        """Do it."""
        return 1 // number

    assert epsagon.bind(work) is work
    with epsagon.trace("a"):
        bound = epsagon.bind(work)
    assert (bound.__name__, bound.__doc__, bound(1)) == ("work", "Do it.", 1)
    with pytest.raises(ZeroDivisionError):
        bound(0)
    assert entering.current.get() is None


def test_caller_is_again_where_it_was(queue: FakeQueue) -> None:
    with epsagon.trace("a"):
        bound = epsagon.bind(epsagon.label)
        with epsagon.trace("b", new=True) as inner:
            bound("k", 1)
            epsagon.label("k", 2)
            assert current.current_trace() is inner


@pytest.mark.parametrize("wrap", [functools.partial, lambda function: function], ids=["partial", "function"])
def test_bound_coroutine_runs_in_the_trace_step_by_step(queue: FakeQueue, wrap: Callable[[Any], Any]) -> None:
    async def work() -> None:
        await asyncio.sleep(0)
        epsagon.label("k", 1)

    async def main() -> None:
        with epsagon.trace("a"):
            bound = epsagon.bind(wrap(work))
            with epsagon.trace("b", new=True):
                await asyncio.create_task(bound())

    asyncio.run(main())
    [opened, _] = traces_of(queue, Kind.OPEN)
    assert traces_of(queue, Kind.LABEL) == [opened]


class Awaited:
    async def __call__(self) -> None:
        await asyncio.sleep(0)
        epsagon.label("k", 1)


def steps() -> Iterator[int]:
    yield 1
    epsagon.label("k", 1)


async def asteps() -> AsyncIterator[int]:
    yield 1
    epsagon.label("k", 1)


async def collect(items: AsyncIterator[int]) -> list[int]:
    return [item async for item in items]


@pytest.mark.parametrize(
    ("function", "run"),
    [(Awaited(), asyncio.run), (steps, list), (asteps, lambda items: asyncio.run(collect(items)))],
    ids=["awaited", "generator", "async generator"],
)
def test_later_steps_of_what_is_bound_are_in_the_trace_too(
    queue: FakeQueue, pool: ThreadPoolExecutor, function: Callable[[], Any], run: Callable[[Any], Any]
) -> None:
    with epsagon.trace("a") as tracer:
        bound = epsagon.bind(function)
        pool.submit(lambda: run(bound())).result(10)
    assert traces_of(queue, Kind.LABEL) == [tracer.trace_id]


def test_class_can_be_bound(queue: FakeQueue, pool: ThreadPoolExecutor) -> None:
    class Labels:
        def __init__(self) -> None:
            epsagon.label("k", 1)

    with epsagon.trace("a") as tracer:
        pool.submit(epsagon.bind(Labels)).result(10)
    assert traces_of(queue, Kind.LABEL) == [tracer.trace_id]


def test_what_is_not_traced_stays_so_in_another_thread(queue: FakeQueue, pool: ThreadPoolExecutor) -> None:
    with current.within(current.NOT_TRACED):
        bound = epsagon.bind(epsagon.label)
    pool.submit(bound, "k", 1).result(10)
    assert process.refusals() == {}


def test_block_inside_a_bound_function_is_an_event_of_the_trace(queue: FakeQueue) -> None:
    with epsagon.trace("request"):
        thread = threading.Thread(target=epsagon.bind(epsagon.trace("step")(lambda: None)))
        thread.start()
        thread.join(10)
    assert queue.kinds == ["OPEN", "EVENT", "CLOSE"]
