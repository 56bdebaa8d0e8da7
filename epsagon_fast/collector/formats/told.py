"""Events that were made as spans, through OpenTelemetry's API: they arrive as they were made, with nothing added."""

from collections.abc import Iterator, Mapping, Sequence

import orjson

import epsagon_fast.span_names as names
from epsagon_fast.collector.formats.conventions import INTERNAL, attribute, attributes_of
from epsagon_fast.collector.formats.shapes import (
    ERROR,
    MAX_NS,
    OK,
    SPAN_DIGITS,
    TRACE_DIGITS,
    UNSET,
    Attributes,
    Dropped,
    Happening,
    Link,
    Scope,
    Span,
    attributes_in,
    is_id,
    moment,
    nanoseconds,
    object_of,
    text_of,
    thrown,
)
from epsagon_fast.hints import Any
from epsagon_fast.protocol import HTTP_TRACE_ID_KEY, LABELS_KEY

_KINDS = {name: number for number, name in enumerate(names.KINDS)}
_COUNTS = (names.DROPPED_ATTRIBUTES, names.DROPPED_EVENTS, names.DROPPED_LINKS)
_COUNTED = frozenset(_COUNTS)
_NONE = Dropped()
_NO_LABELS = "{}"
# Of flags and counts in OTLP.
_MOST = 2**32 - 1


def is_told(metadata: Mapping[str, Any]) -> bool:
    """Say whether an event came as a span."""
    return isinstance(metadata.get(names.SCOPE), str)


def told(
    ids: tuple[str, str, str], name: str, event: Mapping[str, Any], metadata: Mapping[str, Any], is_runner: bool
) -> Span:
    """Return the span that an event was. `ids`: of its trace, its own, its parent's."""
    start_ns = moment(event.get("start_time"))
    end_ns = min(MAX_NS, start_ns + nanoseconds(event.get("duration")))
    happenings: list[Happening] = []
    if names.EVENTS in metadata:
        happenings.extend(happenings_of(metadata[names.EVENTS]))
    exception = event.get("exception")
    if exception and isinstance(exception, dict):
        happenings.append(thrown(exception, end_ns, of_span=True))
        happenings.sort(key=_time)
    kind = kind_said(metadata.get(names.KIND))
    scope = Scope(metadata[names.SCOPE], text_of(metadata.get(names.SCOPE_VERSION)))
    attributes = _attributes_of_runner(metadata) if is_runner else _attributes(metadata)
    links, dropped = links_of(metadata), dropped_of(metadata)
    status, message = _status(event, metadata)
    return Span(*ids, name, kind, start_ns, end_ns, attributes, status, message, happenings, scope, links, dropped)


def kind_said(said: Any) -> int:
    """Return a span's kind by its name."""
    return _KINDS.get(said, INTERNAL) if isinstance(said, str) else INTERNAL


def _status(event: Mapping[str, Any], metadata: Mapping[str, Any]) -> tuple[int, str]:
    if not event.get("error_code"):
        return (OK if metadata.get(names.STATUS) == names.OK else UNSET), ""
    message, exception = text_of(metadata.get(names.DESCRIPTION)), object_of(event.get("exception"))
    if not message and names.EXCEPTION_ESCAPED not in object_of(exception.get("additional_data")):
        # It is not one that the span recorded, but that of what ended its process.
        message = text_of(exception.get("message"))
    return ERROR, message


def _attributes(metadata: Mapping[str, Any]) -> Attributes:
    return {
        key: value if type(value) is str else attribute(value)
        for key, value in metadata.items()
        if key not in names.RESERVED
    }


def _attributes_of_runner(metadata: Mapping[str, Any]) -> Attributes:
    own = {key: value for key, value in metadata.items() if key not in names.RESERVED}
    # The runner has these of its own.
    own.pop(HTTP_TRACE_ID_KEY, None)
    if own.get(LABELS_KEY) == _NO_LABELS:
        del own[LABELS_KEY]
    return attributes_of(("", "", ""), own, is_runner=True)


def _time(happening: Happening) -> int:
    return happening.time_ns


def happenings_of(said: Any) -> Iterator[Happening]:
    """Yield the span events that stand in an event's metadata."""
    for each in _list(said):
        time_ns = _time_ns(each.get("time_ns"))
        yield Happening(text_of(each.get("name")), time_ns, attributes_in(each.get("attributes")))


def _time_ns(said: Any) -> int:
    return said if type(said) is int and 0 < said <= MAX_NS else 0


def links_of(metadata: Mapping[str, Any]) -> Sequence[Link]:
    """Return the links that stand in an event's metadata."""
    return list(_links(metadata[names.LINKS])) if names.LINKS in metadata else ()


def dropped_of(metadata: Mapping[str, Any]) -> Dropped:
    """Return how much of a span an event lacks."""
    return _NONE if _COUNTED.isdisjoint(metadata) else Dropped(*(_count(metadata.get(name)) for name in _COUNTS))


def _links(said: Any) -> Iterator[Link]:
    for each in _list(said):
        trace_id, span_id = each.get("trace_id"), each.get("span_id")
        if is_id(trace_id, TRACE_DIGITS) and is_id(span_id, SPAN_DIGITS):
            state, flags = text_of(each.get("trace_state")), _count(each.get("flags"))
            yield Link(trace_id, span_id, state, flags, attributes_in(each.get("attributes")))


def _list(said: Any) -> list[dict[str, Any]]:
    try:
        found = orjson.loads(said) if isinstance(said, str) else []
    except ValueError:
        # It was cut to fit its trace.
        return []
    return list(map(object_of, found)) if isinstance(found, list) else []


def _count(said: Any) -> int:
    number = int(said) if isinstance(said, str) and said.isascii() and said.isdigit() and len(said) < 10 else said
    return number if type(number) is int and 0 <= number <= _MOST else 0
