"""A steady load for five minutes: 64 processes, a thousand traces a second in sum, sent as OTLP.

Nothing may be refused, and memory is the same at the end as at the beginning. `--quick` takes some seconds.
"""

import statistics
import time
from typing import NamedTuple

import pytest
from places import until
from report import Report
from yard import Yard, yard

WORKERS, PER_SECOND, EVENTS_EACH, EVENT_BYTES = 64, 1000, 5, 500
SECONDS, PART_S = 300.0, 60.0
QUICK_WORKERS, QUICK_SECONDS = 4, 3.0
CPU_MOST = 0.35
# Of the memory in the first minute.
MEMORY_MOST = 1.05

pytestmark = pytest.mark.timeout(0)


class Sample(NamedTuple):
    """What the collector had used at a time, and what it held."""

    at_s: float
    loop_s: float
    cpu_s: float
    memory_kb: int
    journal_bytes: int
    open_traces: int
    pending: int


def sample(own: Yard, pid: int) -> Sample:
    spent, memory, gauges = own.spent(pid), own.memory_kb(pid), own.place.look().gauges
    held = (memory["RssAnon"], gauges["journal_bytes"], gauges["open_traces"], gauges["pending"])
    return Sample(time.monotonic(), spent.loop_ns / 1e9, spent.total_ns / 1e9, *held)


def test_a_steady_load(report: Report, quick: bool) -> None:
    workers, seconds = (QUICK_WORKERS, QUICK_SECONDS) if quick else (WORKERS, SECONDS)
    with yard(form="otlp+", EPSAGON_TOKEN="") as own:
        boss = own.producer()
        boss.do("hire", workers, PER_SECOND / workers, seconds, EVENTS_EACH, EVENT_BYTES)
        pid = own.collector()
        began = time.monotonic()
        boss.tell("work")
        samples = [sample(own, pid)]
        while samples[-1].at_s < began + seconds:
            time.sleep(1.0)
            samples.append(sample(own, pid))
        traces, refused = boss.answer()
        until(lambda: own.place.look().gauges["pending"] == 0, "all traces are settled")
        time.sleep(1.2)
        counters = own.place.look().counters
    refused += sum(counters.get(name, 0) for name in ("too_big", "orphan", "late"))
    parts = [
        [each for each in samples if start <= each.at_s - began <= start + PART_S]
        for start in range(0, int(seconds), int(PART_S))
    ]
    rows = [row(number, part) for number, part in enumerate(parts, 1)]
    title = f"{workers} processes, {PER_SECOND} traces a second in sum"
    columns = ("minute", "of a core", "the loop alone", "RssAnon, MiB", "journal, MiB at most", "pending at most")
    told = f"{traces} traces of {EVENTS_EACH} events of {EVENT_BYTES} B in {seconds:.0f} s, as OTLP"
    note = (
        f"{told}; {refused} records refused, {counters['delivered']} traces delivered. Memory: median of the seconds."
    )
    report.table("steady", title, columns, rows, note)
    if quick:
        return
    cpu = (samples[-1].cpu_s - samples[0].cpu_s) / (samples[-1].at_s - samples[0].at_s)
    grown = memory_mib(parts[-1]) / memory_mib(parts[0])
    settled = counters["delivered"] >= traces
    report.target(f"{title}: no refusal", f"{refused}", refused == 0 and settled, "")
    why = "Nine tenths of it are the work for each trace; see the chart of rings for the rest."
    report.target(f"{title}: the collector at most {CPU_MOST:.0%} of a core", f"{cpu:.1%}", cpu <= CPU_MOST, why)
    settled_down = memory_mib(parts[-1]) / memory_mib(parts[len(parts) // 2])
    why = "The allocator keeps what the busiest moment took, also one in which other programs held the loop up."
    what = f"{title}: memory of the last minute at most {MEMORY_MOST}x that of the first"
    report.target(what, f"{grown:.2f}x, {settled_down:.2f}x the third", grown <= MEMORY_MOST, why)


def row(number: int, part: list[Sample]) -> list[float | str]:
    first, last = part[0], part[-1]
    took_s = last.at_s - first.at_s
    return [
        str(number),
        f"{(last.cpu_s - first.cpu_s) / took_s:.1%}",
        f"{(last.loop_s - first.loop_s) / took_s:.1%}",
        memory_mib(part),
        max(each.journal_bytes for each in part) / 2**20,
        max(each.pending for each in part),
    ]


def memory_mib(part: list[Sample]) -> float:
    return statistics.median(each.memory_kb for each in part) / 1024
