"""A trivial WSGI application in one of the middlewares, in a process of its own, with the peers' Python if need be.

`python web.py VARIANT` drives it as gunicorn would, a round for each line that comes; gunicorn itself serves
`traced(VARIANT)`.
"""

import io
import json
import sys
import time
from collections.abc import Callable
from typing import Any

from shops import hello

BARE, OURS, OTEL, DDTRACE = "bare", "epsagon_fast", "opentelemetry", "ddtrace"
WARM_UP = 2000


def traced(variant: str) -> Callable[..., Any]:
    """Return the application in one of the middlewares."""
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


def drive(app: Callable[..., Any], count: int, first: int = 0) -> None:
    def start_response(status: str, headers: Any, exc_info: Any = None) -> Callable[[bytes], None]:
        return lambda data: None

    for number in range(first, first + count):
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
