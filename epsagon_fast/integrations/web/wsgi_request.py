"""The trace of a WSGI request (PEP 3333): what it notes of the request's environ, of its answer and of its end."""

import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from epsagon_fast.config import ResolvedConfig
from epsagon_fast.digits import number
from epsagon_fast.interrupts import let_pass
from epsagon_fast.masking import client_mask_of

from ..choices import lowest_error
from . import payloads
from .departures import is_departure
from .objects import header, text, texts
from .request import KEY, RequestTrace, caller
from .routes import DJANGO, FLASK, django_route, flask_route, mounted_at

Environ = dict[str, Any]
Headers = list[tuple[str, str]]

# The two headers that CGI gave names without a prefix.
PLAIN_HEADERS: Final = ("CONTENT_TYPE", "CONTENT_LENGTH")
# An answer with such a status has no body, whatever the application returns.
WITHOUT_BODY: Final = (204, 304)


class WsgiRequest(RequestTrace):
    """One request to a WSGI application."""

    __slots__ = ()

    def __init__(
        self, config: ResolvedConfig, path: str, environ: Environ, start: Callable[..., Any], own_id: str = ""
    ) -> None:
        """own_id: the trace's, if the head has decided by it."""
        host = environ.get("HTTP_HOST") or environ.get("SERVER_NAME", "")
        context = caller(word(environ, "HTTP_TRACEPARENT"), word(environ, "HTTP_TRACESTATE"))
        known = _known(config, path, environ)
        super().__init__(config, host, environ.get("REQUEST_METHOD", ""), known, context, own_id)
        # Whether a part of the answer had been sent when the trace ended.
        self._is_begun = False
        # Whether the application has returned: only its answer's body is left.
        self._has_body = False
        self._environ = environ
        self._script_name = word(environ, "SCRIPT_NAME")
        self._mount = ""
        # A test client may keep an answer and never close it. A server closes it, and names itself in the environ.
        self._is_served = "SERVER_SOFTWARE" in environ
        self._start_response = start
        self._headers: Headers = []
        self._request_body: payloads.Payload | None = None
        self._response_body: payloads.Payload | None = None

    @property
    def file_wrapper(self) -> Any:
        """The server's wrapper for files, None if it has none."""
        return self._environ.get("wsgi.file_wrapper")

    def expects_input(self) -> bool:
        """Say whether the body must be noted as the application reads it: its size or its beginning is wanted.

        To be asked once the trace is open: what is kept of the bodies is decided there.
        """
        environ, keep = self._environ, self.keeps_values
        if keep:
            self._response_body = payloads.Payload(True)
        length = environ.get("CONTENT_LENGTH") or ""
        if length:
            self.request_bytes = number(text(length)) or 0
        if self.request_bytes or keep or (not length and "HTTP_TRANSFER_ENCODING" in environ):
            self._request_body = payloads.Payload(keep)
        return self._request_body is not None

    def begins_with(self, body: object) -> None:
        """Take note of the body that the application has returned: Django's request hangs on it."""
        self._has_body = True
        if DJANGO in sys.modules and (route := django_route(body)):
            self.route = self._within_mount(route)

    def start_response(self, status: str, headers: Headers, exc_info: Any = None) -> Callable[[bytes], Any]:
        """Hand on the answer's status and take note of it. The last status that the server took is the client's."""
        code, _, reason = str(status).partition(" ")
        known = number(code) or 0
        self.find_route()
        if known >= lowest_error():
            self.blame(exc_info[1] if exc_info else sys.exception())
        more = (exc_info,) if exc_info else ()
        self._server_write = self._start_response(status, headers, *more)
        self.status, self.reason, self._headers = known, reason, headers
        return self._write

    def find_route(self) -> None:
        """Note the pattern that the path matched, as far as it is known when an answer begins.

        Later the code that mounted the application has returned, and Flask has removed its request.
        """
        environ = self._environ
        if (script_name := word(environ, "SCRIPT_NAME")) != self._script_name:
            self.route = self._mount = mounted_at(self._script_name, script_name)
        if FLASK in environ:
            self.route = self._within_mount(flask_route(environ))

    def application_fails(self, error: BaseException) -> None:
        """Close the trace: the application has raised, and not returned a body."""
        if issubclass(type(error), StopIteration):
            # PEP 3333 does not know it. To gunicorn it says that the application has answered over the socket itself.
            self.answer_ends()
            self.end()
        else:
            self.end(error)

    def received(self, read: Callable[..., bytes], *outcome: Any) -> None:
        """Take note of a piece of the request's body. `read` returns it from a reading call's result and arguments."""
        if self._request_body is not None:
            try:
                self._request_body.add(read(*outcome))
            except Exception as error:  # the stream returned no bytes; the application will notice
                let_pass(error)

    def sent(self, data: bytes) -> None:
        """Take note of a piece of the answer."""
        try:
            self.response_bytes += len(data)
            if self._response_body is not None:
                self._response_body.add(data)
        except TypeError:  # not bytes; the server will say so
            return

    def sent_pieces(self, pieces: Iterable[bytes]) -> None:
        """Take note of a complete answer."""
        self.answer_ends()
        for piece in pieces:
            self.sent(piece)

    def sent_file(self, size_bytes: int | None, left_bytes: int) -> None:
        """Take note that the server is done with a file. `size_bytes`: of the file, None if it is not known."""
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

    def end_unread(self) -> None:
        """Close the trace if the application has returned and no server is there that would close the body."""
        if self._has_body and not self._is_served:
            self.end()

    def given_up(self, error: BaseException | None) -> BaseException | None:
        """Take note that the server closes a body before its end. `error`: the exception that it met, if any.

        Returns the error that is to be recorded.
        """
        if error is None and (self._has_no_body() or self.response_bytes == self._promised_bytes()):
            self.answer_ends()
        elif error is None or is_departure(error, told=True):
            self.client_leaves()
            error = None
        return error

    def end(self, error: BaseException | None = None) -> None:
        """Close the trace."""
        self._unmark()
        if self.stopped:
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
        self._environ = {}
        super().end(error)

    def abandon(self) -> None:
        """Close the trace as unfinished; see Tracer."""
        self._unmark()
        super().abandon()

    def _unmark(self) -> None:
        # A middleware around ours may call the application again with this environ: that is a trace of its own.
        self._environ.pop(KEY, None)

    def _status_of_failed(self) -> int:
        # If nothing of the answer had been sent, the server answers with an error of its own.
        return self.status if self._is_begun or self.answered else 0

    def _has_no_body(self) -> bool:
        return self.method == "HEAD" or self.status in WITHOUT_BODY

    def _promised_bytes(self) -> int | None:
        return number(header(self._headers, "content-length"))

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
        mask = client_mask_of(self.config)
        self.notes["response_headers"] = payloads.headers(texts(self._headers), mask)
        for name, body, kind in (
            ("request_body", self._request_body, self._environ.get("CONTENT_TYPE", "")),
            ("response_body", self._response_body, header(self._headers, "content-type")),
        ):
            if body is not None and body.size_bytes:
                self.notes[name] = body.text(kind, mask)


def word(environ: Environ, key: str) -> str:
    """Return what an environ says, as a text. A test that has no server may put None there, or bytes."""
    return text(environ.get(key) or "")


def _known(config: ResolvedConfig, path: str, environ: Environ) -> dict[str, str]:
    """Return the metadata that a request has before the application sees it."""
    metadata = {"path": path}
    if not config.metadata_only:
        mask = client_mask_of(config)
        metadata["query"] = payloads.query(word(environ, "QUERY_STRING"), mask)
        metadata["request_headers"] = payloads.headers(_request_headers(environ), mask)
    return metadata


def _request_headers(environ: Environ) -> Iterator[tuple[str, str]]:
    for key, value in environ.items():
        if key.startswith("HTTP_"):
            yield key[len("HTTP_") :].replace("_", "-"), str(value)
        elif key in PLAIN_HEADERS and value:
            yield key.replace("_", "-"), str(value)
