"""celery, for real: a broker, workers of every pool, and every way in which a run, a child or a worker ends."""

import functools
import json
import logging
import os
import pathlib
import random
import re
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest
from celeries import TASKS, Shop
from celery import Celery, signals
from celery.exceptions import Ignore, Reject, SoftTimeLimitExceeded
from celery.worker import WorkController
from kombu.transport.memory import Channel
from places import Place, until
from waiting import TIMEOUT_S

import epsagon_fast as epsagon
from epsagon_fast.backend import Backend
from epsagon_fast.integrations import celery as integration
from epsagon_fast.producer import current
from epsagon_fast.producer.process import process
from epsagon_fast.testing import capture_traces

ROOT = pathlib.Path(__file__).parents[1]


def summary(runners: list[dict[str, Any]]) -> Counter[tuple[str, str, int]]:
    return Counter(
        (runner["resource"]["name"].removeprefix("shop."), metadata(runner)["state"], runner["error_code"])
        for runner in runners
    )


def metadata(runner: dict[str, Any]) -> dict[str, str]:
    return dict(runner["resource"]["metadata"])


# Pools.

PREFORK = ["-P", "prefork", "-c", "2"]
# How many tasks send one of their own, side by side where the pool lets them.
OUTER = 4


@pytest.mark.parametrize(
    ("words", "conf", "count"),
    [
        (PREFORK, {}, TASKS),
        (PREFORK, {"worker_pool_start_method": "spawn"}, TASKS),
        ([*PREFORK, "--max-tasks-per-child", "1"], {}, TASKS // 6),
        (["-P", "threads", "-c", "4"], {}, TASKS),
        (["-P", "gevent", "-c", "4"], {}, TASKS),
        (["-P", "solo"], {}, TASKS),
    ],
    ids=["prefork", "spawn", "one-task-per-child", "threads", "gevent", "solo"],
)
def test_each_run_is_one_trace(shop: Shop, words: list[str], conf: dict[str, Any], count: int) -> None:
    shop.configure(conf)
    with shop.worker(*words) as worker:
        for number in range(count):
            shop.send("add", 1, number)
        for task in ("fails", "flaky", *["outer"] * OUTER):
            shop.send(task)
        shop.until_ran(count + 2 * OUTER + 2 + 2, worker)
        assert worker.end() == 0
    runners = shop.check()
    assert summary(runners) == {
        ("add", "SUCCESS", 0): count + OUTER,
        ("fails", "FAILURE", 2): 1,
        ("flaky", "RETRY", 0): 2,
        ("flaky", "FAILURE", 2): 1,
        ("outer", "SUCCESS", 0): OUTER,
    }
    assert all(metadata(runner)["queue"] == shop.queue for runner in runners)
    assert sorted(metadata(r)["retries"] for r in runners if r["resource"]["name"] == "shop.flaky") == ["0", "1", "2"]
    by_task = {metadata(runner)["task_id"]: runner for runner in runners}
    outer = [trace["events"] for trace in shop.traces() if trace["events"][-1]["resource"]["name"] == "shop.outer"]
    # Each stands below what it was begun in: a block, a message sent in it, and the run that the message started.
    for events in outer:
        sent, inside, _ = events
        assert "parent_id" not in inside
        assert sent["parent_id"] == inside["id"]
        assert by_task[metadata(sent)["task_id"]]["parent_id"] == sent["id"]
    assert len(outer) == OUTER


# Ends of all kinds.


def test_time_limits_are_timeouts(shop: Shop) -> None:
    with shop.worker("-P", "prefork", "-c", "3") as worker:
        shop.send("slow", 60, soft_time_limit=0.5)
        shop.send("slow", 60, time_limit=0.5)
        shop.send("deaf", 60, time_limit=0.5)
        shop.until_ran(3, worker)
        runners = {(r["resource"]["name"], r["exception"]["type"]): r for r in shop.until_arrived(3)}
        assert worker.end() == 0
    shop.check()
    assert {runner["error_code"] for runner in runners.values()} == {3}
    soft = runners["shop.slow", "SoftTimeLimitExceeded"]
    assert metadata(soft)["state"] == "FAILURE"
    # It got SIGTERM, and either a tenth of a second to say so or, on a busy machine, none.
    (hard,) = (r for (name, kind), r in runners.items() if name == "shop.slow" and kind != "SoftTimeLimitExceeded")
    assert metadata(hard)["time_limit_s"] == "0.5"
    if metadata(hard)["state"] == "TERMINATED":
        assert "time.sleep(seconds)" in hard["exception"]["traceback"]
    assert metadata(runners["shop.deaf", "ProcessDied"])["state"] == "STARTED"


def test_warm_shutdown_lets_tasks_end(shop: Shop) -> None:
    with shop.worker(*PREFORK) as worker:
        for _ in range(2):
            shop.send("slow", 0.5)
        shop.until_ran(2, worker)
        assert worker.end(signal.SIGTERM) == 0
    assert summary(shop.check()) == {("slow", "SUCCESS", 0): 2}


# systemd and Ctrl-C signal the children too.
@pytest.mark.parametrize(("number", "group"), [(signal.SIGQUIT, False), (signal.SIGTERM, True)])
def test_shutdown_that_cuts_tasks_off_leaves_none_without_its_trace(
    shop: Shop, number: signal.Signals, group: bool
) -> None:
    with shop.worker(*PREFORK) as worker:
        for _ in range(2):
            shop.send("slow", 60)
        shop.until_ran(2, worker)
        worker.end(number, group=group)
    runners = shop.check()
    assert all(runner["error_code"] == 2 for runner in runners)
    assert {metadata(runner)["state"] for runner in runners} <= {"TERMINATED", "STARTED"}


def test_task_that_killed_its_child_and_runs_again_is_two_traces(shop: Shop) -> None:
    with shop.worker("-P", "prefork", "-c", "1") as worker:
        task = shop.send("dies_once")
        shop.until_ran(2, worker)
        assert worker.end() == 0
    runners = shop.check()
    assert {metadata(runner)["task_id"] for runner in runners} == {task}
    assert summary(runners) == {("dies_once", "STARTED", 2): 1, ("dies_once", "SUCCESS", 0): 1}


def test_killed_worker_leaves_no_run_without_its_trace(shop: Shop) -> None:
    with shop.worker("-P", "prefork", "-c", "3") as worker:
        shop.send("add", 1, 2)
        for _ in range(2):
            shop.send("slow", 60)
        shop.until_ran(3, worker)
        shop.until_arrived(1)
        assert worker.end(signal.SIGKILL) == -signal.SIGKILL
    runners = shop.check()
    assert summary(runners) == {("add", "SUCCESS", 0): 1, ("slow", "STARTED", 2): 2}
    assert {r["exception"]["type"] for r in runners if r["error_code"]} == {"ProcessDied"}


def test_expired_task_is_traced_as_revoked(shop: Shop) -> None:
    task = shop.send("add", 1, expires=0.001)
    with shop.worker(*PREFORK) as worker:
        (runner,) = shop.until_arrived(1)
        assert worker.end() == 0
    assert shop.runs() == []
    known = metadata(runner)
    assert (known["task_id"], known["state"], known["expired"], runner["error_code"]) == (task, "REVOKED", "true", 0)


def test_revoked_tasks_are_traced_whether_they_ran_or_not(shop: Shop) -> None:
    with shop.worker("-P", "prefork", "-c", "1") as worker:
        running = shop.send("slow", 60)
        shop.until_ran(1, worker)
        # The worker for files hands on a message that it has read, whatever becomes known then; not so before its time.
        waiting = shop.send("add", 2, countdown=3 if shop.is_on_files else None)
        until(lambda: waiting in worker.output(), worker.output)
        shop.revoke(waiting, worker)
        shop.revoke(running, worker, terminate=True)
        runners = {metadata(runner)["task_id"]: runner for runner in shop.until_arrived(2)}
        assert worker.end() == 0
    assert len(shop.traces()) == 2
    assert metadata(runners[waiting])["state"] == "REVOKED"
    assert "expired" not in metadata(runners[waiting])
    # It was sent SIGTERM; if it could not say so any more, its process simply died.
    assert metadata(runners[running])["state"] in ("TERMINATED", "STARTED")
    assert runners[running]["error_code"] == 2


# One request, many tasks.

FLOW = """
import shop, epsagon_fast as epsagon
from celery import chain, chord, group
with epsagon.trace("order") as tracer:
    chain(shop.add.s(1, 2), shop.add.s(3)).delay()
    group(shop.add.s(1), shop.add.s(2)).delay()
    chord([shop.add.s(5), shop.add.s(6)], shop.total.s()).delay()
    shop.outer.delay()
print(tracer.trace_id)
"""


def test_chains_groups_chords_and_tasks_of_tasks_share_one_id(shop: Shop) -> None:
    with shop.worker(*PREFORK) as worker:
        trace_id = shop.place.run(FLOW).strip()
        shop.until_ran(2 + 2 + 3 + 2, worker)
        assert worker.end() == 0
    runners = shop.check()
    assert {metadata(runner)["http_trace_id"] for runner in runners} == {trace_id}
    (order,) = (trace["events"] for trace in shop.traces() if trace["events"][-1]["id"] == trace_id)
    assert metadata(order[-1])["http_trace_id"] == trace_id
    # What follows in a chain, and a chord's body, is sent by the task before it. celery may add messages of its own.
    sent = [event for event in order[:-1] if event["resource"]["name"].startswith("shop.")]
    assert [event["resource"]["name"] for event in sent] == ["shop.add"] * 5 + ["shop.outer"]
    assert {(event["resource"]["type"], event["resource"]["operation"]) for event in sent} == {("celery", "publish")}
    by_task = {metadata(runner)["task_id"]: runner for runner in runners}
    assert all(by_task[metadata(event)["task_id"]]["parent_id"] == event["id"] for event in sent)
    # Each run hangs below the very message that started it, whichever process sent that.
    ids = {event["id"] for trace in shop.traces() for event in trace["events"][:-1]}
    ids |= {trace["events"][-1]["id"][:16] for trace in shop.traces()}
    assert {runner["parent_id"] for runner in runners} <= ids


# Waiting.

BUSY = """
import resource, sys
from celery import Celery, signals
import epsagon_fast as epsagon
from epsagon_fast.integrations.celery import instrument

app = Celery("busy", set_as_current=False)
instrument(app)

@app.task
def send():
    headers = {"id": "i", "retries": 0}
    for signal in (signals.before_task_publish, signals.after_task_publish):
        signal.send(sender="busy.send", headers=headers, body=(), exchange="", routing_key="q")

def switches():
    before = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
    for _ in range(300):
        send.apply()
    return resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw - before

send.apply()
epsagon.flush(60)
print("ready", flush=True)
sys.stdin.readline()
print(*(switches() for _ in range(3)), flush=True)
sys.stdin.readline()
"""


def test_handlers_wait_for_nothing_even_if_the_collector_stands_still(place: Place) -> None:
    with place.start(BUSY, stdin=-1, env={"EPSAGON_RING_BYTES": "262144"}) as process:
        assert process.stdin is not None and process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        collector = place.the_collector()
        os.kill(collector, signal.SIGSTOP)
        process.stdin.write("\n")
        process.stdin.flush()
        counts = process.stdout.readline()
        os.kill(collector, signal.SIGCONT)
        process.communicate("\n", timeout=TIMEOUT_S)
    # A wait of any kind would give up the processor once for each of 300 tasks. The ring is full at the end.
    assert min(map(int, counts.split())) == 0, counts


# What the ends of processes wait for.


@pytest.fixture
def app(untraced: None) -> Iterator[Celery]:
    application = Celery("unit", set_as_current=False, broker="memory://")
    integration.instrument(application)
    yield application
    integration.uninstrument()


@pytest.fixture
def waits(app: Celery, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of what is waited for, as it happens; `at exit` for what is to be done then."""
    calls: list[str] = []
    for name in ("say_bye", "wait_for_backlog"):
        monkeypatch.setattr(integration.exiting, name, functools.partial(calls.append, name))
    monkeypatch.setattr(integration.atexit, "register", lambda hook: (calls.append("at exit"), hook()))
    return calls


def test_child_of_the_pool_ends_as_any_process_does(waits: list[str]) -> None:
    signals.worker_process_shutdown.send(sender="w", pid=1, exitcode=0)
    assert waits == ["say_bye"]


def test_what_a_worker_does_outside_of_its_tasks_is_not_traced(app: Celery, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def start(worker: object) -> None:
        seen.append(current.anywhere())
        app.task(name="solo")(idle).apply()
        with epsagon.trace("a block of the program"):
            pass
        # As in a child that a pool forks here.
        signals.worker_process_init.send(sender=None)
        seen.append(current.anywhere())

    monkeypatch.setattr(WorkController, "start", start)
    signals.celeryd_init.send(sender="w", instance=None, conf={}, options={})
    with capture_traces() as traces:
        WorkController.start(object())
    integration.uninstrument()
    assert seen == [current.NOT_TRACED, None]
    assert [trace["events"][-1]["resource"]["name"] for trace in traces] == ["solo", "a block of the program"]
    assert (current.anywhere(), WorkController.start) == (None, start)


def test_worker_waits_for_what_its_children_left(waits: list[str]) -> None:
    signals.worker_shutting_down.send(sender="w", sig="SIGTERM", how="Warm", exitcode=0)
    assert waits == []
    signals.worker_shutdown.send(sender=None)
    assert waits == ["wait_for_backlog"]


def test_worker_that_is_cut_off_waits_at_its_exit(waits: list[str]) -> None:
    signals.worker_shutting_down.send(sender="w", sig="SIGQUIT", how="Cold", exitcode=0)
    assert waits == ["at exit", "wait_for_backlog"]


# What a run's trace says, without a broker.


def idle() -> None:
    """A task that does nothing."""


def only(traces: list[dict[str, Any]]) -> dict[str, Any]:
    (trace,) = traces
    return dict(trace["events"][-1])


def test_run_says_what_it_is(app: Celery) -> None:
    task = app.task(name="pack")(idle)
    with capture_traces() as traces:
        result = task.apply()
    runner = only(traces)
    assert runner["resource"]["name"] == "pack"
    assert (runner["resource"]["type"], runner["resource"]["operation"]) == ("celery", "execute")
    assert runner["origin"] == "runner" and runner["duration"] > 0
    known = metadata(runner)
    assert known["task_id"] == result.id
    assert known["http_trace_id"] == runner["id"]
    assert (known["state"], known["retries"]) == ("SUCCESS", "0")


def test_what_a_task_adds_goes_to_its_run(app: Celery) -> None:
    @app.task
    def pack() -> None:
        epsagon.label("order", 17)
        with epsagon.event("weigh"):
            pass

    with capture_traces() as traces:
        pack.apply()
    assert [event["resource"]["name"] for event in traces[0]["events"][:-1]] == ["weigh"]
    assert metadata(only(traces))["labels"] == '{"order":17}'


@pytest.mark.parametrize(
    ("error", "state", "code", "kind"),
    [
        (KeyError("k"), "FAILURE", 2, "KeyError"),
        (SoftTimeLimitExceeded(), "FAILURE", 3, "SoftTimeLimitExceeded"),
        (Ignore(), "IGNORED", 0, None),
        (Reject("no"), "REJECTED", 0, None),
        (SystemExit(1), "TERMINATED", 2, "SystemExit"),
        (SystemExit(0), "TERMINATED", 0, None),
        (KeyboardInterrupt(), "TERMINATED", 2, "KeyboardInterrupt"),
    ],
)
def test_run_says_how_it_ended(app: Celery, error: BaseException, state: str, code: int, kind: str | None) -> None:
    @app.task
    def ends() -> None:
        raise error

    with capture_traces() as traces, suppress(SystemExit, KeyboardInterrupt, Reject):
        ends.apply()
    runner = only(traces)
    assert (metadata(runner)["state"], runner["error_code"]) == (state, code)
    assert (runner["exception"] or {}).get("type") == kind
    if kind:
        assert "raise error" in runner["exception"]["traceback"]


@pytest.fixture
def alarm() -> Iterator[None]:
    before = signal.getsignal(signal.SIGALRM)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.usefixtures("alarm")
def test_time_limit_at_any_moment_leaves_no_trace_open_or_current(app: Celery) -> None:
    pack = app.task(name="pack")(idle)
    logging.getLogger("celery").setLevel(logging.CRITICAL + 1)
    strikes = 0

    def strike(*_: Any) -> None:
        nonlocal strikes
        strikes += 1
        raise SoftTimeLimitExceeded

    signal.signal(signal.SIGALRM, strike)
    moment = random.Random(1)
    with capture_traces() as traces:
        # celery makes the task at its first use, and takes what strikes then for a fault of the function.
        pack.apply()
        for number in range(300):
            with suppress(SoftTimeLimitExceeded):
                signal.setitimer(signal.ITIMER_REAL, moment.uniform(0.00001, 0.0006))
                # A timer that has run out may strike later: the kernel may give its signal to another thread.
                while strikes == number:
                    pack.apply()
            pack.apply()
            assert not process.open_traces
            assert current.current_place() is None
        assert len(traces) > 300


def test_failure_that_the_caller_gets_is_recorded_too(app: Celery) -> None:
    @app.task
    def fails() -> None:
        raise KeyError("k")

    with capture_traces() as traces, pytest.raises(KeyError):
        fails.apply(throw=True)
    assert (metadata(only(traces))["state"], only(traces)["error_code"]) == ("FAILURE", 2)


def test_run_that_is_cut_off_at_its_limit_is_a_timeout(app: Celery) -> None:
    @app.task(time_limit=0.001)
    def late() -> None:
        # As the signal handler of billiard's children does.
        raise SystemExit(-241)

    with capture_traces() as traces, pytest.raises(SystemExit):
        late.apply()
    runner = only(traces)
    assert (metadata(runner)["state"], runner["error_code"]) == ("TERMINATED", 3)
    assert runner["exception"]["type"] == "TimeLimitExceeded"
    assert "raise SystemExit(-241)" in runner["exception"]["traceback"]


def test_limit_that_the_worker_was_started_with_counts_too(app: Celery, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(integration, "_worker_limit_s", None)
    signals.celeryd_after_setup.send(sender="w", instance=SimpleNamespace(time_limit=300), conf=app.conf)
    task, limited = app.task(name="task")(idle), app.task(name="limited", time_limit=7)(idle)
    with capture_traces() as traces:
        task.apply()
        limited.apply()
    assert [metadata(trace["events"][-1])["time_limit_s"] for trace in traces] == ["300", "7"]


def test_same_task_run_twice_is_two_traces(app: Celery) -> None:
    task = app.task(name="task")(idle)
    with capture_traces() as traces:
        for _ in range(2):
            task.apply(task_id="the-same")
    assert len({trace["events"][-1]["id"] for trace in traces}) == 2
    assert {metadata(trace["events"][-1])["task_id"] for trace in traces} == {"the-same"}


def test_retry_is_no_error_and_tells_its_cause(app: Celery) -> None:
    @app.task(bind=True, max_retries=1)
    def flaky(self: Any) -> None:
        if not self.request.retries:
            raise self.retry(exc=ConnectionError("no answer"))

    with capture_traces() as traces:
        flaky.apply()
    first, second = traces
    assert (metadata(first["events"][-1])["state"], first["events"][-1]["error_code"]) == ("RETRY", 0)
    assert [error["message"] for error in first["exceptions"]] == ["no answer"]
    assert metadata(second["events"][-1])["retries"] == "1"
    assert metadata(second["events"][-1])["state"] == "SUCCESS"


def test_tasks_run_in_place_have_traces_of_their_own_and_their_callers_id(app: Celery) -> None:
    inner = app.task(name="inner")(idle)

    @app.task(name="outer")
    def outer() -> None:
        inner.apply()

    with capture_traces() as traces, epsagon.trace("request") as tracer:
        outer.apply()
        epsagon.label("still", "here")
    runners = [trace["events"][-1] for trace in traces]
    assert [runner["resource"]["name"] for runner in runners] == ["inner", "outer", "request"]
    assert {metadata(runner)["http_trace_id"] for runner in runners} == {tracer.trace_id}
    assert [runner.get("parent_id") for runner in runners] == [runners[1]["id"][:16], tracer.trace_id[:16], None]
    assert metadata(runners[2])["labels"] == '{"still":"here"}'


def test_arguments_and_results_are_recorded_only_if_values_are(app: Celery, monkeypatch: pytest.MonkeyPatch) -> None:
    @app.task(bind=True)
    def pay(self: Any, card: str, amount: int = 1) -> dict[str, str]:
        return {"card": card}

    with capture_traces() as traces:
        pay.apply(("4111",))
    assert "4111" not in json.dumps(traces)
    epsagon.init(metadata_only=False, ignored_keys=("card",))
    with capture_traces() as traces:
        pay.apply(("4111",), {"amount": 2})
    known = metadata(only(traces))
    assert json.loads(known["arguments"]) == {"card": "****", "amount": 2}
    assert json.loads(known["return_value"]) == {"card": "****"}


def test_message_carries_the_context_and_is_an_event(app: Celery) -> None:
    # The broker is one for all tests of a process: no other one may send to this queue.
    with capture_traces() as traces, epsagon.trace("request") as tracer:
        sent = app.send_task("pack", ("c-17",), queue="shipments", headers={"traceparent": "stale"})
        with app.connection() as connection:
            message = connection.SimpleQueue("shipments").get(timeout=5)
    event, runner = traces[0]["events"]
    assert message.headers["traceparent"] == f"00-{tracer.trace_id}-{event['id']}-01"
    assert event["resource"] == {
        "name": "pack",
        "type": "celery",
        "operation": "publish",
        "metadata": {"task_id": sent.id, "queue": "shipments", "retries": "0"},
    }
    assert metadata(runner)["http_trace_id"] == tracer.trace_id


def test_run_hangs_below_the_message_that_started_it(app: Celery) -> None:
    task = app.task(name="pack")(idle)
    caller = {"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}
    with capture_traces() as traces, epsagon.trace("of the worker"):
        task.apply(headers=caller)
    assert [trace["events"][-1].get("parent_id") for trace in traces] == ["00f067aa0ba902b7", None]


def test_message_of_the_first_protocol_is_an_event_too(app: Celery) -> None:
    app.conf.task_protocol = 1
    with capture_traces() as traces, epsagon.trace("request"):
        sent = app.send_task("pack", queue="old")
    assert metadata(traces[0]["events"][0])["task_id"] == sent.id


def test_message_without_a_trace_is_left_alone(app: Celery) -> None:
    app.send_task("pack", queue="plain")
    with app.connection() as connection:
        message = connection.SimpleQueue("plain").get(timeout=5)
    assert "traceparent" not in message.headers


def test_what_a_message_asks_of_its_broker_is_not_traced(app: Celery, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    put = Channel._put

    def traced_put(*args: Any, **kwargs: Any) -> None:
        # As a client of Redis does that is traced.
        seen.append(current.anywhere())
        with epsagon.event("LPUSH"):
            put(*args, **kwargs)

    monkeypatch.setattr(Channel, "_put", traced_put)
    app.conf.task_send_sent_event = True
    with capture_traces() as traces:
        with epsagon.trace("request"):
            app.send_task("pack", queue="parcels")
            with app.connection() as connection:
                connection.SimpleQueue("the program's own").put("c-17")
        app.send_task("pack", queue="parcels")
    sent = [event["resource"]["name"] for event in traces[0]["events"]]
    assert (sent, len(traces)) == (["pack", "LPUSH", "request"], 1)
    assert [each for each in seen if each is not current.NOT_TRACED] == [seen[-2]]
    integration.uninstrument()
    with capture_traces() as traces, epsagon.trace("request"):
        app.send_task("pack", queue="parcels")
    assert "LPUSH" in [event["resource"]["name"] for event in traces[0]["events"]]


def test_message_that_cannot_be_sent_is_no_event(app: Celery) -> None:
    with capture_traces() as traces, epsagon.trace("request"):
        with pytest.raises(Exception, match="not JSON serializable"):
            app.send_task("pack", (object(),), queue="bad")
        app.send_task("pack", queue="good")
    assert [metadata(event)["queue"] for event in traces[0]["events"][:-1]] == ["good"]


def test_disabled_tracing_leaves_tasks_and_messages_alone(app: Celery) -> None:
    epsagon.init(disable=True, token="t")
    assert app.task(name="works")(idle).apply().successful()


# Instrumenting.


def test_instrumenting_twice_is_instrumenting_once(app: Celery) -> None:
    integration.instrument(app)
    integration.instrument(Celery("another", set_as_current=False))
    with capture_traces() as traces:
        app.task(name="once")(idle).apply()
    only(traces)


def test_tasks_may_be_there_before_or_come_after(untraced: None) -> None:
    app = Celery("late", set_as_current=False)
    before = app.task(name="before")(idle)
    before.apply()
    integration.instrument(app)
    try:
        with capture_traces() as traces:
            before.apply()
            app.task(name="after")(idle).apply()
    finally:
        integration.uninstrument()
    assert [trace["events"][-1]["resource"]["name"] for trace in traces] == ["before", "after"]


def test_uninstrumented_tasks_are_not_traced(app: Celery) -> None:
    integration.uninstrument()
    with capture_traces() as traces:
        app.task(name="quiet")(idle).apply()
    assert traces == []


def test_only_a_celery_application_can_be_instrumented() -> None:
    with pytest.raises(TypeError, match="not 'shop'"):
        integration.instrument("shop")


def test_run_that_began_before_instrumenting_is_left_alone(untraced: None) -> None:
    app = Celery("middle", set_as_current=False)

    @app.task
    def task() -> None:
        integration.instrument(app)

    try:
        with capture_traces() as traces:
            task.apply()
    finally:
        integration.uninstrument()
    assert traces == []


# The example of docs/celery.md.


def test_example_in_the_docs_is_the_one_that_runs() -> None:
    (shown,) = re.findall(r"```python\n(app = .*?)```", (ROOT / "docs/celery.md").read_text(), re.S)
    assert shown in (ROOT / "examples/celery_app.py").read_text()


def test_example_packs_and_posts(shop: Shop, backend: Backend) -> None:
    shop.copy_example("celery_app.py")
    with shop.worker(*PREFORK, app="celery_app"):
        trace_id = shop.place.run("import runpy; runpy.run_module('celery_app', run_name='__main__')").strip()
        until(lambda: backend.store.counts()["traces"] == 4, lambda: shop.place.log())
    runners = [trace["events"][-1] for trace in shop.traces()]
    assert sorted(runner["resource"]["name"] for runner in runners) == [
        "celery_app.pack",
        "celery_app.post",
        "celery_app.post",
        "order",
    ]
    assert {metadata(runner)["http_trace_id"] for runner in runners} == {trace_id}
