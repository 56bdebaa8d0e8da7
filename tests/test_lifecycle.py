import asyncio
import gc
import threading
from typing import Any

import pytest
from fakes import FakeQueue

import epsagon_fast as epsagon
from epsagon_fast import Outcome
from epsagon_fast.integrations.asgi import TracingMiddleware
from epsagon_fast.pages import see
from epsagon_fast.producer.process import process
from epsagon_fast.protocol import UNFINISHED, Kind

# init


def test_init_returns_the_config_in_force(queue: FakeQueue) -> None:
    config = epsagon.init(token="t", application_name="shop")
    assert (config.token, config.application_name) == ("t", "shop")
    assert config.send_timeout_s == 1.0


def test_same_arguments_again_change_nothing(queue: FakeQueue) -> None:
    config = epsagon.init(token="t", ignored_keys=["a"])
    assert epsagon.init(token="t", ignored_keys=["a"]) is config


def test_other_arguments_are_for_traces_opened_afterwards(queue: FakeQueue) -> None:
    epsagon.init(application_name="first")
    with epsagon.trace("a") as tracer:
        epsagon.init(application_name="second")
        assert tracer.config.application_name == "first"
        with epsagon.trace("b", new=True):
            pass
    assert [opened["config"]["app_name"] for opened in queue.bodies(Kind.OPEN)] == ["first", "second"]


def test_init_refuses_what_config_refuses(queue: FakeQueue) -> None:
    with pytest.raises(TypeError):
        epsagon.init(no_such_field=1)
    with pytest.raises(TypeError, match="ignored_keys"):
        epsagon.init(ignored_keys="password")
    with pytest.raises(ValueError, match="send_timeout_s"):
        epsagon.init(send_timeout_s=0)


def test_refused_init_leaves_the_config_in_force(queue: FakeQueue) -> None:
    config = epsagon.init(application_name="shop", runtime_dir="/a")
    with epsagon.trace("a"):
        pass
    with pytest.raises(ValueError, match="runtime_dir"):
        epsagon.init(application_name="other", runtime_dir="/b")
    assert epsagon.create_tracer().config is config


def test_init_starts_nothing(queue: FakeQueue) -> None:
    epsagon.init(token="t")
    assert queue.asked == 0


def test_many_threads_may_init_at_once(queue: FakeQueue) -> None:
    barrier = threading.Barrier(8)
    configs = []

    def init() -> None:
        barrier.wait(60)
        configs.append(epsagon.init(token="t", application_name="shop"))

    threads = [threading.Thread(target=init) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(set(configs)) == 1
    assert epsagon.create_tracer().config == configs[0]


# flush


def test_flush_of_a_process_that_never_traced_is_done(queue: FakeQueue) -> None:
    assert epsagon.flush() is True
    assert queue.starts == 0


def test_flush_waits_for_every_closed_trace(queue: FakeQueue) -> None:
    queue.ensure_collector = lambda: queue.settle(Outcome.STORED)  # type: ignore[method-assign]
    with epsagon.trace("open"):
        for _ in range(3):
            with epsagon.trace("a", new=True):
                pass
        assert epsagon.flush(60) is True
    assert (queue.settled, queue.closed) == (3, 4)


def test_flush_says_that_its_time_was_not_enough(queue: FakeQueue) -> None:
    with epsagon.trace("a"):
        pass
    assert epsagon.flush(0.01) is False
    assert epsagon.flush(0) is False
    assert queue.starts > 0


def test_flush_says_why_a_trace_was_not_delivered(queue: FakeQueue, caplog: pytest.LogCaptureFixture) -> None:
    with epsagon.trace("a"):
        pass
    queue.news = [(bytes(16), Outcome.REJECTED.because("HTTP 401"))]
    queue.settle(Outcome.REJECTED)
    epsagon.flush()
    assert [record.message for record in caplog.records] == [f"A trace was rejected: HTTP 401{see('losses')}"]


def test_flush_says_how_many_records_were_refused_since_the_last_one(
    queue: FakeQueue, caplog: pytest.LogCaptureFixture
) -> None:
    with epsagon.trace("a"):
        pass
    process.refuse("queue_full", 3)
    epsagon.flush(0)
    epsagon.flush(0)
    process.refuse("queue_full")
    process.refuse("malformed")
    epsagon.flush(0)
    told = [record.getMessage() for record in caplog.records if "since the last flush" in record.getMessage()]
    assert [text.partition(" records")[0] for text in told] == ["3", "2"]
    assert "queue_full 4" in told[1] and "malformed 1" in told[1]


def test_flush_looks_at_every_folder(queue: FakeQueue) -> None:
    with epsagon.trace("a"):
        pass
    queue.settle(Outcome.DELIVERED)
    queue.at("/old/folder").closed = 1
    assert epsagon.flush(0.01) is False


def test_aflush_lets_the_event_loop_run(queue: FakeQueue) -> None:
    with epsagon.trace("a"):
        pass

    async def both() -> bool:
        flushing = asyncio.create_task(epsagon.aflush(60))
        await asyncio.sleep(0)
        assert not flushing.done()
        queue.settle(Outcome.DELIVERED)
        return await flushing

    assert asyncio.run(both()) is True


# shutdown


def test_shutdown_closes_open_traces_as_unfinished(queue: FakeQueue) -> None:
    with epsagon.trace("a"), epsagon.trace("b", new=True):
        tracer = epsagon.create_tracer()
        tracer.start()
        epsagon.shutdown(0)
    closes = [record for record in queue.records if record.kind == Kind.CLOSE]
    assert [record.flags for record in closes] == [UNFINISHED] * 3


def test_shutdown_refuses_what_comes_after_it(queue: FakeQueue) -> None:
    with epsagon.trace("a") as tracer:
        epsagon.shutdown(0)
        tracer.add_event({})
    with epsagon.trace("b") as refused:
        epsagon.label("k", 1)
    assert queue.counts == {"closed": 3}
    assert refused.stop() == Outcome.DROPPED
    assert "closed" in str(refused.stop())
    assert queue.kinds == ["OPEN", "CLOSE"]


def test_shutdown_waits_for_what_was_closed(queue: FakeQueue) -> None:
    queue.ensure_collector = lambda: queue.settle(Outcome.DELIVERED)  # type: ignore[method-assign]
    with epsagon.trace("a"):
        pass
    epsagon.shutdown(60)
    assert queue.settled == 1


def test_init_after_shutdown_works_again(queue: FakeQueue) -> None:
    config = epsagon.init(token="t")
    epsagon.shutdown(0)
    assert epsagon.init(token="t") is config
    with epsagon.trace("a"):
        pass
    assert queue.kinds == ["OPEN", "CLOSE"]
    assert process.refusals() == {}


def test_shutdown_leaves_traces_of_the_parent_alone(queue: FakeQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    with epsagon.trace("a") as tracer:
        monkeypatch.setattr(tracer, "owner_pid", 1)
        epsagon.shutdown(0)
        assert queue.kinds == ["OPEN"]


def test_shutdown_takes_nothing_more_for_traces_that_others_opened(
    queue: FakeQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    with epsagon.trace("a") as inherited:
        monkeypatch.setattr(inherited, "owner_pid", 1)
        joined = epsagon.attach(inherited.handle())
        queue.records.clear()
        epsagon.shutdown(0)
        for tracer in (inherited, joined, epsagon.attach(inherited.handle())):
            tracer.add_event({})
            tracer.add_label("k", 1)
    assert queue.kinds == []
    assert process.refusals() == {"closed": 6}


def test_asgi_application_that_says_its_token_in_its_lifespan_is_not_told_that_it_has_none(
    untraced: None, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(*_: Any) -> None:
        epsagon.init(token="t", collector_url="http://127.0.0.1:1")

    asyncio.run(TracingMiddleware(app)({"type": "lifespan"}, app, app))
    assert caplog.records == []


def test_flush_waits_for_what_was_closed_before_it_only(queue: FakeQueue) -> None:
    with epsagon.trace("before") as before:
        pass
    later: list[epsagon.Tracer] = []

    def ensure_collector() -> None:
        # Another thread goes on tracing, and its traces are settled first.
        with epsagon.trace("later") as tracer:
            later.append(tracer)
        settled = later[-1] if len(later) < 5 else before
        queue.outcomes[bytes.fromhex(settled.trace_id)] = Outcome.DELIVERED
        queue.settled += 1

    queue.ensure_collector = ensure_collector  # type: ignore[method-assign]
    assert epsagon.flush(60)
    assert len(later) == 5
    assert queue.settled < queue.closed


def test_flush_that_is_interrupted_hears_no_more_of_traces(queue: FakeQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    with epsagon.trace("pending"):
        pass

    def ensure_collector() -> None:
        raise TimeoutError

    def interrupted() -> None:
        with pytest.raises(TimeoutError):
            epsagon.flush(60)

    queue.ensure_collector = ensure_collector  # type: ignore[method-assign]
    interrupted()
    monkeypatch.setattr(queue, "known", ensure_collector)
    # Between the flush's first step and its first look.
    interrupted()
    gc.collect()
    assert not process.own.flushes
