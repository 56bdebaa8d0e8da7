"""Trace context in HTTP headers, as W3C Trace Context (level 1 and 2) says it: `traceparent` and `tracestate`."""

import re
from collections.abc import Mapping
from typing import Final, NamedTuple

TRACEPARENT: Final = "traceparent"
TRACESTATE: Final = "tracestate"
# A later version may go on after the flags; this one ends there.
_FIELDS: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_VERSION: Final = "00"
_FORBIDDEN_VERSION: Final = "ff"


class TraceContext(NamedTuple):
    """Whose work a request is part of.

    trace_id: 32 lower-case hex digits. parent_id: 16, the caller's own step. flags: the eight bits, 1 is "sampled".
    tracestate: the vendors' list as it came, "" if there was none.
    """

    trace_id: str
    parent_id: str
    flags: int
    tracestate: str


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
    return TraceContext(trace_id, parent_id, int(flags, 16), _header(headers, TRACESTATE))


def _header(headers: Mapping[str, str], name: str) -> str:
    value = headers.get(name)
    if value is None:
        value = next((value for key, value in headers.items() if key.lower() == name), "")
    return value.strip(" \t")
