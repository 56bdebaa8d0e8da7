"""Events that were made as spans, through OpenTelemetry's API: they arrive as they were made, with nothing added."""

from collections.abc import Iterator, Mapping
from typing import Any

import orjson

import epsagon_fast.span_names as names
from epsagon_fast.collector.formats.conventions import INTERNAL, attributes_of
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
    is_ns,
    object_of,
    text_of,
    thrown,
)
from epsagon_fast.protocol import HTTP_TRACE_ID_KEY, LABELS_KEY

_KINDS = {name: number for number, name in enumerate(names.KINDS)}
_COUNTS = (names.DROPPED_ATTRIBUTES, names.DROPPED_EVENTS, names.DROPPED_LINKS)
_NO_LABELS = "{}"
# Of flags and counts in OTLP.
_MOST = 2**32 - 1


def is_told(metadata: Mapping[str, Any]) -> bool:
    """Say whether an event came as a span."""
    return isinstance(metadata.get(names.SCOPE), str)


def told(span: Span, event: Mapping[str, Any], metadata: Mapping[str, Any], is_runner: bool) -> Span:
    """Return a span of which only the ids, the name and the times are known, with what its event says of it."""
    exact_ns = metadata.get(names.START_NS)
    start_ns = exact_ns if is_ns(exact_ns) else span.start_ns
    end_ns = min(MAX_NS, start_ns + span.end_ns - span.start_ns)
    exception = object_of(event.get("exception"))
    happenings = list(_happenings(metadata.get(names.EVENTS)))
    if exception:
        happenings.append(thrown(exception, end_ns))
        happenings.sort(key=_time)
    status, message = _status(event, metadata, exception)
    kind = metadata.get(names.KIND)
    return span._replace(
        kind=_KINDS.get(kind, INTERNAL) if isinstance(kind, str) else INTERNAL,
        start_ns=start_ns,
        end_ns=end_ns,
        attributes=_attributes(metadata, is_runner),
        status=status,
        message=message,
        happenings=happenings,
        scope=Scope(text_of(metadata.get(names.SCOPE)), text_of(metadata.get(names.SCOPE_VERSION))),
        links=list(_links(metadata.get(names.LINKS))),
        dropped=_dropped(metadata),
    )


def _status(event: Mapping[str, Any], metadata: Mapping[str, Any], exception: Mapping[str, Any]) -> tuple[int, str]:
    if not event.get("error_code"):
        return (OK if metadata.get(names.STATUS) == names.OK else UNSET), ""
    message = text_of(metadata.get(names.DESCRIPTION))
    if exception and not message and names.TIME_NS not in object_of(exception.get("additional_data")):
        # It is not the span's own, but that of what ended its process.
        message = text_of(exception.get("message"))
    return ERROR, message


def _attributes(metadata: Mapping[str, Any], is_runner: bool) -> Attributes:
    own = {key: value for key, value in metadata.items() if key not in names.RESERVED}
    if is_runner:
        # The runner has these of its own.
        own.pop(HTTP_TRACE_ID_KEY, None)
        if own.get(LABELS_KEY) == _NO_LABELS:
            del own[LABELS_KEY]
    return attributes_of(("", "", ""), own, is_runner)


def _time(happening: Happening) -> int:
    return happening.time_ns


def _happenings(said: Any) -> Iterator[Happening]:
    for each in _list(said):
        time_ns = each.get("time_ns")
        yield Happening(
            text_of(each.get("name")), time_ns if is_ns(time_ns) else 0, attributes_in(each.get("attributes"))
        )


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


def _dropped(metadata: Mapping[str, Any]) -> Dropped:
    counts = (names.DROPPED_ATTRIBUTES, names.DROPPED_EVENTS, names.DROPPED_LINKS)
    return (
        Dropped(*(_count(metadata.get(name)) for name in counts))
        if any(map(metadata.__contains__, counts))
        else Dropped()
    )


def _count(said: Any) -> int:
    number = int(said) if isinstance(said, str) and said.isascii() and said.isdigit() and len(said) < 10 else said
    return number if type(number) is int and 0 <= number <= _MOST else 0
