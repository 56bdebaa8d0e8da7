"""One POST and its answer, under one deadline, over connections that are kept.

urllib3's connections connect: through proxies and with TLS. What goes over them is ours (wire.py), because a request
through urllib3's pools and http.client's messages costs three times as much.
"""

import re
import socket
import ssl
import traceback
from collections.abc import Iterator, Mapping
from contextlib import suppress
from http.client import HTTPException
from urllib.parse import unquote

from urllib3.connection import ProxyConfig
from urllib3.exceptions import HTTPError, ProxyError
from urllib3.util import Url, make_headers, parse_url

from epsagon_fast.collector.formats import Post
from epsagon_fast.collector.parcel import Destination, TlsFiles
from epsagon_fast.collector.sending import trust, wire
from epsagon_fast.collector.sending.answer import Failure, Response
from epsagon_fast.collector.sending.deadline import PlainConnection, TLSConnection, attempt
from epsagon_fast.hints import Any
from epsagon_fast.rows import NamedTuple

# Lines and TLS files that are remembered at once. One more, and all are worked out afresh.
MAX_REMEMBERED = 64
_NO_ANSWER = (HTTPError, HTTPException, OSError)
# What a server says that wants another certificate of ours than it saw, or one at all. Before TLS 1.3 it says only that
# the handshake failed.
_UNWELCOME = re.compile("ALERT_.*(CERTIFICATE|UNKNOWN_CA|ACCESS_DENIED|HANDSHAKE_FAILURE)")
_PROXY_AUTHENTICATION_REQUIRED = 407


class _Way(NamedTuple):
    """How a URL is asked: over which connection, and with which words."""

    url: Url
    proxy: Url | None
    # Of a connection with TLS; None: it has none.
    tls_files: TlsFiles | None
    # What the proxy wants to know.
    credentials: Mapping[str, str]
    # Requests with equal keys may share a connection.
    key: tuple[object, ...]

    @property
    def is_tunnel(self) -> bool:
        """Whether the proxy only connects. Otherwise it reads each request, and forwards it."""
        return self.proxy is not None and self.url.scheme == "https"

    @property
    def target(self) -> str:
        """What a request names: a path, or the whole URL if a proxy is to forward it."""
        return self.url.request_uri if self.proxy is None or self.is_tunnel else self.url.url


class _Line(NamedTuple):
    """What a destination's requests share."""

    way: _Way
    headers: Mapping[str, str]
    # Made of these headers.
    head: wire.Head


class Pools:
    """Keep-alive connections. Safe to use from many threads."""

    def __init__(self) -> None:
        # Adding to these and taking from them are single steps of the interpreter, so they need no lock.
        self._lines: dict[tuple[str, Destination], _Line] = {}
        self._contexts: dict[TlsFiles, ssl.SSLContext] = {}
        self._idle: dict[object, list[PlainConnection]] = {}

    def clear(self) -> None:
        """Let go of all idle connections. Requests under way keep theirs."""
        idle, self._idle = self._idle, {}
        for connection in (each for kept in idle.values() for each in kept):
            connection.close()

    def tidy(self) -> None:
        """Let go of the connections that were idle all the time since the last call."""
        for key, kept in list(self._idle.items()):
            # The one that was used last is taken next, so the first ones are idle for longest.
            with suppress(IndexError):
                while not kept[0].was_used:
                    kept.pop(0).close()
            for connection in tuple(kept):
                connection.was_used = False
            if not kept:
                self._idle.pop(key, None)

    def send(self, post: Post, destination: Destination) -> Response:
        """Make a request as its destination's config wants it, and return the answer, of any status.

        A redirect is an answer like another. The destination's timeout bounds it all. A kept connection that the server
        closed meanwhile is replaced at once, unnoticed: the body may then have been sent twice, so the request must be
        idempotent. Raises Failure.
        """
        attempt.begin(destination.send_timeout_s)
        way, _, shared = self._line(post, destination)
        head = shared.of(len(post.body), post.idempotency_key)
        try:
            kept = self._kept(way)
            if kept is not None:
                try:
                    return self._ask(kept, way, head, post.body)
                except _NO_ANSWER as error:
                    if _is_timeout(error):
                        raise
                    _untie(error)
            return self._ask(self._connected(way), way, head, post.body)
        except _NO_ANSWER as error:
            raise self._failure(error, way) from error
        except ValueError as error:
            # Last, because some errors of TLS are ValueErrors too.
            raise Failure("bad_url", "not a URL that can be asked") from error

    def _ask(self, connection: PlainConnection, way: _Way, head: bytes, body: bytes) -> Response:
        try:
            answer = wire.ask(connection.sock, head, body)
        except BaseException:
            connection.close()
            raise
        if answer.reusable:
            connection.was_used = True
            self._idle.setdefault(way.key, []).append(connection)
        else:
            connection.close()
        if answer.response.status == _PROXY_AUTHENTICATION_REQUIRED and way.proxy is not None:
            # The backend was not asked, just as when a tunnel is refused.
            raise Failure("proxy", "it wants other credentials")
        return answer.response

    def _kept(self, way: _Way) -> PlainConnection | None:
        idle = self._idle.get(way.key)
        while idle:
            try:
                connection = idle.pop()
            except IndexError:
                # Another thread took it.
                return None
            # What can be read now is no answer of ours: an end, or a complaint about the idleness.
            if connection.is_silent:
                return connection
            connection.close()
        return None

    def _connected(self, way: _Way) -> PlainConnection:
        connection = self._made(way)
        try:
            connection.connect()
        except BaseException as error:
            at_proxy = way.proxy is not None and not connection.has_connected_to_proxy
            connection.close()
            if at_proxy and isinstance(error, _NO_ANSWER):
                raise ProxyError("cannot connect to the proxy", error) from error
            raise
        return connection

    def _made(self, way: _Way) -> PlainConnection:
        """Return a connection that is not connected yet."""
        first = way.proxy or way.url
        # Brackets are for URLs.
        host, port = str(first.host).strip("[]"), first.port
        if way.tls_files is None:
            return PlainConnection(host, port or 80, proxy=way.proxy)
        # Who we are is for the backend alone.
        to_proxy = self._context(TlsFiles(way.tls_files.ca)) if way.proxy else None
        made = TLSConnection(
            host,
            port or (443 if first.scheme == "https" else 80),
            ssl_context=self._context(way.tls_files),
            proxy=way.proxy,
            proxy_config=ProxyConfig(to_proxy, False, None, None) if to_proxy else None,
        )
        if way.is_tunnel:
            target = str(way.url.host).strip("[]")
            made.set_tunnel(target, way.url.port or 443, way.credentials, str(first.scheme))
        return made

    def _context(self, files: TlsFiles) -> ssl.SSLContext:
        if files not in self._contexts:
            self._contexts[files] = _tls_context(files)
            _keep_few(self._contexts)
        return self._contexts[files]

    def _line(self, post: Post, destination: Destination) -> _Line:
        asked = (post.url, destination)
        line = self._lines.get(asked)
        if line is None or line.headers is not post.headers:
            way = _found(post.url, destination.proxy_url, destination.tls_files)
            to_proxy = {} if way.is_tunnel else way.credentials
            head = wire.Head(way.target, way.url.netloc or "", {**post.headers, **to_proxy})
            line = self._lines[asked] = _Line(way, post.headers, head)
            _keep_few(self._lines)
        return line

    def _failure(self, error: BaseException, way: _Way) -> Failure:
        failure = _explain(error)
        if failure.reason == "tls" and way.tls_files is not None:
            # A file may be mended in place, so the next attempt reads it again.
            for files in (way.tls_files, TlsFiles(way.tls_files.ca)):
                self._contexts.pop(files, None)
        _untie(error)
        return failure


def _found(url: str, proxy_url: str | None, tls_files: TlsFiles) -> _Way:
    parsed = _parse(url, "bad_url")
    # No server needs to know it.
    parsed = parsed._replace(fragment=None)
    proxy = _parse(proxy_url, "bad_proxy") if proxy_url else None
    files = tls_files if "https" in (parsed.scheme, proxy and proxy.scheme) else None
    credentials = make_headers(proxy_basic_auth=unquote(proxy.auth)) if proxy and proxy.auth else {}
    # A proxy's connections are for all that it forwards.
    to = (proxy_url,) if proxy and parsed.scheme == "http" else (parsed.scheme, parsed.host, parsed.port, proxy_url)
    return _Way(parsed, proxy, files, credentials, (*to, files))


def _keep_few(known: dict[Any, Any]) -> None:
    """Forget the oldest of those that are remembered, if they are too many."""
    while len(known) > MAX_REMEMBERED:
        with suppress(KeyError, RuntimeError, StopIteration):
            # Another thread may be doing the same.
            del known[next(iter(known))]


def _parse(url: str, complaint: str) -> Url:
    try:
        parsed = parse_url(url)
    except ValueError as error:
        raise Failure(complaint, "unreadable") from error
    if parsed.scheme not in ("http", "https"):
        raise Failure(complaint, "the scheme must be http or https")
    if not parsed.host:
        raise Failure(complaint, "it names no host")
    return parsed


def _tls_context(tls_files: TlsFiles) -> ssl.SSLContext:
    try:
        return trust.context(tls_files, attempt.left_s())
    except TimeoutError as error:
        raise Failure("timeout", f"the CA file: {error}") from error
    except OSError as error:
        raise Failure("tls", f"the {error.filename or 'CA file'} cannot be read: {error.strerror or error}") from error


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        # Some wrappers were never raised, so the cause is only in their arguments.
        wrapped = next((each for each in error.args if isinstance(each, BaseException)), None)
        error = error.__cause__ or error.__context__ or wrapped


def _untie(error: BaseException) -> None:
    # urllib3's frames hold their own exceptions. Such circles would keep bodies until a full garbage collection.
    for each in _chain(error):
        traceback.clear_frames(each.__traceback__)


def _is_timeout(error: BaseException) -> bool:
    return any(isinstance(each, TimeoutError) for each in _chain(error))


def _explain(error: BaseException) -> Failure:
    """Return the failure by its innermost causes, because urllib3 wraps them differently at each stage."""
    causes = list(_chain(error))
    through_proxy = any(isinstance(each, ProxyError) for each in causes)
    for each in causes:
        if isinstance(each, ssl.SSLCertVerificationError):
            return Failure("tls", each.verify_message)
        if isinstance(each, ssl.SSLError) and _UNWELCOME.search(each.reason or ""):
            return Failure("tls", f"the server refuses this client: {(each.reason or '').lower()}")
        if isinstance(each, TimeoutError):
            return Failure("timeout")
        if isinstance(each, socket.gaierror):
            return Failure("proxy" if through_proxy else "dns", each.strerror or "")
    innermost = causes[-1]
    # Other exceptions may quote what the server sent, so only their type is shown.
    detail = str(innermost) if isinstance(innermost, OSError) else type(innermost).__name__
    return Failure("proxy" if through_proxy else "connection", detail)
