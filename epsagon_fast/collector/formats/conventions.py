"""OpenTelemetry's semantic conventions: what an event's name, kind and metadata are called there.

The integrations' own metadata get the conventions' names; what an application gave keeps its own.
"""

import math
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import orjson

from epsagon_fast.protocol import IS_TRIMMED_KEY, LABELS_KEY, SAMPLING_WEIGHT_KEY, TRACESTATE_KEY, ErrorCode
from epsagon_fast.span_names import KIND, KINDS

INTERNAL, SERVER, CLIENT, PRODUCER, CONSUMER = 1, 2, 3, 4, 5

Scalar = str | bool | int | float
# The series for all that has none of its own, because there are too many. In OTLP it is an attribute.
OVERFLOW = "otel.metric.overflow"

Value = Scalar | list[Scalar]
# An event's resource: name, type, operation.
Words = tuple[str, str, str]

_HTTP, _CELERY, _EXECUTE, _PUBLISH = "http", "celery", "execute", "publish"
_URLLIB3 = "urllib3"
_DATABASE = ("db.system.name", "db.system")
_HTTP_NAMES = {
    "path": "url.path",
    "port": "server.port",
    "route": "http.route",
    "status_code": "http.response.status_code",
    "request_bytes": "http.request.body.size",
    "response_bytes": "http.response.body.size",
}
_CELERY_NAMES = {"task_id": "messaging.message.id", "queue": "messaging.destination.name"}
_CELERY_OPERATIONS = {_EXECUTE: "process", _PUBLISH: "send"}
# Their values come as texts and are whole numbers.
_NUMBERS = frozenset(
    {"server.port", "http.response.status_code", "http.request.body.size", "http.response.body.size", "retries"}
    | {"dropped_events", "dropped_exceptions", "dropped_labels"}
)
_MAX_DIGITS = 18
_LEAST_INT, _MOST_INT = -(2**63), 2**63 - 1
CUT = "..."


def attribute(value: Any) -> Value:
    """Return a JSON value as an attribute: a scalar or a list of scalars as it is, another one as a text.

    An int over 64 bits is a text, too.
    """
    if isinstance(value, str | bool | float):
        return value
    if isinstance(value, int):
        return value if _LEAST_INT <= value <= _MOST_INT else str(value)
    if isinstance(value, list) and all(isinstance(each, str | bool | float | int) for each in value):
        return [each if not isinstance(each, int) or _LEAST_INT <= each <= _MOST_INT else str(each) for each in value]
    try:
        return orjson.dumps(value).decode()
    except TypeError:
        # Deeper than orjson writes.
        return CUT


def kind_of(words: Words, metadata: Mapping[str, Any], is_runner: bool) -> int:
    """Return a span's kind."""
    _, kind, operation = words
    if kind == _HTTP:
        return SERVER if is_runner else CLIENT
    if kind == _CELERY and operation in _CELERY_OPERATIONS:
        return CONSUMER if operation == _EXECUTE else PRODUCER
    said = metadata.get(KIND)
    if isinstance(said, str) and said in KINDS[INTERNAL:]:
        return KINDS.index(said)
    return CLIENT if any(key in metadata for key in _DATABASE) else INTERNAL


def name_of(words: Words, metadata: Mapping[str, Any], origin: str, is_runner: bool) -> str:
    """Return a span's name: what an application named is kept, the integrations' events get the conventions' names."""
    name, kind, operation = words
    if kind == _HTTP and operation and is_runner and "path" in metadata:
        route = metadata.get("route")
        return f"{operation} {route}" if isinstance(route, str) and route else operation
    if kind == _HTTP and operation and origin == _URLLIB3:
        return operation
    if kind == _CELERY and operation in _CELERY_OPERATIONS:
        return f"{name} {'process' if operation == _EXECUTE else _PUBLISH}"
    return name


def attributes_of(words: Words, metadata: Mapping[str, Any], is_runner: bool) -> dict[str, Value]:
    """Return a span's attributes."""
    name, kind, operation = words
    named: dict[str, Value] = {}
    names: Mapping[str, str] = {}
    if kind == _HTTP:
        names = _HTTP_NAMES
        named = {**_address(name), "http.request.method": operation}
    elif kind == _CELERY and operation in _CELERY_OPERATIONS:
        names = _CELERY_NAMES
        types = {"messaging.operation.name": operation, "messaging.operation.type": _CELERY_OPERATIONS[operation]}
        named = {"messaging.system": _CELERY, **types}
    else:
        named = {"epsagon.type": kind, "epsagon.operation": operation}
    attributes = {key: value for key, value in named.items() if value != ""}
    for key, value in metadata.items():
        if key == LABELS_KEY and is_runner:
            attributes |= _labels(value)
        elif key != KIND and not (key == TRACESTATE_KEY and is_runner):
            told = names.get(key, key)
            attributes[told] = _typed(told, value)
    return attributes


def error_type(code: Any, exception: Mapping[str, Any] | None, attributes: Mapping[str, Value]) -> Value:
    """Return `error.type` of what failed: the exception's class, an answer's status, or that nothing is known."""
    if code == ErrorCode.TIMEOUT:
        return "timeout"
    status = attributes.get("http.response.status_code")
    # Our web integrations say HTTPStatus for an answer that is an error without an exception.
    said = exception.get("type") if exception else None
    if isinstance(said, str) and said and not (said == "HTTPStatus" and status):
        return said
    return str(status) if status else "_OTHER"


def _typed(key: str, value: Any) -> Value:
    if isinstance(value, str):
        if key in _NUMBERS and value.isascii() and value.isdigit() and len(value) <= _MAX_DIGITS:
            return int(value)
        if key == IS_TRIMMED_KEY and value == "true":
            return True
        if key == SAMPLING_WEIGHT_KEY:
            return _weight(value)
    return attribute(value)


def _weight(text: str) -> Value:
    # An application may give any metadata this name.
    with suppress(ValueError):
        if math.isfinite(weight := float(text)):
            return weight
    return text


def _labels(said: Any) -> dict[str, Value]:
    try:
        labels = orjson.loads(said) if isinstance(said, str) else said
    except ValueError:
        labels = said
    if not isinstance(labels, dict):
        return {LABELS_KEY: attribute(labels)}
    return {f"{LABELS_KEY}.{key}": attribute(value) for key, value in labels.items()}


def _address(host: str) -> dict[str, Value]:
    name, colon, port = host.rpartition(":")
    # An IPv6 address has colons of its own, unless it stands in brackets.
    if colon and port.isascii() and port.isdigit() and len(port) <= 5 and (":" not in name or name.endswith("]")):
        return {"server.address": name, "server.port": int(port)}
    return {"server.address": host}
