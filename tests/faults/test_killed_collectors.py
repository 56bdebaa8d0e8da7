"""The collector is killed under load, alone and together with the workers: the next one delivers what was accepted."""

import os
import random
import signal
import threading
import time

import pytest
from places import FULL, times
from scenes import LOAD, Scene, holds, scene, serving
from waiting import TIMEOUT_S

from epsagon_fast.collector.measuring import figures
from epsagon_fast.collector.measuring.catalogue import CATALOGUE
from epsagon_fast.collector.measuring.histogram import Histogram
from epsagon_fast.queue.writer import BUSY_LOOK_S

TRIES = times(100, 4)
TOGETHER = times(50, 3)

VICTIMS = """
import os, signal, sys, noting
os.setpgid(0, 0)
print(os.getpid(), flush=True)
for _ in range(3):
    noting.spawn(noting.until_stopped, 10, 1000, 0.001)
while True:
    signal.pause()
"""


# Three workers with a trace of five events at a steady rate, until `Scene.stop`.
STEADY = """
import os, sys, time, noting
def work():
    due = time.monotonic()
    while not noting.is_stopped():
        noting.fill(5, 820)
        due = max(due + float(sys.argv[1]), time.monotonic() - 0.2)
        time.sleep(max(0.0, due - time.monotonic()))
pids = [noting.spawn(work) for _ in range(3)]
codes = [os.waitpid(pid, 0)[1] for pid in pids]
assert codes == [0, 0, 0], codes
"""
# Three traces in 10.3 ms, 290 a second: 1.3 MB, of which each default ring holds 1.2 seconds.
PERIOD_S = 3 / 290
# Pushes an eighth of its ring after each kill, and then does nothing: only its pushes can have started the next one.
# Few events, which are all kept in the trace that is open all the time.
STANDS_STILL = """
import sys, noting, epsagon_fast as epsagon
with noting.trace() as tracer:
    for line in sys.stdin:
        for _ in range(7):
            noting.add(tracer, 10_000)
        noting.until_read()
        print("read", flush=True)
"""


class Scrapes:
    """Reads all counters again and again, and notes those that went back."""

    def __init__(self, here: Scene) -> None:
        self.back: list[tuple[str, float, float]] = []
        self.count = 0
        self._here = here
        self._last: dict[str, float] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._scrape_on)

    def __enter__(self) -> "Scrapes":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def scrape(self) -> dict[str, float]:
        """Return all counters, of which none belongs to one process alone."""
        found = {}
        view = figures.view(self._here.look())
        for metric in CATALOGUE:
            for labels, value in metric.samples(view) if metric.kind != figures.GAUGE else ():
                if "pid" not in metric.labels:
                    count = value.count if isinstance(value, Histogram) else value
                    found[" ".join((metric.name, *labels))] = count
        return found

    def _scrape_on(self) -> None:
        while not self._ended.wait(0.01):
            found = self.scrape()
            self.back += [(name, last, found[name]) for name, last in self._last.items() if found.get(name, -1) < last]
            self._last = found
            self.count += 1


def test_producers_start_the_next_one_and_every_trace_arrives() -> None:
    with scene("SIGKILL the collector under load", EPSAGON_RING_BYTES=str(16 << 20)) as here:
        chance = random.Random(2)
        with here.start(LOAD) as load:
            serving(here, 0)
            with Scrapes(here) as scrapes:
                for _ in range(TRIES):
                    pid = serving(here, here.row.tried)
                    # While it starts, while it replays the journal, in the middle of its work.
                    time.sleep(chance.choice((0.0, 0.02, 0.3)) * chance.random())
                    os.kill(pid, signal.SIGKILL)
                    here.row.tried += 1
                serving(here, here.row.tried)
            here.stop()
            _, errors = load.communicate(timeout=TIMEOUT_S)
            assert load.returncode == 0, errors
        noted = here.account()
        holds(here.row)
        assert not here.sink.twice
        assert not noted.opened - set(here.sink.traces)
        assert not here.row.refused.keys() - {"queue_full", "no_trace"}
        # A request that was answered while its collector died is sent again, and nothing else is.
        assert here.row.duplicates <= TRIES * 128
        # Counters go on, and each request is counted once, whichever collector had it.
        assert scrapes.count > TRIES and not scrapes.back
        counted = {name: count for name, count in scrapes.scrape().items() if "request_duration" in name}
        assert sum(counted.values()) == len(noted.opened)


def test_after_all_are_killed_the_next_start_delivers_all_of_it() -> None:
    # Collectors may die too early to read. All rings together are below the bound beyond which the oldest are removed.
    with scene("SIGKILL workers and collector together", EPSAGON_RING_BYTES=str(1 << 20)) as here:
        chance = random.Random(3)
        for _ in range(TOGETHER):
            before = here.look().incarnation if os.path.isdir(here.folder) else 0
            with here.start(VICTIMS) as victims:
                assert victims.stdout is not None
                group = int(victims.stdout.readline())
                pid = serving(here, before)
                time.sleep(chance.random() * 0.1)
                for kill, target in ((os.kill, pid), (os.killpg, group)):
                    kill(target, signal.SIGKILL)
            here.row.tried += 1
        here.run("import noting; noting.fill()")
        noted = here.account()
        holds(here.row)
        assert not here.sink.twice
        assert not noted.opened - set(here.sink.traces)


# How often, how many times, and which share of the events may then be refused.
@pytest.mark.skipif(not FULL, reason="a share of a steady load says nothing on a machine that is busy with other tests")
@pytest.mark.parametrize(("every_s", "kills", "share"), [(2.4, 40, 0.0), (0.3, 40, 0.1)])
def test_a_steady_load_goes_on_while_collectors_die(every_s: float, kills: int, share: float) -> None:
    with scene(f"SIGKILL the collector every {every_s} s, 1.3 MB/s") as here:
        with here.start(STEADY, str(PERIOD_S)) as load:
            serving(here, 0)
            due = time.monotonic()
            while here.row.tried < kills:
                due += every_s
                time.sleep(max(0.0, due - time.monotonic()))
                for pid in here.collectors():
                    os.kill(pid, signal.SIGKILL)
                here.row.tried += 1
            here.stop()
            _, errors = load.communicate(timeout=TIMEOUT_S)
            assert load.returncode == 0, errors
        here.account()
        holds(here.row)
        assert here.row.refused.total() <= share * here.row.pushed


def test_a_dead_collector_is_noticed_by_what_is_pushed() -> None:
    with scene("SIGKILL the collector of a process that then stands still") as here:
        with here.start(STANDS_STILL, stdin=-1) as worker:
            assert worker.stdin is not None and worker.stdout is not None
            for _ in range(times(20, 3)):
                worker.stdin.write("on\n")
                worker.stdin.flush()
                assert worker.stdout.readline() == "read\n"
                pid = serving(here, here.row.tried)
                here.until_served()
                # The look that the process had while it pushed is no reason any more not to look again.
                time.sleep(BUSY_LOOK_S)
                os.kill(pid, signal.SIGKILL)
                here.until_left()
                here.row.tried += 1
            _, errors = worker.communicate(timeout=TIMEOUT_S)
            assert worker.returncode == 0, errors
        here.account()
        holds(here.row)
        assert not here.row.refused
