"""Every way in which a process comes to be traced, with real processes: what it traced arrives, and arrives once."""

import os
import pathlib
import pickle
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
from arrivals import arrived, await_traces, death, ids, labels, runner
from namespaces import readable_by_all, with_tmpfs
from places import BASE, NOBODY, Place, need_root, times, until
from waiting import TIMEOUT_S

from epsagon_fast.backend import Backend
from epsagon_fast.queue import folder as folders

# Of first use by eight processes at once.
ROUNDS = times(100, 15)

# What most programs here trace with; a module, so that a spawned process finds it by name.
JOBS = """
import os, sys, threading, time
import epsagon_fast as epsagon

def work(name, events=2):
    with epsagon.trace(name):
        for number in range(events):
            epsagon.add_event({"id": f"{name}-{number}"})

def in_child(job, *arguments):
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            job(*arguments)
            epsagon.shutdown()
            code = 0
        finally:
            os._exit(code)
    return pid

def ended_well(pid):
    assert os.waitpid(pid, 0)[1] == 0
"""


@pytest.fixture
def place(place: Place) -> Place:
    # The programs run there.
    (place.scratch / "jobs.py").write_text(JOBS)
    return place


def traced(name: str, events: int = 2) -> list[str]:
    """The ids of the events that `work` adds."""
    return [f"{name}-{number}" for number in range(events)]


# One process.


def test_one_process(backend: Backend, place: Place) -> None:
    place.run("from jobs import *; work('main')")
    assert ids(await_traces(backend, place, "main")["main"]) == traced("main")


def test_twenty_threads_do_not_mix_up_their_traces(backend: Backend, place: Place) -> None:
    place.run("""
from jobs import *
threads = [threading.Thread(target=work, args=(f"thread{n}", 50)) for n in range(20)]
for thread in threads: thread.start()
for thread in threads: thread.join()
""")
    names = [f"thread{n}" for n in range(20)]
    for name, trace in await_traces(backend, place, *names).items():
        assert ids(trace) == traced(name, 50)
    assert len(place.collectors()) <= 1


def test_asyncio_tasks_do_not_mix_up_their_traces(backend: Backend, place: Place) -> None:
    place.run("""
from jobs import *
import asyncio
async def task(name):
    with epsagon.trace(name):
        for n in range(2):
            await asyncio.sleep(0)
            epsagon.add_event({"id": f"{name}-{n}"})
async def main():
    await asyncio.gather(*(task(f"task{n}") for n in range(20)))
    assert await epsagon.aflush(10)
asyncio.run(main())
""")
    for name, trace in await_traces(backend, place, *(f"task{n}" for n in range(20))).items():
        assert ids(trace) == traced(name)


def test_gevent_patched_program_starts_a_collector_and_its_greenlets_run_on(backend: Backend, place: Place) -> None:
    place.run("""
from gevent import monkey; monkey.patch_all()
from jobs import *
import gevent
ticks = 0
def tick():
    global ticks
    while True:
        gevent.sleep(0.001)
        ticks += 1
ticker = gevent.spawn(tick)
def greenlet(name):
    with epsagon.trace(name) as tracer:
        for n in range(2):
            gevent.sleep(0)
            epsagon.add_event({"id": f"{name}-{n}"})
    assert tracer.stop(60) == epsagon.Outcome.DELIVERED
gevent.joinall([gevent.spawn(greenlet, f"greenlet{n}") for n in range(20)], raise_error=True)
assert ticks > 3, ticks
ticker.kill()
""")
    for name, trace in await_traces(backend, place, *(f"greenlet{n}" for n in range(20))).items():
        assert ids(trace) == traced(name)


# Forks.


def test_fork_before_the_first_trace(backend: Backend, place: Place) -> None:
    place.run("from jobs import *; pid = in_child(work, 'child'); work('parent'); ended_well(pid)")
    found = await_traces(backend, place, "parent", "child")
    assert ids(found["child"]) == traced("child")


def test_forks_after_the_first_trace(backend: Backend, place: Place) -> None:
    place.run("""
from jobs import *
work('parent')
def grandchild():
    work('child')
    ended_well(in_child(work, 'grandchild'))
ended_well(in_child(grandchild))
work('parent again')
""")
    found = await_traces(backend, place, "parent", "child", "grandchild", "parent again")
    assert all(ids(trace) == traced(name) for name, trace in found.items())


def test_fork_inside_a_trace_adds_to_it_and_does_not_close_it(backend: Backend, place: Place) -> None:
    place.run("""
from jobs import *
def child():
    epsagon.add_event({"id": "of the child"})
    epsagon.label("child", 1)
    work("own trace of the child")
with epsagon.trace("parent"):
    epsagon.add_event({"id": "before"})
    pid = os.fork()
    if pid == 0:
        child()
    else:
        ended_well(pid)
        epsagon.add_event({"id": "after"})
# Both processes leave the block and end by themselves.
""")
    found = await_traces(backend, place, "parent", "own trace of the child")
    assert sorted(ids(found["parent"])) == ["after", "before", "of the child"]
    assert labels(found["parent"]) == {"child": 1}
    assert runner(found["parent"])["error_code"] == 0


def test_child_that_is_killed_inside_its_parents_trace_closes_nothing(backend: Backend, place: Place) -> None:
    place.run("""
from jobs import *
with epsagon.trace("parent"):
    pid = os.fork()
    if pid == 0:
        epsagon.add_event({"id": "of the child"})
        os.kill(os.getpid(), 9)
    assert os.waitpid(pid, 0)[1] == 9
    epsagon.add_event({"id": "after"})
""")
    trace = await_traces(backend, place, "parent")["parent"]
    assert sorted(ids(trace)) == ["after", "of the child"]
    assert death(trace) is None


def test_fork_in_the_middle_of_another_threads_first_trace_waits_for_its_imports_and_not_for_ever(place: Place) -> None:
    """Logging registers its hook for forks early in its import, and takes the hook's lock later in it."""
    place.run("""
from jobs import *
assert "logging" not in sys.modules
in_the_middle, forking = threading.Event(), threading.Event()
def pause(frame, event, argument):
    if frame.f_code.co_name == "StreamHandler":
        in_the_middle.set()
        forking.wait()
threading.settrace(pause)
tracing = threading.Thread(target=work, args=("thread",))
tracing.start()
threading.settrace(None)
in_the_middle.wait()
# Of such hooks the last comes first.
os.register_at_fork(before=forking.set)
ended_well(in_child(work, "child"))
tracing.join()
""")


def test_forks_while_other_threads_push(backend: Backend, place: Place) -> None:
    # Room for all of it, however late the collector comes.
    place.env["EPSAGON_RING_BYTES"] = str(16 * 1024 * 1024)
    place.run("""
from jobs import *
stop = threading.Event()
counts = {}
def push(name):
    with epsagon.trace(name):
        number = 0
        while not stop.is_set():
            epsagon.add_event({"id": f"{name}-{number}"})
            number += 1
            time.sleep(0.0005)
    counts[name] = number
threads = [threading.Thread(target=push, args=(f"thread{n}",)) for n in range(3)]
for thread in threads: thread.start()
for n in range(10):
    ended_well(in_child(work, f"child{n}"))
stop.set()
for thread in threads: thread.join()
for name, number in counts.items():
    work(f"{name} {number}")
""")
    until(lambda: backend.store.counts()["traces"] >= 16, lambda: f"16 traces; {sorted(arrived(backend))}")
    found = arrived(backend)
    for n in range(10):
        assert ids(found[f"child{n}"]) == traced(f"child{n}")
    for name, number in (name.split() for name in found if " " in name):
        # What the trace's limit did not drop is there in order.
        events = ids(found[name])
        dropped = int(runner(found[name])["resource"]["metadata"].get("dropped_events", 0))
        assert events == traced(name, int(number))[: len(events)]
        assert len(events) + dropped == int(number) > 0


def test_fork_in_c_of_which_python_knows_nothing(backend: Backend, place: Place) -> None:
    place.run("""
from jobs import *
import ctypes
libc = ctypes.PyDLL(None)
work("parent")
with epsagon.trace("open"):
    pid = libc.fork()
    if pid == 0:
        epsagon.add_event({"id": "of the child"})
        work("child")
        epsagon.flush(60)
        os._exit(0)
    ended_well(pid)
work("parent again")
""")
    found = await_traces(backend, place, "parent", "open", "child", "parent again")
    assert ids(found["open"]) == ["of the child"]
    assert all(ids(found[name]) == traced(name) for name in ("parent", "child", "parent again"))


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing(backend: Backend, place: Place, method: str) -> None:
    place.run(
        """
from jobs import *
import multiprocessing
if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    work("parent")
    processes = [context.Process(target=work, args=(f"child{n}",)) for n in range(3)]
    for process in processes: process.start()
    for process in processes: process.join()
    assert [process.exitcode for process in processes] == [0] * 3
""",
        method,
    )
    for name, trace in await_traces(backend, place, "parent", "child0", "child1", "child2").items():
        assert ids(trace) == traced(name)


def test_daemonic_pool_workers_may_start_the_collector(backend: Backend, place: Place) -> None:
    # multiprocessing lets a daemonic process have no children, and ends it with SIGTERM.
    place.run("""
from jobs import *
import multiprocessing
if __name__ == "__main__":
    with multiprocessing.get_context("fork").Pool(2) as pool:
        pool.map(work, [f"job{n}" for n in range(6)], chunksize=1)
""")
    for name, trace in await_traces(backend, place, *(f"job{n}" for n in range(6))).items():
        assert ids(trace) == traced(name)


def test_a_subprocess_traces_by_itself(backend: Backend, place: Place) -> None:
    place.run("""
from jobs import *
import subprocess
with epsagon.trace("parent"):
    subprocess.run([sys.executable, "-c", "from jobs import *; work('program')"], check=True)
""")
    assert ids(await_traces(backend, place, "parent", "program")["program"]) == traced("program")


def test_two_processes_in_one_trace(backend: Backend, place: Place) -> None:
    place.run("""
from jobs import *
import pickle, subprocess
OTHER = '''
from jobs import *
import pickle
with epsagon.attach(pickle.load(sys.stdin.buffer)):
    epsagon.add_event({"id": "of the other"})
    epsagon.label("other", True)
    epsagon.error("of the other")
    work("inner")
'''
with epsagon.trace("shared") as tracer:
    epsagon.add_event({"id": "own"})
    done = subprocess.run([sys.executable, "-c", OTHER], input=pickle.dumps(tracer.handle()))
    assert done.returncode == 0
""")
    trace = await_traces(backend, place, "shared")["shared"]
    assert sorted(ids(trace)) == sorted(["own", "of the other", *traced("inner"), *inner_event(trace)])
    assert labels(trace) == {"other": True}
    assert runner(trace)["exception"]["message"] == "of the other"


def inner_event(trace: dict) -> list[str]:
    """The id of the event that a `trace` inside a trace records."""
    (event,) = [event for event in trace["events"] if event["resource"]["name"] == "inner"]
    return [event["id"]]


def test_handle_holds_no_secret(backend: Backend, place: Place) -> None:
    out = place.run("""
from jobs import *
import pickle
with epsagon.trace("shared") as tracer:
    print(pickle.dumps(tracer.handle()).hex())
""")
    assert b"secret-token" not in bytes.fromhex(out)
    assert pickle.loads(bytes.fromhex(out)).runtime_dir == place.folder


# One collector.


def test_first_use_in_eight_processes_at_once_starts_one_collector(backend: Backend) -> None:
    driver = Place(backend.url)
    (driver.scratch / "jobs.py").write_text(JOBS)
    process = driver.start(
        """
from jobs import *
from epsagon_fast.producer.process import process
for line in sys.stdin:
    os.environ["EPSAGON_RUNTIME_DIR"] = line.strip()
    ready, barrier = os.pipe()
    traced, done = os.pipe()
    again, leave = os.pipe()
    def job(number):
        os.close(barrier), os.close(leave)
        os.read(ready, 1)
        with epsagon.trace(f"process{number}"):
            pass
        os.write(done, b".")
        os.read(again, 1)
    pids = [in_child(job, number) for number in range(8)]
    os.close(barrier)
    count = 0
    while count < 8: count += len(os.read(traced, 8))
    print("traced", flush=True)
    sys.stdin.readline()
    os.close(leave)
    for pid in pids: ended_well(pid)
    for fd in (ready, traced, done, again): os.close(fd)
    print("left", flush=True)
""",
        stdin=subprocess.PIPE,
        stderr=None,
    )
    try:
        with process:
            for _ in range(ROUNDS):
                _first_use(process, backend)
    finally:
        driver.close()


def _first_use(driver: "subprocess.Popen[str]", backend: Backend) -> None:
    assert driver.stdin is not None and driver.stdout is not None
    round_place = Place(backend.url)
    try:
        before = backend.store.counts()["traces"]
        seen: set[int] = set()
        over = threading.Event()
        watcher = threading.Thread(target=lambda: _watch(round_place, seen, over))
        watcher.start()
        driver.stdin.write(round_place.runtime_dir + "\n")
        driver.stdin.flush()
        assert driver.stdout.readline() == "traced\n"
        until(lambda: backend.store.counts()["traces"] == before + 8, lambda: f"8 traces; {round_place.log()}")
        over.set()
        watcher.join()
        assert len(seen) == 1, f"collectors {seen}:\n{round_place.log()}"
        assert round_place.look().incarnation == 1
        driver.stdin.write("\n")
        driver.stdin.flush()
        assert driver.stdout.readline() == "left\n"
    finally:
        over.set()
        round_place.close()


def _watch(watched: Place, seen: set[int], over: threading.Event) -> None:
    """Collect the pids of all collectors that are ever seen in /proc."""
    while not over.wait(0.01):
        seen.update(watched.collectors())


# Strangers.


@pytest.mark.root
def test_another_user_can_neither_read_nor_connect(backend: Backend, place: Place) -> None:
    need_root()
    os.chmod(place.runtime_dir, 0o755)  # as /dev/shm is open to all; what we make in it is not
    base = os.path.join(place.runtime_dir, "base")
    place.env["EPSAGON_RUNTIME_DIR"] = base
    with place.start("from jobs import *; work('mine'); print(flush=True); input()", stdin=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "\n"
        folder = os.path.join(base, folders.instance_name())
        files = [os.path.join(root, name) for root, _, names in os.walk(base) for name in names]
        assert [name for name in files if name.endswith(".ring")]
        assert {oct(os.stat(path).st_mode & 0o777) for path in files} == {"0o600"}
        assert {oct(os.stat(path).st_mode & 0o777) for path in (base, folder)} == {"0o700"}
        # All that it will need is imported first: another user may not be able to read this Python.
        stranger = f"""
import logging, os
import epsagon_fast as epsagon
from epsagon_fast.producer.process import process
from epsagon_fast.producer.handle import Handle
os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})
for path in {[base, folder, *files]!r}:
    for flags in (os.O_RDONLY, os.O_RDWR):
        try:
            os.open(path, flags)
        except (PermissionError, IsADirectoryError):
            continue
        raise SystemExit(f"could open {{path}}")
handle = Handle(trace_id="00" * 16, runtime_dir={folder!r}, max_trace_size_bytes=65536, metadata_only=True, debug=False)
with epsagon.attach(handle):
    epsagon.add_event({{"id": "of a stranger"}})
with epsagon.trace("of a stranger"):
    pass
print(process.writers.at({folder!r}).refusals())
"""
        done = subprocess.run(
            [sys.executable, "-c", stranger], env=place.env, capture_output=True, text=True, timeout=20
        )
        assert done.returncode == 0, done.stderr
        assert "'no_folder': 1" in done.stdout
        assert done.stderr.count("tracing is off in this process") == 1
        process.communicate("\n")
    until(lambda: backend.store.counts()["traces"] == 1, "the trace arrives")
    assert list(arrived(backend)) == ["mine"]


@pytest.mark.root
def test_change_of_user_after_the_fork_moves_to_a_folder_of_that_user(backend: Backend, place: Place) -> None:
    """As gunicorn's workers do with `user=`: the master has traced as root, the fork drops its privileges."""
    shared = [os.path.join(folders.SHARED_MEMORY, f"epsagon-fast-{user}") for user in (0, NOBODY)]
    os.chmod(place.scratch, 0o755)
    # Its own view of the files: nobody else's traces, and an interpreter that every user can read.
    out = place.run(
        f"""
import os
del os.environ["EPSAGON_RUNTIME_DIR"], os.environ["EPSAGON_STATE_DIR"]
os.environ["EPSAGON_LINGER_SEC"] = "0"
from jobs import *
work("master")
def worker():
    os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})
    work("worker")
    assert epsagon.flush(60)
ended_well(in_child(worker))
work("master again")
assert epsagon.flush(60)
for path in {shared!r}:
    print(os.stat(path).st_uid, oct(os.stat(path).st_mode & 0o777))
""",
        program=with_tmpfs(("mode=1777,size=64m", folders.SHARED_MEMORY), then=readable_by_all()),
    )
    assert out == f"0 0o700\n{NOBODY} 0o700\n"
    await_traces(backend, place, "master", "worker", "master again")


@pytest.mark.root
def test_worker_that_the_collector_cannot_look_at_is_not_dead(backend: Backend, place: Place) -> None:
    """A hardened /proc shows a process that changed its user after the fork to nobody but root."""
    os.chmod(place.scratch, 0o777)
    place.run(
        f"""
import os, subprocess
subprocess.run(["mount", "-t", "proc", "-o", "hidepid=2", "proc", "/proc"], check=True)
del os.environ["EPSAGON_RUNTIME_DIR"]
from jobs import *
from epsagon_fast.producer.process import process
def until(condition):
    for _ in range(2000):
        if condition():
            return
        time.sleep(0.005)
    raise AssertionError
def worker():
    os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})
    with epsagon.trace("worker"):
        mine = process.writers.known()[-1]
        until(mine.drained)
        # It has been looked at whether this process lives.
        since = mine._page().beat().heartbeat_ns
        until(lambda: mine._page().beat().heartbeat_ns > since)
        epsagon.add_event({{"id": "later"}})
    assert epsagon.flush(60)
ended_well(in_child(worker))
""",
        program=with_tmpfs(("mode=1777,size=64m", folders.SHARED_MEMORY), pid=True, then=readable_by_all()),
    )
    trace = await_traces(backend, place, "worker")["worker"]
    assert (ids(trace), death(trace)) == (["later"], None)


REAPING = """
import ctypes, os, sys
if "subreaper" in sys.argv:
    assert ctypes.CDLL(None).prctl(36, 1, 0, 0, 0) == 0  # PR_SET_CHILD_SUBREAPER
from jobs import *
with epsagon.trace("parent"):
    epsagon.add_event({"id": "before"})
    children = {in_child(work, f"child{number}") for number in range(2)}
    reaped = set()
    while True:
        try:
            reaped.add(os.wait()[0])
        except ChildProcessError:
            break
    assert children < reaped
    epsagon.add_event({"id": "after"})
assert epsagon.flush(60)
"""


@pytest.mark.root
@pytest.mark.parametrize("how", ["subreaper", "process 1"])
def test_parent_of_all_orphans_waits_for_its_children_and_not_for_the_collector(
    backend: Backend, place: Place, how: str
) -> None:
    """Process 1 of a container, and a subreaper: orphans become its children, and `os.wait()` waits for them."""
    place.linger()
    program = ["unshare", "-m", "-p", "-f", "--kill-child", "--mount-proc", sys.executable]
    place.run(REAPING, how, **({"program": program} if how == "process 1" else {}))
    traces = await_traces(backend, place, "parent", "child0", "child1")
    assert (ids(traces["parent"]), death(traces["parent"])) == (["before", "after"], None)


# Side effects.


def test_import_leaves_nothing_anywhere(place: Place) -> None:
    place.run("import epsagon_fast, epsagon_fast.testing")
    assert os.listdir(place.runtime_dir) == []
    assert place.collectors() == []


@pytest.mark.parametrize("variables", [{"DISABLE_EPSAGON": "TRUE"}, {"EPSAGON_TOKEN": ""}], ids=lambda v: next(iter(v)))
def test_disabled_program_leaves_nothing_anywhere(place: Place, variables: dict[str, str]) -> None:
    place.run("from jobs import *; work('main'); epsagon.flush(); epsagon.shutdown()", env=variables)
    assert os.listdir(place.runtime_dir) == []
    assert place.collectors() == []


def test_output_of_a_traced_program_ends_with_the_program(place: Place) -> None:
    # A collector that kept the pipe would hold up its reader.
    place.linger()
    assert place.run("from jobs import *; work('main'); print('done')") == "done\n"
    assert len(place.collectors()) == 1


def test_program_that_may_not_start_a_collector_starts_none_and_its_traces_wait(backend: Backend, place: Place) -> None:
    place.run("from jobs import *; work('first')", env={"EPSAGON_LAUNCH": "0"})
    assert place.collectors() == []
    assert [name for name in os.listdir(place.folder) if not name.endswith(".ring")] == []
    place.run("from jobs import *; work('second')")
    await_traces(backend, place, "first", "second")


def test_children_and_signals_of_the_application_are_left_alone(place: Place) -> None:
    place.run("""
from jobs import *
import signal
heard = []
signal.signal(signal.SIGCHLD, lambda number, frame: heard.append(number))
mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
work("main")
assert epsagon.flush(60)
# No child of ours to wait for, no signal about one, nothing left changed.
try:
    os.wait()
except ChildProcessError:
    pass
else:
    raise SystemExit("there was a child to reap")
assert heard == []
assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before
""")


def test_a_loop_of_wait_in_another_thread_takes_nothing_from_the_starter(backend: Backend, place: Place) -> None:
    place.run("""
from jobs import *
own = os.fork()
if own == 0:
    time.sleep(60); os._exit(0)
reaped = []
def reap():
    while True:
        try:
            reaped.append(os.wait()[0])
        except ChildProcessError:
            return
thread = threading.Thread(target=reap)
thread.start()
work("main")
assert epsagon.flush(60)
os.kill(own, 9)
thread.join()
assert reaped == [own]
""")
    await_traces(backend, place, "main")


# Odd surroundings.


@pytest.mark.parametrize("closed", [(0,), (0, 1, 2), (3,), (0, 1, 2, 3)], ids=str)
def test_starter_with_low_descriptors_closed(backend: Backend, place: Place, closed: tuple[int, ...]) -> None:
    place.linger()
    place.run(f"""
from jobs import *
for fd in {closed!r}:
    try: os.close(fd)
    except OSError: pass
work("main")
ok = epsagon.flush(60)
os._exit(0 if ok else 9)
""")
    await_traces(backend, place, "main")
    pid = place.the_collector()
    assert os.readlink(f"/proc/{pid}/fd/0") == "/dev/null"
    assert os.readlink(f"/proc/{pid}/fd/1") == os.path.join(place.folder, "log")


def test_application_keeps_its_descriptor_3(backend: Backend, place: Place) -> None:
    place.run("""
from jobs import *
kept = os.open("kept", os.O_RDWR | os.O_CREAT)
os.dup2(kept, 3)
os.set_inheritable(3, True)
before = sorted(os.listdir("/proc/self/fd"))
work("main")
assert epsagon.flush(60)
assert sorted(os.listdir("/proc/self/fd")) == before, "a worker keeps no descriptor"
os.write(3, b"mine")
assert open("kept").read() == "mine"
""")
    await_traces(backend, place, "main")


def test_daemon_that_closes_all_descriptors_traces_on(backend: Backend, place: Place) -> None:
    place.run("""
from jobs import *
with epsagon.trace("daemon"):
    epsagon.add_event({"id": "before"})
    if os.fork():
        os._exit(0)
    os.setsid()
    if os.fork():
        os._exit(0)
    os.closerange(0, 1024)
    # The numbers that are free now become the application's.
    files = [os.open("app.db", os.O_RDWR | os.O_CREAT) for _ in range(8)]
    epsagon.add_event({"id": "after"})
    work("own trace of the daemon")
    epsagon.flush(60)
    assert os.path.getsize("app.db") == 0
    open("fine", "w").close()
    os._exit(0)
""")
    until(lambda: (place.scratch / "fine").exists(), "the daemon ends well")
    found = await_traces(backend, place, "daemon", "own trace of the daemon")
    # The process that opened it ended without a word, after it had handed its work on.
    assert (ids(found["daemon"])[0], death(found["daemon"])) == ("before", "ProcessDied")
    assert ids(found["own trace of the daemon"]) == traced("own trace of the daemon")


@pytest.mark.parametrize("executable", ["", "/usr/bin/false", "/nonexistent/uwsgi", None], ids=str)
def test_starter_whose_executable_is_no_python(backend: Backend, place: Place, executable: str | None) -> None:
    place.run(f"from jobs import *; sys.executable = {executable!r}; work('main')")
    await_traces(backend, place, "main")


def test_exec_inside_a_trace_leaves_it_to_be_closed_as_died(backend: Backend, place: Place) -> None:
    place.run("""
from jobs import *
with epsagon.trace("before exec"):
    epsagon.add_event({"id": "pushed"})
    os.execv(sys.executable, [sys.executable, "-c", '''
from jobs import *
work("after exec")
assert epsagon.flush(60)
print("waiting", flush=True)
sys.stdin.read()
'''])
""")
    found = await_traces(backend, place, "before exec", "after exec")
    assert (ids(found["before exec"]), death(found["before exec"])) == (["pushed"], "ProcessDied")
    assert ids(found["after exec"]) == traced("after exec")


def test_environment_of_the_starter_does_not_break_the_collector(backend: Backend, place: Place) -> None:
    (place.scratch / "urllib3.py").write_text("raise SystemExit('the wrong urllib3')")
    (place.scratch / "sitecustomize.py").write_text("print('customized')")
    broken = {"PYTHONPATH": str(place.scratch), "PYTHONSTARTUP": "/nonexistent", "PYTHONWARNINGS": "error"}
    assert place.run("from jobs import *; work('main')", env=broken) in ("customized\n", "")
    await_traces(backend, place, "main")


def test_token_is_on_no_command_line_and_in_no_environment_of_the_collector(place: Place) -> None:
    place.linger()
    place.run("from jobs import *; epsagon.init(token='told-by-code'); work('main')")
    process = pathlib.Path(f"/proc/{place.the_collector()}")
    for name in ("cmdline", "environ"):
        assert b"token" not in (process / name).read_bytes().lower().replace(b"epsagon_token=", b"")


@pytest.mark.parametrize("way", ["return", "sys.exit(3)", "1/0", "os._exit(0)", "os.kill(os.getpid(), 15)"])
def test_nothing_that_was_closed_is_missing_however_a_process_ends(backend: Backend, place: Place, way: str) -> None:
    code = "" if way == "return" else way
    process = place.start(f"from jobs import *\nwork('main')\n{code}")
    process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == {"sys.exit(3)": 3, "1/0": 1, "os.kill(os.getpid(), 15)": -signal.SIGTERM}.get(way, 0)
    assert ids(await_traces(backend, place, "main")["main"]) == traced("main")


@pytest.fixture(autouse=True)
def nothing_is_left_in_shared_memory() -> Iterator[None]:
    before = default_folders()
    yield
    assert not default_folders() - before


def default_folders() -> set[str]:
    """The folders of those processes that were told of no other. The demo's, in a test beside this one, is none."""
    return {name for name in os.listdir(BASE or "/") if re.fullmatch(r"epsagon-fast-\d+(-\d)?", name)}
