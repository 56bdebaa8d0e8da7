"""What a list of traces shows of one, and the tokens that find it."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import epsagon_fast.backend.terms as terms
from epsagon_fast.protocol import IS_TRIMMED_KEY, RUNNER_ORIGIN, ErrorCode

# How a trace ended. A trimmed one may have ended in any of these ways.
OK, ERROR, TIMEOUT, DIED = "ok", "error", "timeout", "died"
STATUSES = (OK, ERROR, TIMEOUT, DIED)
# As a filter's value.
FAILED = ",".join((ERROR, TIMEOUT, DIED))
TRIMMED = "trimmed"
PROCESS_DIED = "ProcessDied"

# Of each text in a list of traces; a name may have a megabyte.
TEXT_CHARACTERS = 300
# The year 3871. Beyond it, and as far before 1970, not every calendar and time zone can say a time.
_FARTHEST_S = 6e10


class Summary(NamedTuple):
    """A trace's columns. Times are Unix seconds, durations seconds; None if they are not known."""

    app_name: str
    # The resource of the first event with the origin "runner"; None if the trace has none.
    runner: str | None
    # Method and route, task or function.
    name: str
    type: str | None
    started_at: float | None
    duration_s: float | None
    # One of STATUSES.
    status: str
    error_type: str | None
    error_code: int | None
    event_count: int
    exception_count: int
    is_trimmed: bool
    http_trace_id: str | None
    terms: str


def of(trace: Mapping[str, Any]) -> Summary:
    """Return the summary of a trace that shape.py has checked."""
    events = trace["events"]
    runner = next((event for event in events if event["origin"] == RUNNER_ORIGIN), None)
    resource = runner["resource"] if runner else None
    status = _status(events, runner)
    app_name = trace["app_name"][:TEXT_CHARACTERS]
    name = name_of(resource or (events[0]["resource"] if events else None))[:TEXT_CHARACTERS]
    error_type = _cut(_error_type(trace, runner))
    is_trimmed = any(IS_TRIMMED_KEY in event["resource"]["metadata"] for event in events)
    duration_s = seconds(runner["duration"]) if runner else _span(events)
    facets = {"app": app_name, "name": name, "status": status, "error_type": error_type}
    return Summary(
        app_name=app_name,
        runner=_cut(resource and resource["name"]),
        name=name,
        type=_cut(resource and resource["type"]),
        started_at=start_of(runner) if runner else first_of(events),
        duration_s=duration_s,
        status=status,
        error_type=error_type,
        error_code=runner and runner["error_code"],
        event_count=len(events),
        exception_count=len(trace["exceptions"]),
        is_trimmed=is_trimmed,
        http_trace_id=_cut(_http_trace_id(events, runner)),
        terms=terms.of(trace, {**facets, TRIMMED: "true" if is_trimmed else None}, duration_s),
    )


def _cut(text: str | None) -> str | None:
    return text and text[:TEXT_CHARACTERS]


def name_of(resource: Mapping[str, Any] | None, *, with_host: bool = False) -> str:
    """Return how people call what a resource is: `GET /orders/{id}`, a task, a function.

    with_host: `GET shop.example/orders/7`, for what is asked of others.
    """
    if resource is None:
        return "(no events)"
    metadata, name = resource["metadata"], resource["name"]
    place = metadata.get("route") or metadata.get("path")
    if resource["type"] == "http" and place:
        return f"{resource['operation']} {name if with_host else ''}{place}"
    return str(name or resource["operation"] or "(no name)")


def seconds(value: Any) -> float | None:
    """Return a number of the wire format, None for one that is no number, or so large that it is no time."""
    return float(value) if isinstance(value, (int, float)) and abs(value) < _FARTHEST_S else None


def start_of(event: Mapping[str, Any]) -> float | None:
    """Return when an event began, in seconds since 1970; None where it does not say so."""
    # 0 is what the wire format has for a field that was not given.
    return seconds(event["start_time"]) or None


def first_of(events: list[Any]) -> float | None:
    """Return when the first of some events began, in seconds since 1970; None where none of them says so."""
    return min((start for event in events if (start := start_of(event)) is not None), default=None)


def status_of(event: Mapping[str, Any]) -> str:
    """Return how an event ended, one of STATUSES."""
    if event["error_code"] == ErrorCode.TIMEOUT:
        return TIMEOUT
    if (event["exception"] or {}).get("type") == PROCESS_DIED:
        return DIED
    return ERROR if event["error_code"] or event["exception"] else OK


def _status(events: list[Any], runner: Mapping[str, Any] | None) -> str:
    # Without a runner each event speaks for the trace, the worst first.
    found = {status_of(event) for event in ([runner] if runner else events)}
    return next((status for status in (DIED, TIMEOUT, ERROR) if status in found), OK)


def _error_type(trace: Mapping[str, Any], runner: Mapping[str, Any] | None) -> str | None:
    events = [runner] if runner else trace["events"]
    exceptions = [event["exception"] for event in events if event["exception"]] + trace["exceptions"]
    return str(exceptions[0]["type"]) if exceptions else None


def _http_trace_id(events: list[Any], runner: Mapping[str, Any] | None) -> str | None:
    for event in (*([runner] if runner else ()), *events):
        if found := event["resource"]["metadata"].get("http_trace_id"):
            return str(found)
    return None


def _span(events: list[Any]) -> float | None:
    first = first_of(events)
    if first is None:
        return None
    ends = [(start_of(event) or first) + (seconds(event["duration"]) or 0.0) for event in events]
    return max(0.0, max(ends) - first)
