"""Threads run in the trace in which they were started, and jobs of a pool in the one in which they were submitted.

    from epsagon_fast.integrations import threading
    threading.instrument()

That holds for Thread, Timer and what is derived from them, and for ThreadPoolExecutor. Each job of a pool has its own
submitter's trace: the pool's threads belong to none. A thread that serves many (it was started in a request and takes
others' work from a queue) is in the trace of the request that started it, until that ends; start it elsewhere.
"""

import functools
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from epsagon_fast.producer import entering
from epsagon_fast.producer.binding import run_in
from epsagon_fast.producer.entering import Within

from .wrapping import Method, Wrapped

# Its threads run the jobs of all that have the pool.
POOL: Final = "multiprocessing.pool"


def instrument() -> None:
    """Let threads and jobs that begin from now on take their trace with them. A second call changes nothing."""
    for method in _METHODS:
        method.put_on()


def uninstrument() -> None:
    """Let those that begin from now on run without a trace."""
    for method in _METHODS:
        method.take_off()


def _start_in_trace(start: Method, method: Wrapped) -> Method:
    def start_in_trace(thread: threading.Thread) -> None:
        place = entering.current.get()
        if place is None or not method.is_on or _serves_many(thread):
            start(thread)
            return
        before = vars(thread).get("run")
        # Its class may have a `run` of its own, as Timer's does, so the object's own one is put before that.
        thread.run = functools.partial(_run_once, thread, before, place, thread.run)  # type: ignore[method-assign]
        try:
            start(thread)
        except BaseException:
            _restore(thread, before)
            raise

    return start_in_trace


def _run_once(thread: threading.Thread, before: Any, place: Any, run: Callable[[], Any]) -> Any:
    # Now: a thread that holds itself would live until the garbage collector finds it.
    _restore(thread, before)
    return run_in(place, run)


def _restore(thread: threading.Thread, run: Any) -> None:
    if run is None:
        vars(thread).pop("run", None)
    else:
        thread.run = run  # type: ignore[method-assign]


def _serves_many(thread: threading.Thread) -> bool:
    return getattr(getattr(thread, "_target", None), "__module__", None) == POOL


def _submit_in_trace(submit: Method, method: Wrapped) -> Method:
    def submit_in_trace(pool: ThreadPoolExecutor, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        place = entering.current.get()
        if place is None or not method.is_on:
            return submit(pool, function, *args, **kwargs)
        # The pool may start a thread for this job, which will run others' jobs after it.
        with Within(None):
            return submit(pool, run_in, place, function, *args, **kwargs)

    return submit_in_trace


_METHODS: Final = (
    Wrapped(threading.Thread, "start", _start_in_trace),
    Wrapped(ThreadPoolExecutor, "submit", _submit_in_trace),
)
