"""What sending OTLP costs: a real collector, real producers, a sink that takes all; beside OpenTelemetry's exporter.

"All told" is the processor time of every thread of every process that is ours, the sink not among them.
"""

import contextlib
import pathlib
import statistics
import sys
import time

import pytest
from over_http import gunicorn
from places import descendants, until
from report import Report, peers_python
from web import BARE, OTEL_SENT, OURS_SENT
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
REQUESTS, WEB_ROUNDS = 400, 8
# Of what OpenTelemetry adds.
WITH_OTLP, WITH_OUR_OWN = 0.5, 1.0

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
    note = f"Events of {EVENT_BYTES} B, as fast as they are pushed; the runner is a span too. Bodies are compressed."
    columns = ("events", "loop µs", "senders µs", "all told", "per span")
    report.table("otlp", f"CPU for a trace, OTLP in {encoding}", columns, table, note)
    what = (
        f"OTLP in {encoding}: at most {MOST_A_TRACE_US} µs for a trace of one event, {MOST_A_SPAN_US} µs a span of ten"
    )
    spans_us = found[10] / 11
    met = found[1] <= MOST_A_TRACE_US and spans_us <= MOST_A_SPAN_US
    why = (
        "Most of it is the loop's own work for a trace, spread over all of its steps; of a span it is the compression."
    )
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


def used_ns(pid: int) -> int:
    """Return the processor time that a process's living threads have used."""
    tasks = pathlib.Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks)


def test_a_web_request(report: Report) -> None:
    peers = peers_python()
    ours = {f"{OURS_SENT} as {name}": form for name, form in (("OTLP", "otlp+"), ("our own JSON", ""))}
    pythons = {BARE: sys.executable} | dict.fromkeys(ours, sys.executable) | ({OTEL_SENT: peers} if peers else {})
    with contextlib.ExitStack() as stack:
        served, spent = {}, {name: [] for name in pythons}
        for name, python in pythons.items():
            own = stack.enter_context(yard(form=ours.get(name, ""), EPSAGON_RING_BYTES=str(16 << 20)))
            env = {**own.place.env, "OTEL_EXPORTER_OTLP_ENDPOINT": own.backend.url}
            served[name] = own, stack.enter_context(gunicorn(name, python, env))
            served[name][1].ask(REQUESTS)
        for _ in range(WEB_ROUNDS):
            for name, (own, web) in served.items():
                processes = [*descendants(web.pid), *(own.place.collectors() if name in ours else [])]
                before = [used_ns(each) for each in processes]
                web.ask(REQUESTS)
                # What was recorded is sent a little later, and belongs to these requests.
                time.sleep(1.0)
                after = [used_ns(each) for each in processes]
                spent[name].append([(now - was) / 1000 / REQUESTS for now, was in zip(after, before, strict=True)])
    rows, added = [], {}
    bare = statistics.median(sum(each) for each in spent[BARE])
    for name, rounds in spent.items():
        worker, *collector = (statistics.median(column) for column in zip(*rounds, strict=True))
        added[name] = worker + sum(collector) - bare
        rows.append([name, worker, sum(collector) if collector else "-", added[name]])
    table = [[*row, added[row[0]] / added[OTEL_SENT] if OTEL_SENT in added else "-"] for row in rows]
    columns = ("", "worker, CPU µs", "collector, CPU µs", "added, all told", "/ OpenTelemetry's")
    note = "gunicorn (gthread), one event or span in each request, spans sent to a sink on loopback by each."
    report.table("otlp", "A web request with all that comes of it", columns, table, note)
    if OTEL_SENT in added:
        for name, wanted in zip(ours, (WITH_OTLP, WITH_OUR_OWN), strict=True):
            share = added[name] / added[OTEL_SENT]
            what = f"a web request {name.partition(', ')[2]} costs at most {wanted}x OpenTelemetry's, all told"
            report.target(what, f"{share:.2f}x", share <= wanted, "See section 8.")
