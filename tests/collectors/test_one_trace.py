"""A request through three processes, to a real Collector and on to Jaeger: one trace, as OpenTelemetry tells it."""

from contextlib import closing
from typing import Any

from built import Jaeger, Otelcol
from places import Place
from scene import Span, shop, tree_of

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


def test_a_request_through_three_processes_is_the_same_trace_as_with_opentelemetry_s_sdk(
    broker: dict[str, Any], otelcol: Otelcol, jaeger: Jaeger
) -> None:
    # What our worker says goes as protobuf, the rest as JSON.
    worker = {"EPSAGON_COLLECTOR_URL": "otlp-protobuf+" + otelcol.url}
    with (
        closing(Place("otlp+" + otelcol.url, EPSAGON_TOKEN="")) as place,
        closing(Place("", OTEL_EXPORTER_OTLP_ENDPOINT=otelcol.url)) as other_place,
        shop(place, "by_epsagon_fast", broker, worker) as ours,
        shop(other_place, "by_opentelemetry", broker, {}) as theirs,
    ):
        spans, other_spans = ours.asked(jaeger), theirs.asked(jaeger)
    named = {span.name: span for span in spans}
    assert tree_of(spans) == TREE == tree_of(other_spans)
    names_are_those_of_the_conventions(spans)
    applications_say_the_same(spans, other_spans)
    times_are_exact_to_the_microsecond(spans)
    attributes_keep_their_types(named)
    what_failed_has_a_status_and_its_exception(named)


def tags(span: Span, *keys: str) -> list[tuple[str, Any]]:
    return [span.tags[key] for key in keys]


def names_are_those_of_the_conventions(spans: list[Span]) -> None:
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


def applications_say_the_same(ours: list[Span], theirs: list[Span]) -> None:
    """What the application itself says of a span does not depend on the tracer."""
    own = {span.name: span for span in theirs if span.kind == "internal"}
    assert own.keys() == {"charge", "weigh", "print label"}
    for span in ours:
        if span.name in own:
            given = {key: type for key, (type, _) in own[span.name].tags.items() if not key.startswith("otel.")}
            assert {key: span.tags[key][0] for key in given if key in span.tags} == given


def times_are_exact_to_the_microsecond(spans: list[Span]) -> None:
    [weigh] = [span for span in spans if span.name == "weigh"]
    assert (weigh.start_us, weigh.took_us) == (weigh.tags["began_us"][1], weigh.tags["took_us"][1])
    by_id = {span.id: span for span in spans}
    for span in spans:
        assert 0 <= span.took_us < 60_000_000
        if span.parent:
            assert span.start_us >= by_id[span.parent].start_us


def attributes_keep_their_types(named: dict[str, Span]) -> None:
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


def what_failed_has_a_status_and_its_exception(named: dict[str, Span]) -> None:
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
