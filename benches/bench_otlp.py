"""What sending OTLP costs: a real collector, real producers, a sink that takes all.

"All told" is the processor time of every thread of every process that is ours, the sink not among them.
bench_requests.py has the same of a web request, beside others.
"""

import statistics
import time

import pytest
from places import until
from report import Report
from yard import Yard, yard

FORMS = {"JSON": "otlp+", "protobuf": "otlp-protobuf+"}
# Traces whose producer waits for no answer: requests are to be as full as they are at this rate.
ROOM = {"EPSAGON_TOKEN": "", "EPSAGON_RING_BYTES": str(32 << 20), "EPSAGON_COLLECTOR_MEMORY_MB": "2048"}
# Events, and traces a round.
SHAPES = {1: 3000, 10: 1000, 100: 100}
EVENT_BYTES, ROUNDS = 500, 5
MOST_A_TRACE_US, MOST_A_SPAN_US = 60, 15
SPANS_A_SECOND, SUSTAINED_S, EVENTS_EACH = 20_000, 5.0, 9
STORED, DRAINED_S = 10_000, 5.0

pytestmark = pytest.mark.timeout(0)


@pytest.mark.parametrize("encoding", FORMS)
def test_a_trace(report: Report, encoding: str) -> None:
    table = []
    found = {}
    for events_each, traces in SHAPES.items():
        with yard(form=FORMS[encoding], **ROOM) as own:
            loop_us, total_us = a_trace(own, traces, events_each)
        spans = events_each + 1
        found[events_each] = total_us
        table.append([events_each, loop_us, total_us - loop_us, total_us, total_us / spans])
    note = (
        f"Events of {EVENT_BYTES} B, as fast as they are pushed; the runner is a span too."
        " Bodies stay on this machine, uncompressed."
    )
    columns = ("events", "loop µs", "senders µs", "all told", "per span")
    report.table("otlp", f"CPU for a trace, OTLP in {encoding}", columns, table, note)
    what = (
        f"OTLP in {encoding}: at most {MOST_A_TRACE_US} µs for a trace of one event, {MOST_A_SPAN_US} µs a span of ten"
    )
    spans_us = found[10] / 11
    met = found[1] <= MOST_A_TRACE_US and spans_us <= MOST_A_SPAN_US
    why = "Most of it is the loop's own work for a trace, spread over all of its steps."
    report.target(what, f"{found[1]:.0f} µs, {spans_us:.1f} µs", met, why)


def a_trace(own: Yard, traces: int, events_each: int) -> tuple[float, float]:
    """Return what a trace costs the loop, and all of the collector, in microseconds: medians of a few rounds."""
    producer = own.producer()
    producer.do("stream", 200, 1, EVENT_BYTES, 1e6)
    pid = own.collector()
    rounds = []
    for _ in range(ROUNDS):
        before = own.spent(pid)
        producer.do("stream", traces, events_each, EVENT_BYTES, 1e6)
        spent = own.spent(pid).since(before)
        rounds.append((spent.loop_ns / traces / 1000, spent.total_ns / traces / 1000))
    assert producer.do("refused") == {}
    loops, totals = zip(*rounds, strict=True)
    return statistics.median(loops), statistics.median(totals)


@pytest.mark.parametrize("encoding", FORMS)
def test_sustained(report: Report, encoding: str) -> None:
    per_second = SPANS_A_SECOND / (EVENTS_EACH + 1)
    with yard(form=FORMS[encoding], **ROOM) as own:
        producer = own.producer()
        producer.do("stream", 200, EVENTS_EACH, EVENT_BYTES, per_second)
        pid = own.collector()
        before, start = own.spent(pid), time.monotonic()
        producer.do("stream", int(per_second * SUSTAINED_S), EVENTS_EACH, EVENT_BYTES, per_second)
        took_s = time.monotonic() - start
        cores = own.spent(pid).since(before).total_ns / 1e9 / took_s
        refused = producer.do("refused")
        late = own.place.look().counters.get("too_big", 0)
    rate = int(per_second * SUSTAINED_S) * (EVENTS_EACH + 1) / took_s
    rows = [[f"{SPANS_A_SECOND} spans/s, {EVENTS_EACH + 1} a trace", rate, sum(refused.values()) + late, cores]]
    columns = ("pushed", "settled, spans/s", "refused", "cores")
    report.table("otlp", f"Sustained, OTLP in {encoding}, one producer", columns, rows)
    met = not refused and cores <= 1 and rate >= 0.9 * SPANS_A_SECOND
    report.target(f"OTLP in {encoding}: {SPANS_A_SECOND} spans/s on one core", f"{rate:.0f}/s, {cores:.2f} cores", met)


def test_stored_traces(report: Report) -> None:
    rows = []
    for encoding, form in FORMS.items():
        with yard(form=form, **ROOM, EPSAGON_SEND_TIMEOUT_SEC="5") as own:
            own.backend.answer(503)
            producer = own.producer()
            producer.do("stream", STORED, 1, EVENT_BYTES, 5000)
            until(lambda own=own: own.place.look().gauges["stored"] == STORED, "all are stored")
            own.backend.answer(200)
            delivered = own.place.look().counters.get("delivered", 0)
            until(lambda own=own, was=delivered: own.place.look().counters.get("delivered", 0) > was, "one arrives")
            start = time.monotonic()
            until(lambda own=own: own.place.look().gauges["stored"] == 0, "all arrive")
            rows.append([encoding, time.monotonic() - start])
    title = f"{STORED} stored traces leave the outbox after the first one arrived"
    report.table("otlp", title, ("", "seconds"), rows)
    slowest = max(took for _, took in rows)
    report.target(f"{title} in under {DRAINED_S:.0f} s", f"{slowest:.1f} s", slowest < DRAINED_S)
