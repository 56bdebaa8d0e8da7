"""/metrics and /healthz on loopback, for Prometheus and for a supervisor's probe. Needs the extra `metrics`.

It reads the folder's files, as any other process may, so it takes nothing from the collector's loop and waits for
nothing in it. It is as open as every port of loopback: each user of the machine can read the names of the applications
and their requests. A page in a browser cannot: it would come with a foreign host's name.
"""

import time
from collections.abc import Callable, Iterable
from http import HTTPStatus
from io import StringIO
from socketserver import ThreadingMixIn
from threading import Semaphore, Thread
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client.exposition import make_wsgi_app

from epsagon_fast.collector.measuring.figures import View, view
from epsagon_fast.collector.measuring.prometheus import registry
from epsagon_fast.hints import Any
from epsagon_fast.queue.overview import look
from epsagon_fast.queue.state import STALLED_S

LOOPBACK = "127.0.0.1"
# A client that takes longer than this to say what it wants is not waited for.
REQUEST_TIMEOUT_S = 5.0
MAX_CONNECTIONS = 16
_HOSTS = (LOOPBACK, "localhost")
_PLAIN = ("Content-Type", "text/plain; charset=utf-8")

Environ = dict[str, Any]
Start = Callable[..., Any]


class _Handler(WSGIRequestHandler):
    timeout = REQUEST_TIMEOUT_S

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: a scrape every few seconds is no news, and a path is a foreign text."""

    def get_stderr(self) -> Any:
        """Return where a traceback goes: nowhere. A header that prometheus_client cannot read is answered with 500."""
        return StringIO()


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    request_queue_size = MAX_CONNECTIONS

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._free = Semaphore(MAX_CONNECTIONS)

    def server_bind(self) -> None:
        """Bind, without asking a name server who we are."""
        self.server_name = LOOPBACK
        super(WSGIServer, self).server_bind()
        self.server_port = self.server_address[1]
        self.setup_environ()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread, if there is one left."""
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer, then let another one come."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a client has gone."""


class Endpoint:
    """The server for one folder's path. Raises OSError if the port cannot be had."""

    def __init__(self, path: str, port: int) -> None:
        self._path = path
        self._metrics: Any = make_wsgi_app(registry(self._view))
        self._server = make_server(LOOPBACK, port, self._answer, _Server, _Handler)
        self.port = self._server.server_port

    def start(self) -> None:
        """Answer from now on, in a daemon thread."""
        Thread(target=self._server.serve_forever, name="epsagon-metrics-port", daemon=True).start()

    def close(self) -> None:
        """Answer no more."""
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, environ: Environ, start: Start) -> Iterable[bytes]:
        if environ.get("HTTP_HOST", LOOPBACK).partition(":")[0].lower() not in _HOSTS:
            return _say(start, HTTPStatus.FORBIDDEN, "This is for loopback only.")
        if environ["REQUEST_METHOD"] == "HEAD":
            self._answer({**environ, "REQUEST_METHOD": "GET"}, start)
            return []
        if environ["REQUEST_METHOD"] != "GET":
            return _say(start, HTTPStatus.METHOD_NOT_ALLOWED, "GET only.")
        if environ["PATH_INFO"] == "/metrics":
            answer: Iterable[bytes] = self._metrics(environ, start)
            return answer
        if environ["PATH_INFO"] == "/healthz":
            trouble = self._trouble()
            return _say(start, HTTPStatus.SERVICE_UNAVAILABLE if trouble else HTTPStatus.OK, trouble or "ok")
        return _say(start, HTTPStatus.NOT_FOUND, "There are /metrics and /healthz.")

    def _view(self) -> View:
        try:
            return view(look(self._path))
        except OSError:
            return View(None, [], time.time())

    def _trouble(self) -> str | None:
        seen = self._view().seen
        if seen is None or seen.pid is None:
            return "no collector runs"
        stalled_s = seen.heartbeat_age_s or 0.0
        return f"the collector gave no sign of life for {stalled_s:.0f} s" if stalled_s > STALLED_S else None


def _say(start: Start, status: HTTPStatus, text: str) -> list[bytes]:
    # A list of its own, to which the server adds.
    start(f"{status.value} {status.phrase}", [_PLAIN])
    return [text.encode() + b"\n"]
