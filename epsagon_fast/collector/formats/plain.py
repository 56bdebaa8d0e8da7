"""A trace's part of a request, of which most events are written at once: hundreds of objects for each would take longer
than all else that is done for it. Most events are plain: _ext/collector/plain.h says which.

What is written is what `spans.py` and an encoding make of the same trace. Where the compiled writer is missing, they
make all of it.
"""

from collections.abc import Callable
from functools import lru_cache
from types import ModuleType

import orjson

from epsagon_fast.collector.formats import FittedTrace, otlp_json, otlp_protobuf
from epsagon_fast.collector.formats.conventions import (
    DATABASES,
    Value,
    Words,
    attribute,
    group,
    kind_of,
    name_of,
    of_words,
)
from epsagon_fast.collector.formats.plain_terms import HAS_DATABASE, HAS_PATH, HAS_SCOPE
from epsagon_fast.collector.formats.shapes import OK, UNSET, Scope, Span, moment, nanoseconds
from epsagon_fast.collector.formats.spans import SpansOfTrace, order_of, other_id, scope_of, spans_of
from epsagon_fast.collector.formats.told import kind_said
from epsagon_fast.compiled import COMPILED, implementation
from epsagon_fast.hints import TYPE_CHECKING, Any, Final
from epsagon_fast.rows import NamedTuple
from epsagon_fast.span_names import KIND
from epsagon_fast.span_names import OK as SAID_OK
from epsagon_fast.version import __version__

IMPLEMENTATION: Final = implementation("plain_spans")
# Heads that are remembered. One more, and all are forgotten.
MAX_HEADS = 4096

# How a scope is sorted among others of its part, and what stands before its spans.
WrittenScope = tuple[str, bool, str, bytes]


class SpanHead(NamedTuple):
    """The parts of a span that its event's words decide, and what some of its metadata say."""

    scope: WrittenScope
    # Its name and kind; attributes; what stands behind the attributes.
    named: bytes
    members: bytes
    rest: bytes
    has_port: bool


class Writing:
    """What the compiled writer asks of Python, in one encoding."""

    def __init__(self, encoding: ModuleType) -> None:
        self.encoding = encoding
        self.is_json = encoding is otlp_json
        # By what decides them; the compiled writer looks them up, and changes it.
        self.heads: dict[bytes, SpanHead] = {}
        self._scope = lru_cache(MAX_HEADS)(self._new_scope)
        self.copied, self.spans, self.other_id = attribute, SpansOfTrace, other_id

    def head(self, words: Words, origin: str, is_runner: bool, marks: int, said: tuple[str | None, ...]) -> SpanHead:
        """Return a new head. `marks` and what was `said`, by marks from HAS_ROUTE on: see plain_terms.py."""
        route, scope, version, kind, status = said
        if marks & HAS_SCOPE:
            own = Scope(scope or "", version or "")
            named = self.encoding.named(words[0], kind_said(kind))
            return SpanHead(self._scope(own), named, b"", self.encoding.rest(OK if status == SAID_OK else UNSET), False)
        seen = {DATABASES[0]: marks & HAS_DATABASE, "path": marks & HAS_PATH, "route": route, KIND: kind}
        metadata = {key: value for key, value in seen.items() if value}
        attributes = of_words(words, metadata)[1]
        name, number = name_of(words, metadata, origin, is_runner), kind_of(words, metadata, is_runner)
        return SpanHead(
            self._scope(scope_of(words, origin, is_runner)),
            self.encoding.named(name, number),
            self.encoding.members(attributes),
            self.encoding.rest(UNSET),
            "server.port" in attributes,
        )

    def converted(self, key: bytes, value: bytes, convert: Callable[[Any], Value] | None) -> bytes | None:
        """Return the attributes that a member becomes. None: it is no JSON. `convert`: None for a group."""
        try:
            name, said = orjson.loads(key), orjson.loads(value)
        except ValueError:
            return None
        attributes = group(name, said) if convert is None else {name: convert(said)}
        members: bytes = self.encoding.members(attributes)
        return members

    def nanoseconds(self, text: bytes, is_moment: bool) -> int:
        """Return nanoseconds of a time since the epoch, or of a duration, as JSON has it."""
        return moment(orjson.loads(text)) if is_moment else nanoseconds(orjson.loads(text))

    def other(self, spans: SpansOfTrace, number: int) -> tuple[WrittenScope, bytes]:
        """Return the span of an event that is not plain, and its scope."""
        span: Span = spans.span(number)
        return self._scope(span.scope), self.encoding.span(span)

    def _new_scope(self, scope: Scope) -> WrittenScope:
        version = __version__ if scope.version is None else scope.version
        return *order_of(scope), self.encoding.scope(scope.name, version)


def pure_part(trace: FittedTrace, resource: bytes, encoding: ModuleType) -> bytes:
    """Return a trace's part of a request. Raises ValueError if an event is not JSON."""
    part: bytes = encoding.part(resource, __version__, spans_of(trace))
    return part


def pure_span_count(part: bytes, encoding: ModuleType) -> int:
    """Return how many spans a part has. Raises IndexError or ValueError if it is none."""
    count: int = encoding.span_count(part)
    return count


if TYPE_CHECKING or IMPLEMENTATION != COMPILED:
    part, span_count = pure_part, pure_span_count
else:
    from epsagon_fast.collector.formats._plain import counted, written

    _WRITING = {encoding: Writing(encoding) for encoding in (otlp_json, otlp_protobuf)}

    def part(trace, resource, encoding):
        """Return a trace's part of a request. Raises ValueError if an event is not JSON."""
        data = written(trace, resource, _WRITING[encoding])
        return pure_part(trace, resource, encoding) if data is None else data

    def span_count(part, encoding):
        """Return how many spans a part has. Raises IndexError or ValueError if it is none."""
        count = counted(part, encoding is otlp_json)
        return pure_span_count(part, encoding) if count is None else count
