"""Tracing under gunicorn, without a change to the application:

    gunicorn -c python:epsagon_fast.integrations.gunicorn app:app

or, in a conf of your own, `from epsagon_fast.integrations.gunicorn import on_exit, post_worker_init, worker_abort`;
where you have such a hook yourself, call this one in it. The application is wrapped in each worker after it was
loaded, so it makes no difference whether that happened before or after the fork, or as which user.

gunicorn takes every global of a conf whose name is one of its settings: this module may have no others than the hooks.
"""

import inspect
import logging
import os
import signal
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, Final

from epsagon_fast.config import Config
from epsagon_fast.log import LOGGER_NAME, warn_once
from epsagon_fast.producer import exiting
from epsagon_fast.producer.process import process
from epsagon_fast.queue import folder as folders
from epsagon_fast.queue.names import RING_SUFFIX

from . import asgi, wsgi
from .web.request import RequestTrace
from .web.signalled import leave_before_dying

# gunicorn's own workers that take WSGI applications; others inherit from them.
WSGI_WORKERS: Final = ("gunicorn.workers.sync", "gunicorn.workers.gthread", "gunicorn.workers.base_async")
# A worker's attribute: its application is wrapped.
IS_TRACED: Final = "epsagon_fast_is_on"
NATIVE_ASGI_WORKER: Final = "gunicorn.workers.gasgi"
# Frames of these modules are left out of the stack that a worker had when its time was up.
SERVER_MODULES: Final = ("gunicorn.", "epsagon_fast.")


def post_worker_init(worker: Any) -> None:
    """Hook: wrap the application of a worker that is about to serve. A second call changes nothing."""
    # `epsagon-fast run` calls the hook too.
    if vars(worker).get(IS_TRACED):
        return
    vars(worker)[IS_TRACED] = True
    _show_warnings(worker)
    _start_collector()
    if _master_waits(worker):
        exiting.parent_waits(worker.ppid)
    if NATIVE_ASGI_WORKER in _modules(worker):
        worker.asgi = _around(worker.asgi, asgi.TracingMiddleware)
    elif any(module in _modules(worker) for module in WSGI_WORKERS):
        worker.wsgi = _around(worker.wsgi, wsgi.TracingMiddleware)
    elif _is_asgi(worker.wsgi):
        worker.wsgi = _around(worker.wsgi, asgi.TracingMiddleware)
    else:
        message = "Requests are not traced: %s is unknown, or %r no ASGI 3"
        warn_once("gunicorn", message, type(worker), worker.wsgi, about="an unknown server")
    _watch_abort(worker)
    # uvicorn's worker raises the signal again when it has finished.
    leave_before_dying(signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)


def worker_abort(worker: Any) -> None:
    """Hook: a worker has run into `timeout`. Close its requests' traces with the stack that it was in."""
    stack = "".join(traceback.format_stack(_interrupted(inspect.currentframe())))
    for tracer in process.own_traces():
        if isinstance(tracer, RequestTrace):
            tracer.time_out("Stack (most recent call last):\n" + stack)


def on_exit(server: Any) -> None:
    """Hook: the master ends. Wait for the traces of its workers, at most the shutdown timeout."""
    with _as_user(server.cfg.uid):
        _read_leftovers()
        exiting.wait_for_backlog()


def _around(app: Any, middleware: type) -> Any:
    return app if isinstance(app, middleware) else middleware(app)


def _modules(worker: object) -> set[str]:
    return {kind.__module__ for kind in type(worker).__mro__}


def _is_asgi(app: Any) -> bool:
    """Say whether uvicorn would take `app` for an ASGI 3 application. Any object looks like one once it is wrapped."""
    call = app if inspect.isfunction(app) else getattr(app, "__call__", None)  # noqa: B004 - the method is wanted
    return inspect.iscoroutinefunction(call)


def _show_warnings(worker: Any) -> None:
    """Send our warnings to gunicorn's error log, unless the application says where they go."""
    ours = logging.getLogger(LOGGER_NAME)
    if not ours.hasHandlers():
        for handler in worker.log.error_log.handlers:
            ours.addHandler(handler)


def _start_collector() -> None:
    """Start a collector if none lives, before the first request: a start takes as long as hundreds of requests.

    This also saves what an earlier worker left if the collector died together with it.
    """
    if process.setting("token") and not process.setting("disable"):
        # If the folder cannot be used, the first trace warns of it.
        with suppress(OSError):
            exiting.Starter(folders.resolve(process.setting("runtime_dir")).path).ensure_collector()


def _read_leftovers() -> None:
    """Start a collector if the workers left something and none lives."""
    path = folders.existing(process.setting("runtime_dir"))
    if path and any(name.endswith(RING_SUFFIX) for name in os.listdir(path)):
        exiting.Starter(path).ensure_collector()


def _master_waits(worker: Any) -> bool:
    """Say whether the master will wait for the traces in this worker's folder."""
    has_hook = getattr(worker.cfg.on_exit, "__module__", "") != "gunicorn.config"
    # The master knows what the application says to `init` only if it has loaded the application.
    same_folder = worker.cfg.preload_app or process.setting("runtime_dir") == Config().value("runtime_dir")
    return has_hook and same_folder


def _watch_abort(worker: Any) -> None:
    """Handle SIGABRT in workers that do not call the hook: uvicorn's, and any with a blocked event loop."""
    before = signal.getsignal(signal.SIGABRT)
    if before == worker.handle_abort:
        return

    def abort(number: int, frame: FrameType | None) -> None:
        worker_abort(worker)
        signal.signal(signal.SIGABRT, before)
        os.kill(os.getpid(), signal.SIGABRT)

    signal.signal(signal.SIGABRT, abort)


def _interrupted(frame: FrameType | None) -> FrameType | None:
    """Return the frame that a signal handler interrupted."""
    while frame and str(frame.f_globals.get("__name__")).startswith(SERVER_MODULES):
        frame = frame.f_back
    return frame


@contextmanager
def _as_user(uid: int) -> Iterator[None]:
    """Act as the workers' user, because their folder belongs to it and is refused to a master that is root."""
    before = os.geteuid()
    if uid == before or before != 0:
        yield
        return
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(before)
