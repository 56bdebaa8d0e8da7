"""A trivial WSGI application in one of the middlewares, in a process of its own, with the peers' Python if need be.

`python web.py VARIANT` drives it as gunicorn would, a round for each line that comes; gunicorn itself serves `web:app`.
"""

import io
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

BARE, OURS, OTEL, DDTRACE = "bare", "epsagon_fast", "opentelemetry", "ddtrace"
# With one event, or span, in each request, and all of it sent.
OURS_SENT, OTEL_SENT = "epsagon_fast, sent", "opentelemetry, sent"
WARM_UP = 2000


def hello(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "5")])
    return [b"hello"]


def sent_by_otel() -> Callable[..., Any]:
    """Return the application with OpenTelemetry's SDK as its documentation sets it up. Its variables say where to."""
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
            return hello(environ, start_response)

    return OpenTelemetryMiddleware(shop, tracer_provider=provider)


def sent_by_us() -> Callable[..., Any]:
    """Return the application with our middleware. The variables say where to, and in which form."""
    import epsagon_fast as epsagon
    from epsagon_fast.integrations.wsgi import TracingMiddleware

    def shop(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        with epsagon.event("charge") as event:
            event.metadata["card"] = "visa"
            event.metadata["amount"] = 42
            return hello(environ, start_response)

    return TracingMiddleware(shop)


def traced(variant: str) -> Callable[..., Any]:
    """Return the application in one of the middlewares."""
    if variant.startswith(OURS_SENT):
        return sent_by_us()
    if variant == OTEL_SENT:
        return sent_by_otel()
    if variant == OURS:
        from epsagon_fast.integrations.wsgi import TracingMiddleware

        return TracingMiddleware(hello)
    if variant == OTEL:
        from opentelemetry.instrumentation.wsgi import OpenTelemetryMiddleware
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

        class Nowhere(SpanExporter):
            def export(self, spans: Any) -> SpanExportResult:
                return SpanExportResult.SUCCESS

        provider = TracerProvider()
        provider.add_span_processor(BatchSpanProcessor(Nowhere()))
        return OpenTelemetryMiddleware(hello, tracer_provider=provider)
    if variant == DDTRACE:
        from ddtrace.contrib.wsgi import DDWSGIMiddleware

        return DDWSGIMiddleware(hello)
    return hello


def environ_of(number: int) -> dict[str, Any]:
    """Return what gunicorn would make of a browser's request."""
    return {
        "wsgi.errors": sys.stderr,
        "wsgi.version": (1, 0),
        "wsgi.multithread": False,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        "wsgi.input": io.BytesIO(),
        "wsgi.input_terminated": True,
        "wsgi.url_scheme": "http",
        "SERVER_SOFTWARE": "gunicorn/23.0.0",
        "REQUEST_METHOD": "GET",
        "QUERY_STRING": "page=2",
        "RAW_URI": f"/items/{number}?page=2",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": "shop.example:8000",
        "HTTP_USER_AGENT": "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
        "HTTP_ACCEPT": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
        "HTTP_ACCEPT_LANGUAGE": "en-US,en;q=0.5",
        "HTTP_ACCEPT_ENCODING": "gzip, deflate, br",
        "HTTP_CONNECTION": "keep-alive",
        "REMOTE_ADDR": "127.0.0.1",
        "REMOTE_PORT": "51234",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "8000",
        "PATH_INFO": f"/items/{number}",
        "SCRIPT_NAME": "",
    }


def drive(app: Callable[..., Any], count: int) -> None:
    def start_response(status: str, headers: Any, exc_info: Any = None) -> Callable[[bytes], None]:
        return lambda data: None

    for number in range(count):
        body = app(environ_of(number), start_response)
        for _ in body:
            pass
        if hasattr(body, "close"):
            body.close()


def serve_rounds(variant: str) -> None:
    """Run a round for each line that comes, and answer with nanoseconds per request: time, and processor time."""
    app = traced(variant)
    drive(app, WARM_UP)
    for line in sys.stdin:
        count = int(line)
        # All threads count, so an exporter does too.
        cpu, start = time.process_time_ns(), time.perf_counter_ns()
        drive(app, count)
        took, used = time.perf_counter_ns() - start, time.process_time_ns() - cpu
        print(json.dumps([took / count, used / count]), flush=True)


if __name__ == "__main__":
    serve_rounds(sys.argv[1])
elif "BENCH_HTTP_VARIANT" in os.environ:
    # Under gunicorn.
    app = traced(os.environ["BENCH_HTTP_VARIANT"])
