"""How a collector's cost grows with what it has to do: one chart for each kind of more, with its exponent.

Cost is processor time, of a real collector with a sink that takes all. `--quick` takes the small steps only.
"""

import math
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from xml.etree import ElementTree

import pytest
from bench_collector import ROOM, per_record_ns
from chart import Line, growth
from places import until
from report import Report
from yard import Yard, yard

from epsagon_fast.collector.pace import IDLE_AFTER_S

OTLP = {"form": "otlp+", "EPSAGON_TOKEN": ""}
RINGS = (1, 10, 30, 100, 300, 1000)
RATE, WORK_S, REST_S = 400, 6.0, 4.0
OPEN_TRACES = (10, 100, 1000, 10_000, 100_000, 300_000, 1_000_000)
RECORDS = 8000
EVENTS = (1, 10, 100, 1000, 10_000, 100_000, 1_000_000)
EVENTS_A_STEP = 20_000
# Each event is a span, and a span says its id once. In a text the quotes would be escaped.
SPAN = b'"spanId":'
BYTES = (100, 1000, 4000, 10_000, 30_000, 100_000, 300_000, 1_000_000)
ADDED = 300
# Of a text's height, what a letter is wide in the widest usual font.
WIDEST = 0.64
# No step of `--quick` has more.
QUICK = 1000
# A journal of this size holds a million traces. The real bound is 64 MiB, some 90,000 of them: then a process that
# opens more is refused.
JOURNAL_MB = 4096
# In its ring a process has room set aside for the CLOSE of each open trace.
RING_MB = 256
# The memory that the collector's bounds know.
MEMORY_MB = 6144
WITH_A_LARGER_JOURNAL = """
import sys
from epsagon_fast.collector import bounds
bounds.JOURNAL_BYTES = JOURNAL_MB << 20
bounds.JOURNAL_SHARE = 2
from epsagon_fast.collector.reading import intake
intake.SEGMENT_BYTES = bounds.JOURNAL_BYTES // intake.SEGMENTS
from epsagon_fast.collector.__main__ import main
sys.exit(main(stays=True))
""".replace("JOURNAL_MB", str(JOURNAL_MB))

pytestmark = pytest.mark.timeout(0)


def steps(all_steps: Sequence[int], quick: bool) -> list[int]:
    return [step for step in all_steps if step <= QUICK] if quick else list(all_steps)


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0, 2.0])
def test_exponent_is_that_of_a_power_and_its_chart_is_drawn(power: float) -> None:
    # What small numbers cost is no part of it.
    line = Line("<a power>", [(count, 3.0 * max(count, 1000) ** power) for count in EVENTS])
    assert math.isclose(line.exponent, power, abs_tol=1e-9)
    drawn = ElementTree.fromstring(growth("Costs & more", "events", "µs", [line]))
    texts = [each.text for each in drawn.iter() if each.text and each.text.strip()]
    assert f"<a power>, µs: exponent {power:.2f}" in texts and "events; both axes are logarithmic" in texts
    assert len([each for each in drawn.iter() if each.tag.endswith("circle")]) == len(EVENTS)


def test_no_text_of_a_chart_is_clipped_or_lies_on_another() -> None:
    lines = [
        Line("for a trace that is as long as can be", [(count, float(count)) for count in EVENTS]) for _ in range(3)
    ]
    drawn = ElementTree.fromstring(growth("Open traces: processor time by their number", "open traces", "µs", lines))
    taken: dict[str, list[tuple[float, float]]] = {}
    for text in (each for each in drawn.iter() if each.tag.endswith("text")):
        place, size = text.attrib, float(text.get("font-size", drawn.attrib["font-size"]))
        wide, at = len(text.text or "") * size * WIDEST, float(place["x"])
        begins = at - wide * {"start": 0.0, "middle": 0.5, "end": 1.0}[place.get("text-anchor", "start")]
        assert begins >= 0 and begins + wide <= float(drawn.attrib["width"]), text.text
        taken.setdefault(place["y"], []).append((begins, begins + wide))
    for line in map(sorted, taken.values()):
        assert all(end <= begin for (_, end), (begin, _) in pairwise(line))


def test_with_rings(report: Report, quick: bool) -> None:
    rows, busy = [], Line("at work, for a trace", [])
    rest = Line("at rest, in a millisecond", [])
    for count in steps(RINGS, quick)[: 3 if quick else None]:
        with yard(EPSAGON_RING_BYTES="65536", **OTLP) as own:
            boss = own.producer()
            boss.do("hire", count, RATE / count, 1.0 if quick else WORK_S, 1, 500)
            pid = own.collector()
            until(lambda: own.place.look().gauges["pending"] == 0, "all traces are settled")
            time.sleep(0.2 if quick else IDLE_AFTER_S + 1)
            before, start = own.spent(pid), time.monotonic()
            # At rest it looks once a second, so less would show nothing.
            time.sleep(2.0 if quick else REST_S)
            idle = own.spent(pid).since(before).total_ns / (time.monotonic() - start) / 1e9
            before = own.spent(pid)
            traces, refused = boss.do("work")
            trace_us = own.spent(pid).since(before).total_ns / traces / 1000
        assert not refused
        busy.points.append((count, trace_us))
        rest.points.append((count, idle * 1000))
        rows.append([count, trace_us, f"{trace_us * RATE / 1e6:.1%}", f"{idle:.2%}"])
    title = "Producers: processor time of the collector by the number of rings"
    columns = ("rings", "µs for a trace", "of a core, at work", "of a core, at rest")
    note = f"{RATE} traces a second in sum, of one event of 500 B, in OTLP."
    report.growth("growth-rings", title, "rings", "µs", [busy, rest], columns, rows, note)


BOUNDS = f"""With a ring of {RING_MB} MiB and a journal of {JOURNAL_MB // 1024} GiB. As they are, a ring has room for
the CLOSE of some 7,000 open traces, and the journal for 90,000: what opens then is refused, and counted."""


@contextmanager
def roomy_yard() -> Iterator[Yard]:
    """Open a yard whose collector has a larger journal, and whose producer a larger ring."""
    settings = {"EPSAGON_RING_BYTES": str(RING_MB << 20), "EPSAGON_COLLECTOR_MEMORY_MB": str(MEMORY_MB)}
    with yard(EPSAGON_MAX_TRACE_SIZE="524288", EPSAGON_LAUNCH="0", **settings) as own:
        served = own.place.start(WITH_A_LARGER_JOURNAL, "--runtime-dir", own.place.folder)
        try:
            own.collector()
            yield own
        finally:
            served.kill()
            served.communicate()


def test_with_open_traces(report: Report, quick: bool) -> None:
    rows, record = [], Line("for a record of 1 KB", [])
    for count in steps(OPEN_TRACES, quick):
        with roomy_yard() as own:
            pid = own.collector()
            before = own.spent(pid)
            loop_ns = per_record_ns(own, RECORDS, 1000, count)
            opening_us = (own.spent(pid).since(before).loop_ns - loop_ns * RECORDS) / count / 1000
            before, start = own.spent(pid), time.monotonic()
            time.sleep(0.2 if quick else REST_S)
            idle = own.spent(pid).since(before).total_ns / (time.monotonic() - start) / 1e9
            memory = own.memory_kb(pid)
        record.points.append((count, loop_ns / 1000))
        rows.append([count, loop_ns / 1000, opening_us, f"{idle:.2%}", memory["RssAnon"] / 1024])
    title = "Open traces: processor time of the collector's loop by their number"
    columns = ("open traces", "µs for a record", "µs to open a trace", "of a core, at rest", "RssAnon, MiB")
    report.growth("growth-open-traces", title, "open traces", "µs", [record], columns, rows, BOUNDS)


def test_with_events(report: Report, quick: bool) -> None:
    rows, whole = [], Line("for a trace, all threads", [])
    loop = Line("for a trace, the loop", [])
    for each in steps(EVENTS, quick):
        traces = max(1, min(1000, EVENTS_A_STEP // each))
        with yard(**OTLP, **ROOM, keeps=True) as own:
            producer = own.producer()
            producer.do("trace", 20, 1, 500)
            own.backend.bodies()
            pid = own.collector()
            found = []
            for _ in range(1 if quick or each > EVENTS_A_STEP else 5):
                before = own.spent(pid)
                producer.do("trace", traces, each, 500)
                spent = own.spent(pid).since(before)
                found.append((spent.loop_ns / traces / 1000, spent.total_ns / traces / 1000))
            # Of what arrived. A trace is settled once its answer is there.
            sent = sum(body.count(SPAN) for body in own.backend.bodies()) / (traces * len(found))
        loop_us, total_us = (statistics.median(part) for part in zip(*found, strict=True))
        loop.points.append((each, loop_us))
        whole.points.append((each, total_us))
        rows.append([each, loop_us, total_us, total_us / each, sent])
    title = "Events: processor time of the collector for a trace by their number"
    columns = ("events", "loop µs", "all threads µs", "all threads µs for an event", "events sent")
    note = "Events of 500 B, in OTLP. From some 90 events on a trace is over its limit of 64 KiB."
    report.growth("growth-events", title, "events in a trace", "µs", [whole, loop], columns, rows, note)


def test_with_bytes(report: Report, quick: bool) -> None:
    rows, here, there = [], Line("in the caller", []), Line("in the collector", [])
    for size_bytes in steps(BYTES, quick):
        with yard(**OTLP, **ROOM) as own:
            producer = own.producer()
            producer.do("add", 20, size_bytes)
            pid = own.collector()
            count = 20 if quick else ADDED
            before = own.spent(pid)
            add_us = producer.do("add", count, size_bytes) / 1000
            total_us = own.spent(pid).since(before).total_ns / count / 1000
        here.points.append((size_bytes, add_us))
        there.points.append((size_bytes, total_us))
        rows.append([size_bytes, add_us, total_us])
    title = "Bytes: processor time for an event by its size"
    columns = ("bytes", "µs in the caller", "µs in the collector")
    over = Line("", [point for point in here.points if point[0] >= BYTES[-1] / 10])
    beyond = "" if quick else f"Above that step its exponent is {over.exponent:.2f}."
    note = f"Traces of one event each, in OTLP. From 64 KiB on the caller masks an event and makes it smaller. {beyond}"
    report.growth("growth-bytes", title, "bytes of an event", "µs", [here, there], columns, rows, note)
