"""Trace context in HTTP headers, as W3C Trace Context (level 1 and 2) says it: `traceparent` and `tracestate`.

All that one request causes shares one trace id, the `http_trace_id` of every runner it touches: of the web request, of
the tasks that it sends, of the services that these call. Each of them is a trace of its own here. Whoever receives
something makes its trace, lets it `continue_context` and starts it; whoever sends something calls `inject`.
"""

import re
from collections.abc import Mapping, MutableMapping
from typing import Final

from epsagon_fast.producer import current
from epsagon_fast.producer.context import (
    HTTP_TRACE_ID_KEY,
    PARENT_ID_DIGITS,
    TraceContext,
    context_of,
    continue_context,
)

__all__ = [
    "HTTP_TRACE_ID_KEY",
    "TRACEPARENT",
    "TRACESTATE",
    "TraceContext",
    "context_of",
    "continue_context",
    "extract",
    "inject",
]

TRACEPARENT: Final = "traceparent"
TRACESTATE: Final = "tracestate"
# A later version may go on after the flags; this one ends there.
_FIELDS: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_VERSION: Final = "00"
_FORBIDDEN_VERSION: Final = "ff"
# Members of a tracestate: a list that is longer, or broken, is to be dropped as a whole.
MAX_MEMBERS: Final = 32
# Level 2's keys; those of level 1 are among them.
_KEY: Final = "[a-z0-9][_0-9a-z*/@-]{0,255}"
# Printable ASCII without comma and equals sign, not ending in a space. So no line break gets into other headers.
_MEMBER: Final = re.compile(rf"(?:{_KEY}=[ -+\--<>-~]{{0,255}}[!-+\--<>-~])?")


def extract(headers: Mapping[str, str]) -> TraceContext | None:
    """Return the trace context of a request's headers, whatever their case; None if there is none or it is invalid."""
    found = _FIELDS.fullmatch(_header(headers, TRACEPARENT))
    if found is None:
        return None
    version, trace_id, parent_id, flags, more = found.groups()
    if version == _FORBIDDEN_VERSION or (version == _VERSION and more):
        return None
    if not (trace_id.strip("0") and parent_id.strip("0")):
        return None
    return TraceContext(trace_id, parent_id, int(flags, 16), _checked(_header(headers, TRACESTATE)))


def inject(headers: MutableMapping[str, str]) -> TraceContext | None:
    """Write the current trace's context into `headers`, in place of one that is there. Return what was written.

    Without a trace, or with one that is neither recorded nor continues anything, `headers` stay as they are. The parent
    id is the beginning of the current trace's own id.
    """
    tracer = current.acting_trace()
    context = None if tracer is None else context_of(tracer)
    if tracer is None or context is None:
        return None
    context = context._replace(parent_id=tracer.trace_id[:PARENT_ID_DIGITS])
    for name in [name for name in headers if name.lower() in (TRACEPARENT, TRACESTATE)]:
        del headers[name]
    headers[TRACEPARENT] = context.traceparent
    if context.tracestate:
        headers[TRACESTATE] = context.tracestate
    return context


def _checked(state: str) -> str:
    members = state.split(",")
    valid = len(members) <= MAX_MEMBERS and all(_MEMBER.fullmatch(member.strip(" \t")) for member in members)
    return state if valid else ""


def _header(headers: Mapping[str, str], name: str) -> str:
    value = headers.get(name)
    if value is None:
        value = next((value for key, value in headers.items() if isinstance(key, str) and key.lower() == name), "")
    # A mapping of another kind of headers, or None for one that was not sent.
    return value.strip(" \t") if isinstance(value, str) else ""
