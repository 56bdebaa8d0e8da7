"""The collector is killed under load, alone and together with the workers: the next one delivers what was accepted."""

import os
import random
import signal
import time

from places import times
from scenes import LOAD, holds, scene, serving
from waiting import TIMEOUT_S

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


def test_producers_start_the_next_one_and_every_trace_arrives() -> None:
    with scene("SIGKILL the collector under load", EPSAGON_RING_BYTES=str(16 << 20)) as here:
        chance = random.Random(2)
        with here.start(LOAD) as load:
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


def test_after_all_are_killed_the_next_start_delivers_all_of_it() -> None:
    with scene("SIGKILL workers and collector together", EPSAGON_RING_BYTES=str(4 << 20)) as here:
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
