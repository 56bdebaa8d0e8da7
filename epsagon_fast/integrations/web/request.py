"""The trace of one request and its answer: what WSGI and ASGI share.

The runner says which request it was and what became of it, with its path and, if it failed, its exception. Both may
hold what people sent. With `metadata_only` off it also holds the query, the headers and the first bytes of the bodies:
see payloads.py.
"""

import sys
import time
from typing import Any, Final

from epsagon_fast.config import ResolvedConfig
from epsagon_fast.producer import current, encoding
from epsagon_fast.producer.failures import is_error
from epsagon_fast.producer.left_out import LeftOut
from epsagon_fast.producer.request_path import RequestPath
from epsagon_fast.producer.runner import new_runner
from epsagon_fast.producer.times import now
from epsagon_fast.producer.tracer import Tracer
from epsagon_fast.propagation import HTTP_TRACE_ID_KEY, TraceContext, extract_from
from epsagon_fast.protocol import ErrorCode
from epsagon_fast.queue.ring import own_pid

from ..choices import SERVER_ERROR, lowest_error
from .departures import is_departure

# The key under which a WSGI environ or an ASGI scope shows that the request is traced: a second middleware around the
# same application then leaves the request alone.
KEY: Final = "epsagon_fast.trace"
TYPE: Final = "http"


class RequestTrace(Tracer, RequestPath):
    """A request and its answer. The subclass fills in the attributes as they become known, then calls `end`.

    Not started: that is for code that ends it whatever exception comes; see entering.py.
    method, path: of the request. status: of the answer, 0 while there is none. reason: the status's text.
    request_bytes, response_bytes: sizes of the bodies. route: the pattern that the path matched.
    client_closed: the client left before it had the answer.
    """

    __slots__ = ()

    def __init__(
        self,
        config: ResolvedConfig,
        host: str,
        method: str,
        metadata: dict[str, str],
        context: TraceContext | None,
        own_id: str = "",
    ) -> None:
        """`metadata`: what is known of the request before the application sees it. `context`: the caller's.

        own_id: the trace's, if the head has decided by it.
        """
        if context is not None:
            metadata[HTTP_TRACE_ID_KEY] = context.trace_id
        super().__init__(config, new_runner(host, TYPE, method, metadata, time.time_ns()), own_id or None)
        self.context = context
        self.method = method
        self.path = metadata["path"]
        self.status = 0
        self.reason = ""
        self.request_bytes = 0
        self.response_bytes = 0
        self.route = ""
        self.client_closed = False
        # Metadata that is known only at the end.
        self.notes: dict[str, str] = {}
        self._answered_ns = 0
        # Whether the application itself has said what failed.
        self._is_told = False

    @property
    def answered(self) -> bool:
        """Whether the answer is complete."""
        return self._answered_ns > 0

    def answer_ends(self) -> None:
        """Note that the answer's last byte was handed over. The duration ends here; later work does not lengthen it."""
        self._answered_ns = time.perf_counter_ns()

    def answer_fails(self) -> None:
        """Note that the server did not take the answer's last byte after all."""
        self._answered_ns = 0

    def add_error(self, error_type: str, value: str | BaseException) -> None:
        """Set the trace's error, as in any trace. The answer's status then sets none."""
        self._is_told = True
        super().add_error(error_type, value)

    def blame(self, error: BaseException | None) -> None:
        """Note an exception that made the application answer with an error. The first one counts."""
        if is_departure(error, told=self.client_closed):
            self.client_leaves()
        elif error is not None and not self.has_failed and is_error(error):
            self.fail(error)

    def client_leaves(self) -> None:
        """Note that the client is gone. A framework then answers with an error of its own."""
        if self.answered:
            # Every connection ends so. An error that was answered before stays an error.
            return
        self._is_told = self.client_closed = True

    def time_out(self, traceback: str) -> None:
        """Close the trace: the server ends this process because it took too long. `traceback`: where it was."""
        message = "the server's timeout for its worker has passed"
        exception = {**encoding.exception_of("WorkerTimeout", message), "traceback": traceback}
        self.update_and_close(None, ErrorCode.TIMEOUT, exception)

    def end(self, error: BaseException | None = None) -> None:
        """Close the trace. `error`: what left the application. SystemExit 0 is no error, but cuts the request short."""
        if not self.recording or self.owner_pid != own_pid():
            self.send_stop_signal()
            return
        if is_departure(error, told=self.client_closed):
            self.client_leaves()
            error = None
        if error is not None and is_error(error):
            self.blame(error)
            # A server answers with 500 if the application has not answered.
            self.status = self._status_of_failed() or SERVER_ERROR
        is_bad = self.status >= lowest_error() and not self.has_failed and not self._is_told
        news = (self._result(), ErrorCode.ERROR, self._status_as_error()) if is_bad else (self._result(),)
        if self._answered_ns:
            self.stop_clock(self._answered_ns)
        if error is None or self.answered or self.client_closed or is_error(error):
            self.update_and_close(*news)
        else:
            self.update_runner(*news)
            self.abandon()

    def _status_of_failed(self) -> int:
        """Return the status that a failed request's client has seen; 0 if the server answered for the application."""
        return self.status

    def _result(self) -> dict[str, str]:
        metadata = {"request_bytes": str(self.request_bytes), "response_bytes": str(self.response_bytes), **self.notes}
        if self.status:
            metadata["status_code"] = str(self.status)
        if self.route:
            metadata["route"] = self.route
        if self.client_closed:
            metadata["client_closed"] = "true"
        return metadata

    def _status_as_error(self) -> dict[str, Any]:
        # The code that chose this answer has returned. A stack would only show the server.
        return {"type": "HTTPStatus", "message": f"{self.status} {self.reason}".rstrip(), "time": now(self.typed)}


def is_under_way(method: str, *paths: str) -> bool:
    """Say whether this request is traced already, by a middleware on the other side of a WSGI-ASGI adapter.

    An adapter keeps nothing of ours but the context. A connection's next request may begin in the context of the last
    one, but only when that one is answered. `paths`: the ways in which an adapter may split the path.
    """
    place = current.anywhere()
    if type(place) is LeftOut:
        return not place.is_over
    request = current.current_trace()
    if not isinstance(request, RequestTrace) or request.stopped or request.answered:
        return False
    return request.method == method and request.path in paths


def caller(traceparent: str, tracestate: str = "") -> TraceContext | None:
    """Return the trace context that the caller sent, None if it sent none."""
    return extract_from(traceparent.strip(" \t"), tracestate.strip(" \t")) if traceparent else None


def watch_frameworks() -> None:
    """Listen for the exceptions that Flask and Django turn into an answer, if one of them is loaded."""
    # Only their signals show the exception: what leaves the application is a plain 500.
    for name in ("flask.signals", "django.core.signals"):
        signals = sys.modules.get(name)
        if signals is not None:
            signals.got_request_exception.connect(_turned_into_an_answer)


def _turned_into_an_answer(sender: object, exception: BaseException | None = None, **_: Any) -> None:
    request = current.current_trace()
    if isinstance(request, RequestTrace):
        request.blame(exception or sys.exception())
