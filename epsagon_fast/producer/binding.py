"""`bind`: a function takes the trace in which it was handed over to where it runs, another thread or a callback.

Only the current trace goes with it. The rest of the context (contextvars of the application) stays that of the caller.
"""

import functools
from collections.abc import Callable

from epsagon_fast.hints import Any, TypeVar

from . import entering
from .decorate import in_block
from .entering import Entered, Within

F = TypeVar("F", bound=Callable[..., Any])


def bind(function: F) -> F:
    """Return a function that runs in the trace and event that are current now, wherever and whenever it is called.

    `function`: anything that can be called. What coroutines and generators do in later steps is there too. It is
    returned itself if no trace is current. After the trace has ended it runs as if it were not bound. It cannot be
    pickled: another process attaches to a trace with its handle.
    """
    place = entering.current.get()
    return function if place is None else in_block(function, functools.partial(_Bound, place))


def run_in(place: Any, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """Call `function` where `place` is the current one."""
    with Within(place):
        return function(*args, **kwargs)


class _Bound(Entered):
    """The block of one call: it records nothing, and is only there."""

    keeps_values = False

    def __init__(self, place: Any) -> None:
        self.place = place

    def open(self) -> "_Bound":
        return self

    def close(self, error: BaseException | None) -> None:
        pass

    def cut_off(self) -> None:
        pass

    def note(self, key: str, value: Any) -> None:
        pass
