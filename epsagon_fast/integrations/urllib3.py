"""Outgoing requests: each is a timed event of the current trace and carries the trace context to the server.

    from epsagon_fast.integrations import urllib3
    urllib3.instrument(ignored_hosts=["169.254.169.254"])

requests, botocore and many other clients use urllib3. One event stands for one call of a connection pool's `urlopen`,
with all the attempts that its `retries` allow and the redirects that the pool follows. A redirect that a PoolManager
follows is a call of its own. Without a trace nothing changes, or the request is a trace of its own (`alone`).

A request's host, method, path and status are recorded. Its query and the headers of both sides are recorded only with
`metadata_only` off. The collector's own requests are never traced.
"""

import functools
import os
import sys
from collections.abc import Callable, Iterable, MutableMapping
from contextvars import ContextVar
from typing import Any, Final, NamedTuple

from epsagon_fast.masking import client_mask_of
from epsagon_fast.pages import see
from epsagon_fast.producer import current
from epsagon_fast.producer.entering import called_with
from epsagon_fast.producer.event import Event
from epsagon_fast.producer.process import process
from epsagon_fast.producer.scope import trace
from epsagon_fast.producer.tracer import Tracer
from epsagon_fast.propagation import TRACEPARENT, inject
from epsagon_fast.protocol import ErrorCode

from .choices import ignored_urls, lowest_error
from .web import payloads

TYPE: Final = "http"
ORIGIN: Final = "urllib3"
IN_COLLECTOR: Final = "EPSAGON_IN_COLLECTOR"

# Requests to these hosts are not traced. None: no request is traced.
_ignored_hosts: frozenset[str] | None = None
# Whether a request outside of any trace is a trace of its own.
_alone = False
# `HTTPConnectionPool.urlopen` before it was wrapped.
_original: Callable[..., Any] | None = None
# The pool whose request is under way. Another request of the same pool meanwhile is another attempt.
_asking: ContextVar[object] = ContextVar("epsagon_fast_urllib3_pool", default=None)


def instrument(ignored_hosts: Iterable[str] = (), *, alone: bool = False) -> None:
    """Trace the requests that this process sends through urllib3. A second call only changes the options.

    `ignored_hosts`: names or addresses; requests to them, and to EPSAGON_URLS_TO_IGNORE, get neither an event nor the
    trace context. `alone`: a request outside of any trace is a trace of its own.
    """
    global _alone, _ignored_hosts, _original
    if isinstance(ignored_hosts, str):
        raise TypeError(f"ignored_hosts is a collection of hosts, not a str{see('outgoing requests')}")
    if IN_COLLECTOR in os.environ:
        return
    from urllib3 import HTTPConnectionPool

    _alone = alone
    _ignored_hosts = frozenset(host.lower().strip("[]") for host in ignored_hosts)
    if _original is None:
        _original = HTTPConnectionPool.urlopen
        HTTPConnectionPool.urlopen = _traced(_original)  # type: ignore[method-assign]


def uninstrument() -> None:
    """Trace no further requests."""
    global _ignored_hosts, _original
    from urllib3 import HTTPConnectionPool

    _ignored_hosts = None
    # If another library wrapped `urlopen` after us, our wrapper must stay. Without `_ignored_hosts` it only calls on.
    if _original is not None and getattr(HTTPConnectionPool.urlopen, "__wrapped__", None) is _original:
        HTTPConnectionPool.urlopen = _original  # type: ignore[method-assign, assignment]
        _original = None


def _traced(urlopen: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(urlopen)
    def ask(pool: Any, method: str, url: str, body: Any = None, headers: Any = None, *rest: Any, **options: Any) -> Any:
        tracer = current.acting_trace()
        ignored = _ignored_hosts
        if ignored is None or (tracer is None and not _opens()) or _asking.get() is pool or _is_suppressed():
            return urlopen(pool, method, url, body, headers, *rest, **options)
        target = _target(pool, url)
        urls = ignored_urls()
        if target.host in ignored or (urls is not None and urls.have(target.host, target.path, target.port)):
            return urlopen(pool, method, url, body, headers, *rest, **options)
        send = functools.partial(urlopen, pool, method, url, body)
        headers = pool.headers if headers is None else headers
        if tracer is not None:
            return _recorded(tracer, pool, method, target, headers, send, rest, options)
        with trace(f"{method} {target.host}") as own:
            return _recorded(own, pool, method, target, headers, send, rest, options)

    return ask


def _recorded(
    tracer: Tracer,
    pool: object,
    method: str,
    target: "_Target",
    headers: Any,
    send: Callable[..., Any],
    rest: tuple[Any, ...],
    options: dict[str, Any],
) -> Any:
    """Send a request with the trace context, and record it."""
    with Event(target.host, TYPE, method, ORIGIN) as event:
        headers = _with_context(headers)
        event.metadata = _known(tracer, target, headers)
        response = called_with(_asking, pool, send, headers, *rest, **options)
        _take_note(event, tracer, response)
    return response


def _opens() -> bool:
    """Say whether a request that no trace is open for is a trace of its own."""
    return _alone and current.anywhere() is not current.NOT_TRACED and process.records(process.config())


def _is_suppressed() -> bool:
    """Say whether an instrumentation of OpenTelemetry records this call itself, as botocore's does."""
    # Only they import the module.
    utils = sys.modules.get("opentelemetry.instrumentation.utils")
    return utils is not None and not utils.is_http_instrumentation_enabled()


class _Target(NamedTuple):
    host: str
    port: int | None
    path: str
    query: str


def _target(pool: Any, url: str) -> _Target:
    host, port = str(pool.host), pool.port
    if not url.startswith("/"):
        from urllib3.exceptions import LocationParseError
        from urllib3.util import parse_url

        try:
            # For a proxy, `url` is the whole URL and the pool's host is the proxy.
            parsed = parse_url(url)
        except LocationParseError:  # urllib3 itself will raise it
            return _Target(host, port, "", "")
        host, port, url = parsed.host or host, parsed.port, parsed.request_uri
    path, _, query = url.partition("#")[0].partition("?")
    return _Target(host.lower().strip("[]"), port, path, query)


def _with_context(headers: Any) -> MutableMapping[str, str]:
    """Return a copy of the headers with the trace context, unless the application has put one there itself."""
    own: MutableMapping[str, str] = headers.copy() if hasattr(headers, "copy") else dict(headers)
    if not any(_text(name).lower() == TRACEPARENT for name in own):
        inject(own)
    return own


def _known(tracer: Tracer, target: _Target, headers: MutableMapping[str, str]) -> dict[str, str]:
    metadata = {"path": target.path}
    if target.port:
        metadata["port"] = str(target.port)
    if tracer.keeps_values:
        metadata["query"] = payloads.query(target.query, client_mask_of(tracer.config))
        metadata["request_headers"] = _shown(tracer, headers)
    return metadata


def _take_note(event: Event, tracer: Tracer, response: Any) -> None:
    event.metadata["status_code"] = str(response.status)
    if response.status >= lowest_error():
        event.error_code = int(ErrorCode.ERROR)
    if tracer.keeps_values:
        event.metadata["response_headers"] = _shown(tracer, response.headers)


def _shown(tracer: Tracer, headers: Any) -> str:
    pairs = ((_text(name), _text(value)) for name, value in headers.items())
    return payloads.headers(pairs, client_mask_of(tracer.config))


def _text(value: object) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)
