"""Trace context in HTTP headers, as W3C Trace Context (level 1 and 2) says it: `traceparent` and `tracestate`.

All that one request causes shares one trace id, the `http_trace_id` of every runner it touches: of the web request, of
the tasks that it sends, of the services that these call. Each of them is a trace of its own here. Whoever receives
something makes its trace, lets it `continue_context` and starts it; whoever sends something calls `inject`.
"""

import re
from collections.abc import Mapping, MutableMapping
from typing import Final, NamedTuple

from epsagon_fast.producer import current, process
from epsagon_fast.producer.tracer import Tracer

TRACEPARENT: Final = "traceparent"
TRACESTATE: Final = "tracestate"
# A later version may go on after the flags; this one ends there.
_FIELDS: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_VERSION: Final = "00"
_FORBIDDEN_VERSION: Final = "ff"
# The strong key of each runner that takes part.
HTTP_TRACE_ID_KEY: Final = "http_trace_id"
SAMPLED: Final = 1
PARENT_ID_DIGITS: Final = 16
# Members of a tracestate: a list that is longer, or broken, is to be dropped as a whole.
MAX_MEMBERS: Final = 32
_KEY: Final = r"(?:[a-z][_0-9a-z*/-]{0,255}|[a-z0-9][_0-9a-z*/-]{0,240}@[a-z][_0-9a-z*/-]{0,13})"
# Printable ASCII without comma and equals sign, not ending in a space. So no line break gets into other headers.
_MEMBER: Final = re.compile(rf"[ \t]*(?:{_KEY}=[ -+\--<>-~]{{0,255}}[!-+\--<>-~])?[ \t]*")


class TraceContext(NamedTuple):
    """Whose work a request is part of.

    trace_id: 32 lower-case hex digits. parent_id: 16, the caller's own step. flags: the eight bits, 1 is "sampled".
    tracestate: the vendors' list as it came, "" if there was none or it was broken.
    """

    trace_id: str
    parent_id: str
    flags: int = SAMPLED
    tracestate: str = ""

    @property
    def traceparent(self) -> str:
        """The header's value."""
        return f"{_VERSION}-{self.trace_id}-{self.parent_id}-{self.flags:02x}"


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


def continue_context(tracer: Tracer, context: TraceContext | None) -> str:
    """Let a trace that is not started yet continue `context`; None: begin a context of its own.

    Returns the shared trace id, which belongs into the runner's metadata as `http_trace_id`.
    """
    if context is None and process.records(tracer.config):
        context = _begun_by(tracer)
    tracer.context = context
    return context.trace_id if context else tracer.trace_id


def context_of(tracer: Tracer) -> TraceContext | None:
    """Return the context that a trace is part of. A recorded one without any begins one, and its runner tells it.

    None: the trace is not recorded, so nobody would find what continues it.
    """
    if tracer.context is None and process.records(tracer.config):
        tracer.context = _begun_by(tracer)
        tracer.set_runner_metadata(HTTP_TRACE_ID_KEY, tracer.context.trace_id)
    return tracer.context


def _begun_by(tracer: Tracer) -> TraceContext:
    return TraceContext(tracer.trace_id, tracer.trace_id[:PARENT_ID_DIGITS])


def _checked(state: str) -> str:
    members = state.split(",")
    return state if len(members) <= MAX_MEMBERS and all(map(_MEMBER.fullmatch, members)) else ""


def _header(headers: Mapping[str, str], name: str) -> str:
    value = headers.get(name)
    if value is None:
        value = next((value for key, value in headers.items() if key.lower() == name), "")
    return value.strip(" \t")
