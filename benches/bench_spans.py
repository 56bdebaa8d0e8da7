"""A span through OpenTelemetry's API: on our recorder, and on its SDK with batches and the OTLP exporter, in one run.

Each in a process of its own, both send OTLP to a sink. Needs the peers: `make .venv-bench/.installed`.
"""

import sys
from collections.abc import Iterator

import pytest
from bench_worker import COLUMNS, Field, Running, by_turns, placed, rows, started
from report import Report, peers_python
from sink import sink

from epsagon_fast.protocol import MAX_TRACE_BYTES

OURS, SDK = "epsagon_fast spans", "OpenTelemetry SDK spans"
SPANS_EACH = 10
RING_BYTES = 16 * 1024 * 1024
# Of the process that makes the spans.
MOST_US = 8.0
TIMES_LESS = 8.0
NOTE = """A client's span with six attributes, one of them set later. CPU: all threads, until all is encoded, sent and
answered. The helper is our collector."""


@pytest.fixture
def field() -> Iterator[Field]:
    """Both, started."""
    python = peers_python()
    if python is None:
        pytest.skip("needs the peers: make .venv-bench/.installed")
    with sink() as backend, placed("otlp+" + backend.url) as env:
        # Room for a round.
        env |= {"EPSAGON_RING_BYTES": str(RING_BYTES), "EPSAGON_MAX_TRACE_SIZE": str(MAX_TRACE_BYTES)}
        with started({OURS: sys.executable, SDK: python}, env) as running:
            yield running


def all_us(each: Running) -> float:
    return each.cpu_us() + each.helper_us()


def test_spans_in_a_trace_that_is_open(field: Field, report: Report) -> None:
    by_turns(field, "events", 0, 500)
    report.table("worker", "A span, through OpenTelemetry's API", COLUMNS, rows(field, ""), NOTE)
    took_us = field[OURS].cpu_us()
    report.target(f"a span takes at most {MOST_US:.0f} µs of its process", f"{took_us:.1f} µs", took_us <= MOST_US)


def test_spans_in_traces_of_their_own(field: Field, report: Report) -> None:
    by_turns(field, "traces", SPANS_EACH, 300)
    report.table("worker", f"A trace of {SPANS_EACH} spans, opened and closed", COLUMNS, rows(field, ""))
    times = all_us(field[SDK]) / all_us(field[OURS])
    what = f"a trace of {SPANS_EACH} spans takes {TIMES_LESS:.0f}x less CPU of all processes than with the SDK"
    report.target(what, f"{times:.1f}x", times >= TIMES_LESS)
