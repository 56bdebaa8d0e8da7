"""Processes that do not run: a collector or a worker is stopped for a while, and nobody else notices."""

import os
import signal
import time

from places import FULL, times, until
from scenes import Scene, holds, scene
from waiting import TIMEOUT_S

TRIES = times(20, 2)
STOPPED_S = 5.0 if FULL else 0.7

# Pushes at full speed until told to stop: 10 events to a trace, far more than fit into the ring meanwhile.
FAST = """
import os, sys, noting
noting.fill()
print(os.getpid(), flush=True)
noting.until_stopped(10, 1000, float(sys.argv[1]))
"""


def test_add_event_does_not_wait_for_a_stopped_collector() -> None:
    with scene("SIGSTOP the collector") as here, here.start(FAST, "0.0005") as worker:
        assert worker.stdout is not None
        worker.stdout.readline()
        collector = here.the_collector()
        for _ in range(TRIES):
            os.kill(collector, signal.SIGSTOP)
            time.sleep(STOPPED_S)
            os.kill(collector, signal.SIGCONT)
            here.row.tried += 1
            until(lambda: not sum(ring.unread_bytes for ring in here.look().rings) > 400_000, "it catches up")
        here.stop()
        _, errors = worker.communicate(timeout=TIMEOUT_S)
        assert worker.returncode == 0, errors
        noted = here.account()
        holds(here.row)
        # A thread that waits gives up the processor: it never did in a call.
        assert here.row.switches == 0
        # One collector all the time: its lock says that it lives, not its heartbeat.
        assert here.look().incarnation == 1
        here.until_left()
        _counters_agree(here, noted.refused + noted.refused_traces)


def test_others_do_not_notice_a_stopped_worker() -> None:
    with scene("SIGSTOP a worker") as here, here.start(FAST, "0.002") as stopped, here.start(FAST, "0.002") as other:
        assert stopped.stdout is not None and other.stdout is not None
        pid, _ = int(stopped.stdout.readline()), other.stdout.readline()
        for _ in range(TRIES):
            os.kill(pid, signal.SIGSTOP)
            came = len(here.sink.traces)
            # The other's go on arriving.
            until(lambda came=came: len(here.sink.traces) > came + 10, "traces of the other worker arrive")
            if FULL:
                time.sleep(STOPPED_S)
            os.kill(pid, signal.SIGCONT)
            here.row.tried += 1
        here.stop()
        for worker in (stopped, other):
            _, errors = worker.communicate(timeout=TIMEOUT_S)
            assert worker.returncode == 0, errors
        noted = here.account()
        holds(here.row)
        assert here.row.switches == 0
        # A stopped process is not taken for a dead one.
        assert not any(arrival.died or arrival.unfinished for arrival in here.sink.traces.values())
        here.until_left()
        _counters_agree(here, noted.refused + noted.refused_traces)


def _counters_agree(here: Scene, refused: dict[str, int]) -> None:
    counters = here.look().counters
    assert {reason: counters.get(f"refused_{reason}", 0) for reason in refused} == refused
    assert counters["closed"] == counters["delivered"] == len(here.sink.traces)
