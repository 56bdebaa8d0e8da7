"""The fast path of a complete event into a ring, compiled or in plain Python.

It is compiled because looking at every field in Python, or even the frame of one Python function, costs as much as
encoding the event.
"""

from collections.abc import Callable, Mapping

import orjson

from epsagon_fast.compiled import COMPILED, implementation
from epsagon_fast.hints import TYPE_CHECKING, Any
from epsagon_fast.interrupts import let_pass
from epsagon_fast.producer.encoding import complete_copy, with_parent
from epsagon_fast.producer.entering import parent_of
from epsagon_fast.protocol import RUNNER_ORIGIN, Kind
from epsagon_fast.queue.layout import FULL, FULLS_PER_LOOK, NOT_ASKED, PUSHED

__all__ = [
    "FastPath",
    "PureFastPath",
    "injector",
    "labelled",
    "pure_injector",
    "pure_labelled",
    "pure_wsgi_answers",
    "take_untold",
    "wsgi_answers",
]


class PureFastPath:
    """The part of a tracer that must be fast. An event that it or the ring does not take goes to `_add_slowly`."""

    # Whether an event's block was ever entered in the trace. Only then has an event a parent other than the runner.
    has_blocks = False
    # Whether what is added is ignored, uncounted: nothing of an event's block is needed.
    ignores = False
    # Whether arguments and return values of traced functions are recorded.
    keeps_values = False
    # In a process that did not open the trace: the opener's event that is the parent of the events recorded here.
    within_id: str | None = None
    # Of the process that opened the trace, and of the trace's runner.
    owner_pid = 0
    trace_id = span_id = ""
    # What recorder.py and tracer.py know of the trace. They explain it.
    typed = _is_measured = False
    config: Any = None
    context: Any = None
    ids: Any = None
    _id = b""
    _state: Any = None
    _writer: Any = None
    _push: Any = None
    _count: Any = None
    _error_code = 0
    _runner: Any = None
    _own_runner: Any = None
    _beacons: Any = None
    _beacon = 0
    _place: Any = None
    _ended_ns: int | None = None
    _opened_ns = _event_limit_bytes = 0
    _fulls = 0
    _path: tuple[Callable[[int, int, bytes, bytes], int], bytes, int, bool] | None = None

    def add_event(self, event: Mapping[str, Any]) -> None:
        """Add an event as it is now; later changes of `event` have no effect.

        Missing fields get the protobuf defaults; a field of a wrong type gets its default and is counted `malformed`.
        """
        self.add_event_under(event, parent_of(self) if self.has_blocks else None)

    def add_event_under(self, event: Mapping[str, Any], parent_id: str | None) -> None:
        """Add an event whose parent is known. `parent_id`: 16 hex digits; None: the runner."""
        code = self._pushed(event, parent_id)
        if code == FULL:
            self._fulls += 1
            if self._fulls % FULLS_PER_LOOK != 1:
                return
        if code != PUSHED:
            self._add_slowly(event, code, parent_id)

    def __reduce__(self) -> str:
        """Raise TypeError, because a copy would lead into the ring of another process."""
        raise TypeError("this cannot be copied: it leads into the ring of one process")

    def _open_path(
        self, push: Callable[[int, int, bytes, bytes], int], trace_id: bytes, limit_bytes: int, typed: bool
    ) -> None:
        """Let events of at most `limit_bytes` pass to `push`. `typed`: metadata keep their types; see encoding.py."""
        self._path = (push, trace_id, limit_bytes, typed)

    def _close_path(self) -> None:
        """Let no event pass any more."""
        self._path = None

    def _open_at_once(self) -> bool:
        """Open the trace if it is new and nothing about it is unusual. Return False if all of that was left to do."""
        return False

    def _close_at_once(self, news: bytes = b"") -> bool:
        """Close the trace if it is open and nothing about it is unusual. Return False if all of that was left to do.

        `news`: the payload of a RUNNER, which goes with the CLOSE.
        """
        return False

    def _add_slowly(self, event: Mapping[str, Any], code: int, parent_id: str | None) -> None:
        """Do the rest for an event. `code`: the push's answer; NOT_ASKED: it was not asked."""
        raise NotImplementedError

    def _pushed(self, event: Any, parent_id: str | None) -> int:
        if self._path is None:
            return NOT_ASKED
        push, trace_id, limit_bytes, typed = self._path
        try:
            copy = complete_copy(event, typed)
            if copy is None or copy["origin"] == RUNNER_ORIGIN:
                return NOT_ASKED
            payload = orjson.dumps(copy)
            if parent_id is not None:
                payload = with_parent(payload, parent_id)
        except Exception as error:
            let_pass(error)
            # The slow path can make an event encodable that orjson refuses.
            return NOT_ASKED
        return push(int(Kind.EVENT), 0, trace_id, payload) if len(payload) <= limit_bytes else NOT_ASKED


def pure_labelled(key: str, value: Any) -> bool:
    """Label the current trace. Return False if that was left to do, as it always is without the extension."""
    return False


def pure_injector(context_type: type) -> Callable[[Any], Any]:
    """Return a function that does what propagation.inject does, or returns None if that is left to do."""
    return lambda headers: None


def pure_wsgi_answers(
    request_class: type,
    key: str,
    context_of: Callable[[dict[str, Any]], Any],
    expect_input: Callable[[Any, dict[str, Any]], None],
    lowest_error: Callable[[], int | None],
    handed_on: Callable[[Any, Any], Any],
    unusual: object,
) -> Callable[..., Any]:
    """Return a function that answers a request as the WSGI middleware does, or returns `unusual` if that is left to do.

    Its arguments: the application, the environ, the server's start_response. request_class: of the trace. key: of the
    trace in the environ. context_of: returns what the caller sent. expect_input: prepares for the request's body.
    lowest_error: the status from which on an answer is an error. handed_on: returns what the server gets for a body.
    """
    return lambda app, environ, start_response: unusual


if TYPE_CHECKING or implementation("add_event") == COMPILED:
    from epsagon_fast.producer._fast_path import FastPath, injector, labelled, take_untold, wsgi_answers
else:
    FastPath = PureFastPath
    injector = pure_injector
    labelled = pure_labelled
    take_untold = int
    wsgi_answers = pure_wsgi_answers
