"""An application that charges a card in each request, with each tracer as its documentation sets it up: all is sent.

Each request is a span and has one span inside. Both carry the request's number, so that a sink can count what arrived,
whatever the bytes mean: `requests_in`. Environment variables say where to; nothing is sampled out, and batches, queues
and threads are those that come with the tracer.
"""

import re
from collections.abc import Callable, Iterable
from typing import Any

BARE, OURS, OURS_OTLP = "bare application", "epsagon_fast", "epsagon_fast, OTLP"
OTEL, DDTRACE, SENTRY = "OpenTelemetry SDK, OTLP", "ddtrace", "sentry-sdk"
# For the tracers that have an environment of their own.
THEIR_BARE = "bare application again, in the others' environment"

App = Callable[[dict[str, Any], Any], list[bytes]]
# With as many digits as the paths that are asked for: a digit may follow in a binary form.
NUMBERS = {part: re.compile(part + rb"(\d{8})") for part in (b"/items/", b"order-")}


def requests_in(bodies: Iterable[bytes]) -> set[bytes]:
    """Return the numbers of the requests of which both spans are in these bodies."""
    found: dict[bytes, set[bytes]] = {part: set() for part in NUMBERS}
    for body in bodies:
        for part, pattern in NUMBERS.items():
            found[part].update(pattern.findall(body))
    return set.intersection(*found.values())


def hello(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "5")])
    return [b"hello"]


def order(environ: dict[str, Any]) -> str:
    return "order-" + str(environ["PATH_INFO"]).rpartition("/")[2]


def ours() -> App:
    import epsagon_fast as epsagon
    from epsagon_fast.integrations.wsgi import TracingMiddleware

    def shop(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        with epsagon.event("charge") as event:
            event.metadata["card"] = "visa"
            event.metadata["amount"] = 42
            event.metadata["order"] = order(environ)
            return hello(environ, start_response)

    return TracingMiddleware(shop)


def otel() -> App:
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.instrumentation.wsgi import OpenTelemetryMiddleware
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    tracer = provider.get_tracer("shop")

    def shop(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        with tracer.start_as_current_span("charge") as span:
            span.set_attribute("card", "visa")
            span.set_attribute("amount", 42)
            span.set_attribute("order", order(environ))
            return hello(environ, start_response)

    return OpenTelemetryMiddleware(shop, tracer_provider=provider)


def ddtrace() -> App:
    from ddtrace.contrib.wsgi import DDWSGIMiddleware
    from ddtrace.trace import tracer

    def shop(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        with tracer.trace("charge") as span:
            span.set_tag("card", "visa")
            span.set_tag("amount", 42)
            span.set_tag("order", order(environ))
            return hello(environ, start_response)

    return DDWSGIMiddleware(shop)


def sentry() -> App:
    import sentry_sdk
    from sentry_sdk.integrations.wsgi import SentryWsgiMiddleware

    sentry_sdk.init(traces_sample_rate=1.0)

    def shop(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        with sentry_sdk.start_span(op="payment", name="charge") as span:
            span.set_data("card", "visa")
            span.set_data("amount", 42)
            span.set_data("order", order(environ))
            return hello(environ, start_response)

    return SentryWsgiMiddleware(shop)


SHOPS: dict[str, Callable[[], App]] = {
    BARE: lambda: hello,
    OURS: ours,
    OURS_OTLP: ours,
    THEIR_BARE: lambda: hello,
    OTEL: otel,
    DDTRACE: ddtrace,
    SENTRY: sentry,
}


def made(name: str) -> App:
    """Return the application as one of them; for gunicorn."""
    return SHOPS[name]()
