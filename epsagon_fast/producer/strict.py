"""What `privacy="strict"` lets out of an event: what is listed here or by the application, and nothing else.

A list of what to leave out would miss the attribute that an instrumentation has invented since. So metadata and labels
pass by their keys, exceptions lose their texts, and names their paths. It works on decoded records just before they
leave the process, so it holds for each integration, for OpenTelemetry's spans and for what the application adds.
"""

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache

import epsagon_fast.span_names as span_names
from epsagon_fast.hints import Any, Final
from epsagon_fast.patterns import pattern
from epsagon_fast.protocol import (
    HTTP_TRACE_ID_KEY,
    IS_TRIMMED_KEY,
    SAMPLING_KEY,
    SAMPLING_WEIGHT_KEY,
    TIME_LIMIT_KEY,
    TRACESTATE_KEY,
)
from epsagon_fast.wildcards import expression

NOT_SHOWN: Final = "(not shown: privacy)"
# The pattern that a path has matched, by our own and by OpenTelemetry's name.
ROUTES: Final = ("route", "http.route")
# Names, numbers and states that code or a protocol chooses, and not people. No URL, host of a client, statement or key.
KEPT: Final = frozenset(
    {
        *(HTTP_TRACE_ID_KEY, IS_TRIMMED_KEY, SAMPLING_KEY, SAMPLING_WEIGHT_KEY, TIME_LIMIT_KEY, TRACESTATE_KEY),
        *ROUTES,
        *("status_code", "request_bytes", "response_bytes", "port", "client_closed"),
        *("task_id", "root_id", "parent_id", "queue", "retries", "state", "exchange", "hostname"),
        *(span_names.KIND, span_names.SCOPE, span_names.SCOPE_VERSION, span_names.STATUS),
        *(span_names.DROPPED_ATTRIBUTES, span_names.DROPPED_EVENTS, span_names.DROPPED_LINKS),
        *("http.method", "http.request.method", "http.status_code", "http.response.status_code", "http.scheme"),
        *("http.flavor", "http.request.body.size", "http.response.body.size", "url.scheme", "error.type"),
        *("network.protocol.name", "network.protocol.version", "server.port", "net.host.port", "net.peer.port"),
        *("db.system", "db.system.name", "db.operation", "db.operation.name"),
        *("messaging.system", "messaging.operation", "messaging.operation.type", "messaging.operation.name"),
        *("rpc.system", "rpc.system.name", "rpc.service", "rpc.method", "rpc.grpc.status_code"),
    }
)
_HEADINGS: Final = frozenset(
    {
        "Traceback (most recent call last):",
        "Stack (most recent call last):",
        "The above exception was the direct cause of the following exception:",
        "During handling of the above exception, another exception occurred:",
    }
)
_FRAME: Final = pattern(r'(\s*\|?\s*)File "[^"\n]*", line [0-9]+, in \S+')


class Strict:
    """Takes what may not leave out of decoded records, in place.

    allowed_keys: further keys of metadata and labels; `*` stands for any text. allowed_exceptions: types of exceptions
    that keep their texts, with or without their modules.
    """

    def __init__(self, allowed_keys: tuple[str, ...], allowed_exceptions: tuple[str, ...]) -> None:
        self._allowed = re.compile(expression(allowed_keys), re.IGNORECASE | re.DOTALL)
        self._exceptions = frozenset(allowed_exceptions)

    def event(self, event: dict[str, Any]) -> None:
        """Strip an event, or a part of a runner."""
        resource = event.get("resource")
        if resource:
            metadata = resource.get("metadata") or {}
            for key in [key for key in metadata if not self.allows(key)]:
                del metadata[key]
            if "name" in resource:
                resource["name"] = _without_paths(resource["name"], metadata)
        if event.get("exception"):
            self.exception(event["exception"])

    def exception(self, exception: dict[str, Any]) -> None:
        """Strip an exception to its type, the time and the places in the source."""
        name = exception.get("type", "")
        if name in self._exceptions or name.rpartition(".")[2] in self._exceptions:
            return
        if exception.get("message"):
            exception["message"] = NOT_SHOWN
        if exception.get("traceback"):
            exception["traceback"] = "\n".join(_frames(exception["traceback"].splitlines()))
        if exception.get("additional_data"):
            exception["additional_data"] = {}

    def allows(self, key: str) -> bool:
        """Say whether an entry of metadata may leave."""
        return key in KEPT or self.lists(key)

    def lists(self, key: str) -> bool:
        """Say whether the application itself allows a key, as a label's must be: code makes labels out of anything."""
        return self._allowed.fullmatch(key) is not None


# All traces of a config share it.
@lru_cache(maxsize=16)
def strict(allowed_keys: tuple[str, ...], allowed_exceptions: tuple[str, ...]) -> Strict:
    """Return the rules of a config."""
    return Strict(allowed_keys, allowed_exceptions)


def _without_paths(name: str, metadata: dict[str, Any]) -> str:
    """Return a name without the words that are paths or URLs: `GET /reset/4711` is `GET`. A route is none."""
    if "/" not in name and "?" not in name:
        return name
    known = {metadata.get(key) for key in ROUTES} | {f"{metadata.get('rpc.service')}/{metadata.get('rpc.method')}"}
    return " ".join(word for word in name.split() if word in known or not ("/" in word or "?" in word))


def _frames(lines: Iterable[str]) -> Iterator[str]:
    """Yield the lines of a traceback that say where it was. The others may be a message's, or a cause's."""
    for line in lines:
        if line.strip("| ") in _HEADINGS or _FRAME.fullmatch(line):
            yield line
