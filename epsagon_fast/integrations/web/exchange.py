"""What WSGI and ASGI share: one request with its answer is one trace.

Its runner says which request it was and what became of it, without anything that people send. With `metadata_only` off
it also keeps the query, the headers and the first bytes of the bodies; see payloads.py.
"""

import os
import sys
import time
from collections.abc import Mapping
from typing import Any, Final

import orjson

from epsagon_fast.config import ResolvedConfig
from epsagon_fast.producer import current, encoding
from epsagon_fast.producer.scope import is_error
from epsagon_fast.producer.tracer import UNCHANGED, Tracer
from epsagon_fast.propagation import HTTP_TRACE_ID_KEY, TRACEPARENT, TRACESTATE, TraceContext, extract
from epsagon_fast.protocol import RUNNER_ORIGIN, ErrorCode, Kind

from .departures import is_departure

# Where a request's trace stands in a WSGI environ or an ASGI scope. A second middleware around the same app sees it.
KEY: Final = "epsagon_fast.trace"
TYPE: Final = "http"
SERVER_ERROR: Final = 500
# A plain int: asking an enum for its member costs as much as a push.
RUNNER: Final = int(Kind.RUNNER)


class Exchange(Tracer):
    """A request and its answer. A server's middleware fills in the attributes as they become known, then calls `end`.

    status: of the answer, 0 while there is none. reason: its text. request_bytes, response_bytes: of the bodies.
    route: the pattern that the path matched. client_closed: the client left before it had the answer.
    """

    def __init__(
        self, config: ResolvedConfig, host: str, operation: str, metadata: dict[str, str], context: TraceContext | None
    ) -> None:
        """`metadata`: what is known of the request before the application sees it. `context`: the caller's."""
        if context is not None:
            metadata[HTTP_TRACE_ID_KEY] = context.trace_id
        runner = {
            "start_time": time.time(),
            "resource": {"name": host, "type": TYPE, "operation": operation, "metadata": metadata},
            "origin": RUNNER_ORIGIN,
            "duration": 0.0,
            "error_code": int(ErrorCode.OK),
            "exception": None,
        }
        super().__init__(config, runner)
        self.context = context
        self.request = (operation, metadata["path"])
        self.status = 0
        self.reason = ""
        self.request_bytes = 0
        self.response_bytes = 0
        self.route = ""
        self.client_closed = False
        # More metadata, for the end.
        self.notes: dict[str, str] = {}
        self._answered_at = 0.0
        # Whether the application said itself what failed.
        self._is_told = False
        self.start()

    @property
    def answered(self) -> bool:
        """Whether the answer is complete."""
        return self._answered_at > 0

    def answer_ends(self) -> None:
        """Note that the answer's last byte was handed over: the duration ends here, whatever is done afterwards."""
        self._answered_at = time.perf_counter()

    def answer_fails(self) -> None:
        """Note that the answer's last byte was not taken after all."""
        self._answered_at = 0.0

    def add_error(self, error_type: str, value: str | BaseException) -> None:
        """Set the trace's error, as in any trace; a status of the answer then says no more."""
        self._is_told = True
        super().add_error(error_type, value)

    def blame(self, error: BaseException | None) -> None:
        """Note an exception that made the application answer with an error; the first one counts."""
        if is_departure(error, told=self.client_closed):
            self.client_leaves()
        elif error is not None and self._error_code == UNCHANGED and is_error(error):
            self.fail(error)

    def client_leaves(self) -> None:
        """Note that the client is gone. Frameworks still answer, with an error: it says nothing of the application."""
        if self.answered:
            # This is how every connection ends. An error of the answer stays one.
            return
        self._is_told = self.client_closed = True

    def time_out(self, traceback: str) -> None:
        """Close the trace: the server ends its process for taking too long. `traceback`: where that was."""
        message = "the server's timeout for its worker has passed"
        self._error_code = int(ErrorCode.TIMEOUT)
        exception = {**encoding.exception_of("WorkerTimeout", message), "traceback": traceback}
        self._put(RUNNER, encoding.encode_partial({"error_code": self._error_code, "exception": exception}))
        self._close()

    def end(self, error: BaseException | None = None) -> None:
        """Close the trace. `error`: what left the application; if that is no error (SystemExit 0), it was cut short."""
        if not self._recording or self.owner_pid != os.getpid():
            self._close()
            return
        if is_departure(error, told=self.client_closed):
            self.client_leaves()
            error = None
        if error is not None and is_error(error):
            self.blame(error)
            # Servers answer so if the application did not.
            self.status = self._status_of_failed() or SERVER_ERROR
        fields: dict[str, Any] = {"resource": {"metadata": self._result()}}
        if self.status >= SERVER_ERROR and self._error_code == UNCHANGED and not self._is_told:
            fields.update(self._status_as_error())
        self._put(RUNNER, _encoded(fields))
        if self._answered_at:
            # The trace's clock stood still since then.
            self._opened_at += time.perf_counter() - self._answered_at
        if error is None or self.answered or self.client_closed or is_error(error):
            self._close()
        else:
            self.abandon()

    def _status_of_failed(self) -> int:
        """Return the status that the client of a failed request has seen; 0 if the server answered in its place."""
        return self.status

    def _encode_runner(self, runner: Mapping[str, Any]) -> bytes:
        # Made above, complete and of texts: nothing needs to be looked at but lone surrogates, which orjson refuses.
        try:
            return orjson.dumps(runner)
        except TypeError:
            return super()._encode_runner(runner)

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
        self._error_code = int(ErrorCode.ERROR)
        exception = {
            "type": "HTTPStatus",
            "message": f"{self.status} {self.reason}".rstrip(),
            # The code that chose this answer has returned; a stack would only show the server.
            "traceback": "",
            "time": time.time(),
            "additional_data": {},
        }
        return {"error_code": self._error_code, "exception": exception}


def _encoded(fields: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(fields)
    except TypeError:  # a route or a reason with a lone surrogate
        return encoding.encode_partial(fields)


def ignored_endpoints() -> frozenset[str]:
    """Return the paths that are not traced: EPSAGON_ENDPOINTS_TO_IGNORE, separated by commas, matched exactly."""
    paths = os.environ.get("EPSAGON_ENDPOINTS_TO_IGNORE", "").split(",")
    return frozenset(filter(None, map(str.strip, paths)))


def is_under_way(method: str, *paths: str) -> bool:
    """Say whether a request is the current one, which an adapter between WSGI and ASGI hands on to its application.

    Adapters keep nothing of ours but the context. A connection's next request may begin in the context of the one
    before, but not before that one is answered. `paths`: the ways in which an adapter may split the path.
    """
    exchange = current.current_trace()
    if not isinstance(exchange, Exchange) or exchange.stopped or exchange.answered:
        return False
    return exchange.request[0] == method and exchange.request[1] in paths


def caller(traceparent: str, tracestate: str = "") -> TraceContext | None:
    """Return what ties a request to its caller's trace."""
    return extract({TRACEPARENT: traceparent, TRACESTATE: tracestate}) if traceparent else None


def watch_frameworks() -> None:
    """Hear of the exceptions that Flask and Django turn into an answer, if one of them is there."""
    # Only their own signals tell: what leaves the application is a plain 500.
    for name in ("flask.signals", "django.core.signals"):
        signals = sys.modules.get(name)
        if signals is not None:
            signals.got_request_exception.connect(_turned_into_an_answer)


def _turned_into_an_answer(sender: object, exception: BaseException | None = None, **_: Any) -> None:
    exchange = current.current_trace()
    if isinstance(exchange, Exchange):
        exchange.blame(exception or sys.exception())
