"""How a process leaves: the waiting against a queue in memory, the hooks in real processes of every kind."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from fakes import FakeQueue
from places import Place, until
from waiting import TIMEOUT_S

import epsagon_fast as epsagon
from epsagon_fast.backend import Backend
from epsagon_fast.pages import see
from epsagon_fast.producer import exiting
from epsagon_fast.producer.process import process
from epsagon_fast.protocol import UNFINISHED, Kind
from epsagon_fast.queue import layout, ring


@pytest.fixture
def ending(queue: FakeQueue, monkeypatch: pytest.MonkeyPatch) -> FakeQueue:
    """A process that may leave: not in a container, with a trace open and one closed."""
    process.own.exit_timeout_s = 60.0
    monkeypatch.setattr(exiting, "dies_with_us", lambda: False)
    with epsagon.trace("closed"):
        pass
    epsagon.create_tracer().start()
    queue.records.clear()
    return queue


def test_leaving_closes_what_is_open_and_says_bye_last(ending: FakeQueue) -> None:
    exiting.say_bye()
    assert ending.kinds == ["CLOSE", "BYE"]
    assert ending.records[0].flags == UNFINISHED


def test_leaving_twice_is_leaving_once(ending: FakeQueue) -> None:
    exiting.say_bye()
    exiting.say_bye()
    assert ending.kinds == ["CLOSE", "BYE"]


def test_leaving_waits_until_the_ring_is_empty(ending: FakeQueue) -> None:
    ending.is_drained = False

    def start() -> None:
        ending.is_drained = True

    ending.ensure_collector = start  # type: ignore[method-assign]
    exiting.say_bye()
    assert ending.is_drained


def test_leaving_waits_no_longer_than_the_timeout(ending: FakeQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    process.own.exit_timeout_s = 0.02
    ending.is_drained = False
    exiting.say_bye()
    assert ending.starts > 0


def test_leaving_does_not_wait_for_a_collector_that_nobody_may_start(
    ending: FakeQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EPSAGON_LAUNCH", "0")
    ending.is_drained = False
    monkeypatch.setattr(ending, "collector_lives", lambda: False)
    exiting.say_bye()
    assert ending.starts == 0


def test_leaving_does_not_wait_for_a_collector_that_cannot_be_started(
    ending: FakeQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    ending.is_drained = False
    monkeypatch.setattr(ending, "collector_may_come", lambda: not ending.starts)
    exiting.say_bye()
    assert ending.starts == 1


def test_leaving_says_why_a_trace_was_not_delivered(ending: FakeQueue, caplog: pytest.LogCaptureFixture) -> None:
    ending.news = [(bytes(16), epsagon.Outcome.REJECTED.because("HTTP 401"))]
    exiting.say_bye()
    assert [record.message for record in caplog.records] == [f"A trace was rejected: HTTP 401{see('losses')}"]


def test_process_in_a_container_waits_until_its_traces_are_settled(
    ending: FakeQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exiting, "dies_with_us", lambda: True)
    ending.ensure_collector = lambda: ending.settle(epsagon.Outcome.DELIVERED)  # type: ignore[method-assign]
    ending.closed = 2
    exiting.say_bye()
    assert ending.settled == ending.closed


# Who outlives whom.


@pytest.fixture
def container(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(exiting.os, "readlink", lambda path: "pid:[4026532000]")
    monkeypatch.setattr(process, "waiting_parent_pid", 0)
    yield


def test_collector_outlives_a_process_in_the_first_namespace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exiting.os, "readlink", lambda path: exiting.FIRST_PID_NAMESPACE)
    assert not exiting.dies_with_us()


def test_collector_may_end_with_a_process_in_a_container(container: None) -> None:
    assert exiting.dies_with_us()


def test_child_of_a_server_that_waits_need_not_wait(container: None) -> None:
    exiting.parent_waits(os.getppid())
    assert not exiting.dies_with_us()


def test_child_of_a_server_that_died_waits(container: None) -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait(60)
    exiting.parent_waits(child.pid)
    assert exiting.dies_with_us()


@pytest.mark.parametrize("forker", exiting.FORKERS)
def test_child_of_a_forker_waits_itself(container: None, monkeypatch: pytest.MonkeyPatch, forker: str) -> None:
    # A server's parent process may know nothing of us: it waits for its children alone.
    module = SimpleNamespace(current_process=lambda: SimpleNamespace(_parent_pid=os.getpid()))
    monkeypatch.setitem(sys.modules, f"{forker}.process", module)
    assert exiting.dies_with_us()


# Waiting for the work of others.

OTHERS = """
import os, sys
import epsagon_fast as epsagon
from epsagon_fast.producer import exiting

exiting.dies_with_us = lambda: True
for number in range(5):
    if os.fork() == 0:
        with epsagon.trace("closed"):
            epsagon.create_tracer().start()
        os._exit(0)
while True:
    try:
        os.wait()
    except ChildProcessError:
        break
print(exiting.wait_for_backlog(15))
"""


def test_server_waits_for_the_traces_of_children_that_are_gone(backend: Backend, place: Place) -> None:
    assert place.run(OTHERS, timeout_s=TIMEOUT_S) == "True\n"
    assert backend.store.counts()["traces"] == 5 + 5


def test_waiting_for_the_backlog_is_bounded(backend: Backend, place: Place) -> None:
    # Nobody reads what the children pushed.
    place.env["EPSAGON_LAUNCH"] = "0"
    assert place.run(OTHERS.replace("(15)", "(0.05)"), timeout_s=TIMEOUT_S) == "False\n"


LATE = """
from epsagon_fast.queue import launch
os.environ["EPSAGON_LAUNCH"] = "1"
command, started = launch.command, []
def first_dies(path):
    # The empty path asks whether there is an interpreter.
    if path:
        started.append(path)
    return [b"/bin/true"] if len(started) == 1 else command(path)
launch.command = first_dies
launch.BACKOFF_S = 0.01
print(exiting"""


def test_server_that_waits_starts_a_collector_and_another_one_when_that_dies(backend: Backend, place: Place) -> None:
    place.env["EPSAGON_LAUNCH"] = "0"
    script = OTHERS.replace("print(exiting", LATE).replace("(15)", f"({TIMEOUT_S})")
    assert place.run(script, timeout_s=2 * TIMEOUT_S) == "True\n"
    assert backend.store.counts()["traces"] == 5 + 5


def test_without_a_folder_there_is_no_backlog(place: Place) -> None:
    assert place.run("from epsagon_fast.producer import exiting; print(exiting.wait_for_backlog(60))") == "True\n"


CHILDREN = """
import os
import epsagon_fast as epsagon
with epsagon.trace("parent"):
    pass
assert epsagon.flush(30)
for number in range(5):
    if os.fork() == 0:
        with epsagon.trace("child"):
            pass
        os._exit(0)
for number in range(5):
    os.wait()
"""


@pytest.mark.root
def test_process_1_waits_for_the_traces_of_all_others(backend: Backend, place: Place) -> None:
    place.env["EPSAGON_SHUTDOWN_TIMEOUT_SEC"] = "30"
    container = ["unshare", "-m", "-p", "-f", "--mount-proc", "--kill-child", sys.executable]
    place.run(CHILDREN, program=container, timeout_s=TIMEOUT_S)
    assert backend.store.counts()["traces"] == 1 + 5


# The hooks.

TRACED = """
import multiprocessing, os, sys
import epsagon_fast as epsagon

def work():
    with epsagon.trace("work"):
        pass
    epsagon.create_tracer().start()

def forked():
    pid = os.fork()
    if pid == 0:
        work()
        sys.exit(0)
    os.waitpid(pid, 0)

def started(method):
    process = multiprocessing.get_context(method).Process(target=work)
    process.start()
    process.join()

def pooled(method):
    with multiprocessing.get_context(method).Pool(1) as pool:
        pool.apply(work)
        pool.close()
        pool.join()

if __name__ == "__main__":
    if "before" in sys.argv:
        work()
    {action}
"""


def run(tmp_path: Path, action: str, *arguments: str) -> list[list[str]]:
    """Run a traced program without a collector; return the kinds of the records in each ring that it left."""
    script = tmp_path / "traced.py"
    script.write_text(TRACED.replace("{action}", action))
    environment = {
        **os.environ,
        "EPSAGON_TOKEN": "t",
        "EPSAGON_COLLECTOR_URL": "http://127.0.0.1:1",
        "EPSAGON_RUNTIME_DIR": str(tmp_path / "run"),
        "EPSAGON_LAUNCH": "0",
    }
    done = subprocess.run(
        [sys.executable, str(script), *arguments], env=environment, capture_output=True, timeout=TIMEOUT_S, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    return sorted(kinds(path) for path in (tmp_path / "run").glob("*/*.ring"))


def kinds(path: Path) -> list[str]:
    fd = os.open(path, os.O_RDWR)
    try:
        return [Kind(record[0]).name for record in ring.Consumer(fd).read(1 << 30)]
    finally:
        os.close(fd)


WHOLE = ["OPEN", "CLOSE", "OPEN", "CLOSE", "BYE"]


@pytest.mark.parametrize(
    "action",
    [
        "work()",
        "work(); sys.exit(0)",
        "forked()",
        "started('fork')",
        "started('spawn')",
        "started('forkserver')",
        "pooled('fork')",
    ],
)
def test_process_says_bye_however_it_was_started(tmp_path: Path, action: str) -> None:
    assert run(tmp_path, action) == [WHOLE]


@pytest.mark.parametrize("action", ["forked()", "started('fork')", "started('spawn')", "pooled('fork')"])
def test_parent_and_child_both_say_bye(tmp_path: Path, action: str) -> None:
    assert run(tmp_path, action, "before") == [WHOLE, WHOLE]


def test_process_that_is_cut_off_says_no_bye(tmp_path: Path) -> None:
    assert run(tmp_path, "work(); os._exit(0)") == [["OPEN", "CLOSE", "OPEN"]]


def test_ring_says_that_its_producer_left(tmp_path: Path) -> None:
    run(tmp_path, "work()")
    [path] = (tmp_path / "run").glob("*/*.ring")
    assert int.from_bytes(path.read_bytes()[layout.LEFT : layout.LEFT + 8], sys.byteorder) == 1


def test_nothing_is_registered_before_the_first_trace() -> None:
    code = "import atexit, logging; n = atexit._ncallbacks(); import epsagon_fast; print(atexit._ncallbacks() - n)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=TIMEOUT_S, check=True)
    assert done.stdout == "0\n"


def test_registering_again_costs_next_to_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process.own, "is_registered", True)
    began = time.perf_counter()
    for _ in range(1000):
        exiting.register(2.0)
    # A bound against hooks that pile up, not a measurement.
    assert time.perf_counter() - began < 5


def test_greenlets_do_not_run_on_while_the_process_leaves(place: Place) -> None:
    # A server's would take another request, whose trace nobody could take any more. The waiting is for the collector,
    # which has only just been started.
    code = """
from gevent import monkey; monkey.patch_all()
import gevent, epsagon_fast as epsagon
with epsagon.trace("work"):
    pass
gevent.spawn_later(0, print, "ran on")
"""
    assert place.run(code) == ""


LATE_REPORTS = {
    "exit handler": "atexit.register(report); main()",
    "destructor of a global": "Held.__del__ = lambda self: report(); main()",
    "weakref": "weakref.finalize(held, report); main()",
    "child's finalizer": """
def child():
    main()
    multiprocessing.util.Finalize(None, report, exitpriority=-2000)
process = multiprocessing.get_context("fork").Process(target=child)
process.start()
process.join(60)
""",
}


@pytest.mark.parametrize("how", LATE_REPORTS)
def test_what_is_traced_after_leaving_arrives(backend: Backend, place: Place, how: str) -> None:
    script = """
import atexit, multiprocessing.util, weakref
import epsagon_fast as epsagon
class Held: pass
held = Held()
def main():
    with epsagon.trace("main"):
        pass
def report():
    with epsagon.trace("report"), epsagon.event("upload"):
        pass
"""
    place.run(script + LATE_REPORTS[how])
    until(lambda: backend.store.counts()["traces"] == 2, f"both traces arrive; {place.log()}")
