"""The pace of passes: as a function of what comes, and in a collector that would sleep for an hour."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from arrivals import arrived
from places import Place, until
from waiting import TIMEOUT_S

from epsagon_fast.backend import Backend
from epsagon_fast.collector.pace import (
    BUSY_PASS_S,
    IDLE_AFTER_S,
    IDLE_PASS_S,
    PASS_S,
    RESTING_PASS_S,
    UNHEARD_PASS_S,
    UNHEARD_RESTING_S,
    WAITED_FOR_PASS_S,
    WAITED_FOR_S,
    WAITING_PASS_S,
    Pace,
    Passed,
)
from epsagon_fast.queue import state as states
from epsagon_fast.queue.bell import LOOK, WAITS
from epsagon_fast.queue.names import BELL
from epsagon_fast.queue.writer import LOOK_S, RESTING_NS, WAITING_NS

NOTHING = Passed()


def pause(pace: Pace, passed: Passed = NOTHING, now: float = 0.0, hears: bool = True, ends: bool = False) -> float:
    return pace.pause_s(passed, now, hears=hears, ends=ends)


def resting() -> Pace:
    pace = Pace(0.0)
    while pause(pace) < RESTING_PASS_S:
        pass
    return pace


def test_pace_follows_what_comes() -> None:
    pace = Pace(0.0)
    assert [pause(pace) for _ in range(4)] == [PASS_S, RESTING_PASS_S, RESTING_PASS_S, RESTING_PASS_S]
    assert [pause(pace, Passed(came=True)) for _ in range(2)] == [PASS_S, PASS_S]
    assert pause(pace, Passed(busy=True)) == BUSY_PASS_S
    assert [pause(pace) for _ in range(2)] == [RESTING_PASS_S, RESTING_PASS_S]


def test_bell_ends_the_rest_also_where_no_record_has_come_yet() -> None:
    pace = resting()
    pace.heard(b"", 0.0)
    assert pause(pace) == RESTING_PASS_S
    pace.heard(LOOK, 0.0)
    assert pause(pace) == PASS_S


def test_it_rests_longer_once_all_processes_would_ring() -> None:
    pace = resting()
    assert pause(pace, now=IDLE_AFTER_S) == RESTING_PASS_S
    assert pause(pace, now=IDLE_AFTER_S + 1) == IDLE_PASS_S
    assert pause(pace, Passed(holds=True), IDLE_AFTER_S + 1) == RESTING_PASS_S
    pace.heard(b"", 100.0)
    assert pause(pace, now=100.0) == IDLE_PASS_S
    pace.heard(LOOK, 100.0)
    assert [pause(pace, now=100.0 + IDLE_AFTER_S) for _ in range(2)] == [PASS_S, RESTING_PASS_S]
    assert pause(pace, now=101.0 + IDLE_AFTER_S) == IDLE_PASS_S
    assert pause(pace, Passed(came=True), now=200.0) == PASS_S


def test_process_that_waits_is_looked_after_for_a_moment() -> None:
    pace = Pace(-1000.0)
    pace.heard(LOOK + WAITS, 0.0)
    assert pause(pace, Passed(sends=True)) == WAITING_PASS_S
    assert pause(pace, Passed(came=True), 0.01) == WAITED_FOR_PASS_S
    assert pause(pace, Passed(sends=True), WAITED_FOR_S) == PASS_S


def test_what_needs_one_more_pass_gets_it_at_once_and_once() -> None:
    pace = Pace(-1000.0)
    again = Passed(came=True, again=True)
    assert [pause(pace, again) for _ in range(4)] == [0.0, PASS_S, 0.0, PASS_S]
    assert [pause(pace, again, hears=False) for _ in range(2)] == [0.0, WAITED_FOR_PASS_S]


def test_without_a_bell_it_looks_more_often() -> None:
    pace = Pace(0.0)
    waits = [
        pause(pace, Passed(came=True), 0.0, hears=False),
        pause(pace, Passed(sends=True), 1.0, hears=False),
        pause(pace, NOTHING, 1.0, hears=False),
        pause(pace, NOTHING, UNHEARD_RESTING_S, hears=False),
    ]
    assert waits == [WAITED_FOR_PASS_S, WAITING_PASS_S, UNHEARD_PASS_S, RESTING_PASS_S]


def test_collector_that_was_asked_to_leave_does_not_rest() -> None:
    assert pause(Pace(-1000.0), ends=True) == WAITING_PASS_S


def test_both_ends_of_the_bell_agree() -> None:
    # A process does not ring for what comes at the usual pace, nor one that waits at the pace that it has made.
    assert PASS_S < RESTING_NS / 1e9 < RESTING_PASS_S
    assert WAITING_PASS_S < WAITING_NS / 1e9 < PASS_S
    # A process that has not looked for so long looks when it traces again, and rings.
    assert IDLE_AFTER_S - RESTING_PASS_S > LOOK_S
    # The state page promises so.
    assert states.STALLED_S > 20 * IDLE_PASS_S


# Sleeps for an hour from a pass to the next, unless something wakes it.
SLEEPY = """
import sys
from epsagon_fast.collector import __main__, pace
pace.PASS_S = pace.RESTING_PASS_S = pace.IDLE_PASS_S = 3600.0
sys.exit(__main__.main(sys.argv[1:], stays=True))
"""
TRACES = """
import epsagon_fast as epsagon
with epsagon.trace(NAME):
    epsagon.add_event({"id": "1"})
"""


@pytest.fixture
def sleepy(place: Place) -> Iterator["subprocess.Popen[bytes]"]:
    command = [sys.executable, "-c", SLEEPY, "--runtime-dir", place.folder]
    collector = subprocess.Popen(command, env=place.env)
    try:
        until(lambda: os.path.exists(place.folder) and is_asleep(place), "it sleeps")
        yield collector
    finally:
        collector.kill()
        collector.wait(TIMEOUT_S)


def is_asleep(place: Place) -> bool:
    fd = os.open(place.folder, os.O_RDONLY)
    try:
        return states.read(fd).load(states.NEXT_PASS_NS) > time.monotonic_ns() + 10**10
    except (OSError, ValueError):
        return False
    finally:
        os.close(fd)


def run(place: Place, name: str, then: str) -> str:
    return place.run(TRACES.replace("NAME", repr(name)) + then)


@pytest.mark.parametrize(
    "then",
    [
        "print(epsagon.flush(60))",
        "import asyncio; print(asyncio.run(epsagon.aflush(60)))",
        "with epsagon.trace('stopped', new=True) as it: pass\nprint(it.stop(60) == epsagon.Outcome.DELIVERED)",
    ],
    ids=["flush", "aflush", "stop"],
)
def test_process_that_waits_wakes_the_collector(
    backend: Backend, place: Place, sleepy: "subprocess.Popen[bytes]", then: str
) -> None:
    for name in ("first", "second"):
        assert run(place, name, then) == "True\n"
    assert arrived(backend).keys() >= {"first", "second"}


def test_process_that_ends_wakes_the_collector(place: Place, sleepy: "subprocess.Popen[bytes]") -> None:
    run(place, "main", "epsagon.init(shutdown_timeout_s=3600)")
    until(lambda: not place.look().rings, "its ring was read to the end and is removed")


def test_process_that_waits_for_all_others_wakes_the_collector(place: Place, sleepy: "subprocess.Popen[bytes]") -> None:
    script = "from epsagon_fast.producer import exiting; print(exiting.wait_for_backlog(3600))"
    assert run(place, "main", script) == "True\n"


def test_ring_that_fills_wakes_the_collector(place: Place, sleepy: "subprocess.Popen[bytes]") -> None:
    # Nothing waits or ends, and no trace begins.
    script = """
import time
from epsagon_fast.producer.process import process
from epsagon_fast.queue import layout, writer
(mine,) = process.writers.known()
writer.LOOK_S = mine._next_look = time.monotonic() + 3600
while not mine.drained():
    time.sleep(0.001)
    mine.ensure_collector()
capacity = mine._ring.load(layout.CAPACITY)
trace = epsagon.create_tracer()
trace.start()
for _ in range(20 * capacity // 1000):
    trace.add_event({"id": "x" * 1000})
    deadline = time.monotonic() + 60
    while mine._ring.head - mine._ring.load(layout.TAIL) > capacity // 2:
        assert time.monotonic() < deadline, "the collector sleeps"
        time.sleep(0.001)
print(process.refusals())
"""
    assert run(place, "main", script) == "Counter()\n"


def test_new_ring_wakes_the_collector(place: Place, sleepy: "subprocess.Popen[bytes]") -> None:
    script = "import sys; sys.stdin.readline()" + TRACES.replace("NAME", "'main'") + "sys.stdin.read()"
    process = place.start(script, stdin=subprocess.PIPE)
    made_at = time.monotonic()
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()
    until(lambda: [ring.pid for ring in place.look().rings] == [process.pid], "its ring is there")
    until(lambda: (place.look().heartbeat_age_s or 0.0) < time.monotonic() - made_at, "it has passed since")
    process.communicate(timeout=TIMEOUT_S)


def test_death_of_a_process_wakes_the_collector(place: Place, sleepy: "subprocess.Popen[bytes]") -> None:
    script = TRACES.replace("NAME", "'main'") + "epsagon.flush(60); print(flush=True); import sys; sys.stdin.read()"
    process = place.start(script, stdin=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == "\n"
    until(lambda: is_asleep(place), "it sleeps again")
    process.kill()
    process.communicate(timeout=TIMEOUT_S)
    until(lambda: not place.look().rings, "its ring is removed")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_wakes_the_collector(sleepy: "subprocess.Popen[bytes]", number: signal.Signals) -> None:
    sleepy.send_signal(number)
    assert sleepy.wait(TIMEOUT_S) == 0


def test_collector_whose_bell_is_taken_away_looks_more_often(backend: Backend, place: Place) -> None:
    place.linger()
    script = TRACES.replace("NAME", "'main'") + "epsagon.flush(60); print(flush=True); import sys; sys.stdin.read()"
    process = place.start(script, stdin=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == "\n"
    os.unlink(os.path.join(place.folder, BELL))
    until(lambda: "the bell was removed" in place.log(), "it is missed")
    process.communicate(timeout=TIMEOUT_S)
    assert run(place, "next", "print(epsagon.flush(60))") == "True\n"
    place.dismiss()
