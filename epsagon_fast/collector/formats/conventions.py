"""OpenTelemetry's semantic conventions: what an event's name, kind and metadata are called there.

The integrations' own metadata get the conventions' names; what an application gave keeps its own.
"""

import math
from collections.abc import Callable, Container, Mapping

import orjson

from epsagon_fast.digits import MOST_DIGITS, number, signed
from epsagon_fast.hints import Any
from epsagon_fast.patterns import pattern
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
from epsagon_fast.rows import NamedTuple
from epsagon_fast.span_names import KIND, KINDS, SAID_OF_BLOCKS

INTERNAL, SERVER, CLIENT, PRODUCER, CONSUMER = 1, 2, 3, 4, 5

Scalar = str | bool | int | float
# The series for all that has none of its own, because there are too many. In OTLP it is an attribute.
OVERFLOW = "otel.metric.overflow"

Value = Scalar | list[Scalar]
# An event's resource: name, type, operation.
Words = tuple[str, str, str]

HTTP, CELERY, _EXECUTE, _PUBLISH = "http", "celery", "execute", "publish"
_URLLIB3 = "urllib3"
# float() alone takes more: `_` between digits, spaces, words.
_REAL = pattern(r"-?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?")
# What looks like a host: with a dot or a colon, or this machine.
_HOST = pattern(r"[^\s/]*[.:][^\s/]*|localhost")
DATABASES = ("db.system.name", "db.system")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY"})
_OTHER_METHOD = "_OTHER"
_METHOD = "http.request.method"
STATUS, _REFUSED = "http.response.status_code", 400
CELERY_OPERATIONS = {_EXECUTE: "process", _PUBLISH: "send"}


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
    if kind == HTTP:
        return SERVER if is_runner else CLIENT
    if kind == CELERY and operation in CELERY_OPERATIONS:
        return CONSUMER if operation == _EXECUTE else PRODUCER
    said = metadata.get(KIND)
    if isinstance(said, str) and said in KINDS[INTERNAL:]:
        return KINDS.index(said)
    return CLIENT if any(key in metadata for key in DATABASES) else INTERNAL


def origin_of(words: Words, origin: str, is_runner: bool) -> str:
    """Return what recorded an event. A runner does not say it, but its type does."""
    if not is_runner or origin != RUNNER_ORIGIN:
        return origin
    kind = words[1]
    return ORIGIN if kind == FUNCTION_TYPE else kind


# Of these kinds a name comes from more than the resource's name.
RENAMED = frozenset({HTTP, CELERY})


def name_of(words: Words, metadata: Mapping[str, Any], origin: str, is_runner: bool) -> str:
    """Return a span's name: what an application named is kept, the integrations' events get the conventions' names."""
    name, kind, operation = words
    if kind == HTTP and operation and is_runner and "path" in metadata:
        route = metadata.get("route")
        method = _method_in_a_name(operation)
        return f"{method} {route}" if isinstance(route, str) and route else method
    if kind == HTTP and operation and origin == _URLLIB3:
        return _method_in_a_name(operation)
    if kind == CELERY and operation in CELERY_OPERATIONS:
        return f"{name} {'process' if operation == _EXECUTE else _PUBLISH}"
    return name


def attributes_of(words: Words, metadata: Mapping[str, Any], is_runner: bool) -> dict[str, Value]:
    """Return a span's attributes."""
    terms, attributes = of_words(words, metadata)
    term_of = terms[is_runner].get
    for key, value in metadata.items():
        term = term_of(key)
        if term is None:
            # Nearly all are such, and are texts.
            attributes[key] = value if type(value) is str else attribute(value)
        elif term is GROUP:
            attributes |= group(key, value)
        elif term is not HIDDEN:
            attributes[term.name] = term.convert(value)
    return attributes


def of_words(words: Words, metadata: Container[str]) -> tuple[tuple["Terms", "Terms"], dict[str, Value]]:
    """Return what becomes of the metadata of such events and runners, and the attributes that the words themselves are.

    `metadata`: the names of the event's.
    """
    name, kind, operation = words
    terms = OF_OTHERS
    named: Mapping[str, Value] = {"epsagon.type": kind, "epsagon.operation": operation}
    if kind == HTTP:
        # An application may name a request as it likes.
        address = _address(name) if "path" in metadata or _HOST.fullmatch(name) else {}
        terms, named = OF_HTTP, {**address, **_method(operation)}
    elif kind == CELERY and operation in CELERY_OPERATIONS:
        types = {"messaging.operation.name": operation, "messaging.operation.type": CELERY_OPERATIONS[operation]}
        terms, named = OF_CELERY, {"messaging.system": CELERY, **types}
    return terms, {key: value for key, value in named.items() if value != ""}


def was_refused(words: Words, attributes: Mapping[str, Value], is_runner: bool) -> bool:
    """Say whether an outgoing request was answered with an error of ours: to the conventions that is a failure."""
    status = attributes.get(STATUS)
    return not is_runner and words[1] == HTTP and type(status) is int and status >= _REFUSED


def error_type(code: Any, exception: Mapping[str, Any] | None, attributes: Mapping[str, Value]) -> Value:
    """Return `error.type` of what failed: the exception's class, an answer's status, or that nothing is known."""
    if code == ErrorCode.TIMEOUT:
        return "timeout"
    status = attributes.get(STATUS)
    # Our web integrations say HTTPStatus for an answer that is an error without an exception.
    said = exception.get("type") if exception else None
    if isinstance(said, str) and said and not (said == "HTTPStatus" and status):
        return said
    return str(status) if status else "_OTHER"


def number_of(value: Any) -> Value:
    """Return the number that a text says. An application may give any metadata this name, so it may say none."""
    if not isinstance(value, str) or len(value) > MOST_DIGITS:
        return attribute(value)
    if (whole := signed(value)) is not None:
        return whole
    if _REAL.fullmatch(value) and math.isfinite(real := float(value)):
        return real
    return value


def _real(value: Any) -> Value:
    """Return a number that need not be whole, so none is sent as an int."""
    number = number_of(value)
    return float(number) if type(number) is int else number


def _truth(value: Any) -> Value:
    return True if value == "true" else attribute(value)


def group(name: str, said: Any) -> dict[str, Value]:
    """Return the attributes that a GROUP becomes."""
    try:
        members = orjson.loads(said) if isinstance(said, str) else said
    except ValueError:
        members = said
    if not isinstance(members, dict):
        return {name: attribute(members)}
    return {f"{name}.{key}": attribute(value) for key, value in members.items()}


def _method(said: str) -> dict[str, Value]:
    """Return a method as the conventions name it: one that they do not know has a name for all such."""
    if said in _METHODS:
        return {_METHOD: said}
    method = said.upper() if said.upper() in _METHODS else _OTHER_METHOD
    original = {"http.request.method_original": said} if method != said else {}
    return {_METHOD: method, **original} if said else {}


def _method_in_a_name(said: str) -> str:
    method = said.upper()
    return method if method in _METHODS else "HTTP"


def _address(host: str) -> dict[str, Value]:
    name, colon, digits = host.rpartition(":")
    # An IPv6 address has colons of its own, unless it stands in brackets.
    port = number(digits, most=5) if colon else None
    if port is not None and (":" not in name or name.endswith("]")):
        return {"server.address": name, "server.port": port}
    return {"server.address": host}


class Term(NamedTuple):
    """What a member of our integrations' metadata is called in the conventions, and what becomes of its value.

    Numbers and bools are texts in our form.
    """

    name: str
    convert: Callable[[Any], Value]


Terms = Mapping[str, Term]
# For a member that is no attribute, and for a JSON object of which each member is one, as `labels.user`.
HIDDEN, GROUP = Term("", attribute), Term("", attribute)
_OF_RUNNERS: Terms = {
    **{key: Term(key, number_of) for key in ("dropped_events", "dropped_exceptions", "dropped_labels")},
    **{key: Term(key, _truth) for key in (IS_TRIMMED_KEY, "unfinished")},
    SAMPLING_WEIGHT_KEY: Term(SAMPLING_WEIGHT_KEY, _real),
    LABELS_KEY: GROUP,
    "dropped_records": GROUP,
    TRACESTATE_KEY: HIDDEN,
}


def _both(of_event: Terms) -> tuple[Terms, Terms]:
    """Return the terms of events of one type, and those of its runners, which have marks of their own."""
    of_all = {**of_event, **dict.fromkeys(SAID_OF_BLOCKS, HIDDEN)}
    return of_all, {**_OF_RUNNERS, **of_all}


OF_HTTP = _both(
    {
        "path": Term("url.path", attribute),
        "route": Term("http.route", attribute),
        "port": Term("server.port", number_of),
        "status_code": Term(STATUS, number_of),
        "request_bytes": Term("http.request.body.size", number_of),
        "response_bytes": Term("http.response.body.size", number_of),
        "close_code": Term("close_code", number_of),
        "client_closed": Term("client_closed", _truth),
    }
)
OF_CELERY = _both(
    {
        "task_id": Term("messaging.message.id", attribute),
        "queue": Term("messaging.destination.name", attribute),
        "retries": Term("retries", number_of),
        TIME_LIMIT_KEY: Term(TIME_LIMIT_KEY, _real),
        "expired": Term("expired", _truth),
    }
)
OF_OTHERS = _both({})
