"""OpenTelemetry's semantic conventions: what an event's name, kind and metadata are called there.

The integrations' own metadata get the conventions' names; what an application gave keeps its own.
"""

import math
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, NamedTuple

import orjson

from epsagon_fast.protocol import (
    FUNCTION_TYPE,
    IS_TRIMMED_KEY,
    LABELS_KEY,
    ORIGIN,
    RUNNER_ORIGIN,
    SAMPLING_WEIGHT_KEY,
    TIME_LIMIT_KEY,
    TRACESTATE_KEY,
    ErrorCode,
)
from epsagon_fast.span_names import EVENTS, KIND, KINDS

INTERNAL, SERVER, CLIENT, PRODUCER, CONSUMER = 1, 2, 3, 4, 5

Scalar = str | bool | int | float
# The series for all that has none of its own, because there are too many. In OTLP it is an attribute.
OVERFLOW = "otel.metric.overflow"

Value = Scalar | list[Scalar]
# An event's resource: name, type, operation.
Words = tuple[str, str, str]

_HTTP, _CELERY, _EXECUTE, _PUBLISH = "http", "celery", "execute", "publish"
_URLLIB3 = "urllib3"
# What looks like a host: with a dot or a colon, or this machine.
_HOST = re.compile(r"[^\s/]*[.:][^\s/]*|localhost")
_DATABASE = ("db.system.name", "db.system")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY"})
_OTHER_METHOD = "_OTHER"
_STATUS, _REFUSED = "http.response.status_code", 400
_CELERY_OPERATIONS = {_EXECUTE: "process", _PUBLISH: "send"}


class _Terms(NamedTuple):
    """What our integrations put into the metadata of one type of events, by our names.

    numbers, truths: their values are texts in our form, and numbers and bools in the conventions.
    """

    names: Mapping[str, str] = {}
    numbers: frozenset[str] = frozenset()
    truths: frozenset[str] = frozenset()
    # All that stands above, and what is not metadata to the conventions: other members stay as they are.
    known: frozenset[str] = frozenset()


# Of any runner.
_RUNNER_NUMBERS = frozenset({"dropped_events", "dropped_exceptions", "dropped_labels", SAMPLING_WEIGHT_KEY})
_RUNNER_TRUTHS = frozenset({IS_TRIMMED_KEY, "unfinished"})
# Those that need not be whole, so none is sent as an int.
_FLOATS = frozenset({SAMPLING_WEIGHT_KEY, TIME_LIMIT_KEY})
# JSON objects. Each member is an attribute of its own, as `labels.user`.
_RUNNER_GROUPS = frozenset({LABELS_KEY, "dropped_records"})


def _both(of_event: _Terms) -> tuple[_Terms, _Terms]:
    """Return the terms of events of one type, and those of its runners, which have marks of their own."""
    numbers, truths = of_event.numbers | _RUNNER_NUMBERS, of_event.truths | _RUNNER_TRUTHS
    of_runner = of_event._replace(numbers=numbers, truths=truths)
    of_all, of_runners = {KIND, EVENTS}, {TRACESTATE_KEY, *_RUNNER_GROUPS}
    return _knowing(of_event, of_all), _knowing(of_runner, of_all | of_runners)


def _knowing(terms: _Terms, others: set[str]) -> _Terms:
    return terms._replace(known=frozenset(terms.names) | terms.numbers | terms.truths | others)


_OF_HTTP = _both(
    _Terms(
        {
            "path": "url.path",
            "port": "server.port",
            "route": "http.route",
            "status_code": _STATUS,
            "request_bytes": "http.request.body.size",
            "response_bytes": "http.response.body.size",
        },
        frozenset({"port", "status_code", "request_bytes", "response_bytes", "close_code"}),
        frozenset({"client_closed"}),
    )
)
_OF_CELERY = _both(
    _Terms(
        {"task_id": "messaging.message.id", "queue": "messaging.destination.name"},
        frozenset({"retries", TIME_LIMIT_KEY}),
        frozenset({"expired"}),
    )
)
_OF_OTHERS = _both(_Terms())
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


def origin_of(words: Words, origin: str, is_runner: bool) -> str:
    """Return what recorded an event. A runner does not say it, but its type does."""
    if not is_runner or origin != RUNNER_ORIGIN:
        return origin
    kind = words[1]
    return ORIGIN if kind == FUNCTION_TYPE else kind


def name_of(words: Words, metadata: Mapping[str, Any], origin: str, is_runner: bool) -> str:
    """Return a span's name: what an application named is kept, the integrations' events get the conventions' names."""
    name, kind, operation = words
    if kind == _HTTP and operation and is_runner and "path" in metadata:
        route = metadata.get("route")
        method = _method_in_a_name(operation)
        return f"{method} {route}" if isinstance(route, str) and route else method
    if kind == _HTTP and operation and origin == _URLLIB3:
        return _method_in_a_name(operation)
    if kind == _CELERY and operation in _CELERY_OPERATIONS:
        return f"{name} {'process' if operation == _EXECUTE else _PUBLISH}"
    return name


def attributes_of(words: Words, metadata: Mapping[str, Any], is_runner: bool) -> dict[str, Value]:
    """Return a span's attributes."""
    name, kind, operation = words
    terms = _OF_OTHERS[is_runner]
    named: dict[str, Value] = {"epsagon.type": kind, "epsagon.operation": operation}
    if kind == _HTTP:
        # An application may name a request as it likes.
        address = _address(name) if "path" in metadata or _HOST.fullmatch(name) else {}
        terms, named = _OF_HTTP[is_runner], {**address, **_method(operation)}
    elif kind == _CELERY and operation in _CELERY_OPERATIONS:
        types = {"messaging.operation.name": operation, "messaging.operation.type": _CELERY_OPERATIONS[operation]}
        terms, named = _OF_CELERY[is_runner], {"messaging.system": _CELERY, **types}
    attributes: dict[str, Value] = {key: value for key, value in named.items() if value != ""}
    known = terms.known
    for key, value in metadata.items():
        if key not in known:
            # Nearly all are, and are texts.
            attributes[key] = value if type(value) is str else attribute(value)
        elif is_runner and key in _RUNNER_GROUPS:
            attributes |= _group(key, value)
        elif key != KIND and key != EVENTS and not (key == TRACESTATE_KEY and is_runner):
            attributes[terms.names.get(key, key)] = _typed(key, value, terms)
    return attributes


def was_refused(words: Words, attributes: Mapping[str, Value], is_runner: bool) -> bool:
    """Say whether an outgoing request was answered with an error of ours: to the conventions that is a failure."""
    status = attributes.get(_STATUS)
    return not is_runner and words[1] == _HTTP and type(status) is int and status >= _REFUSED


def error_type(code: Any, exception: Mapping[str, Any] | None, attributes: Mapping[str, Value]) -> Value:
    """Return `error.type` of what failed: the exception's class, an answer's status, or that nothing is known."""
    if code == ErrorCode.TIMEOUT:
        return "timeout"
    status = attributes.get(_STATUS)
    # Our web integrations say HTTPStatus for an answer that is an error without an exception.
    said = exception.get("type") if exception else None
    if isinstance(said, str) and said and not (said == "HTTPStatus" and status):
        return said
    return str(status) if status else "_OTHER"


def _typed(key: str, value: Any, terms: _Terms) -> Value:
    if key in terms.numbers:
        number = _number(value)
        return float(number) if key in _FLOATS and type(number) is int else number
    return True if value == "true" and key in terms.truths else attribute(value)


def _number(value: Any) -> Value:
    """Return the number that a text says. An application may give any metadata this name, so it may say none."""
    if not isinstance(value, str) or len(value) > _MAX_DIGITS or not value.isascii():
        return attribute(value)
    if value.isdigit():
        return int(value)
    with suppress(ValueError):
        if math.isfinite(number := float(value)):
            return number
    return value


def _group(name: str, said: Any) -> dict[str, Value]:
    try:
        members = orjson.loads(said) if isinstance(said, str) else said
    except ValueError:
        members = said
    if not isinstance(members, dict):
        return {name: attribute(members)}
    return {f"{name}.{key}": attribute(value) for key, value in members.items()}


def _method(said: str) -> dict[str, Value]:
    """Return a method as the conventions name it: one that they do not know has a name for all such."""
    method = said.upper() if said.upper() in _METHODS else _OTHER_METHOD
    original = {"http.request.method_original": said} if method != said else {}
    return {"http.request.method": method, **original} if said else {}


def _method_in_a_name(said: str) -> str:
    return said.upper() if said.upper() in _METHODS else "HTTP"


def _address(host: str) -> dict[str, Value]:
    name, colon, port = host.rpartition(":")
    # An IPv6 address has colons of its own, unless it stands in brackets.
    if colon and port.isascii() and port.isdigit() and len(port) <= 5 and (":" not in name or name.endswith("]")):
        return {"server.address": name, "server.port": int(port)}
    return {"server.address": host}
