"""What the panel shows of one event, made readable: JSON in strings unfolded, SQL in lines, what trimming took."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import epsagon_fast.backend.terms as terms
from epsagon_fast.backend.outline import said_failure
from epsagon_fast.backend.timeline import TimedEvent, Timeline
from epsagon_fast.protocol import IS_TRIMMED_KEY, LABELS_KEY, RUNNER_ORIGIN, STRONG_KEYS

# A longer value is shown to here; the copy as JSON has all of it.
_SHOWN_CHARACTERS = 100_000
# JSON in a string in JSON, so often.
_UNFOLDED = 4

_SQL_KEYS = {"statement", "sql", "query", "db.statement", "db.query.text"}
_SQL = re.compile(r"\s*(?:SELECT|INSERT|UPDATE|DELETE|WITH|CREATE|ALTER|DROP|MERGE|REPLACE)\s", re.IGNORECASE)
# Where a new line begins; what stands in quotes is left alone.
_SQL_PARTS = re.compile(
    r"('(?:[^']|'')*'|\"[^\"]*\")"
    # White space is tried from its beginning only, and words are counted: a statement may be anything of any length.
    r"|(?<!\s)\s+((?:LEFT |RIGHT |INNER |OUTER |FULL |CROSS ){0,2}JOIN|FROM|WHERE|GROUP BY|ORDER BY|HAVING|LIMIT|OFFSET"
    r"|UNION(?: ALL)?|VALUES|SET|RETURNING|ON CONFLICT)\b"
    r"|(?<!\s)\s+(AND|OR)\b",
    re.IGNORECASE,
)
_DROPPED = ("dropped_events", "dropped_exceptions", "dropped_labels", "dropped_records")
_UNFINISHED_KEY = "unfinished"
_STATUS_KEYS = ("status_code", "http.status_code", "http.response.status_code")
_URL_KEYS = ("url", "http.url", "url.full", "path", "http.target", "url.path")


class Value(NamedTuple):
    """One attribute. `block`: its value in several lines, None if one line is enough."""

    key: str
    text: str
    block: str | None
    is_cut: bool


class Details(NamedTuple):
    """One event's panel."""

    node: TimedEvent
    trace_id: str
    trace: Mapping[str, Any]
    failure: str
    exceptions: list[Mapping[str, Any]]
    labels: list[tuple[str, str]]
    values: list[Value]
    http: str
    # What is to be known of it beside its values, each a sentence.
    notes: list[str]
    offset_s: float
    critical_s: float


def details(timeline: Timeline, place: int) -> Details:
    """Return what the panel shows of the node at a place."""
    node = timeline.nodes[place]
    trace_id, trace = timeline.traces[node.trace]
    resource = node.event["resource"]
    metadata = resource["metadata"]
    own = [node.event["exception"]] if node.event["exception"] else []
    return Details(
        node=node,
        trace_id=trace_id,
        trace=trace,
        failure=said_failure(node),
        exceptions=[*own, *(trace["exceptions"] if node.is_runner else ())],
        labels=terms.labels(metadata.get(LABELS_KEY, "")),
        values=[_value(key, value) for key, value in metadata.items() if key != LABELS_KEY],
        http=_http(resource) if resource["type"] == "http" else "",
        notes=list(_notes(node, trace)),
        offset_s=node.start - timeline.start,
        critical_s=sum(end - start for start, end in node.critical),
    )


def _value(key: str, value: str) -> Value:
    shown = value[:_SHOWN_CHARACTERS]
    block: str | None = None
    if key in _SQL_KEYS and _SQL.match(shown):
        block = sql(shown)
    elif shown[:1] in ("{", "[") and len(shown) == len(value):
        unfolded = unfold(shown)
        block = None if isinstance(unfolded, str) else json.dumps(unfolded, indent=2, ensure_ascii=False)
    elif "\n" in shown:
        block = shown
    return Value(key, shown, block, len(shown) < len(value))


def unfold(text: str, depth: int = 0) -> Any:
    """Return what JSON in a string says, also inside; the text itself if it is no object or array."""
    if depth < _UNFOLDED and text[:1] in ("{", "["):
        try:
            return _unfolded(json.loads(text), depth)
        except (ValueError, RecursionError):
            return text
    return text


def _unfolded(value: Any, depth: int) -> Any:
    if isinstance(value, dict):
        return {key: _unfolded(each, depth) for key, each in value.items()}
    if isinstance(value, list):
        return [_unfolded(each, depth) for each in value]
    return unfold(value, depth + 1) if isinstance(value, str) else value


def sql(statement: str) -> str:
    """Return a statement with a line for each of its parts."""

    def broken(found: re.Match[str]) -> str:
        quoted, part, condition = found.groups()
        return quoted or ("\n" + part if part else "\n  " + condition)

    return _SQL_PARTS.sub(broken, statement.strip())


def _http(resource: Mapping[str, Any]) -> str:
    metadata = resource["metadata"]
    status = next((metadata[key] for key in _STATUS_KEYS if key in metadata), "")
    place = next((metadata[key] for key in _URL_KEYS if key in metadata), "")
    # OpenTelemetry's names hold the path already.
    host = metadata.get("server.address", "") if "span.kind" in metadata else resource["name"]
    where = place if "://" in place else f"{host}{place}"
    return f"{resource['operation']} {where}" + (f" → {status}" if status else "")


def _notes(node: TimedEvent, trace: Mapping[str, Any]) -> Iterator[str]:
    runner = next((event for event in trace["events"] if event["origin"] == RUNNER_ORIGIN), None)
    metadata = runner["resource"]["metadata"] if runner else {}
    if node.is_runner and metadata.get(_UNFINISHED_KEY) == "true":
        yield "Its process ended, or gave up, before this was over."
    if metadata.get(IS_TRIMMED_KEY) == "true":
        # Through OTLP a process's lost records come as a number for each reason.
        names = [key for key in metadata if key.partition(".")[0] in _DROPPED]
        gone = [f"{metadata[key]} {key.removeprefix('dropped_').replace('.', ' ')}" for key in names]
        if node.is_runner:
            yield "The trace was over its size limit: trimming took values" + (
                f" and {', '.join(gone)}." if gone else "."
            )
        elif {*node.event["resource"]["metadata"]} <= STRONG_KEYS:
            yield "Trimming may have taken its attributes: the trace was over its size limit."
