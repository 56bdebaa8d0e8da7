"""A request through three processes, to a real Collector and on to Jaeger: one trace, as OpenTelemetry tells it."""

from contextlib import closing
from typing import Any

import pytest
from built import Jaeger, Otelcol
from places import Place
from scene import Span, one_request, tree_of

TREE = (
    ("front", "server", (
        ("front", "internal", (("front", "internal", ()),)),
        ("front", "producer", (
            ("worker", "consumer", (
                ("worker", "internal", ()),
                ("worker", "client", (
                    ("stock", "server", ()),
                )),
            )),
        )),
    )),
)  # fmt: skip


@pytest.fixture(scope="module")
def spans(broker: dict[str, Any], otelcol: Otelcol, jaeger: Jaeger) -> list[Span]:
    """A request that we traced. What the worker says goes as protobuf, the rest as JSON."""
    with closing(Place("otlp+" + otelcol.url, EPSAGON_TOKEN="")) as place:
        worker = {"EPSAGON_COLLECTOR_URL": "otlp-protobuf+" + otelcol.url}
        return one_request(place, "by_epsagon_fast", broker, jaeger, worker)


@pytest.fixture(scope="module")
def named(spans: list[Span]) -> dict[str, Span]:
    return {span.name: span for span in spans}


def tags(span: Span, *keys: str) -> list[tuple[str, Any]]:
    return [span.tags[key] for key in keys]


def test_spans_of_three_processes_are_one_tree(spans: list[Span]) -> None:
    assert tree_of(spans) == TREE
    assert [span.name for span in spans] == [
        "GET /checkout/<int:number>",
        "charge",
        "weigh",
        "shop.pack publish",
        "shop.pack process",
        "print label",
        "GET",
        "GET /stock/<int:number>",
    ]


def test_opentelemetry_s_own_sdk_tells_the_same_tree(
    spans: list[Span], broker: dict[str, Any], otelcol: Otelcol, jaeger: Jaeger
) -> None:
    with closing(Place("", OTEL_EXPORTER_OTLP_ENDPOINT=otelcol.url)) as place:
        theirs = one_request(place, "by_opentelemetry", broker, jaeger)
    assert tree_of(theirs) == tree_of(spans)
    # What the application itself says of a span is the same.
    own = {span.name: span for span in theirs if span.kind == "internal"}
    assert own.keys() == {"charge", "weigh", "print label"}
    for ours in spans:
        if ours.name in own:
            given = {key: type for key, (type, _) in own[ours.name].tags.items() if not key.startswith("otel.")}
            assert {key: ours.tags[key][0] for key in given if key in ours.tags} == given


def test_times_are_exact_to_the_microsecond_and_spans_lie_in_their_parents(
    spans: list[Span], named: dict[str, Span]
) -> None:
    weigh = named["weigh"]
    assert (weigh.start_us, weigh.took_us) == (weigh.tags["began_us"][1], weigh.tags["took_us"][1])
    by_id = {span.id: span for span in spans}
    for span in spans:
        assert 0 < span.took_us < 60_000_000
        if span.parent:
            assert span.start_us >= by_id[span.parent].start_us


def test_attributes_keep_their_types(named: dict[str, Span]) -> None:
    assert tags(named["charge"], "card", "cents", "share", "express") == [
        ("string", "visa"),
        ("int64", 1999),
        ("float64", 0.5),
        ("bool", True),
    ]
    assert tags(named["print label"], "copies") == [("int64", 2)]
    served = named["GET /checkout/<int:number>"]
    assert tags(served, "http.request.method", "url.path", "http.route", "http.response.status_code") == [
        ("string", "GET"),
        ("string", "/checkout/7"),
        ("string", "/checkout/<int:number>"),
        ("int64", 200),
    ]
    assert named["shop.pack process"].tags["messaging.system"] == ("string", "celery")
    asked = named["GET"]
    assert tags(asked, "server.address", "http.response.status_code") == [("string", "127.0.0.1"), ("int64", 500)]


def test_what_failed_has_a_status_and_its_exception(named: dict[str, Span]) -> None:
    failed = {name for name, span in named.items() if span.tags.get("error") == ("bool", True)}
    assert failed == {"print label", "GET", "GET /stock/<int:number>"}
    for name, kind, message in (
        ("print label", "ValueError", "no paper"),
        ("GET /stock/<int:number>", "LookupError", "no such shelf"),
    ):
        [log] = named[name].logs
        assert (log["event"], log["exception.type"], log["exception.message"]) == ("exception", kind, message)
        assert "Traceback" in log["exception.stacktrace"] and "shop.py" in log["exception.stacktrace"]
        # Jaeger rounds down begin and duration, each for itself.
        assert 0 <= log["at_us"] - named[name].start_us <= named[name].took_us + 1
        assert named[name].tags["otel.status_description"] == ("string", message)
