"""One POST and its answer, under one deadline, over connections that are kept."""

import socket
import ssl
import traceback
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar
from urllib.parse import unquote

from urllib3 import PoolManager, ProxyManager
from urllib3.exceptions import HTTPError, ProxyError
from urllib3.response import BaseHTTPResponse
from urllib3.util import Url, make_headers, parse_url

from epsagon_fast.collector.parcel import TlsFiles
from epsagon_fast.collector.sending import trust
from epsagon_fast.collector.sending.answer import Failure, Response
from epsagon_fast.collector.sending.deadline import Pool, TLSPool, attempt

# An answer is drained up to here, so that its connection can be used again; beyond it a new connection is cheaper.
MAX_ANSWER_BYTES = 64 * 1024
# Pairs of proxy and TLS files that have pools at once. One more pair starts all pools afresh.
MAX_POOLS = 16
_NO_FILES = TlsFiles()


class Pools:
    """Keep-alive connections, one urllib3 manager for each proxy and TLS files. Safe to use from many threads."""

    POOL_CLASSES: ClassVar = {"http": Pool, "https": TLSPool}

    def __init__(self, connections_max: int) -> None:
        self._connections_max = connections_max
        self._managers: dict[tuple[str | None, TlsFiles, bool], PoolManager] = {}

    def clear(self) -> None:
        """Let go of all idle connections. Requests under way keep theirs."""
        self._managers = {}

    def post(
        self,
        url: str,
        headers: Mapping[str, str],
        body: bytes,
        *,
        timeout_s: float,
        proxy_url: str | None = None,
        tls_files: TlsFiles = _NO_FILES,
    ) -> Response:
        """POST `body` to `url` and return the answer, of any status; a redirect is an answer like another.

        timeout_s bounds it all. A kept connection that the server closed meanwhile is replaced at once, unnoticed: the
        body may then have been sent twice, so the request must be idempotent. Raises Failure.
        """
        attempt.begin(timeout_s)
        parsed = _parse(url, "bad_url")
        try:
            manager = self._manager(parsed, proxy_url, tls_files)
            try:
                return _post(manager, url, headers, body)
            except (HTTPError, OSError) as error:
                if attempt.connected or _is_timeout(error):
                    raise
                _untie(error)
            attempt.only_new = True
            return _post(manager, url, headers, body)
        except ValueError as error:
            raise Failure("bad_url", "not a URL that can be asked") from error
        except (HTTPError, OSError) as error:
            raise self._failure(error, proxy_url, tls_files) from error

    def _failure(self, error: BaseException, proxy_url: str | None, tls_files: TlsFiles) -> Failure:
        failure = _explain(error)
        if failure.reason == "tls":
            # A file may be mended in place, so the next attempt reads it again.
            self._managers.pop((proxy_url, tls_files, True), None)
        _untie(error)
        return failure

    def _manager(self, url: Url, proxy_url: str | None, tls_files: TlsFiles) -> PoolManager:
        proxy = _parse(proxy_url, "bad_proxy") if proxy_url else None
        tls = "https" in (url.scheme, proxy and proxy.scheme)
        key = (proxy_url, tls_files, tls)
        managers = self._managers
        if key not in managers:
            if len(managers) >= MAX_POOLS:
                managers = self._managers = {}
            managers[key] = self._make(proxy, tls_files if tls else None)
        return managers[key]

    def _make(self, proxy: Url | None, tls_files: TlsFiles | None) -> PoolManager:
        context = _tls_context(tls_files) if tls_files else None
        options: dict[str, Any] = {"maxsize": self._connections_max, "block": False, "ssl_context": context}
        if proxy is None:
            manager = PoolManager(**options)
        else:
            credentials = make_headers(proxy_basic_auth=unquote(proxy.auth)) if proxy.auth else None
            address = proxy._replace(auth=None, path=None, query=None, fragment=None).url
            # Who we are is for the backend alone.
            to_proxy = _tls_context(TlsFiles(tls_files.ca)) if tls_files else None
            manager = ProxyManager(address, proxy_headers=credentials, proxy_ssl_context=to_proxy, **options)
        manager.pool_classes_by_scheme = self.POOL_CLASSES
        return manager


def _post(manager: PoolManager, url: str, headers: Mapping[str, str], body: bytes) -> Response:
    response = manager.urlopen(
        "POST",
        url,
        redirect=False,
        retries=False,
        headers=headers,
        body=body,
        timeout=attempt.left_s(),
        preload_content=False,
    )
    try:
        return Response(response.status, response.headers, _read(response))
    finally:
        # If the answer was drained, its connection is back in the pool and this does nothing; else it ends here.
        response.close()


def _read(response: BaseHTTPResponse) -> bytes:
    # A body that breaks off changes nothing, because the status has decided.
    try:
        return response.read(MAX_ANSWER_BYTES, decode_content=False)
    except (HTTPError, OSError):
        return b""


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
        if isinstance(each, TimeoutError):
            return Failure("timeout")
        if isinstance(each, socket.gaierror):
            return Failure("proxy" if through_proxy else "dns", each.strerror or "")
    innermost = causes[-1]
    # Other exceptions may quote what the server sent, so only their type is shown.
    detail = str(innermost) if isinstance(innermost, OSError) else type(innermost).__name__
    return Failure("proxy" if through_proxy else "connection", detail)
