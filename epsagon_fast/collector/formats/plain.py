"""Writes plain events as spans in OTLP's JSON, at once: most events are plain (_ext/collector/plain.h), and hundreds of
objects for each would take longer than all else that is done for it.

What is written is what `spans.py` and `otlp_json.py` make of the same event. Where the compiled reader is missing, no
event is plain.
"""

from functools import lru_cache

import orjson

from epsagon_fast.collector.formats.conventions import DATABASES, Words, kind_of, name_of, of_words
from epsagon_fast.collector.formats.otlp_json import pairs
from epsagon_fast.collector.formats.plain_terms import HAS_DATABASE, HAS_PATH, HAS_PORT, TERMS
from epsagon_fast.collector.formats.shapes import MAX_NS, REMEMBERED_CHARACTERS, Scope, moment, nanoseconds
from epsagon_fast.collector.formats.spans import SpanIds, Written, scope_of
from epsagon_fast.compiled import COMPILED, implementation
from epsagon_fast.hints import TYPE_CHECKING, Final
from epsagon_fast.rows import NamedTuple

IMPLEMENTATION: Final = implementation("plain_spans")

if TYPE_CHECKING or IMPLEMENTATION == COMPILED:
    from epsagon_fast.collector.formats._plain import plain
else:

    def plain(event: bytes, terms: object, is_runner: bool) -> None:
        """Return that no event is plain."""


_SPAN = (
    b'{"traceId":"%b","spanId":"%b","parentSpanId":"%b",%b,"startTimeUnixNano":"%d","endTimeUnixNano":"%d",'
    b'"attributes":[%b],"events":[],"status":{"code":0,"message":""}}'
)


class _Head(NamedTuple):
    """The part of a span that an event's words decide."""

    scope: Scope
    # Its name and kind, as members of the span.
    named: bytes
    # The members of its list of attributes.
    attributes: bytes
    has_port: bool


def written(event: bytes, span_id: str | None, number: int, ids: SpanIds, begun_ns: int) -> Written | None:
    """Return an event as a span if it is plain. The arguments are those of a Writer."""
    is_runner = span_id is not None
    found = plain(event, TERMS, is_runner)
    if found is None:
        return None
    said_id, said_parent, words, origin, start, duration, attributes, marks, route = found
    is_short = sum(map(len, words)) + len(origin) + len(route or "") <= REMEMBERED_CHARACTERS
    head = (_head if is_short else _head.__wrapped__)(words, origin, marks, route, is_runner)
    if marks & HAS_PORT and head.has_port:
        return None
    span_id = span_id or ids.own(number, said_id)
    in_digits = ids.trace_id.encode(), span_id.encode(), ids.parent(span_id, said_parent).encode()
    start_ns = moment(start) or begun_ns
    end_ns = min(MAX_NS, start_ns + nanoseconds(duration))
    both = b"%b,%b" % (head.attributes, attributes) if head.attributes and attributes else head.attributes + attributes
    return Written(head.scope, _SPAN % (*in_digits, head.named, start_ns, end_ns, both))


@lru_cache(maxsize=4096)
def _head(words: Words, origin: str, marks: int, route: str | None, is_runner: bool) -> _Head:
    seen = {DATABASES[0]: marks & HAS_DATABASE, "path": marks & HAS_PATH, "route": route}
    metadata = {key: value for key, value in seen.items() if value}
    attributes = of_words(words, metadata)[1]
    named = {"name": name_of(words, metadata, origin, is_runner), "kind": kind_of(words, metadata, is_runner)}
    return _Head(
        scope_of(words, origin, is_runner),
        orjson.dumps(named)[1:-1],
        orjson.dumps(pairs(attributes))[1:-1],
        "server.port" in attributes,
    )
