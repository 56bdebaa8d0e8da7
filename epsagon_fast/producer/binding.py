"""`bind`: a function takes the trace in which it was handed over to where it runs, another thread or a callback.

Only the current trace goes with it. The rest of the context (contextvars of the application) stays that of the caller.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar, cast

from . import entering
from .entering import Within

F = TypeVar("F", bound=Callable[..., Any])


def bind(function: F) -> F:
    """Return a function that runs in the trace and event that are current now, wherever and whenever it is called.

    `function`: a plain or a coroutine function. It is returned itself if no trace is current. After the trace has ended
    it runs as if it were not bound. It cannot be pickled: another process attaches to a trace with its handle.
    """
    place = entering.current.get()
    if place is None:
        return function
    wrapper = _coroutine if inspect.iscoroutinefunction(function) else _plain
    return cast(F, functools.wraps(function)(wrapper(place, function)))


def run_in(place: Any, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """Call `function` where `place` is the current one."""
    with Within(place):
        return function(*args, **kwargs)


def _plain(place: Any, function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        with Within(place):
            return function(*args, **kwargs)

    return call


def _coroutine(place: Any, function: Callable[..., Any]) -> Callable[..., Any]:
    async def call(*args: Any, **kwargs: Any) -> Any:
        with Within(place):
            return await function(*args, **kwargs)

    return call
