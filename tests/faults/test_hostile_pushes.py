"""Pushing from where it is least expected: no deadlock, no torn record, nothing missing."""

import pytest
from places import FULL, times
from scenes import holds, scene

PROCESSES = times(200, 40)
MANY = times(20, 1)

BEGIN = """
import gc, os, signal, sys, threading
import epsagon_fast as epsagon, noting
"""
HOSTILE = {
    "signal handlers": """
with noting.trace() as tracer:
    signal.signal(signal.SIGALRM, lambda *_: noting.add(tracer, 100))
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    for _ in range(300):
        noting.add(tracer, 100)
    signal.setitimer(signal.ITIMER_REAL, 0)
""",
    "destructors": """
class Last:
    def __init__(self): self.me = self
    def __del__(self): noting.add(tracer, 100)
with noting.trace() as tracer:
    gc.set_threshold(50)
    for _ in range(200):
        Last()
        noting.add(tracer, 100)
    gc.collect()
""",
    "at-fork hooks": """
hook = lambda: noting.add(tracer, 100)
with noting.trace() as tracer:
    os.register_at_fork(before=hook, after_in_parent=hook, after_in_child=hook)
    children = []
    for _ in range(10):
        children.append(os.fork())
        if not children[-1]:
            epsagon.flush(60)
            os._exit(0)
    # What a child adds is late once the opener has closed.
    assert all(os.waitpid(child, 0)[1] == 0 for child in children)
""",
    "32 threads": """
with noting.trace() as tracer:
    def push():
        for _ in range(20):
            noting.add(tracer, 100)
            noting.fill(2, 100)
    threads = [threading.Thread(target=push) for _ in range(32)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
""",
    "callbacks of gevent's hub": """
import gevent, gevent.monkey
gevent.monkey.patch_all()
with noting.trace() as tracer:
    hub = gevent.get_hub()
    for _ in range(50):
        hub.loop.run_callback(noting.add, tracer, 100)
        hub.loop.timer(0.0).start(noting.add, tracer, 100)
        gevent.spawn(noting.fill, 2, 100)
        gevent.sleep(0.001)
    gevent.wait()
""",
}


@pytest.mark.parametrize("where", HOSTILE)
def test_pushing_from_anywhere_is_whole(where: str) -> None:
    with scene(f"pushing from {where}", EPSAGON_RING_BYTES=str(4 << 20)) as here:
        here.env["EPSAGON_MAX_TRACE_SIZE"] = "524288"
        for _ in range(MANY):
            here.run(BEGIN + HOSTILE[where])
            here.row.tried += 1
        noted = here.account()
        holds(here.row)
        assert noted.opened <= set(here.sink.traces)
        assert not here.sink.twice
        counters = here.look().counters
        assert not counters.get("malformed") and not counters.get("corrupt_rings")


def test_many_processes_at_once_have_one_collector() -> None:
    script = BEGIN + (
        "read, write = os.pipe()\n"
        "def child():\n    os.close(write); os.read(read, 1); noting.fill(5, 500)\n"
        "pids = [noting.spawn(child) for _ in range(int(sys.argv[1]))]\n"
        # The end of the pipe lets them all go.
        "os.close(write)\n"
        "codes = [os.waitpid(pid, 0)[1] for pid in pids]\nassert not any(codes), codes"
    )
    with scene(f"{PROCESSES} processes at once") as here:
        for _ in range(times(5, 1)):
            here.run(script, str(PROCESSES), timeout_s=120)
            here.row.tried += 1
        noted = here.account()
        holds(here.row)
        assert noted.opened == set(here.sink.traces)
        assert here.look().incarnation <= (here.row.tried if FULL else 1)
