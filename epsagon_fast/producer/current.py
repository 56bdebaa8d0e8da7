"""The current trace of a thread, task or generator; the process's global tracer; and what acts on either.

The current trace is a context variable: each thread and each asyncio task has its own, and a task starts with its
parent's. It is never reset by token, since a generator's steps may run in different contexts.
"""

import os
from collections.abc import Mapping
from contextvars import ContextVar
from enum import Enum
from types import TracebackType
from typing import Any, Final

from epsagon_fast.config import Config, ResolvedConfig, warn_once
from epsagon_fast.protocol import Outcome

from . import process
from .plain import type_name
from .tracer import Tracer


class NotTraced(Enum):
    """The state of work that is deliberately not traced, such as an ignored endpoint."""

    NOT_TRACED = "not traced"


# In place of a trace: what is added there goes nowhere, not even to the global tracer, and is not counted. Without it
# such work would be in whichever trace was current before. `trace` opens a trace of its own there.
NOT_TRACED: Final = NotTraced.NOT_TRACED
Current = Tracer | NotTraced | None

_current: ContextVar[Current] = ContextVar("epsagon_fast_trace", default=None)

# The global tracer, under one key: a dict's setdefault and pop decide between two threads, or a thread and a signal
# handler, without a lock.
_global: dict[str, Tracer] = {}
_KEY = "tracer"


def current_trace() -> Tracer | None:
    """Return the current trace of this context, also when it is closed."""
    there = _current.get()
    return None if there is NOT_TRACED else there


def swap(trace: Current) -> Current:
    """Make `trace` the current one of this context; return what was current before."""
    before = _current.get()
    _current.set(trace)
    return before


def leave(trace: Current, before: Current) -> None:
    """Make `before` current again, unless something else became current meanwhile (a `with` in a plain generator)."""
    if _current.get() is trace:
        _current.set(before)


class within:
    """Have `trace`, or NOT_TRACED, be the current one of this context inside a `with` block."""

    def __init__(self, trace: Current) -> None:
        self._trace = trace
        self._before: Current = None

    def __enter__(self) -> None:
        self._before = swap(self._trace)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        leave(self._trace, self._before)


def enclosing_trace() -> Tracer | None:
    """Return the open trace that this context is in, if this process opened or attached it.

    In a forked child the inherited trace is not its own: work that is traced there gets a trace of its own.
    """
    tracer = current_trace()
    inside = tracer is not None and not tracer.stopped and tracer.owner_pid == os.getpid()
    return tracer if inside else None


def acting_trace() -> Tracer | None:
    """Return the current trace, else the running global tracer, else None. None where work is not traced."""
    tracer = _current.get()
    if tracer is NOT_TRACED:
        return None
    if tracer is None or tracer.stopped:
        tracer = _global.get(_KEY)
        if tracer is not None and not tracer.running:
            return None
    return tracer


def no_trace() -> None:
    """Count something that had no trace to go to, unless it is not to be traced."""
    if _current.get() is NOT_TRACED:
        return
    process.refuse("no_trace")
    warn_once("no_trace", "Ignored, and counted: something was added where no trace is open")


def create_tracer(config: Config | None = None) -> Tracer:
    """Return a tracer that is not started yet (the seed's CreateTracer).

    `config`: None takes the one in force. With `test_mode` it is the global tracer if there is one, else one that keeps
    its trace in memory and sends nothing. Raises ValueError if the config comes too late for this process's ring.
    """
    resolved = _resolved(config)
    existing = _global.get(_KEY)
    return existing if resolved.test_mode and existing is not None else Tracer(resolved)


def create_global_tracer(config: Config | None = None) -> Tracer:
    """Return a new tracer, not started, as the process's global one. One that is there is stopped first."""
    tracer = Tracer(_resolved(config))
    while _global.setdefault(_KEY, tracer) is not tracer:
        before = _global.pop(_KEY, None)
        if before is not None and not before.stopped:
            before.stop()
    return tracer


def global_tracer() -> Tracer | None:
    """Return the global tracer, also when it is stopped; None if none was created."""
    return _global.get(_KEY)


def stop_global_tracer() -> Outcome | None:
    """Stop the global tracer and wait for its outcome; None if none is there or it is stopped already."""
    tracer = _global.get(_KEY)
    return None if tracer is None or tracer.stopped else tracer.stop()


def global_tracer_config() -> Config:
    """Return the config of the global tracer; `Config()` if none is there or it is stopped."""
    tracer = _global.get(_KEY)
    return Config() if tracer is None or tracer.stopped else tracer.config


def add_event(event: Mapping[str, Any]) -> None:
    """Add an event to the current trace, else to the running global tracer."""
    if tracer := _found():
        tracer.add_event(event)


def add_exception(exception: BaseException | Mapping[str, Any]) -> None:
    """Add an exception to the current trace, else to the running global tracer."""
    if tracer := _found():
        tracer.add_exception(exception)


def add_exception_type_and_message(exception_type: str, message: str) -> None:
    """Add an exception with the caller's stack to the current trace, else to the running global tracer."""
    if tracer := _found():
        tracer.add_exception_type_and_message(exception_type, message)


def add_label(key: str, value: str | int | float | bool) -> None:
    """Label the current trace, else the running global tracer's."""
    if tracer := _found():
        tracer.add_label(key, value)


def add_error(error_type: str, value: str | BaseException) -> None:
    """Set the error of the current trace, else of the running global tracer's."""
    if tracer := _found():
        tracer.add_error(error_type, value)


def error(value: str | BaseException) -> None:
    """Set the error of the current trace: an exception has its own type, a text the type "Exception"."""
    add_error("Exception" if issubclass(type(value), str) else type_name(value), value)


label = add_label


def _found() -> Tracer | None:
    """Return the trace to act on; if there is none, count and warn."""
    tracer = acting_trace()
    if tracer is None:
        no_trace()
    return tracer


def _resolved(config: Config | None) -> ResolvedConfig:
    resolved = process.config() if config is None else config.resolve()
    process.check_first_use(config or Config(), resolved)
    return resolved
