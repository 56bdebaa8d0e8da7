"""What tracing adds to a request: time and processor time, with a trivial WSGI application, beside its peers.

`pytest benches/bench_http.py -s` prints two tables: requests driven as gunicorn drives them, in one process, and real
ones over HTTP through gunicorn. Budget: a quarter of what OpenTelemetry adds in the same run. Each row is a process of
its own, and they take turns. Peers are given less to do than we do: OpenTelemetry's spans are thrown away where they
would be sent, ddtrace's agent is a sink. What our collector uses besides is in the last column.
"""

import contextlib
import http.client
import io
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest

BARE, OURS, OTEL, DDTRACE = "bare", "epsagon_fast", "opentelemetry", "ddtrace"
VARIANTS = (BARE, OURS, OTEL, DDTRACE)
ROUNDS, REQUESTS = 30, 300
HTTP_ROUNDS, HTTP_REQUESTS = 10, 100
WARM_UP = 2000
# Requests come faster here than any server takes them; refused ones would cost less.
RING_BYTES = str(16 << 20)
QUIET = {
    "DD_INSTRUMENTATION_TELEMETRY_ENABLED": "false",
    "DD_REMOTE_CONFIGURATION_ENABLED": "false",
    "DD_TRACE_STARTUP_LOGS": "false",
    "OTEL_METRICS_EXPORTER": "none",
}


# In the measured process.


def hello(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "5")])
    return [b"hello"]


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


# In the measuring one.


class Row(NamedTuple):
    """Medians over all rounds, in microseconds per request."""

    time_us: float
    cpu_us: float
    collector_us: float = 0.0


def medians(rounds: list[list[float]]) -> Row:
    times, cpus = zip(*rounds, strict=True)
    return Row(statistics.median(times) / 1000, statistics.median(cpus) / 1000)


@contextlib.contextmanager
def measured(variant: str, env: dict[str, str]) -> Iterator[Callable[[], list[float]]]:
    command = [sys.executable, __file__, variant]
    with subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin and process.stdout
        stdin, stdout = process.stdin, process.stdout

        def one_round() -> list[float]:
            stdin.write(f"{REQUESTS}\n")
            stdin.flush()
            answer: list[float] = json.loads(stdout.readline())
            return answer

        yield one_round
        stdin.close()
        process.wait(60)


def table(title: str, rows: dict[str, Row]) -> None:
    bare, peer = rows[BARE], rows[OTEL]
    print(f"\n{title}, us per request\n")
    print(f"{'':16}{'time':>9}{'added':>9}{'of otel':>9}{'cpu':>9}{'added':>9}{'of otel':>9}{'collector':>11}")
    for name, row in rows.items():
        more, cpu = row.time_us - bare.time_us, row.cpu_us - bare.cpu_us
        shares = [f"{more / (peer.time_us - bare.time_us):9.2f}", f"{cpu / (peer.cpu_us - bare.cpu_us):9.2f}"]
        times = f"{row.time_us:9.1f}{more:9.1f}{shares[0]}{row.cpu_us:9.1f}{cpu:9.1f}{shares[1]}"
        print(f"{name:16}{times}{row.collector_us:11.1f}")


def test_wsgi_middleware_in_one_process() -> None:
    from yard import yard

    with yard(EPSAGON_RING_BYTES=RING_BYTES) as place, contextlib.ExitStack() as stack:
        env = {**place.place.env, **QUIET, "DD_TRACE_AGENT_URL": place.backend.url}
        rounds: dict[str, list[list[float]]] = {name: [] for name in VARIANTS}
        run = {name: stack.enter_context(measured(name, env)) for name in VARIANTS}
        for one_round in run.values():
            one_round()
        collector = place.collector()
        before = place.spent(collector)
        for _ in range(ROUNDS):
            for name, one_round in run.items():
                rounds[name].append(one_round())
        spent = place.spent(collector).since(before).total_ns
        rows = {name: medians(each) for name, each in rounds.items()}
        rows[OURS] = rows[OURS]._replace(collector_us=spent / 1000 / ROUNDS / REQUESTS)
        refused = sum(sum(ring.refused.values()) for ring in place.place.look().rings)
    table("WSGI middleware", rows)
    print(f"refused: {refused}")


@contextlib.contextmanager
def gunicorn(variant: str, env: dict[str, str]) -> Iterator[Callable[[], list[float]]]:
    from gunicorns import connects, free_port
    from places import until

    port = free_port()
    words = [sys.executable, "-m", "gunicorn", "-b", f"127.0.0.1:{port}", "--no-control-socket", "-k", "gthread"]
    words += ["--log-level", "error", "--keep-alive", "600", "--chdir", os.path.dirname(__file__), "bench_http:app"]
    process = subprocess.Popen(words, env={**env, "BENCH_HTTP_VARIANT": variant})
    try:
        until(lambda: connects(port), "gunicorn serves")
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)

        def one_round() -> list[float]:
            took = []
            for number in range(HTTP_REQUESTS):
                start = time.perf_counter_ns()
                connection.request("GET", f"/items/{number}?page=2")
                connection.getresponse().read()
                took.append(time.perf_counter_ns() - start)
            return took

        yield one_round
        connection.close()
    finally:
        process.terminate()
        process.wait(60)


def test_requests_over_http() -> None:
    from yard import yard

    with yard(EPSAGON_RING_BYTES=RING_BYTES) as place, contextlib.ExitStack() as stack:
        env = {**place.place.env, **QUIET, "DD_TRACE_AGENT_URL": place.backend.url}
        run = {name: stack.enter_context(gunicorn(name, env)) for name in VARIANTS}
        taken: dict[str, list[float]] = {name: [] for name in VARIANTS}
        for one_round in run.values():
            one_round()
        for _ in range(HTTP_ROUNDS):
            for name, one_round in run.items():
                taken[name] += one_round()
    print(f"\nover HTTP, us per request\n\n{'':16}{'median':>9}{'added':>9}{'p99':>9}")
    for name, times in taken.items():
        times.sort()
        median, p99 = statistics.median(times) / 1000, times[len(times) * 99 // 100] / 1000
        print(f"{name:16}{median:9.1f}{median - statistics.median(taken[BARE]) / 1000:9.1f}{p99:9.1f}")


pytestmark = pytest.mark.timeout(0)
