"""More than there is room for: what is refused is counted, and the collector stays within its bound."""

import os
import signal
import time
from pathlib import Path

from places import times, until
from scenes import Scene, holds, scene
from waiting import TIMEOUT_S

MIB = 1024 * 1024
BOUND_MB = 32
# What a collector is before it holds anything, and what a bound may be passed by.
ALLOWED_BYTES = (BOUND_MB + 64) * MIB


def resident_bytes(pid: int) -> int:
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return sum(int(lines[name].split()[0]) for name in ("RssAnon", "RssFile")) * 1024


def watch(here: Scene, busy: list[object], most: int = ALLOWED_BYTES) -> int:
    """Look at the collector's memory until no process of these runs; return the most that it was."""
    seen = 0
    while any(process.poll() is None for process in busy):  # type: ignore[attr-defined]
        for pid in here.collectors():
            try:
                seen = max(seen, resident_bytes(pid))
            except (OSError, KeyError):
                continue
        assert seen < most, f"{seen / MIB:.0f} MiB"
        time.sleep(0.05)
    return seen


STORM = """
import sys, time, noting
deadline = time.monotonic() + float(sys.argv[1])
while time.monotonic() < deadline:
    noting.fill(50, 1000)
"""


def test_a_storm_is_refused_and_counted() -> None:
    with scene("a storm of two processes at full speed", EPSAGON_COLLECTOR_MEMORY_MB=str(BOUND_MB)) as here:
        storm = [here.start(STORM, str(times(30, 2))) for _ in range(2)]
        most = watch(here, storm)
        for process in storm:
            _, errors = process.communicate(timeout=TIMEOUT_S)
            assert process.returncode == 0, errors
        here.row.tried = 1
        here.until_left()
        noted = here.account()
        holds(here.row)
        counters = here.look().counters
        refused = noted.refused + noted.refused_traces
        assert {reason: counters.get(f"refused_{reason}", 0) for reason in refused} == refused
        assert counters["closed"] == counters["delivered"] == len(here.sink.traces)
        print(f"at most {most / MIB:.0f} MiB; {here.row}")


HOARDER = """
import os, time, epsagon_fast as epsagon
tracers, stop = [], os.path.join(os.environ["NOTES"], "..", "stop")
while not os.path.exists(stop):
    if len(tracers) < 20_000:
        tracers.append(epsagon.create_tracer())
        tracers[-1].start()
    for _ in range(40):
        tracers[-1].add_event({"resource": {"metadata": {"k": "x" * 1000}}})
    time.sleep(0.001)
os._exit(0)
"""
# It holds little and waits for its reader, so it is refused only if it is not read.
FRUGAL = """
import sys, noting
for _ in range(int(sys.argv[1])):
    noting.fill(5, 1000)
    noting.until_read()
"""


def test_one_process_that_closes_nothing_does_not_keep_seven_others_waiting() -> None:
    # Small rings: what is not read is refused soon.
    settings = {"EPSAGON_COLLECTOR_MEMORY_MB": "4", "EPSAGON_RING_BYTES": "65536"}
    with scene("seven processes beside one that closes no trace", **settings) as here:
        hoarder = here.start(HOARDER)
        try:
            until(lambda: here.gauge("full"), lambda: f"one process has all that one may have: {here.look()}")
            others = [here.start(FRUGAL, str(times(2000, 110))) for _ in range(7)]
            for process in others:
                _, errors = process.communicate(timeout=120)
                assert process.returncode == 0, errors
            assert here.gauge("full") == 1
            here.row.tried = 1
            noted = here.account()
            holds(here.row)
            assert noted.opened <= set(here.sink.traces)
            assert not noted.refused and not noted.refused_traces
        finally:
            here.stop()
            hoarder.communicate(timeout=TIMEOUT_S)


SIZES = """
import noting
for size in (1_000, 10_000, 60_000, 100_000, 200_000, 500_000, 1_000_000, 2_000_000):
    for _ in range(5):
        noting.fill(2, size)
"""


def test_events_of_every_size_arrive_or_are_counted() -> None:
    with scene("events of 1 KB to 2 MB", EPSAGON_RING_BYTES=str(8 << 20)) as here:
        for _ in range(times(20, 1)):
            here.run(SIZES)
            here.row.tried += 1
        noted = here.account()
        holds(here.row)
        # None is lost: what cannot be sent whole is stripped in the worker already.
        assert here.row.arrived == here.row.pushed and noted.opened == set(here.sink.traces)
        assert max(arrival.size_bytes for arrival in here.sink.traces.values()) <= 65536


OPEN = """
import sys, epsagon_fast as epsagon, noting
def now_and_then(number):
    if number % 200 == 199:
        noting.until_read()
tracers = []
for number in range(int(sys.argv[1])):
    tracer = epsagon.create_tracer()
    tracer.start()
    # Nearly as much as the journal may hold.
    if number % 2:
        noting.add(tracer, 10)
    tracers.append(tracer)
    now_and_then(number)
print(len(tracers), flush=True)
sys.stdin.readline()
for number, tracer in enumerate(tracers):
    tracer.send_stop_signal()
    now_and_then(number)
assert epsagon.flush(600)
"""


def test_very_many_open_traces() -> None:
    count = times(100_000, 3000)
    # An OPEN reserves room for its CLOSE in the ring: 64 bytes each.
    with scene(f"{count:,} open traces", EPSAGON_RING_BYTES=str(16 * MIB)) as here:
        with here.start(OPEN, str(count), stdin=-1) as worker:
            assert worker.stdin is not None and worker.stdout is not None
            assert worker.stdout.readline() == f"{count}\n"
            until(lambda: here.gauge("open_traces") == count, lambda: f"all are open: {here.look()}")
            most = resident_bytes(here.the_collector())
            print(f"{most / MIB:.0f} MiB, {here.gauge('held_bytes') / MIB:.0f} MiB of it counted")
            assert most < (256 + 64) * MIB
            _, errors = worker.communicate("\n", timeout=600)
            assert worker.returncode == 0, errors
        here.row.tried = 1
        here.account()
        holds(here.row)
        assert len(here.sink.traces) == count


LONG = """
import sys, epsagon_fast as epsagon, noting
with noting.trace() as long:
    for number in range(int(sys.argv[1])):
        if number % 100 == 0:
            noting.add(long, 100)
        noting.fill(5, 10_000)
        noting.until_read()
    print(flush=True)
    sys.stdin.readline()
    noting.add(long, 100)
assert epsagon.flush(60)
"""


def test_a_long_trace_does_not_hold_the_journal_and_survives_its_collector() -> None:
    traces = times(20_000, 600)
    with scene(f"a trace open while {traces * 50 // 1000} MB go by") as here:
        with here.start(LONG, str(traces), stdin=-1) as worker:
            assert worker.stdin is not None and worker.stdout is not None
            largest = 0
            while here.gauge("open_traces") or not here.sink.traces:
                largest = max(largest, here.gauge("journal_bytes"))
                if len(here.sink.traces) >= traces:
                    break
                assert worker.poll() is None
                time.sleep(0.01)
            assert worker.stdout.readline() == "\n"
            print(f"the journal had at most {largest / MIB:.1f} MiB")
            assert largest < 64 * MIB
            os.kill(here.the_collector(), signal.SIGKILL)
            _, errors = worker.communicate("\n", timeout=120)
            assert worker.returncode == 0, errors
        here.row.tried = 1
        here.account()
        holds(here.row)
        assert not here.sink.twice and len(here.sink.traces) == traces + 1


SLOW = """
import sqlite3, sys, time
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("BEGIN EXCLUSIVE")
print(flush=True)
sys.stdin.readline()
"""


def test_a_disk_that_does_not_answer_holds_up_nobody() -> None:
    """Somebody locks the outbox's file, as a disk would that takes seconds for a write."""
    with scene("the outbox's disk takes seconds", EPSAGON_LINGER_SEC="30") as here:
        here.sink.close()
        here.run("import noting; noting.fill()")
        until(lambda: here.gauge("stored") == 1, "one is stored")
        outbox = str(Path(here.settings["EPSAGON_STATE_DIR"]) / "outbox-3.db")
        for _ in range(times(20, 1)):
            with here.start(SLOW, outbox, stdin=-1) as slow:
                assert slow.stdin is not None and slow.stdout is not None
                slow.stdout.readline()
                # New traces go out while the old ones cannot be looked at.
                here.sink.open()
                here.run("import noting\nfor _ in range(20): noting.fill(3)")
                until(lambda: here.look().heartbeat_age_s < 1.0, "it beats")
                slow.communicate("\n")
            here.row.tried += 1
            here.account()
            here.sink.close()
        here.sink.open()
        holds(here.row)
