"""Trace context in HTTP headers, as W3C Trace Context (level 1 and 2) defines it: `traceparent` and `tracestate`.

All the work that one request causes shares one trace id: the web request, the tasks that it sends, the services that
these call. Each of them is a trace of its own here, and its runner holds the shared id as `http_trace_id`. The receiver
of a message makes a trace, calls `continue_context` and starts it. The sender of a message calls `inject`.
"""

import re
from collections.abc import Mapping, MutableMapping

from epsagon_fast.hints import Final
from epsagon_fast.producer import current
from epsagon_fast.producer.context import (
    VERSION,
    TraceContext,
    context_of,
    continue_context,
    handed_on,
)
from epsagon_fast.producer.entering import parent_of
from epsagon_fast.producer.fast_path import injector
from epsagon_fast.producer.ids import SPAN_ID_DIGITS
from epsagon_fast.producer.place import PassingPlace
from epsagon_fast.producer.tracer import Tracer
from epsagon_fast.protocol import HTTP_TRACE_ID_KEY

__all__ = [
    "HTTP_TRACE_ID_KEY",
    "TRACEPARENT",
    "TRACESTATE",
    "TraceContext",
    "context_of",
    "continue_context",
    "extract",
    "extract_from",
    "handed_on",
    "inject",
    "inject_from",
]

TRACEPARENT: Final = "traceparent"
TRACESTATE: Final = "tracestate"
# Version 00 ends with the flags. A later version may have more after them.
_FIELDS: Final = re.compile(rf"([0-9a-f]{{2}})-([0-9a-f]{{32}})-([0-9a-f]{{{SPAN_ID_DIGITS}}})-([0-9a-f]{{2}})(-.*)?")
_FORBIDDEN_VERSION: Final = "ff"
_NO_TRACE: Final = 32 * "0"
_NO_SPAN: Final = SPAN_ID_DIGITS * "0"
# The most members of a tracestate. A list that is longer or broken is dropped as a whole.
MAX_MEMBERS: Final = 32
# Keys as level 2 allows them, which includes those of level 1.
_KEY: Final = "[a-z0-9][_0-9a-z*/@-]{0,255}"
# A value is printable ASCII without comma and equals sign and does not end in a space, so it cannot add a header.
_MEMBER: Final = re.compile(rf"(?:{_KEY}=[ -+\--<>-~]{{0,255}}[!-+\--<>-~])?")

_injected: Final = injector(TraceContext)


def extract(headers: Mapping[str, str]) -> TraceContext | None:
    """Return the trace context in a request's headers; None if there is none or it is invalid. Case is ignored."""
    return extract_from(_header(headers, TRACEPARENT), _header(headers, TRACESTATE))


def extract_from(traceparent: str, tracestate: str) -> TraceContext | None:
    """Return the trace context that two headers say, without spaces around; None if there is none or it is invalid."""
    found = _FIELDS.fullmatch(traceparent)
    if found is None:
        return None
    version, trace_id, parent_id, flags, more = found.groups()
    if version == _FORBIDDEN_VERSION or (version == VERSION and more):
        return None
    if trace_id == _NO_TRACE or parent_id == _NO_SPAN:
        return None
    state = _checked(tracestate) if tracestate else ""
    return tuple.__new__(TraceContext, (trace_id, parent_id, int(flags, 16), state))


def inject(headers: MutableMapping[str, str]) -> TraceContext | None:
    """Write the current trace's context into `headers`, and replace one that is there. Return the context.

    Returns None and leaves `headers` as they are if there is no trace, or one that is not recorded and continues
    nothing. The parent id is that of the innermost open event, or else of the trace's runner.
    """
    context: TraceContext | None = _injected(headers)
    if context is not None:
        return context
    here = current.current_place()
    if isinstance(here, PassingPlace):
        return _written(here.handed_on, headers)
    tracer = current.acting_trace()
    return None if tracer is None else inject_from(tracer, parent_of(tracer), headers)


def inject_from(tracer: Tracer, span_id: str | None, headers: MutableMapping[str, str]) -> TraceContext | None:
    """Do what `inject` does for the event `span_id` of a trace; None: its runner."""
    return _written(handed_on(tracer, span_id), headers)


def _written(context: TraceContext | None, headers: MutableMapping[str, str]) -> TraceContext | None:
    if context is None:
        return None
    if headers:
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
    # Some mappings of headers hold None or another type for a header that was not sent.
    return value.strip(" \t") if isinstance(value, str) else ""
