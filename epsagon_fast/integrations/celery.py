"""celery: each run of a task is a trace, and each message sent is an event of the trace that sends it.

    app = Celery("shop")
    instrument(app)

The integration listens to celery's signals, which every pool sends in the process, thread or greenlet that runs the
task. No handler waits, except at the end of a process, where the wait is bounded. A message carries the trace context
in its headers, so a request, its tasks and their tasks share one `http_trace_id`.
"""

import atexit
import functools
import os
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from contextvars import ContextVar
from typing import Any, Final

from epsagon_fast.pages import see
from epsagon_fast.producer import arguments, current, entering, exiting
from epsagon_fast.producer.entering import Entered, parent_of
from epsagon_fast.producer.event import Event
from epsagon_fast.producer.failures import is_error
from epsagon_fast.producer.plain import type_name
from epsagon_fast.producer.process import process
from epsagon_fast.producer.runner import new_runner
from epsagon_fast.producer.tracer import Tracer
from epsagon_fast.propagation import (
    HTTP_TRACE_ID_KEY,
    TRACEPARENT,
    TRACESTATE,
    TraceContext,
    continue_context,
    extract,
    handed_on,
    inject_from,
)
from epsagon_fast.protocol import TIME_LIMIT_KEY, TIME_LIMIT_SLACK_S, ErrorCode

from .wrapping import Method, Wrapped

# Epsagon's own tracer for Python uses these names.
TYPE: Final = "celery"
EXECUTE: Final = "execute"
PUBLISH: Final = "publish"

STATE_KEY: Final = "state"
# Two states besides celery's own. STARTED is a run's state until it ends, and for ever if its process dies. TERMINATED
# is the state of a run that was cut off.
STARTED: Final = "STARTED"
TERMINATED: Final = "TERMINATED"

# The run that this thread or greenlet is in, and the message that it is sending with the event for it. The message is
# known by its headers; no trace may be there for an event.
_running: ContextVar["Run | None"] = ContextVar("epsagon_fast_celery_run", default=None)
_sending: ContextVar[tuple[object, Event | None] | None] = ContextVar("epsagon_fast_celery_message", default=None)
# The hard time limit with which the worker was started. Forked children inherit it.
_worker_limit_s: float | None = None


def instrument(app: Any) -> None:
    """Trace the tasks of this process. Call it before or after tasks are registered; a second call changes nothing.

    `app`: the Celery application. celery has one set of signals, so if a process has several applications, all of them
    are traced. Raises TypeError if `app` is not a Celery application.
    """
    from celery import Celery

    if not isinstance(app, Celery):
        raise TypeError(f"instrument traces a Celery application, not {app!r}{see('celery')}")
    listen()


def listen() -> None:
    """Trace the tasks of this process, whichever application they belong to. A second call changes nothing."""
    for signal, handler in _handlers():
        signal.connect(handler, weak=False)


def uninstrument() -> None:
    """Trace no further tasks."""
    for signal, handler in _handlers():
        signal.disconnect(handler)
    if "celery.worker" in sys.modules:
        _worker_start().take_off()
    if "kombu.messaging" in sys.modules:
        for method in _ways_to_the_broker():
            method.take_off()


def _handlers() -> list[tuple[Any, Callable[..., None]]]:
    from celery import signals

    return [
        (signals.task_prerun, _run_begins),
        (signals.task_postrun, _run_ends),
        (signals.task_revoked, _task_is_revoked),
        (signals.before_task_publish, _sending_begins),
        (signals.after_task_publish, _sending_ends),
        (signals.celeryd_init, _worker_is_made),
        (signals.celeryd_after_setup, _worker_begins),
        (signals.worker_process_init, _child_begins),
        (signals.worker_process_shutdown, _child_ends),
        (signals.worker_shutting_down, _worker_is_told_to_end),
        (signals.worker_shutdown, _worker_ends),
    ]


class Run(Entered, Tracer):
    """One run of a task."""

    _outer: "Run | None" = None
    _ended_as: str | None = None
    _result: Any = None

    def __init__(self, task: Any, request: Any) -> None:
        """`request`: celery's `Context` of this run."""
        metadata = _metadata(request)
        # Messages come from elsewhere: their names may be of any type.
        name = str(request.shadow or task.name)
        super().__init__(process.config(), new_runner(name, TYPE, EXECUTE, metadata, time.time_ns()))
        metadata[HTTP_TRACE_ID_KEY] = continue_context(self, _context(request))
        self.request = request
        self._task = task
        self._limit_s = (request.timelimit or (None,))[0] or task.time_limit or _worker_limit_s
        if self._limit_s:
            metadata[TIME_LIMIT_KEY] = str(self._limit_s)
        self._begun_at = time.monotonic()

    def begin(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Open the trace and make it the current one."""
        _end_forsaken()
        self.__enter__()
        if self.keeps_values:
            arguments.CallNotes(self._task.run).arguments(self, args, kwargs)

    def end(self, state: str | None, result: Any) -> None:
        """Close the trace. `state`, `result`: as celery's signal has them."""
        self._ended_as, self._result = state, result
        self.__exit__(None, None, None)

    @property
    def is_forsaken(self) -> bool:
        """Whether celery is done with this run without having said so: a time limit struck as it sent the signal."""
        return all(request is not self.request for request in self._task.request_stack.stack)

    def open(self) -> "Run":
        """Open the trace."""
        self._outer = _running.get()
        _running.set(self)
        self.start()
        return self

    def cut_off(self) -> None:
        """Close the trace as unfinished: a time limit struck while it was opened or closed."""
        self._step_out()
        self.abandon()
        self._result = None

    def close(self, error: BaseException | None) -> None:
        """Close the trace with what became of the run."""
        state, result = self._ended_as, self._result
        self._step_out()
        # The result may be an exception, whose traceback holds frames that hold this run.
        self._result = None
        if state == "SUCCESS" and self.keeps_values:
            arguments.CallNotes(self._task.run).result(self, result)
        if state is None:
            self._is_cut_off(sys.exception())
        elif state == "FAILURE" and isinstance(result, BaseException):
            is_limit = type_name(result) == "SoftTimeLimitExceeded"
            self.conclude(state, result, ErrorCode.TIMEOUT if is_limit else ErrorCode.EXCEPTION)
        else:
            if state == "RETRY" and isinstance(cause := getattr(result, "exc", None), BaseException):
                self.add_exception(cause)
            self.conclude(state)

    def conclude(self, state: str, error: BaseException | None = None, code: ErrorCode | None = None) -> None:
        """Close the trace with what became of the task."""
        self.update_and_close({STATE_KEY: state}, code, error)

    def note(self, key: str, value: str) -> None:
        """Keep an argument or a return value."""
        self.set_runner_metadata(key, value)

    def _step_out(self) -> None:
        if _running.get() is self:
            _running.set(self._outer)

    def _is_cut_off(self, error: BaseException | None) -> None:
        """Close the trace of a run that neither returned nor raised an exception that celery handles."""
        from celery.exceptions import TimeLimitExceeded

        if isinstance(error, Exception):
            # celery raises it in the caller (task_eager_propagates).
            self.conclude("FAILURE", error, ErrorCode.EXCEPTION)
        elif self._limit_s and time.monotonic() - self._begun_at > self._limit_s - TIME_LIMIT_SLACK_S:
            # The worker sends SIGTERM first, and SIGKILL a moment later.
            late = TimeLimitExceeded(self._limit_s).with_traceback(error.__traceback__ if error else None)
            self.conclude(TERMINATED, late, ErrorCode.TIMEOUT)
        elif error is not None and is_error(error):
            self.conclude(TERMINATED, error, ErrorCode.EXCEPTION)
        else:
            self.conclude(TERMINATED)


def _metadata(request: Any) -> dict[str, str]:
    known = {
        "task_id": request.id,
        "root_id": request.root_id,
        "parent_id": request.parent_id,
        "queue": (request.delivery_info or {}).get("routing_key"),
        "hostname": request.hostname,
    }
    metadata = {key: str(value) for key, value in known.items() if value}
    return {**metadata, "retries": str(request.retries or 0), STATE_KEY: STARTED}


def _context(request: Any) -> TraceContext | None:
    """Return the trace context that the message brought, or that of the caller if the task is run in place."""
    # A message's are the request's own fields. A task that is run in place has its caller's in one of them.
    apart = request.headers or {}
    headers = {name: request.get(name) or apart.get(name) for name in (TRACEPARENT, TRACESTATE)}
    context = extract({name: value for name, value in headers.items() if isinstance(value, str)})
    caller = current.enclosing_trace()
    return handed_on(caller, parent_of(caller)) if context is None and caller is not None else context


def _end_forsaken() -> None:
    """Close the traces of runs that are over, so that this one is not inside them."""
    while (run := _running.get()) is not None and run.is_forsaken:
        run.undo()


def _run_begins(task: Any, args: Any, kwargs: Any, **_: Any) -> None:
    Run(task, task.request).begin(args, kwargs)


def _run_ends(task: Any, state: str | None, retval: Any, **_: Any) -> None:
    run = _running.get()
    # The task differs if it began before `instrument`.
    if run is not None and run.request is task.request:
        run.end(state, retval)


def _task_is_revoked(sender: Any, request: Any, terminated: bool, expired: bool, **_: Any) -> None:
    """Trace a task that will not run. A task that was running has its trace already."""
    if not terminated:
        run = Run(sender, request)
        try:
            run.start()
            if expired:
                run.set_runner_metadata("expired", "true")
            run.conclude("REVOKED")
        except BaseException:
            run.abandon()
            raise


def _sending_begins(sender: str, headers: dict[str, Any], body: Any, exchange: str, routing_key: str, **_: Any) -> None:
    for method in _ways_to_the_broker():
        method.put_on()
    place = current.acting_place()
    tracer = None if place is None else place.open_trace()
    if tracer is None:
        _sending.set((headers, None))
        return
    # The first message protocol has these fields in the body.
    fields = headers if "id" in headers else body
    event = Event(sender, TYPE, PUBLISH, TYPE)
    event.metadata = {"task_id": str(fields["id"]), "queue": routing_key or "", "retries": str(fields["retries"] or 0)}
    if exchange:
        event.metadata["exchange"] = str(exchange)
    event.enter(place)
    inject_from(tracer, event.id, headers)
    _sending.set((headers, event))


def _sending_ends(headers: dict[str, Any], **_: Any) -> None:
    sending = _sending.get()
    # The headers differ if an earlier message was not sent: celery has no signal for that.
    if sending is not None and sending[0] is headers:
        _sending.set(None)
        if sending[1] is not None:
            sending[1].leave(None)


@functools.cache
def _ways_to_the_broker() -> tuple[Wrapped, ...]:
    """Return the methods that send a task, and what celery tells of it, whichever broker it is."""
    from celery.events.dispatcher import EventDispatcher
    from kombu.messaging import Producer

    return Wrapped(Producer, "publish", _task_unseen), Wrapped(EventDispatcher, "publish", _unseen)


def _task_unseen(publish: Method, method: Wrapped) -> Method:
    # A client of Redis, of SQS or of a database that is traced too would show each of its commands beside the event
    # that stands for the message. What the program sends through kombu by itself is its own.
    def publish_unseen(*args: Any, **kwargs: Any) -> Any:
        sending = _sending.get()
        is_task = method.is_on and sending is not None and sending[0] is kwargs.get("headers")
        with current.within(current.NOT_TRACED) if is_task else nullcontext():
            return publish(*args, **kwargs)

    return publish_unseen


def _unseen(publish: Method, method: Wrapped) -> Method:
    def publish_unseen(*args: Any, **kwargs: Any) -> Any:
        with current.within(current.NOT_TRACED) if method.is_on else nullcontext():
            return publish(*args, **kwargs)

    return publish_unseen


def _worker_begins(instance: Any, **_: Any) -> None:
    global _worker_limit_s
    _worker_limit_s = instance.time_limit


def _worker_is_made(**_: Any) -> None:
    _worker_start().put_on()


@functools.cache
def _worker_start() -> Wrapped:
    from celery.worker import WorkController

    return Wrapped(WorkController, "start", _untraced)


def _untraced(start: Method, method: Wrapped) -> Method:
    # A worker asks its broker all the time. If the library that it asks with is traced, each command would be a trace
    # of its own. A task that runs in this thread has its trace all the same, and so has a block of the program.
    def start_untraced(worker: Any) -> None:
        with current.within(current.NOT_TRACED) if method.is_on else nullcontext():
            start(worker)

    return start_untraced


def _child_begins(**_: Any) -> None:
    # It was forked in the worker's context.
    entering.current.set(None)


def _child_ends(**_: Any) -> None:
    # The worker itself waits at its end.
    exiting.parent_waits(os.getppid())
    # billiard's pool ends its processes with os._exit, so no other hook runs there.
    exiting.say_bye()


def _worker_ends(**_: Any) -> None:
    exiting.wait_for_backlog()


def _worker_is_told_to_end(how: str, **_: Any) -> None:
    # After a cold shutdown celery does not say that the worker has ended.
    if how == "Cold":
        atexit.register(exiting.wait_for_backlog)
