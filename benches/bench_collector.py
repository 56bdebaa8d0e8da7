"""What a collector costs: a real one, with real producers and a backend that takes all.

"loop" is the thread that reads, keeps and assembles; the others send, so their share is what POSTs cost, see
bench_delivery.py. Producers go on only when their rings are empty again, so nothing is refused and nothing is missing.
"""

import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from measure import cpu_clock_ns, summed
from report import Report
from yard import Yard, yard

from epsagon_fast.collector.pace import IDLE_AFTER_S, IDLE_PASS_S, PASS_S

ROOM = {"EPSAGON_RING_BYTES": str(32 << 20), "EPSAGON_COLLECTOR_MEMORY_MB": "4096"}
# Open traces, and records of 1 KB: no trace comes to its limit, nor the journal to its bound of 64 MiB.
OPEN_TRACES = {10: 4000, 100: 8000, 1000: 8000, 10_000: 8000, 100_000: 8000}
# Of those, what is usual: the median of these rows is what the targets are about.
USUAL = (10, 100, 1000)
PRODUCERS = (1, 4, 16, 64)
# Events of 500 B, and traces.
SHAPES = {1: 1500, 10: 1000, 100: 100}
SIZES = {200: 8000, 1000: 8000, 16_000: 1000}
SUSTAINED_S = 3.0
IDLE_S = 10.0


def per_record_ns(yard: Yard, records: int, size_bytes: int, open_traces: int, rounds: int = 8) -> float:
    """Return what the loop uses for a record, the median of a few rounds."""
    producer = yard.producer()
    producer.do("open_traces", open_traces)
    pid = yard.collector()
    found = []
    for _ in range(rounds):
        before = yard.spent(pid)
        producer.do("push", records // rounds, size_bytes)
        found.append(yard.spent(pid).since(before).loop_ns / (records // rounds))
    assert producer.do("refused") == {}
    return statistics.median(found)


def test_records_by_open_traces(report: Report) -> None:
    table: list[list[float | str]] = []
    loops = {}
    for count, records in OPEN_TRACES.items():
        with yard(EPSAGON_MAX_TRACE_SIZE="524288", **ROOM) as own:
            loop_ns = per_record_ns(own, records, 1000, count)
        loops[count] = loop_ns / 1000
        table.append([f"{count:,}".replace(",", " "), loop_ns / 1000])
    usual = statistics.median(loops[count] for count in USUAL)
    for row, loop_us in zip(table, loops.values(), strict=True):
        row.append(loop_us / usual)
    note = "Read, masked, journalled, assembled; nothing is closed. Usual: the median of the rows up to 1000."
    title = "CPU for a record of 1 KB by the number of open traces"
    report.table("collector", title, ("open traces", "loop µs", "/ usual"), table, note)
    why = "A third is the kernel's: the journal's pages, and those that the growing traces need."
    report.target("at most 3 µs CPU for a 1 KB record", f"{usual:.2f} µs", usual <= 3, why)
    ratio = loops[100_000] / usual
    why = "Each record is the first event of its trace, and what is known of that trace is in no cache any more."
    measured = f"{ratio:.2f}x, {loops[100_000]:.2f} µs"
    report.target("at most 1.2x that with 100 000 open traces", measured, ratio <= 1.2, why)


def test_records_by_size(report: Report) -> None:
    table = []
    for size_bytes, records in SIZES.items():
        with yard(EPSAGON_MAX_TRACE_SIZE="524288", **ROOM) as own:
            loop_ns = per_record_ns(own, records, size_bytes, 100)
        table.append([f"{size_bytes} B", loop_ns / 1000, loop_ns / size_bytes])
    report.table("collector", "CPU for a record by its size", ("event", "loop µs", "ns per byte"), table)


def test_traces(report: Report) -> None:
    table = []
    with yard() as own:
        producer = own.producer()
        producer.do("trace", 50, 1, 500)
        pid = own.collector()
        for events_each, traces in SHAPES.items():
            before = own.spent(pid)
            producer.do("trace", traces, events_each, 500)
            spent = own.spent(pid).since(before)
            loop_us, others_us = spent.loop_ns / traces / 1000, spent.others_ns / traces / 1000
            table.append([events_each, loop_us, others_us, loop_us / (events_each + 2)])
    note = (
        "Open, events of 660 B, close, body, POST to a loopback sink. A trace is its events and two records more. "
        "One of a hundred events is over the limit of a trace, so it is trimmed."
    )
    columns = ("events", "loop µs", "senders µs", "loop µs per record")
    report.table("collector", "CPU for a whole trace", columns, table, note)


@pytest.mark.parametrize("producers", PRODUCERS)
def test_sustained(report: Report, producers: int) -> None:
    with yard(EPSAGON_COLLECTOR_MEMORY_MB="2048") as own:
        ours = [own.producer() for _ in range(producers)]
        for each in ours:
            each.tell("open_traces", 1)
        for each in ours:
            each.answer()
        rates = []
        for command in (("keep_pushing", SUSTAINED_S, 200), ("keep_tracing", SUSTAINED_S, 5, 200)):
            start = time.monotonic()
            for each in ours:
                each.tell(*command)
            done = sum(each.answer() for each in ours)
            rates.append(done / (time.monotonic() - start))
        assert all(each.do("refused") == {} for each in ours)
        assert not own.place.look().counters.get("too_big")
    title = f"Sustained without a refusal, {producers} producer{'s' * (producers > 1)} on the same machine"
    columns = ("", "per second")
    rows = [
        ("records of 200 B, a hundred to a trace, delivered", rates[0]),
        ("whole traces of 5 events, delivered", rates[1]),
    ]
    report.table("collector", title, columns, rows)


@contextmanager
def sleeper(pause_s: float) -> Iterator[int]:
    """Run a Python that wakes now and then and does next to nothing. Yields its pid."""
    program = f"import json, time\nwhile True: time.sleep({pause_s}); json.loads(json.dumps([*range(100)]))"
    process = subprocess.Popen([sys.executable, "-c", program])
    try:
        yield process.pid
    finally:
        process.kill()
        process.wait()


def test_idle_and_trickle(report: Report) -> None:
    with yard() as own, sleeper(IDLE_PASS_S) as asleep:
        ours = [own.producer() for _ in range(8)]
        for each in ours:
            each.do("open_traces", 1)
            each.do("close_all")
        pid = own.collector()
        time.sleep(IDLE_AFTER_S + 2)
        before, of_waking = own.spent(pid), cpu_clock_ns(asleep)
        time.sleep(IDLE_S)
        # The other threads sleep, and their clock is too coarse for so little.
        idle = own.spent(pid).since(before).loop_ns / IDLE_S / 1e9
        waking = (cpu_clock_ns(asleep) - of_waking) / IDLE_S / 1e9
        memory = own.memory_kb(pid)
        before, start = own.spent(pid), time.monotonic()
        ours[0].do("close_one_by_one", 30, 0.1)
        trickle = own.spent(pid).since(before).total_ns / (time.monotonic() - start) / 1e9
    rss_mb = (memory["RssAnon"] + memory["RssFile"]) / 1024
    rows = [
        ("idle, 8 producers: share of a processor", f"{idle:.2%}"),
        ("a Python that wakes as often and does nothing", f"{waking:.2%}"),
        ("10 traces a second: share of a processor", f"{trickle:.2%}"),
        ("RssAnon + RssFile, idle", f"{rss_mb:.1f} MB"),
        ("RssShmem, idle", f"{memory['RssShmem'] / 1024:.1f} MB"),
    ]
    report.table("collector", "At rest", ("", ""), rows)
    why = "It wakes once a second. On a virtual machine at rest that alone may take milliseconds: see the row below it."
    report.target("idle collector at most 0.2 % CPU", f"{idle:.2%}", idle <= 0.002, why)
    report.target("RssAnon + RssFile at most 30 MB", f"{rss_mb:.1f} MB", rss_mb <= 30)


def test_from_close_to_the_backend(report: Report) -> None:
    table = []
    with yard() as own:
        producer = own.producer()
        producer.do("close_one_by_one", 5, 0.01)
        for name, count, pause_s in (("one now and then", 40, 0.15), ("one every 5 ms", 300, 0.005)):
            own.backend.arrivals()
            closed = producer.do("close_one_by_one", count, pause_s)
            deadline, arrived = time.monotonic() + 10, own.backend.arrivals()
            while not closed.keys() <= arrived.keys():
                assert time.monotonic() < deadline, "not all traces arrive"
                time.sleep(0.01)
                arrived |= own.backend.arrivals()
            median, p99 = summed([arrived[key] - at for key, at in closed.items()])
            table.append([name, median * 1000, p99 * 1000])
    note = f"It looks every {PASS_S:.1g} s while records come. A process that traces again after a rest rings for it."
    report.table("collector", "From close to the backend's receipt", ("", "median ms", "p99 ms"), table, note)
