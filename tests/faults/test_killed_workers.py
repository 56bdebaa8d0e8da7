"""Workers are killed at any moment: what a call had returned for is in a trace that arrives, closed as ProcessDied."""

import pytest
from places import times
from scenes import holds, scene

TRIES = {"compiled": times(600, 12), "reference": times(100, 8)}

# Three go on tracing while a fourth is killed, again and again.
MOTHER = """
import os, random, signal, sys, time
import epsagon_fast as epsagon, noting

def on_and_on(size):
    while True:
        noting.fill(8, size, size / 4e7)

def nothing_in_it(_):
    with noting.trace():
        time.sleep(60)

def before_anybody_looks(size):
    with noting.trace() as tracer:
        noting.add(tracer, size)
        os.kill(os.getpid(), signal.SIGKILL)

def with_a_child(size):
    tracer = epsagon.create_tracer()
    with noting.trace() as tracer:
        def child():
            # Its own traces, and the inherited one: which is closed when its opener dies.
            for _ in range(5):
                noting.add(tracer, size)
                noting.fill(2, size)
        noting.spawn(child)
        while True:
            noting.add(tracer, size)
            noting.fill(2, size, size / 4e7)

kinds = [on_and_on, nothing_in_it, before_anybody_looks, with_a_child]
random.seed(1)
os.setpgid(0, 0)
survivors = [noting.spawn(noting.until_stopped, 10, 1000 * (1 + 15 * (i == 2))) for i in range(3)]
for number in range(int(sys.argv[1])):
    victim = noting.spawn(kinds[number % len(kinds)], (1000, 16000)[number % 8 // 4])
    time.sleep(random.random() ** 2 * 0.06)
    os.kill(victim, signal.SIGKILL)
    assert os.waitpid(victim, 0)[1] == signal.SIGKILL
    print(number, flush=True)
open(os.environ["NOTES"] + "/../stop", "w").close()
codes = [os.waitpid(pid, 0)[1] for pid in survivors]
assert codes == [0, 0, 0], codes
"""


@pytest.mark.parametrize("ring", TRIES)
def test_what_killed_workers_had_pushed_arrives(ring: str) -> None:
    fault = "SIGKILL a worker" + ", rings in plain Python" * (ring == "reference")
    with scene(fault, EPSAGON_RING_BYTES=str(4 << 20), EPSAGON_FAST_IMPL=ring) as here:
        tries = TRIES[ring]
        here.run(MOTHER, str(tries), timeout_s=60 + tries)
        here.row.tried = tries
        noted = here.account()
        holds(here.row)
        # Late is only what a victim's child still added to the victim's trace.
        assert set(here.row.refused) <= {"late", "queue_full"}, here.row
        died = {trace for trace in noted.opened - noted.closing if here.sink.traces[trace].died}
        assert died == noted.opened - noted.closing
        here.until_left()
        counters = here.look().counters
        assert counters["closed"] == counters["delivered"] == len(here.sink.traces)
        # One more each if it was killed between the refusal and the note of it.
        for reason, count in (noted.refused + noted.refused_traces).items():
            assert count <= counters[f"refused_{reason}"] <= count + tries
