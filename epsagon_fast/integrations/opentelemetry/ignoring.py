"""Spans of requests that the environment leaves out, and which status of an answer is an error.

Our own integrations ask `choices` themselves. Here the same holds for the spans of other libraries: of clients such as
httpx and aiohttp, and of servers such as tornado.
"""

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from opentelemetry.trace import INVALID_SPAN_CONTEXT, NonRecordingSpan, SpanKind

from epsagon_fast.integrations.choices import ignored_endpoints, ignored_urls, said_lowest_error
from epsagon_fast.producer import current
from epsagon_fast.protocol import ErrorCode

_CLIENT, _SERVER = SpanKind.CLIENT, SpanKind.SERVER
# The newer and the older names of OpenTelemetry's conventions.
_URLS: Final = ("url.full", "http.url")
_PATHS: Final = ("url.path", "http.target")
_STATUSES: Final = ("http.response.status_code", "http.status_code")
_LOWEST_OF_CLIENTS: Final = 400


class UntracedSpan(NonRecordingSpan):
    """The span of a request that is left out, and with it what happens inside."""

    # The name of PLACE in contexts.py.
    epsagon_place: Final = current.NOT_TRACED

    def __init__(self) -> None:
        super().__init__(INVALID_SPAN_CONTEXT)


def is_ignored(kind: SpanKind, attributes: Mapping[str, Any]) -> bool:
    """Say whether a request is left out, by the attributes that its span begins with."""
    if kind is _CLIENT:
        urls = ignored_urls()
        url = urls and _text_of(attributes, _URLS)
        if not urls or not url:
            return False
        try:
            parts = urlsplit(url)
            return urls.have(parts.hostname or "", parts.path, parts.port)
        except ValueError:
            return False
    if kind is _SERVER:
        paths = ignored_endpoints()
        return bool(paths) and _path_of(attributes) in paths
    return False


def error_code(kind: SpanKind, attributes: Mapping[str, Any], code: int) -> int:
    """Return the error code of a span that `code` was found for, by the status that the environment calls an error."""
    if kind is not _CLIENT and kind is not _SERVER:
        return code
    status = _first_of(attributes, _STATUSES)
    lowest = said_lowest_error() if type(status) is int else None
    if lowest is None or status is None:
        return code
    if status >= lowest:
        return code or int(ErrorCode.ERROR)
    # For clients, the conventions make each status from here on an error.
    is_convention = kind is _CLIENT and status >= _LOWEST_OF_CLIENTS and code == int(ErrorCode.ERROR)
    return int(ErrorCode.OK) if is_convention else code


def _path_of(attributes: Mapping[str, Any]) -> str:
    path = _text_of(attributes, _PATHS)
    try:
        return path.partition("?")[0] if path else urlsplit(_text_of(attributes, _URLS)).path
    except ValueError:
        return ""


def _text_of(attributes: Mapping[str, Any], names: tuple[str, ...]) -> str:
    found = _first_of(attributes, names)
    return found if isinstance(found, str) else ""


def _first_of(attributes: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    """Return the first of the attributes that is there."""
    return next((attributes[name] for name in names if name in attributes), None)
