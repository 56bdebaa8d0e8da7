"""Tracing of a WSGI application (PEP 3333): `app = TracingMiddleware(app)`.

A request's trace is the current one while the application's code runs: in the call, in each step of its answer, in the
answer's `close`. In between the server runs. The duration ends with the body's last piece, the trace with `close`; an
answer that is in memory is complete when the application returns. See wsgi_bodies.py.
"""

import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from epsagon_fast.config import ResolvedConfig
from epsagon_fast.interrupts import let_pass
from epsagon_fast.producer import current, process

from .web import payloads
from .web.departures import is_departure
from .web.exchange import KEY, SERVER_ERROR, Exchange, caller, ignored_endpoints, is_under_way, watch_frameworks
from .web.wsgi_bodies import handed_on
from .web.wsgi_input import noting
from .web.wsgi_routes import DJANGO, FLASK, django_route, flask_rule, mounted_at

Environ = dict[str, Any]
Headers = list[tuple[str, str]]
Application = Callable[..., Iterable[bytes]]

# The two headers that CGI gave names without a prefix.
PLAIN_HEADERS: Final = ("CONTENT_TYPE", "CONTENT_LENGTH")
# More digits than any length has; Python refuses to read thousands.
MOST_DIGITS: Final = 18
# Their answers have no body, whatever the application returns.
WITHOUT_BODY: Final = (204, 304)


class TracingMiddleware:
    """A WSGI application around another one; it makes a trace of each request."""

    def __init__(self, app: Application) -> None:
        self.app = app
        self._ignored = ignored_endpoints()
        watch_frameworks()

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer one request."""
        config = process.config()
        path = _path(environ)
        if path in self._ignored:
            with current.within(current.NOT_TRACED):
                return self.app(environ, start_response)
        if KEY in environ or not process.records(config):
            return self.app(environ, start_response)
        if is_under_way(environ.get("REQUEST_METHOD", ""), path, _decoded(environ.get("PATH_INFO", ""))):
            return self.app(environ, start_response)
        return Request(config, path, environ, start_response).answer(self.app)


class Request(Exchange):
    """One request to a WSGI application."""

    # Whether some of the answer was on its way when the trace ended.
    _is_begun = False

    def __init__(self, config: ResolvedConfig, path: str, environ: Environ, start: Callable[..., Any]) -> None:
        host = environ.get("HTTP_HOST") or environ.get("SERVER_NAME", "")
        context = caller(environ.get("HTTP_TRACEPARENT", ""), environ.get("HTTP_TRACESTATE", ""))
        self._method: str = environ.get("REQUEST_METHOD", "")
        super().__init__(config, host, self._method, _known(config, path, environ), context)
        environ[KEY] = self
        self._environ = environ
        self._script_name = environ.get("SCRIPT_NAME", "")
        self._mount = ""
        # A test client may keep an answer and never close it. Servers do close it, and say who they are.
        self._is_served = "SERVER_SOFTWARE" in environ
        self._start_response = start
        self._headers: Headers = []
        keep = self.keeps_values
        self._request_body: payloads.Body | None = None
        self._response_body = payloads.Body(True) if keep else None
        length = environ.get("CONTENT_LENGTH") or ""
        if length:
            self.request_bytes = _number(length) or 0
        if self.request_bytes or keep or (not length and "HTTP_TRANSFER_ENCODING" in environ):
            self._request_body = payloads.Body(keep)
            environ["wsgi.input"] = noting(environ.get("wsgi.input"), self)

    @property
    def file_wrapper(self) -> Any:
        """What the server has for files, None if it has nothing."""
        return self._environ.get("wsgi.file_wrapper")

    def answer(self, app: Application) -> Iterable[bytes]:
        """Return the application's answer; the trace ends with it."""
        try:
            with current.within(self):
                body = app(self._environ, self.start_response)
        except StopIteration:
            # Not by PEP 3333: to gunicorn it says that the application had the connection to itself and is through.
            self.answer_ends()
            self.end()
            raise
        except BaseException as error:
            self.end(error)
            raise
        if DJANGO in sys.modules and (route := django_route(body)):
            self.route = self._within_mount(route)
        return handed_on(self, body)  # type: ignore[no-any-return]

    def start_response(self, status: str, headers: Headers, exc_info: Any = None) -> Callable[[bytes], Any]:
        """Hand on the answer's status and take note of it: the last one that the server took is the client's."""
        code, _, reason = str(status).partition(" ")
        number = _number(code) or 0
        environ = self._environ
        # What mounted the application has returned when the answer begins, and Flask takes its request away then.
        if (script_name := environ.get("SCRIPT_NAME", "")) != self._script_name:
            self.route = self._mount = mounted_at(self._script_name, script_name)
        if FLASK in environ:
            self.route = self._within_mount(flask_rule(environ))
        if number >= SERVER_ERROR:
            self.blame(exc_info[1] if exc_info else sys.exception())
        more = (exc_info,) if exc_info else ()
        self._server_write = self._start_response(status, headers, *more)
        self.status, self.reason, self._headers = number, reason, headers
        return self._write

    def received(self, read: Callable[..., bytes], *outcome: Any) -> None:
        """Take note of a piece of the request's body. `read`: what tells it from a call's outcome and its arguments."""
        if self._request_body is not None:
            try:
                self._request_body.add(read(*outcome))
            except Exception as error:  # of a stream that gives something else; the application will notice
                let_pass(error)

    def sent(self, data: bytes) -> None:
        """Take note of a piece of the answer."""
        try:
            self.response_bytes += len(data)
            if self._response_body is not None:
                self._response_body.add(data)
        except TypeError:  # no bytes: the server will say so
            return

    def sent_pieces(self, pieces: Iterable[bytes]) -> None:
        """Take note of a complete answer."""
        self.answer_ends()
        for piece in pieces:
            self.sent(piece)

    def sent_file(self, size_bytes: int | None, left_bytes: int) -> None:
        """Take note that the server is through with a file. `size_bytes`: None if it is not known."""
        self.answer_ends()
        length = self._promised_bytes()
        known = [size for size in (size_bytes, length) if size is not None]
        if left_bytes and not self._has_no_body():
            self.answer_fails()
            self.client_leaves()
        self.response_bytes += max(min(known, default=0) - left_bytes, 0)

    def exhausted(self, has_close: bool) -> None:
        """Take note that the body has no more pieces. `has_close`: whether the application closes it."""
        self.answer_ends()
        if not (has_close and self._is_served):
            self.end()

    def given_up(self, error: BaseException | None) -> BaseException | None:
        """Take note that the server closes a body before its end. `error`: what it met, None if nothing.

        Returns the error to be recorded.
        """
        if error is None and (self._has_no_body() or self.response_bytes == self._promised_bytes()):
            self.answer_ends()
        elif error is None or is_departure(error, told=True):
            self.client_leaves()
            error = None
        return error

    def end(self, error: BaseException | None = None) -> None:
        """Close the trace."""
        if self._stopped:
            return
        if self.response_bytes:
            self._is_begun = True
            if self._has_no_body():
                self.response_bytes = 0
        body = self._request_body
        if body is not None:
            self.request_bytes = self.request_bytes or body.size_bytes
        if self._response_body is not None:
            self._keep_values()
        # The environ holds us: a circle would leave both to the garbage collector.
        self._environ = {}
        super().end(error)

    def _status_of_failed(self) -> int:
        # Where nothing was on its way yet, the server answers with an error of its own.
        return self.status if self._is_begun or self.answered else 0

    def _has_no_body(self) -> bool:
        return self._method == "HEAD" or self.status in WITHOUT_BODY

    def _promised_bytes(self) -> int | None:
        return _number(_header(self._headers, "content-length"))

    def _within_mount(self, route: str) -> str:
        mount = self._mount
        return f"{mount}/{route}" if mount and route and not route.startswith("/") else mount + route

    def _write(self, data: bytes) -> None:
        try:
            self._server_write(data)
        except Exception as error:
            if is_departure(error, told=True):
                self.client_leaves()
            raise
        self.sent(data)

    def _keep_values(self) -> None:
        ignored = self.config.ignored_keys
        self.notes["response_headers"] = payloads.headers(self._headers, ignored)
        for name, body, kind in (
            ("request_body", self._request_body, self._environ.get("CONTENT_TYPE", "")),
            ("response_body", self._response_body, _header(self._headers, "content-type")),
        ):
            if body is not None and body.size_bytes:
                self.notes[name] = body.text(kind, ignored)


def _number(text: str) -> int | None:
    return int(text) if text.isdecimal() and len(text) <= MOST_DIGITS else None


def _path(environ: Environ) -> str:
    return _decoded(environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", ""))


def _decoded(path: str) -> str:
    # The server decoded the bytes as ISO 8859-1, whatever they are.
    return path if path.isascii() else path.encode("latin-1", "replace").decode("utf-8", "replace")


def _known(config: ResolvedConfig, path: str, environ: Environ) -> dict[str, str]:
    """Return the metadata that a request has before the application sees it."""
    metadata = {"path": path}
    if not config.metadata_only:
        metadata["query"] = payloads.query(environ.get("QUERY_STRING", ""), config.ignored_keys)
        metadata["request_headers"] = payloads.headers(_request_headers(environ), config.ignored_keys)
    return metadata


def _request_headers(environ: Environ) -> Iterator[tuple[str, str]]:
    for key, value in environ.items():
        if key.startswith("HTTP_"):
            yield key[len("HTTP_") :].replace("_", "-"), str(value)
        elif key in PLAIN_HEADERS and value:
            yield key.replace("_", "-"), str(value)


def _header(headers: Headers, name: str) -> str:
    return next((value for key, value in headers if key.lower() == name), "")
