"""Metrics of requests go to OTLP destinations: at an interval, at the collector's end, and to whom they belong."""

import gzip
import logging
from typing import Any

import pytest
import servers
from google.protobuf.json_format import MessageToDict, Parse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import AGGREGATION_TEMPORALITY_CUMULATIVE, Metric
from places import Place, until
from servers import Request, Server
from test_requests import finished, runner_named

from epsagon_fast.collector.formats import metrics
from epsagon_fast.collector.formats.conventions import OVERFLOW
from epsagon_fast.collector.formats.metrics import Point, Resource, url_of
from epsagon_fast.collector.measuring.exporting import Exporter, interval_s
from epsagon_fast.collector.measuring.histogram import BOUNDS_S
from epsagon_fast.collector.measuring.requests import Requests
from epsagon_fast.collector.parcel import Destination
from epsagon_fast.queue.ledger import Ledger

NOW_NS = 1_700_000_000_000_000_000
SCHEMES = ["otlp+", "otlp-protobuf+"]
WORKER = """
import epsagon_fast as epsagon
for number in range(20):
    with epsagon.trace("job"): pass
assert epsagon.flush(60)
"""


def message_of(body: bytes, headers: Any) -> ExportMetricsServiceRequest:
    """A request as OpenTelemetry's own messages read it. A field that they do not have is an error."""
    named = {name.lower(): value for name, value in headers.items()}
    if named.get("content-encoding") == "gzip":
        body = gzip.decompress(body)
    if named["content-type"] == "application/json":
        return Parse(body, ExportMetricsServiceRequest(), ignore_unknown_fields=False)
    found = ExportMetricsServiceRequest.FromString(body)
    found.DiscardUnknownFields()
    assert found.SerializeToString(deterministic=True) == body or len(found.SerializeToString()) == len(body)
    return found


def counts(requests: list[Request]) -> dict[tuple[str, str], list[int]]:
    """The counts of the durations, by application and name, in the order in which they came."""
    found: dict[tuple[str, str], list[int]] = {}
    for request in requests:
        for resource in message_of(request.body, request.headers).resource_metrics:
            (app,) = [each.value.string_value for each in resource.resource.attributes if each.key == "service.name"]
            duration = resource.scope_metrics[0].metrics[0]
            for point in duration.histogram.data_points:
                found.setdefault((app, point.attributes[0].value.string_value), []).append(point.count)
    return found


def metrics_sent(server: Server) -> list[Request]:
    return [request for request in list(server.requests) if request.path == "/v1/metrics"]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_strict_messages_read_what_was_written(scheme: str) -> None:
    buckets = [*range(15)]
    points = [
        Point("GET /cart/{id}", NOW_NS - 5, 3, 2_500_000_000, buckets),
        Point(OVERFLOW, NOW_NS + 5, 0, 1, buckets),
    ]
    resource = Resource({"service.name": "shop", "pid": 7}, points)
    url, headers, body, _ = metrics.post(Destination(scheme + "http://here", "", 1.0), [resource], BOUNDS_S, NOW_NS)
    assert url == "http://here/v1/metrics"
    (found,) = message_of(body, headers).resource_metrics
    assert [each.key for each in found.resource.attributes] == ["service.name", "pid"]
    duration, errors = found.scope_metrics[0].metrics
    assert isinstance(duration, Metric)
    assert (duration.name, duration.unit) == ("epsagon_fast.request.duration", "s")
    assert (errors.name, errors.unit, errors.sum.is_monotonic) == ("epsagon_fast.request.errors", "{error}", True)
    for kind in (duration.histogram, errors.sum):
        assert kind.aggregation_temporality == AGGREGATION_TEMPORALITY_CUMULATIVE
    one, other = duration.histogram.data_points
    assert (one.count, one.sum, list(one.bucket_counts)) == (sum(buckets), 2.5, buckets)
    assert list(one.explicit_bounds) == [*BOUNDS_S]
    assert (one.start_time_unix_nano, one.time_unix_nano) == (NOW_NS - 5, NOW_NS)
    # The clock was set back.
    assert other.start_time_unix_nano <= other.time_unix_nano
    assert errors.sum.data_points[0].as_int == 3
    attributes = [MessageToDict(point.attributes[0]) for point in (one, other)]
    assert attributes[0] == {"key": "name", "value": {"stringValue": "GET /cart/{id}"}}
    assert attributes[1] == {"key": "otel.metric.overflow", "value": {"boolValue": True}}


@pytest.mark.parametrize(
    "url, place",
    [
        ("otlp+http://here:4318", "http://here:4318/v1/metrics"),
        ("otlp+https://here/v1/traces", "https://here/v1/metrics"),
        ("otlp-protobuf+https://here/otlp/v1/traces/", "https://here/otlp/v1/metrics"),
        ("otlp+https://here/v1/traces?key=1", "https://here/v1/metrics?key=1"),
        # Where such a destination takes metrics, if it does, cannot be known.
        ("otlp+https://here/api/spans", None),
        ("otlp+https://here/", None),
        ("http://here/v1/traces", None),
        ("unknown+http://here", None),
    ],
)
def test_place_for_metrics_stands_beside_the_place_for_traces(url: str, place: str | None) -> None:
    assert url_of(Destination(url, "", 1.0)) == place


@pytest.mark.parametrize(
    "said, exporter, expected",
    [
        ("", "", 60.0),
        ("500", "", 0.5),
        (" 1500 ", "otlp", 1.5),
        ("0", "", 60.0),
        ("-1", "", 60.0),
        ("soon", "", 60.0),
        ("9" * 50, "", 60.0),
        ("500", "none", 0.0),
        ("500", "prometheus", 0.0),
        ("500", "console, OTLP_proto_http", 0.5),
    ],
)
def test_interval_is_opentelemetry_s(
    monkeypatch: pytest.MonkeyPatch, said: str, exporter: str, expected: float
) -> None:
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", said)
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", exporter)
    assert interval_s() == expected


class Rounds:
    """An exporter whose rounds this test begins, and what it counts."""

    def __init__(self, folder_fd: int) -> None:
        self.requests = Requests(Ledger(folder_fd))
        self.exporter = Exporter(folder_fd, "this folder")

    def count(self, url: str, name: str = "job", **config: Any) -> None:
        self.requests.count([finished(runner_named(name), collector_url=url, **config)])

    def make(self) -> None:
        self.exporter.begin_last(self.requests.applications)
        until(lambda: not self.exporter._is_busy, "the round ends")


@pytest.fixture
def rounds(folder_fd: int) -> Rounds:
    return Rounds(folder_fd)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_each_round_says_how_many_there_were_until_then(rounds: Rounds, scheme: str) -> None:
    with Server() as server:
        url = scheme + server.url
        url = url.removesuffix("/")
        rounds.make()
        rounds.count(url)
        rounds.make()
        rounds.count(url)
        rounds.count(url, "other", app_name="jobs")
        rounds.make()
        found = counts(metrics_sent(server))
    assert found == {("shop", "job"): [1, 2], ("jobs", "other"): [1]}


def test_destination_gets_its_own_numbers_and_its_own_token(rounds: Rounds) -> None:
    with Server() as server, Server() as other:
        here, there = (f"otlp+{each.url.removesuffix('/')}" for each in (server, other))
        rounds.count(here, token="one")
        rounds.count(here, token="two")
        rounds.count(there, token="one")
        rounds.count(there, token="one")
        rounds.count("http://127.0.0.1:1/", token="one")
        rounds.make()
        sent = metrics_sent(server)
        assert sorted(request.headers["authorization"] for request in sent) == ["Bearer one", "Bearer two"]
        assert counts(sent) == {("shop", "job"): [1, 1]}
        assert counts(metrics_sent(other)) == {("shop", "job"): [2]}


def test_application_is_the_resource_and_none_of_its_processes(rounds: Rounds) -> None:
    with Server() as server:
        url = f"otlp+{server.url.removesuffix('/')}"
        for pid in (7, 8):
            said = {"process.pid": pid, "deployment.environment": "test"}
            rounds.count(url, resource_attributes=said)
        rounds.make()
        (request,) = metrics_sent(server)
    (found,) = message_of(request.body, request.headers).resource_metrics
    attributes = {each.key: each.value.string_value for each in found.resource.attributes}
    assert "process.pid" not in attributes
    assert attributes["service.instance.id"] == "this folder"
    assert (attributes["service.name"], attributes["deployment.environment"]) == ("shop", "test")


@pytest.mark.parametrize(("code", "body"), [(404, b""), (200, b"<!doctype html><title>Sign in</title>")])
def test_destination_that_has_no_place_for_metrics_is_told_once_and_left_alone(
    rounds: Rounds, caplog: pytest.LogCaptureFixture, code: int, body: bytes
) -> None:
    caplog.set_level(logging.INFO)
    with Server(servers.status(code, body=body)) as server:
        rounds.count(f"otlp+{server.url.removesuffix('/')}")
        for _ in range(3):
            rounds.make()
        assert len(server.requests) == 1
    (message,) = [each for each in caplog.messages if "metrics" in each]
    assert "takes no metrics" in message and str(code) in message


def test_what_did_not_arrive_is_in_the_next_round(rounds: Rounds, caplog: pytest.LogCaptureFixture) -> None:
    with Server(servers.status(503)) as server:
        rounds.count(f"otlp+{server.url.removesuffix('/')}")
        rounds.make()
        rounds.make()
        server.behave = servers.reset
        rounds.make()
        server.behave = servers.status(200)
        rounds.make()
        assert counts(metrics_sent(server)[-1:]) == {("shop", "job"): [1]}
    assert [("503" in each, "connection" in each) for each in caplog.messages] == [(True, False), (False, True)]


def test_error_of_ours_ends_no_collector(
    rounds: Rounds, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise KeyError("a secret header")

    monkeypatch.setattr("epsagon_fast.collector.measuring.rounds.post", broken)
    rounds.count("otlp+http://127.0.0.1:1")
    rounds.make()
    assert "KeyError" in caplog.text and "secret" not in caplog.text


def test_round_begins_when_it_is_time(rounds: Rounds) -> None:
    with Server() as server:
        rounds.count(f"otlp+{server.url.removesuffix('/')}")
        for now in (1000.0, 1059.0):
            rounds.exporter.step(rounds.requests.applications, now)
        assert not rounds.exporter._is_busy and not server.requests
        rounds.exporter.step(rounds.requests.applications, 1061.0)
        assert server.wait_for(1)[0].path == "/v1/metrics"
        rounds.exporter.end(hurries=False)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_collector_sends_metrics_while_it_runs_and_when_it_leaves(place: Place, scheme: str) -> None:
    with Server() as server:
        place.env |= {"EPSAGON_COLLECTOR_URL": scheme + server.url.removesuffix("/"), "EPSAGON_TOKEN": ""}
        place.run(WORKER)
        place.until_left()
        assert counts(metrics_sent(server)[-1:]) == {("tests", "job"): [20]}
        # The next collector goes on.
        place.run(WORKER, env={"OTEL_METRIC_EXPORT_INTERVAL": "10"})
        place.until_left()
        sent = counts(metrics_sent(server))["tests", "job"]
    assert sent == sorted(sent) and sent[-1] == 40
