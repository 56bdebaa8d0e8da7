"""The producer's end of the queue where several threads come to it at once."""

from places import Place

RACE = """
import os, sys, threading
import epsagon_fast as epsagon
from epsagon_fast.queue import writer

# As often as can be, so that a step that another thread may come into is found.
sys.setswitchinterval(1e-6)
config = epsagon.Config().resolve()
for _ in range(50):
    pid = os.fork()
    if pid == 0:
        barrier, found = threading.Barrier(6), []
        def look():
            barrier.wait()
            found.append(writer.current(config))
        threads = [threading.Thread(target=look) for _ in range(6)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        rings = [line for line in open("/proc/self/maps") if ".ring" in line]
        os._exit(0 if len(set(found)) == len(rings) == 1 else 1)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


def test_threads_that_trace_for_the_first_time_share_one_ring(place: Place) -> None:
    # Of two rings of one process the collector takes the older for abandoned: its traces would be lost.
    assert place.run(RACE, env={"EPSAGON_LAUNCH": "0"}).split() == ["0"] * 50
