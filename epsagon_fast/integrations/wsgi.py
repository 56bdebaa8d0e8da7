"""Tracing of a WSGI application (PEP 3333): `app = TracingMiddleware(app)`.

A request's trace is the current one while the application's code runs: in the call, in each step of its answer, in the
answer's `close`. In between the server runs. The trace ends with `close`, its duration with the body's last piece.
"""

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from epsagon_fast.config import ResolvedConfig
from epsagon_fast.interrupts import let_pass
from epsagon_fast.producer import current, process

from . import payloads
from .http import KEY, SERVER_ERROR, Exchange, caller, ignored_endpoints, is_under_way, watch_frameworks

Environ = dict[str, Any]
Headers = list[tuple[str, str]]
Application = Callable[..., Iterable[bytes]]

# The two headers that CGI gave names without a prefix.
PLAIN_HEADERS: Final = ("CONTENT_TYPE", "CONTENT_LENGTH")


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
        if KEY in environ or path in self._ignored or not process.records(config):
            return self.app(environ, start_response)
        if is_under_way(environ.get("REQUEST_METHOD", ""), path, _decoded(environ.get("PATH_INFO", ""))):
            return self.app(environ, start_response)
        return Request(config, path, environ, start_response).answer(self.app)


class Request(Exchange):
    """One request to a WSGI application."""

    def __init__(self, config: ResolvedConfig, path: str, environ: Environ, start: Callable[..., Any]) -> None:
        host = environ.get("HTTP_HOST") or environ.get("SERVER_NAME", "")
        context = caller(environ.get("HTTP_TRACEPARENT", ""), environ.get("HTTP_TRACESTATE", ""))
        super().__init__(config, host, environ.get("REQUEST_METHOD", ""), _known(config, path, environ), context)
        environ[KEY] = self
        self._environ = environ
        self._start_response = start
        self._headers: Headers = []
        self._request_body: payloads.Body | None = None
        keep = self.keeps_values
        self._response_body = payloads.Body(True) if keep else None
        length = environ.get("CONTENT_LENGTH") or ""
        if length.isdecimal():
            self.request_bytes = int(length)
        if keep or (not length and "HTTP_TRANSFER_ENCODING" in environ):
            self._request_body = payloads.Body(keep)
            environ["wsgi.input"] = _Input(environ["wsgi.input"], self._request_body.add)

    def answer(self, app: Application) -> Iterable[bytes]:
        """Return the application's answer; the trace ends when the server closes it."""
        before = current.swap(self)
        try:
            body = app(self._environ, self.start_response)
            self.route = self.route or _django_route(body)
        except BaseException as error:
            self.end(error)
            raise
        finally:
            current.leave(self, before)
        wrapper = self._environ.get("wsgi.file_wrapper")
        if isinstance(wrapper, type) and isinstance(body, wrapper):
            return _file_answer(self, body)
        return SizedAnswer(self, body) if isinstance(body, list | tuple) else Answer(self, body)

    def start_response(self, status: str, headers: Headers, exc_info: Any = None) -> Callable[[bytes], Any]:
        """Take note of the answer's status and hand it on."""
        code, _, self.reason = status.partition(" ")
        self.status = int(code) if code.isdecimal() else 0
        self._headers = headers
        # Flask takes its request out of the environ when the answer has begun.
        request = self._environ.get("werkzeug.request")
        if request is not None:
            self.route = str(getattr(getattr(request, "url_rule", None), "rule", ""))
        if self.status >= SERVER_ERROR:
            self.blame(exc_info[1] if exc_info else sys.exception())
        more = (exc_info,) if exc_info else ()
        self._server_write = self._start_response(status, headers, *more)
        return self._write

    def sent(self, data: bytes) -> None:
        """Take note of a piece of the answer."""
        self.response_bytes += len(data)
        if self._response_body is not None:
            self._response_body.add(data)

    def sent_file(self, size_bytes: int) -> None:
        """Take note that the server sent a whole file by itself, of this size unless the application said another."""
        self.answer_ends()
        length = _header(self._headers, "content-length")
        if self._environ.get("REQUEST_METHOD") != "HEAD":
            self.response_bytes += int(length) if length.isdecimal() else size_bytes

    def end(self, error: BaseException | None = None) -> None:
        """Close the trace."""
        body = self._request_body
        if body is not None:
            self.request_bytes = self.request_bytes or body.size_bytes
        if self._response_body is not None:
            self._keep_values()
        # The environ holds us: a circle would leave both to the garbage collector.
        self._environ = {}
        super().end(error)

    def _write(self, data: bytes) -> None:
        try:
            self._server_write(data)
        except OSError:
            self.client_closed = True
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


class Answer:
    """The body of an answer as the server takes it, piece by piece."""

    def __init__(self, request: Request, body: Iterable[bytes]) -> None:
        self._request = request
        self._body = body
        self._pieces: Iterator[bytes] | None = None
        self._error: BaseException | None = None

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        request = self._request
        before = current.swap(request)
        try:
            if self._pieces is None:
                self._pieces = iter(self._body)
            piece = next(self._pieces)
        except StopIteration:
            request.answer_ends()
            raise
        except BaseException as error:
            self._error = error
            raise
        finally:
            current.leave(request, before)
        request.sent(piece)
        return piece

    def close(self) -> None:
        """Let the application close its answer, then end the trace."""
        request, error = self._request, self._error
        if error is None and not request.answered:
            # The server gave up though the application did not.
            error = sys.exception()
            if error is None or isinstance(error, OSError):
                request.client_closed, error = True, None
        close = getattr(self._body, "close", None)
        if close is None:
            request.end(error)
            return
        before = current.swap(request)
        try:
            close()
        except BaseException as failure:
            error = failure
            raise
        finally:
            current.leave(request, before)
            request.end(error)


class SizedAnswer(Answer):
    """An answer that is in memory. A server may ask how many pieces there are, and send the length of a single one."""

    _body: "list[bytes] | tuple[bytes, ...]"
    _taken = 0

    def __len__(self) -> int:
        return len(self._body)

    def __iter__(self) -> Iterator[bytes]:
        # gevent's server goes over all pieces in the middle of sending them, to add up their lengths.
        for taken, piece in enumerate(self._body, 1):
            self._taken = max(self._taken, taken)
            yield piece
        self._request.answer_ends()

    def close(self) -> None:
        """Count what was taken, then do the same as for any answer."""
        for piece in self._body[: self._taken]:
            self._request.sent(piece)
        super().close()


class _Input:
    """A request's body as the application reads it. What else the server's object can do it still can."""

    def __init__(self, stream: Any, note: Callable[[bytes], None]) -> None:
        self._stream = stream
        self._note = note

    def read(self, *size: Any) -> bytes:
        return self._noted(self._stream.read(*size))

    def readline(self, *size: Any) -> bytes:
        return self._noted(self._stream.readline(*size))

    def readlines(self, *hint: Any) -> list[bytes]:
        return [self._noted(line) for line in self._stream.readlines(*hint)]

    def __iter__(self) -> Iterator[bytes]:
        return map(self._noted, self._stream)

    # Python looks these up in the class. Where the server's object lacks one, it says so itself.
    def __next__(self) -> bytes:
        return self._noted(next(self._stream))

    def __enter__(self) -> "_Input":
        self._stream.__enter__()
        return self

    def __exit__(self, *error: Any) -> Any:
        return self._stream.__exit__(*error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _noted(self, data: bytes) -> bytes:
        self._note(data)
        return data


def _file_answer(request: Request, body: Any) -> Iterable[bytes]:
    """Return a file in the server's own wrapper as it is: in another one the server would not use sendfile."""
    close = getattr(body, "close", None)
    size_bytes = _size_of(body)

    def close_and_end() -> None:
        # What the server met while it sent the file, if anything.
        error = sys.exception()
        request.client_closed = isinstance(error, OSError)
        if error is None:
            request.sent_file(size_bytes)
        try:
            if close is not None:
                close()
        except BaseException as failure:
            error = failure
            raise
        finally:
            request.end(error)

    try:
        body.close = close_and_end
    except AttributeError:  # a wrapper written in C
        return Answer(request, body)
    return body  # type: ignore[no-any-return]


def _size_of(body: Any) -> int:
    """Return how much is left of the file in a wrapper; 0 if that cannot be told. Nothing says how much is sent."""
    try:
        file = body.filelike
        place = file.tell()
        end: int = file.seek(0, os.SEEK_END)
        file.seek(place)
        return end - int(place)
    except Exception as error:  # of the application's own object
        let_pass(error)
        return 0


def _path(environ: Environ) -> str:
    return _decoded(environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", ""))


def _decoded(path: str) -> str:
    # The server decoded the bytes as ISO 8859-1, whatever they are.
    return path if path.isascii() else path.encode("latin-1", "replace").decode("utf-8", "replace")


def _known(config: ResolvedConfig, path: str, environ: Environ) -> dict[str, str]:
    """Return the metadata that a request has before the application sees it."""
    metadata = {"path": path}
    if not config.metadata_only:
        metadata["query"] = payloads.query(environ.get("QUERY_STRING", ""))
        metadata["request_headers"] = payloads.headers(_request_headers(environ), config.ignored_keys)
    return metadata


def _request_headers(environ: Environ) -> Iterator[tuple[str, str]]:
    for key, value in environ.items():
        if key.startswith("HTTP_"):
            yield key[len("HTTP_") :].replace("_", "-"), str(value)
        elif key in PLAIN_HEADERS and value:
            yield key.replace("_", "-"), str(value)


def _django_route(response: object) -> str:
    """Return the pattern that the path matched: Django's request hangs on its response by what there is to close."""
    for closer in getattr(response, "_resource_closers", ()):
        match = getattr(getattr(closer, "__self__", None), "resolver_match", None)
        if match is not None:
            return str(match.route)
    return ""


def _header(headers: Headers, name: str) -> str:
    return next((value for key, value in headers if key.lower() == name), "")
