"""What is recorded beside busy threads: no call gives up the lock of the interpreter, for which they wait."""

from pathlib import Path

from straced import system_calls

# The other thread waits for the lock all the time, and a program that gives up a lock for which a thread waits has to
# wake that thread: a call of futex. Between two calls of getppid, which gives up nothing, there is none.
RECORDING = """
import fcntl, os, sys, threading, time
import epsagon_fast as epsagon
from epsagon_fast.producer.process import process
from epsagon_fast.queue import writer as writers
from epsagon_fast.queue.state import StatePage

def traces():
    for _ in range(20):
        with epsagon.trace("request"):
            with epsagon.event("charge"):
                pass

def between(work):
    os.getppid()
    work()
    os.getppid()

epsagon.init(token="t", collector_url="http://127.0.0.1:1", runtime_dir=".", ring_bytes=1 << 16)
epsagon.current_ids()
traces()
[writer] = process.writers.known()
# As a collector does.
held = os.open(writer.path, os.O_RDONLY)
fcntl.flock(held, fcntl.LOCK_EX)
page = StatePage(held, create=True)
# A look at each trace, and at each record that is refused.
writers.LOOK_S = writers.BUSY_LOOK_S = 0.0
traces()

over = False
def wait():
    while not over:
        time.sleep(0)

sys.setswitchinterval(100)
thread = threading.Thread(target=wait)
thread.start()
between(traces)
tracer = epsagon.create_tracer()
tracer.start()
event = {"resource": {"name": "n", "metadata": {"k": "x" * 700}}}
while not process.refusals():
    tracer.add_event(event)
between(lambda: [tracer.add_event(event) for _ in range(100)])
over = True
thread.join()
os._exit(0)
"""


def test_no_call_gives_up_the_lock_that_other_threads_wait_for(tmp_path: Path) -> None:
    _, traces, _, refused, _ = system_calls(RECORDING, tmp_path).split("getppid()")
    assert traces.count("getrandom(") >= 20 and refused.count("flock(") >= 100
    assert "futex(" not in traces + refused
