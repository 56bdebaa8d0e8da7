"""A span as both of OTLP's encodings take it, and the checks of what is read from JSON."""

from collections.abc import Sequence

import epsagon_fast.span_names as names
from epsagon_fast.collector.formats.conventions import Value, attribute
from epsagon_fast.hints import Any, TypeGuard
from epsagon_fast.patterns import pattern
from epsagon_fast.protocol import NANOSECONDS_FROM
from epsagon_fast.rows import NamedTuple

UNSET, OK, ERROR = 0, 1, 2
_NS_DIGITS = 9
NS_PER_S: int = 10**_NS_DIGITS
# OTLP's times are unsigned numbers of 64 bits.
MAX_NS = 2**64 - 1
# Before epoch or after the year 2554 a float says nothing that OTLP can hold; its decimal would be hundreds of digits.
_MAX_S = MAX_NS / NS_PER_S
# A float of so few seconds, multiplied, is off by less than half a nanosecond.
_EXACT_S = 1e6
TRACE_DIGITS, SPAN_DIGITS = 32, 16
_IDS = {digits: pattern(rf"(?!0+\Z)[0-9a-f]{{{digits}}}") for digits in (TRACE_DIGITS, SPAN_DIGITS)}

# Of texts that a cache of thousands keeps. Longer ones together would take all the memory that a collector may hold.
REMEMBERED_CHARACTERS = 256

Attributes = dict[str, Value]


class Happening(NamedTuple):
    """An event of a span, in OpenTelemetry's sense of the word."""

    name: str
    time_ns: int
    attributes: Attributes


class Link(NamedTuple):
    """A reference to another span. Ids are lower-case hex digits."""

    trace_id: str
    span_id: str
    trace_state: str
    flags: int
    attributes: Attributes


class Scope(NamedTuple):
    """What made a span. `version`: None: this tracer's."""

    name: str
    version: str | None = None


class Dropped(NamedTuple):
    """How much of a span was left out where it was made."""

    attributes: int = 0
    happenings: int = 0
    links: int = 0


class Span(NamedTuple):
    """One span. Ids are lower-case hex digits, `parent_id` "" without a parent; times are unix nanoseconds."""

    trace_id: str
    span_id: str
    parent_id: str
    name: str
    kind: int
    start_ns: int
    end_ns: int
    attributes: Attributes
    status: int
    message: str
    happenings: list[Happening]
    scope: Scope
    links: Sequence[Link] = ()
    dropped: Dropped = Dropped()
    # As W3C Trace Context writes it, "" without one. All spans of a trace have the same.
    trace_state: str = ""


def moment(time: object) -> int:
    """Return unix nanoseconds of a time since the epoch: seconds, or so large an int that it is nanoseconds."""
    return time if type(time) is int and NANOSECONDS_FROM <= time <= MAX_NS else nanoseconds(time)


def nanoseconds(seconds: object) -> int:
    """Return nanoseconds of what JSON holds as seconds, without the error of a float's multiplication."""
    # What JSON holds has no other types, and a bool is no number here.
    if (type(seconds) is not float and type(seconds) is not int) or not 0 <= seconds <= _MAX_S:
        return 0
    if seconds < _EXACT_S:
        return round(seconds * NS_PER_S)
    # The shortest decimal that means this float: the digits that the JSON had. So large a one has no exponent yet.
    whole, _, part = repr(seconds).partition(".")
    return min(MAX_NS, int(whole + part[:_NS_DIGITS].ljust(_NS_DIGITS, "0")))


def is_id(said: object, digits: int) -> TypeGuard[str]:
    """Say whether a value is an id of so many digits, not all of them zero."""
    return isinstance(said, str) and _IDS[digits].fullmatch(said) is not None


def object_of(value: Any) -> dict[str, Any]:
    """Return a value that is an object, else an empty one."""
    return value if isinstance(value, dict) else {}


def text_of(value: Any) -> str:
    """Return a value as a text; None is an empty one."""
    return value if isinstance(value, str) else "" if value is None else str(attribute(value))


def attributes_in(said: Any) -> Attributes:
    """Return a JSON object as attributes."""
    return {key: attribute(value) for key, value in object_of(said).items()}


def thrown(exception: dict[str, Any], end_ns: int, of_span: bool = False) -> Happening:
    """Return an exception as the conventions want it.

    `end_ns`: of its span, for one without a time. `of_span`: a span has recorded it, and says what it has.
    """
    said = {
        names.EXCEPTION_TYPE: text_of(exception.get("type")),
        names.EXCEPTION_MESSAGE: text_of(exception.get("message")),
        names.EXCEPTION_STACKTRACE: text_of(exception.get("traceback")),
    }
    known = said if of_span else {key: value for key, value in said.items() if value}
    at_ns = moment(exception.get("time"))
    # A block's end is taken before its exception is looked at, but what was thrown was thrown before the end.
    at_ns = at_ns if of_span else min(filter(None, (at_ns, end_ns)), default=0)
    return Happening(names.EXCEPTION, at_ns, {**attributes_in(exception.get("additional_data")), **known})
