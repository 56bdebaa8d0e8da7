"""Metrics of requests in OTLP: a histogram of durations and a sum of errors for each name, cumulative.

Times are texts, as protobuf's JSON has 64-bit numbers. Counts are plain numbers, which every reader must take too, and
some take nothing else: rotel 0.0.1 leaves out histograms whose counts are texts.

There is one way to write them, in JSON. What a backend that wants protobuf gets is made of that, once a minute.
"""

from collections.abc import Mapping, Sequence

import orjson

from epsagon_fast.collector.formats import Post, otlp_json, otlp_protobuf
from epsagon_fast.collector.formats.choice import format_for
from epsagon_fast.collector.formats.conventions import OVERFLOW, Value
from epsagon_fast.collector.formats.otlp import Otlp, address, posted
from epsagon_fast.collector.formats.spans import SDK
from epsagon_fast.collector.parcel import Destination
from epsagon_fast.foreign import url_parts
from epsagon_fast.hints import Any
from epsagon_fast.protocol import OTLP_TRACES_PATH
from epsagon_fast.rows import NamedTuple
from epsagon_fast.version import __version__

OTLP_METRICS_PATH = "/v1/metrics"
DURATION, ERRORS = "epsagon_fast.request.duration", "epsagon_fast.request.errors"
NAME = "name"
_CUMULATIVE = 2
_NS_PER_S = 1_000_000_000


class Point(NamedTuple):
    """The requests of one name since `started_at_ns`. `buckets` are not added up; the last one has what is over all."""

    name: str
    started_at_ns: int
    errors: int
    sum_ns: int
    buckets: Sequence[int]


class Resource(NamedTuple):
    """The requests of one application, with the attributes of its processes."""

    attributes: Mapping[str, Value]
    points: Sequence[Point]


def url_of(destination: Destination) -> str | None:
    """Return where an OTLP destination takes metrics; None: it is another one, or has a path of its own for traces."""
    if not isinstance(format_for(destination), Otlp):
        return None
    traces = url_parts(address(destination.url))
    path = traces.path.rstrip("/")
    if not path.endswith(OTLP_TRACES_PATH):
        return None
    return traces._replace(path=path.removesuffix(OTLP_TRACES_PATH) + OTLP_METRICS_PATH).geturl()


def post(destination: Destination, resources: Sequence[Resource], bounds_s: Sequence[float], now_ns: int) -> Post:
    """Return the request that carries these. `destination`: one that has a `url_of`."""
    content_type = format_for(destination).content_type
    body = orjson.dumps({"resourceMetrics": [_resource(each, bounds_s, now_ns) for each in resources]})
    if content_type == otlp_protobuf.CONTENT_TYPE:
        body = _protobuf(body)
    return posted(destination, url_of(destination) or "", content_type, body)


def _resource(resource: Resource, bounds_s: Sequence[float], now_ns: int) -> dict[str, Any]:
    durations = [_duration(point, bounds_s, now_ns) for point in resource.points]
    errors = [{**_begin(point, now_ns), "asInt": point.errors} for point in resource.points]
    metrics = [
        {
            "name": DURATION,
            "description": "Duration of requests, before sampling.",
            "unit": "s",
            "histogram": {"aggregationTemporality": _CUMULATIVE, "dataPoints": durations},
        },
        {
            "name": ERRORS,
            "description": "Those of them that failed.",
            "unit": "{error}",
            "sum": {"aggregationTemporality": _CUMULATIVE, "isMonotonic": True, "dataPoints": errors},
        },
    ]
    return {
        "resource": orjson.Fragment(otlp_json.resource(resource.attributes)),
        "scopeMetrics": [{"scope": {"name": SDK, "version": __version__}, "metrics": metrics}],
    }


def _duration(point: Point, bounds_s: Sequence[float], now_ns: int) -> dict[str, Any]:
    return {
        **_begin(point, now_ns),
        "count": sum(point.buckets),
        "sum": point.sum_ns / _NS_PER_S,
        "bucketCounts": list(point.buckets),
        "explicitBounds": list(bounds_s),
    }


def _begin(point: Point, now_ns: int) -> dict[str, Any]:
    is_overflow = point.name == OVERFLOW
    attribute = {"key": OVERFLOW, "value": {"boolValue": True}} if is_overflow else _text(NAME, point.name)
    times = {"startTimeUnixNano": str(min(point.started_at_ns, now_ns)), "timeUnixNano": str(now_ns)}
    return {"attributes": [attribute], **times}


def _text(key: str, value: str) -> dict[str, Any]:
    return {"key": key, "value": {"stringValue": value}}


def _protobuf(body: bytes) -> bytes:
    from google.protobuf.json_format import Parse  # type: ignore[import-untyped]
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

    return bytes(Parse(body, ExportMetricsServiceRequest()).SerializeToString())
