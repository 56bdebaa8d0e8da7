"""What has arrived of an application at a backend, as records that are alike for all tracers.

Each tracer's own words say what a record is: OpenTelemetry's span kind, ddtrace's span.kind, Sentry's op, the type and
the origin of our events. Nothing is asked of the tracer, only of the bytes that it sent.
"""

import json
import subprocess
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple

from google.protobuf import json_format
from google.protobuf.message import Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

SERVER, CLIENT, PRODUCER, CONSUMER = "server", "client", "producer", "consumer"
# One request to a backend: its path and its body.
Sent = tuple[str, bytes]
# Reads msgpack with the Python that has it; lines come and go as JSON.
UNPACK = """
import json, msgpack, sys
for line in sys.stdin:
    print(json.dumps(msgpack.unpackb(bytes.fromhex(line), strict_map_key=False), default=bytes.hex))
"""


class Record(NamedTuple):
    """A span, an error, a log line or a metric. role: what a span is in its trace; text: all that it says."""

    kind: str
    text: str
    role: str = ""
    trace: str = ""


def said(value: Any) -> str:
    """Return the keys, texts and numbers of a tree, a line each."""
    if isinstance(value, dict):
        return "\n".join(f"{key}\n{said(each)}" for key, each in value.items())
    return "\n".join(map(said, value)) if isinstance(value, list) else str(value)


def of_ours(sent: Iterable[Sent]) -> Iterator[Record]:
    """Read the traces of the Epsagon format."""
    roles = {"publish": PRODUCER, "execute": CONSUMER}
    for _, body in sent:
        events = json.loads(body)["events"]
        # Traces of one request share it.
        metadata = events[-1]["resource"]["metadata"]
        for event in events:
            outer = SERVER if event["origin"] == "runner" else CLIENT
            role = roles.get(event["resource"]["operation"], outer)
            yield Record("span", said(event), role, metadata.get("http_trace_id", ""))


def of_otlp(sent: Iterable[Sent]) -> Iterator[Record]:
    """Read OTLP, as protobuf or as JSON."""
    messages = {
        "/v1/traces": ExportTraceServiceRequest,
        "/v1/logs": ExportLogsServiceRequest,
        "/v1/metrics": ExportMetricsServiceRequest,
    }
    for path, body in sent:
        message: Message = messages[path]()
        if body.startswith(b"{"):
            json_format.Parse(body, message)
        else:
            message.ParseFromString(body)
        # The resource says the same of all, and nothing of a request.
        scopes = [
            scope
            for resource in next(iter(json_format.MessageToDict(message).values()), [])
            for name in ("scopeSpans", "scopeLogs", "scopeMetrics")
            for scope in resource.get(name, [])
        ]
        for scope in scopes:
            for span in scope.get("spans", []):
                role = span.get("kind", "").removeprefix("SPAN_KIND_").lower()
                yield Record("span", said(span), role, span["traceId"])
            yield from (Record("log", said(each)) for each in scope.get("logRecords", []))
            yield from (Record("metric", said(each)) for each in scope.get("metrics", []))


def of_ddtrace(sent: Iterable[Sent], python: str) -> Iterator[Record]:
    """Read what ddtrace sends to its agent; python: one that has msgpack."""
    told = [(path, body) for path, body in sent if path.startswith("/v0.")]
    lines = "\n".join(body.hex() for _, body in told)
    read = subprocess.run([python, "-c", UNPACK], input=lines, capture_output=True, text=True, check=True)
    for (path, _), line in zip(told, read.stdout.splitlines(), strict=True):
        content = json.loads(line)
        if path == "/v0.6/stats":
            windows = content["Stats"]
            yield from (Record("metric", said(each)) for window in windows for each in window["Stats"])
        elif path == "/v0.5/traces":
            yield from spans_of_ddtrace(*content)
        else:
            raise ValueError(f"no form is known of {path}")


def spans_of_ddtrace(texts: list[str], traces: list[list[list[Any]]]) -> Iterator[Record]:
    """Read version 0.5: spans are lists of fixed places, whose texts are numbers in a table."""
    for span in (span for trace in traces for span in trace):
        service, name, resource, trace_id, _, _, _, _, _, tags, _, kind = span
        named = {texts[int(key)]: texts[value] for key, value in tags.items()}
        text = said([texts[service], texts[name], texts[resource], texts[kind], named])
        yield Record("span", text, named.get("span.kind", ""), str(trace_id))


def of_sentry(sent: Iterable[Sent]) -> Iterator[Record]:
    """Read envelopes: a head, then for each item its own head and its content."""
    for _, body in sent:
        rest = body.partition(b"\n")[2]
        while rest.strip():
            head, _, rest = rest.partition(b"\n")
            length = json.loads(head)["length"]
            content, rest = json.loads(rest[:length]), rest[length + 1 :]
            yield from items_of_sentry(json.loads(head)["type"], content)


def items_of_sentry(kind: str, content: dict[str, Any]) -> Iterator[Record]:
    """Read a transaction or an error, with the lines that were logged before."""
    roles = {
        "http.server": SERVER,
        "http.client": CLIENT,
        "queue.submit.celery": PRODUCER,
        "queue.task.celery": CONSUMER,
    }
    crumbs = content.pop("breadcrumbs", {})
    yield from (Record("log", said(each)) for each in crumbs.get("values", []) if each.get("type") == "log")
    if kind == "transaction":
        own = content.get("contexts", {}).get("trace", {})
        spans = content.pop("spans", [])
        yield Record("span", said(content), roles.get(own["op"], ""), own["trace_id"])
        yield from (Record("span", said(each), roles.get(each["op"], ""), each["trace_id"]) for each in spans)
    elif kind == "event":
        yield Record("error", said(content))
    elif kind in ("log", "trace_metric"):
        yield from (Record(kind.removeprefix("trace_"), said(each)) for each in content["items"])


def spans(role: str, text: str, records: list[Record]) -> list[Record]:
    """Return the spans in this role that say this."""
    return [each for each in records if each.kind == "span" and each.role == role and text in each.text]


def says(text: str, kinds: str, records: list[Record]) -> bool:
    """Say whether one of these kinds of records has this in it."""
    return any(text in each.text for each in records if each.kind in kinds.split())


def function(records: list[Record]) -> bool:
    """Say whether the request has the name of the function that answered it."""
    return any({"order", "kiosk.order"} & {*each.text.split("\n")} for each in spans(*REQUEST, records))


def one_trace(records: list[Record]) -> bool:
    """Say whether the request, its call, its message and the task have the same trace."""
    parts = [spans(*part, records) for part in PARTS.values()]
    return bool(set.intersection(*({each.trace for each in part if each.trace} for part in parts)))


# What kiosk.py does, and what else it says, of which a tracer may have seen all or less.
REQUEST = (SERVER, "/orders/17")
PARTS = {
    "request": REQUEST,
    "outgoing HTTP call (requests)": (CLIENT, "/stock/17"),
    "message (celery)": (PRODUCER, "kiosk.wrap"),
    "task (celery)": (CONSUMER, "kiosk.wrap"),
}
ANY = "span error log"
ROWS: dict[str, Callable[[list[Record]], Any]] = {
    **{name: partial(spans, *part) for name, part in PARTS.items()},
    "these four in one trace": one_trace,
    "the request's route, as its pattern": partial(spans, SERVER, "/orders/<int:number>"),
    "the function that answers it": function,
    "SQL by SQLAlchemy": partial(says, "SELECT 'by SQLAlchemy'", "span"),
    "SQL by sqlite3, a cursor's": partial(says, "SELECT 'by a cursor'", "span"),
    "SQL by sqlite3, the connection's": partial(says, "SELECT 'by the connection'", "span"),
    "exception that ends a request, with its text": partial(says, "the drawer is stuck", ANY),
    "its stack, with the line of each frame": partial(says, 'raise ValueError(f"the {part} is stuck")', ANY),
    "the lines around": partial(says, "# The spring is worn out.", ANY),
    "the values of local variables": partial(says, "seventeen-stone", ANY),
    "log lines of a request that fails": partial(says, "the till is jammed", "log"),
    "log lines of one that does not": partial(says, "the till is open", "log"),
    # As each of them calls it, none of them the outgoing ones.
    "metrics of requests": lambda records: any(
        says(name, "metric", records) for name in ("epsagon_fast.request", "http.server.", "flask.request")
    ),
}
