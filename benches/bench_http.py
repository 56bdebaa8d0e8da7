"""What tracing adds to a request: time and processor time, with a trivial WSGI application, beside its peers.

Requests driven as gunicorn drives them, in one process, and real ones over HTTP through gunicorn. Each row is a process
of its own, and they take turns. Peers are given less to do than we do: OpenTelemetry's spans are thrown away where they
would be sent, ddtrace's agent is a sink. What our collector uses besides is in the last column.

Needs the peers for their rows: `make .venv-bench/.installed`. Without them the others are measured.
"""

import contextlib
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest
from over_http import gunicorn
from report import Report, peers_python
from web import BARE, DDTRACE, OTEL, OURS
from yard import yard

PEERS = (OTEL, DDTRACE)
ROUNDS, REQUESTS = 30, 300
HTTP_ROUNDS, HTTP_REQUESTS = 10, 100
# Requests come faster here than any server takes them; refused ones would cost less.
RING_BYTES = str(16 << 20)
QUIET = {
    "DD_INSTRUMENTATION_TELEMETRY_ENABLED": "false",
    "DD_REMOTE_CONFIGURATION_ENABLED": "false",
    "DD_TRACE_STARTUP_LOGS": "false",
    "OTEL_METRICS_EXPORTER": "none",
}
# Of what OpenTelemetry adds.
WANTED = 0.25

pytestmark = pytest.mark.timeout(0)


def variants() -> dict[str, str]:
    """Return which Python runs each of them."""
    peers = peers_python()
    return {BARE: sys.executable, OURS: sys.executable} | ({name: peers for name in PEERS} if peers else {})


class Row(NamedTuple):
    """Medians over all rounds, in microseconds per request."""

    time_us: float
    cpu_us: float


def medians(rounds: list[list[float]]) -> Row:
    times, cpus = zip(*rounds, strict=True)
    return Row(statistics.median(times) / 1000, statistics.median(cpus) / 1000)


@contextlib.contextmanager
def measured(variant: str, python: str, env: dict[str, str]) -> Iterator[Callable[[], list[float]]]:
    command = [python, os.path.join(os.path.dirname(__file__), "web.py"), variant]
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


def test_wsgi_middleware_in_one_process(report: Report) -> None:
    with yard(EPSAGON_RING_BYTES=RING_BYTES) as place, contextlib.ExitStack() as stack:
        env = {**place.place.env, **QUIET, "DD_TRACE_AGENT_URL": place.backend.url}
        rounds: dict[str, list[list[float]]] = {name: [] for name in variants()}
        run = {name: stack.enter_context(measured(name, python, env)) for name, python in variants().items()}
        for one_round in run.values():
            one_round()
        collector = place.collector()
        before = place.spent(collector)
        for _ in range(ROUNDS):
            for name, one_round in run.items():
                rounds[name].append(one_round())
        collector_us = place.spent(collector).since(before).total_ns / 1000 / ROUNDS / REQUESTS
        assert not any(ring.refused for ring in place.place.look().rings)
    rows = {name: medians(each) for name, each in rounds.items()}
    bare = rows[BARE]
    added = {name: row.cpu_us - bare.cpu_us for name, row in rows.items()}
    table: list[list[str | float]] = []
    for name, row in rows.items():
        share = added[name] / added[OTEL] if OTEL in added else "-"
        table.append([name, row.time_us, row.cpu_us, added[name], share, collector_us if name == OURS else "-"])
    columns = ("", "µs", "CPU µs", "CPU added", "/ OpenTelemetry's", "in the collector, CPU µs")
    note = "OpenTelemetry's spans are thrown away where they would be sent; the collector sends each request's trace."
    report.table("web", "A request to a trivial WSGI application, driven in one process", columns, table, note)
    if OTEL in added:
        share = added[OURS] / added[OTEL]
        why = "What is added is a few allocations and three pushes; see bench_http.py."
        report.target("a request costs at most a quarter of OpenTelemetry's", f"{share:.2f}x", share <= WANTED, why)


def test_requests_over_http(report: Report) -> None:
    with yard(EPSAGON_RING_BYTES=RING_BYTES) as place, contextlib.ExitStack() as stack:
        env = {**place.place.env, **QUIET, "DD_TRACE_AGENT_URL": place.backend.url}
        run = {
            name: stack.enter_context(gunicorn(f"web:traced({name!r})", python, env))
            for name, python in variants().items()
        }
        taken: dict[str, list[int]] = {name: [] for name in run}
        for web in run.values():
            web.ask(HTTP_REQUESTS)
        for _ in range(HTTP_ROUNDS):
            for name, web in run.items():
                taken[name] += web.ask(HTTP_REQUESTS)
    table: list[list[str | float]] = []
    bare = statistics.median(taken[BARE]) / 1000
    for name, times in taken.items():
        times.sort()
        median, p99 = statistics.median(times) / 1000, times[len(times) * 99 // 100] / 1000
        table.append([name, median, median - bare, p99])
    report.table("web", "The same over HTTP, through gunicorn", ("", "median µs", "added", "p99 µs"), table)
