import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.pool import ThreadPool

import pytest
from fakes import FakeQueue

import epsagon_fast as epsagon
from epsagon_fast.integrations import threading as integration
from epsagon_fast.producer.process import process
from epsagon_fast.protocol import Kind

WAIT_S = 10


class Labelling(threading.Thread):
    def run(self) -> None:
        epsagon.label("k", 1)


class Labels(threading.Thread):
    """One whose `run` is an attribute of the object."""

    def __init__(self) -> None:
        super().__init__()
        self.run = lambda: epsagon.label("k", 1)  # type: ignore[method-assign]


THREADS: dict[str, Callable[[], threading.Thread]] = {
    "target": lambda: threading.Thread(target=epsagon.label, args=("k",), kwargs={"value": 1}),
    "timer": lambda: threading.Timer(0, epsagon.label, ("k", 1)),
    "subclass": Labelling,
    "attribute": Labels,
}


@pytest.fixture(autouse=True)
def instrumented() -> Iterator[None]:
    before = threading.Thread.start, ThreadPoolExecutor.submit
    integration.instrument()
    integration.instrument()
    yield
    integration.uninstrument()
    assert before == (threading.Thread.start, ThreadPoolExecutor.submit)


def labelled(queue: FakeQueue) -> list[str]:
    return [record.trace_id.hex() for record in queue.records if record.kind == Kind.LABEL]


@pytest.mark.parametrize("kind", THREADS)
def test_thread_is_in_the_trace_that_started_it(queue: FakeQueue, kind: str) -> None:
    made_elsewhere = THREADS[kind]()
    with epsagon.trace("a") as tracer:
        made_elsewhere.start()
        made_elsewhere.join(WAIT_S)
    outside = THREADS[kind]()
    outside.start()
    outside.join(WAIT_S)
    assert labelled(queue) == [tracer.trace_id]
    assert process.refusals() == {"no_trace": 1}


def test_each_job_of_a_pool_is_in_the_trace_of_its_submitter(queue: FakeQueue) -> None:
    with ThreadPoolExecutor(1) as pool, epsagon.trace("a") as first:
        pool.submit(epsagon.label, "k", 1).result(WAIT_S)
        with epsagon.trace("b", new=True) as second:
            assert [*pool.map(epsagon.label, "k", [1])] == [None]
        # The only thread was started in the first trace, which is still open.
        submit_elsewhere(pool)
    assert labelled(queue) == [first.trace_id, second.trace_id]
    assert process.refusals() == {"no_trace": 1}


def submit_elsewhere(pool: ThreadPoolExecutor) -> None:
    integration.uninstrument()
    try:
        thread = threading.Thread(target=lambda: pool.submit(epsagon.label, "k", 1).result(WAIT_S))
        thread.start()
        thread.join(WAIT_S)
    finally:
        integration.instrument()


def test_threads_of_a_pool_that_all_use_are_in_no_trace(queue: FakeQueue) -> None:
    with epsagon.trace("a"):
        pool = ThreadPool(1)
        pool.apply(epsagon.label, ("k", 1))
        pool.close()
        pool.join()
    assert labelled(queue) == []


def test_thread_that_outlives_its_trace_adds_to_none(queue: FakeQueue) -> None:
    ended = threading.Event()

    def work() -> None:
        ended.wait(WAIT_S)
        epsagon.label("k", 1)
        with epsagon.trace("own"):
            pass

    with epsagon.trace("a"):
        thread = threading.Thread(target=work)
        thread.start()
    ended.set()
    thread.join(WAIT_S)
    assert queue.kinds == ["OPEN", "CLOSE", "OPEN", "CLOSE"]


def test_thread_is_no_garbage_that_holds_itself(queue: FakeQueue) -> None:
    gc.disable()
    try:
        with epsagon.trace("a"):
            thread: threading.Thread | None = Labelling()
            assert thread is not None
            thread.start()
            thread.join(WAIT_S)
            with pytest.raises(RuntimeError, match="started once"):
                thread.start()
            seen = weakref.ref(thread)
            thread = None
            assert seen() is None
    finally:
        gc.enable()


def test_wrapper_of_another_library_stays(monkeypatch: pytest.MonkeyPatch, queue: FakeQueue) -> None:
    ours = threading.Thread.start
    monkeypatch.setattr(threading.Thread, "start", lambda thread: ours(thread))
    integration.uninstrument()
    with epsagon.trace("a"):
        thread = Labelling()
        thread.start()
        thread.join(WAIT_S)
    assert labelled(queue) == []
    monkeypatch.undo()
    integration.uninstrument()
