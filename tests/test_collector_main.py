"""The collector as a process: what it keeps of its starter, when it leaves, and what it leaves behind."""

import ctypes
import fcntl
import json
import os
import pathlib
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import servers
from arrivals import arrived, await_traces, death, ids, runner
from dying import Dying
from places import NOBODY, Place, until
from servers import Server
from waiting import TIMEOUT_S

from epsagon_fast.backend import Backend
from epsagon_fast.collector import __main__ as main_module
from epsagon_fast.queue import state as states
from epsagon_fast.queue.names import LEDGER
from epsagon_fast.queue.state import StatePage

# Does what it is told, a line at a time: open, add, close, flush, trace NAME, exit, and prints the answer.
WORKER = """
import logging, os, sys
import epsagon_fast as epsagon
logging.basicConfig(stream=sys.stdout, format="warned: %(message)s")
trace = None
for line in sys.stdin:
    verb, _, name = line.strip().partition(" ")
    answer = "ok"
    if verb == "open":
        trace = epsagon.trace(name)
        trace.__enter__()
    elif verb == "add":
        epsagon.add_event({"id": name})
    elif verb == "close":
        trace.__exit__(None, None, None)
    elif verb == "flush":
        answer = epsagon.flush(float(name))
    elif verb == "fork":
        pid = os.fork()
        if pid == 0:
            epsagon.add_event({"id": name})
            epsagon.flush(60)
            os._exit(0)
        os.waitpid(pid, 0)
    else:
        with epsagon.trace(name, new=True) as other:
            other.add_event({"id": name})
        if verb == "stop":
            answer = other.stop(60)
    print(answer, flush=True)
"""


class Worker:
    """A traced process that does what it is told."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process

    def do(self, command: str) -> str:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def leave(self) -> None:
        self.process.communicate(timeout=TIMEOUT_S)


@contextmanager
def working(place: Place, **environment: str) -> Iterator[Worker]:
    """A worker, which leaves at the block's end."""
    worker = Worker(place.start(WORKER, stdin=subprocess.PIPE, stderr=None, env=environment))
    try:
        yield worker
    finally:
        worker.leave()


@pytest.fixture
def worker(place: Place) -> Iterator[Worker]:
    with working(place) as worker:
        yield worker


def killed(place: Place, number: signal.Signals = signal.SIGKILL) -> None:
    """Have the collector end by a signal, and wait until it has."""
    pid = place.the_collector()
    place.until_served()
    os.kill(pid, number)
    place.until_ended(pid)


@contextmanager
def in_foreground(place: Place) -> Iterator["subprocess.Popen[str]"]:
    """Run `python -m epsagon_fast.collector` as a child of the test."""
    command = [sys.executable, "-m", "epsagon_fast.collector", "--runtime-dir", place.folder]
    os.makedirs(place.runtime_dir, 0o700, exist_ok=True)
    env = {**place.env, "EPSAGON_LINGER_SEC": "30"}
    process = subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=TIMEOUT_S)


@contextmanager
def locked(folder: str) -> Iterator[None]:
    """Hold the lock of a folder, as its collector does."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(fd)


# How it lives.


def test_collector_keeps_nothing_of_its_starter(place: Place) -> None:
    script = """
import os, signal, socket, sys
import epsagon_fast as epsagon
os.umask(0)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGUSR1])
for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR2): signal.signal(number, signal.SIG_IGN)
listener = socket.create_server(("127.0.0.1", 0))
os.set_inheritable(listener.fileno(), True)
kept = os.open("kept", os.O_RDWR | os.O_CREAT)
os.set_inheritable(kept, True)
with epsagon.trace("main"): pass
assert epsagon.flush(60)
print(os.getpid(), os.getsid(0))
sys.stdin.read()
"""
    with place.start(script, stdin=subprocess.PIPE, env={"SECRET": "of the application"}) as process:
        assert process.stdout is not None
        pid, session = map(int, process.stdout.readline().split())
        collector = place.the_collector()
        proc = pathlib.Path(f"/proc/{collector}")
        status = dict(line.split(":\t") for line in (proc / "status").read_text().splitlines())
        assert os.readlink(proc / "cwd") == "/"
        assert int(status["Umask"], 8) == 0o077
        assert os.getsid(collector) not in (session, os.getsid(0))
        assert int(status["PPid"]) != pid
        assert int(status["SigBlk"], 16) == 0
        ignored = int(status["SigIgn"], 16)
        assert not ignored & sum(1 << number - 1 for number in (signal.SIGHUP, signal.SIGUSR2, signal.SIGINT))
        opened = {os.readlink(entry) for entry in (proc / "fd").iterdir()}
        own = {"/dev/null", place.folder, os.path.join(place.folder, "log"), "anon_inode:[pidfd]"}
        assert {name for name in opened if not name.startswith(("socket:", place.folder))} <= own
        assert not any("kept" in name for name in opened)
        listening = (proc / "net/tcp").read_text()
        assert listening  # the namespace's; what counts is that the socket is not among the collector's
        assert os.readlink(proc / "fd/0") == "/dev/null"
        for number in (1, 2):
            assert os.readlink(proc / f"fd/{number}") == os.path.join(place.folder, "log")
        environment = dict(e.partition("=")[::2] for e in (proc / "environ").read_text().split("\0") if e)
        assert environment["EPSAGON_IN_COLLECTOR"] == "1"
        assert not environment.keys() & {"SECRET", "EPSAGON_TOKEN", "PYTHONPATH", "PYTHONFAULTHANDLER"}
        process.communicate()


def test_port_of_the_application_is_free_when_it_has_ended(place: Place) -> None:
    place.linger()
    port = place.run("""
import os, socket
import epsagon_fast as epsagon
listener = socket.create_server(("127.0.0.1", 0))
os.set_inheritable(listener.fileno(), True)
with epsagon.trace("main"): pass
print(listener.getsockname()[1])
""")
    assert place.collectors()
    with Server(port=int(port)):
        pass


def test_descriptors_and_threads_do_not_grow_with_processes_and_traces(backend: Backend, place: Place) -> None:
    with working(place) as first:
        assert first.do("stop warm") == "DELIVERED"
        collector = pathlib.Path(f"/proc/{place.the_collector()}")
        before = descriptors(collector)
        for number in range(5):
            place.run("import epsagon_fast as e\nfor n in range(20):\n with e.trace(f'{n}'): pass")
            assert first.do(f"stop again{number}") == "DELIVERED"
        until(lambda: place.look().gauges["rings"] == 1, "the other rings are gone")
        assert descriptors(collector) == before
        assert backend.store.counts()["traces"] == 1 + 5 * 21


def descriptors(process: pathlib.Path) -> list[str]:
    """What a process has open, but for its connections."""
    return sorted(name for name in map(os.readlink, (process / "fd").iterdir()) if not name.startswith("socket:"))


def test_only_one_collector_serves_a_folder(backend: Backend, place: Place, worker: Worker) -> None:
    assert worker.do("stop first") == "DELIVERED"
    with in_foreground(place) as second:
        _, errors = second.communicate(timeout=TIMEOUT_S)
    assert second.returncode == 0
    assert "another collector serves" in errors
    assert place.look().incarnation == 1
    assert worker.do("stop second") == "DELIVERED"


def test_killed_collector_serves_no_more_although_it_still_holds_the_folder(tmp_path: pathlib.Path) -> None:
    folder_fd = os.open(tmp_path, os.O_RDONLY)
    page = StatePage(folder_fd, create=True)
    with locked(str(tmp_path)), Dying() as dying:
        slots = {states.PID: dying.pid, states.START_TIME: dying.start_time, states.PHASE: states.SERVING}
        for slot, value in slots.items():
            page.store(slot, value)
        assert not main_module.take_lock(folder_fd)
        assert main_module.is_served(folder_fd)
        dying.kill()
        # So a successor waits for the lock, and does not leave it to the dead.
        assert not main_module.is_served(folder_fd)
    page.close()
    os.close(folder_fd)


def test_prober_does_not_keep_a_collector_from_starting(place: Place) -> None:
    # Whoever asks whether the folder is held holds it for a moment itself.
    os.mkdir(place.folder, 0o700)
    prober = place.start(f"""
import sys
from epsagon_fast.queue.folder import Folder
folder = Folder({place.folder!r})
print(flush=True)
while not folder.is_held(): pass
""")
    with prober:
        assert prober.stdout is not None
        prober.stdout.readline()
        with in_foreground(place) as collector:
            until(lambda: place.look().pid, "it serves")
            assert place.look().pid == collector.pid
            prober.communicate(timeout=TIMEOUT_S)


@pytest.mark.parametrize("words", [[], ["--runtime-dir"], ["--runtime-dir", "/tmp", "--no-such"]], ids=str)
def test_wrong_usage_is_2(words: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "epsagon_fast.collector", *words], capture_output=True, text=True, timeout=20
    )
    assert done.returncode == 2


@pytest.mark.root
@pytest.mark.parametrize("implementation", ["compiled", "reference"])
def test_no_other_process_of_the_user_sees_into_the_memory_of_a_collector(
    monkeypatch: pytest.MonkeyPatch, implementation: str
) -> None:
    monkeypatch.setattr(main_module, "implementation", lambda part: implementation)
    pid = os.fork()
    if pid == 0:
        os.setuid(NOBODY)
        # As it is after exec.
        ctypes.CDLL(None).prctl(main_module.PR_SET_DUMPABLE, 1, 0, 0, 0)
        before = os.stat("/proc/self/mem").st_uid
        main_module.close_memory()
        closed = os.stat("/proc/self/mem").st_uid == 0 and resource.getrlimit(resource.RLIMIT_CORE) == (0, 0)
        os._exit(0 if closed and before == NOBODY else 9)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@pytest.mark.parametrize("name", ["state", "file"])
def test_folder_that_cannot_be_served_is_exit_code_1(place: Place, name: str) -> None:
    if name == "state":
        os.mkdir(place.folder, 0o700)
        # It could not be set aside either.
        os.mkdir(os.path.join(place.folder, "state"))
        pathlib.Path(place.folder, "state.corrupt").touch()
    else:
        pathlib.Path(place.folder).write_text("")
    with in_foreground(place) as collector:
        collector.communicate(timeout=TIMEOUT_S)
    assert collector.returncode == 1


# How it leaves.


def test_collector_without_producers_lingers_and_leaves(place: Place) -> None:
    place.run("import epsagon_fast as e\nwith e.trace('main'): pass")
    place.until_left()
    assert place.look().pid is None
    # Nothing is left but what the next one needs.
    assert sorted(os.listdir(place.folder)) == ["arrived", "bell", "ledger", "log", "start", "state"]


def test_collector_that_lingers_serves_the_next_producer(backend: Backend, place: Place) -> None:
    place.linger()
    for name in ("first", "second"):
        place.run(f"import epsagon_fast as e\nwith e.trace({name!r}): pass")
    await_traces(backend, place, "first", "second")
    assert place.look().incarnation == 1


def test_collector_stays_as_long_as_a_producer_lives(place: Place, worker: Worker) -> None:
    place.env["EPSAGON_LINGER_SEC"] = "0"
    worker.do("trace first")
    pid = place.the_collector()
    # Several times its linger, told by its own heartbeat.
    first = state_of(place, states.HEARTBEAT_NS)
    until(lambda: state_of(place, states.HEARTBEAT_NS) > first + 600_000_000, "it beats for 0.6 s")
    assert place.collectors() == [pid]


def test_sigterm_without_producers_ends_it_at_once(place: Place) -> None:
    place.linger()
    place.run("import epsagon_fast as e\nwith e.trace('main'): pass\ne.flush(60)")
    killed(place, signal.SIGTERM)
    assert "leaving" in place.log()
    assert "Traceback" not in place.log()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signalled_collector_hands_over_to_a_successor(
    backend: Backend, place: Place, worker: Worker, number: signal.Signals
) -> None:
    worker.do("open main")
    worker.do("add before")
    pid = place.the_collector()
    os.kill(pid, number)
    place.until_ended(pid)
    worker.do("add after")
    worker.do("close")
    assert worker.do("flush 60") == "True"
    worker.leave()
    place.until_left()
    assert ids(await_traces(backend, place, "main")["main"]) == ["before", "after"]
    assert "Traceback" not in place.log()


def state_of(place: Place, slot: int) -> int:
    with open(os.path.join(place.folder, "state"), "rb") as page:
        page.seek(slot)
        return int.from_bytes(page.read(8), sys.byteorder)


def test_one_that_starts_after_such_an_end_does_not_linger(backend: Backend, place: Place) -> None:
    place.linger()
    place.run("import epsagon_fast as e\nwith e.trace('first'): pass\ne.flush(60)")
    killed(place, signal.SIGTERM)
    place.run("import epsagon_fast as e\nwith e.trace('second'): pass")
    place.until_left()
    await_traces(backend, place, "first", "second")


def test_second_signal_is_an_order_and_nothing_is_lost(backend: Backend, place: Place, worker: Worker) -> None:
    worker.do("open main")
    worker.do("add before")
    first = place.the_collector()
    os.kill(first, signal.SIGTERM)
    until(lambda: state_of(place, states.ASKED_AT), "it has heard")
    os.kill(first, signal.SIGTERM)
    place.until_ended(first)
    worker.do("add after")
    worker.do("close")
    assert worker.do("flush 60") == "True"
    assert place.collectors() != [first]
    assert ids(await_traces(backend, place, "main")["main"]) == ["before", "after"]
    assert "Traceback" not in place.log()


def test_leaving_with_a_sick_backend_keeps_the_traces_for_the_next_one(place: Place) -> None:
    with Server(servers.status(503)) as server:
        place.env["EPSAGON_COLLECTOR_URL"] = server.url
        place.run("import epsagon_fast as e\nfor n in range(5):\n with e.trace(f'{n}'): pass")
        server.wait_for(1)
        killed(place, signal.SIGTERM)
        assert "Traceback" not in place.log()
        server.behave = servers.status(200)
        place.run("import epsagon_fast as e\nwith e.trace('last'): pass")
        delivered = until(lambda: _names(server) == {*"01234", "last"}, lambda: f"all arrive; {place.log()}")
        assert delivered


def _names(server: Server) -> set[str]:
    bodies = [json.loads(request.body) for request in list(server.requests)]
    return {runner(body)["resource"]["name"] for body in bodies}


def test_order_to_leave_while_requests_hang_is_followed(place: Place) -> None:
    with Server(servers.hang) as server:
        place.env |= {"EPSAGON_COLLECTOR_URL": server.url, "EPSAGON_SEND_TIMEOUT_SEC": "30"}
        with working(place, EPSAGON_SHUTDOWN_TIMEOUT_SEC="0.1") as worker:
            for number in range(10):
                worker.do(f"trace {number}")
            server.wait_for(1)
            pid = place.the_collector()
            os.kill(pid, signal.SIGTERM)
            until(lambda: state_of(place, states.ASKED_AT), "it has heard")
            os.kill(pid, signal.SIGTERM)
            place.until_ended(pid)
            assert "Traceback" not in place.log()
        place.close()


def test_producers_that_come_while_it_leaves_are_served(backend: Backend, place: Place) -> None:
    # Without any linger a collector leaves whenever it can, so half of these meet one that is about to.
    place.env["EPSAGON_LINGER_SEC"] = "0"
    names = [f"trace{number}" for number in range(6)]
    place.run(
        """
import os, sys
import epsagon_fast as epsagon
for name in sys.argv[1:]:
    pid = os.fork()
    if pid == 0:
        with epsagon.trace(name):
            pass
        assert epsagon.flush(60)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
""",
        *names,
        timeout_s=40,
    )
    await_traces(backend, place, *names)


def test_trace_that_comes_as_a_collector_ends_waits_for_no_other_trace(
    backend: Backend, place: Place, worker: Worker
) -> None:
    with working(place) as earlier:
        earlier.do("trace earlier")
        earlier.do("flush 60")
    place.until_left()
    # Like an interpreter that takes its time to end: the last pass is over, and the lock is not yet free.
    with locked(place.folder):
        worker.do("trace late")
    await_traces(backend, place, "earlier", "late")


# What outlives it.


def test_open_trace_outlives_its_collector(backend: Backend, place: Place, worker: Worker) -> None:
    worker.do("open main")
    for number in range(2):
        worker.do(f"add {number}")
        until(lambda: place.look().rings[0].unread_bytes == 0 and place.look().pid, "the journal has it")
        # Each is counted when its mark is written.
        until(lambda number=number: place.look().counters.get("delivered", 0) == number, "what is settled is marked")
        killed(place)
        assert worker.do(f"stop other{number}") == "DELIVERED"  # whoever waits for a collector starts one
    worker.do("close")
    assert worker.do("flush 60") == "True"
    # The successor read other0 in its journal, and the mark that it is settled: it does not send it again.
    found = await_traces(backend, place, "main", "other0", "other1")
    assert ids(found["main"]) == ["0", "1"]
    assert place.look().incarnation == 3


def test_answers_are_counted_right_after_a_collectors_death(place: Place) -> None:
    with Server(servers.hang) as server:
        place.env["EPSAGON_COLLECTOR_URL"] = server.url
        with working(place) as worker:
            for number in range(3):
                worker.do(f"trace {number}")
            server.wait_for(1)
            until(lambda: place.look().rings[0].unread_bytes == 0, "the journal has them")
            killed(place)
            server.requests.clear()
            server.behave = servers.status(200)
            assert worker.do("flush 60") == "True"
            (ring,) = place.look().rings
            assert (ring.closed, ring.settled) == (3, 3)
            # Settled says that they were sent, not that they were found in the journal.
            bodies = [json.loads(request.body) for request in list(server.requests)]
            assert {runner(body)["resource"]["name"] for body in bodies} == set("012")
            assert worker.do("stop last") == "DELIVERED"
            (ring,) = place.look().rings
            assert (ring.closed, ring.settled) == (4, 4)


def test_collector_that_ends_because_somebody_cut_off_its_file_says_so(backend: Backend, place: Place) -> None:
    with working(place) as worker:
        assert worker.do("stop first") == "DELIVERED"
        os.truncate(os.path.join(place.folder, LEDGER), 0)
        assert worker.do("stop second") == "DELIVERED"
        assert place.look().incarnation == 2
    assert "Bus error" in place.log()
    await_traces(backend, place, "first", "second", once=False)


def test_worker_and_collector_killed_together_lose_nothing(backend: Backend, place: Place) -> None:
    with working(place) as worker:
        worker.do("trace closed")
        worker.do("open open")
        worker.do("add pushed")
        pid = place.the_collector()
        for victim in (pid, worker.process.pid):
            os.kill(victim, signal.SIGKILL)
        place.until_left()
    assert place.run("import epsagon_fast as e\nwith e.trace('next'): pass") == ""
    found = await_traces(backend, place, "closed", "open", "next", once=False)
    assert (ids(found["open"]), death(found["open"])) == (["pushed"], "ProcessDied")


def test_counters_go_on_from_collector_to_collector(place: Place) -> None:
    place.linger()
    for number in (1, 2, 3):
        place.run("import epsagon_fast as e\nwith e.trace('main'): pass\ne.flush(60)")
        until(lambda number=number: place.look().counters.get("delivered") == number, f"{number} delivered")
        until(lambda: place.look().pid, "it serves")
        killed(place)
    assert place.look().incarnation == 3


def test_ring_of_random_bytes_is_set_aside_and_harms_nobody(backend: Backend, place: Place, worker: Worker) -> None:
    assert worker.do("stop first") == "DELIVERED"
    for content in (b"", b"x", os.urandom(100_000), b"EPSFRING"[::-1] * 20_000):
        path = os.path.join(place.folder, os.urandom(16).hex() + ".ring")
        with open(path + ".new", "wb") as file:
            file.write(content)
        os.rename(path + ".new", path)
    os.symlink("/etc/passwd", os.path.join(place.folder, os.urandom(16).hex() + ".ring"))
    os.mkdir(os.path.join(place.folder, os.urandom(16).hex() + ".ring"))
    os.mkfifo(os.path.join(place.folder, os.urandom(16).hex() + ".ring"))
    pathlib.Path(place.folder, "no number.ring").write_text("x")
    assert worker.do("stop second") == "DELIVERED"
    until(lambda: len([n for n in os.listdir(place.folder) if n.endswith(".corrupt")]) >= 5, lambda: place.log())
    assert place.look().incarnation == 1
    assert backend.store.counts()["traces"] == 2


# The folder is deleted under everything.


def test_deleted_folder_is_left_for_a_new_one_and_nothing_is_missing(backend: Backend, place: Place) -> None:
    with working(place) as worker:
        worker.do("open over the deletion")
        worker.do("add before")
        first = place.the_collector()
        until(lambda: place.look().rings[0].unread_bytes == 0, "it is read")
        shutil.rmtree(place.folder)
        worker.do("add after")
        worker.do("close")
        # Its own collector has the ring mapped, and serves it to its end.
        until(lambda: backend.store.counts()["traces"] == 1, "it is delivered")
        # A process looks once a second.
        until(lambda: worker.do("stop next") == "DELIVERED" and os.path.isdir(place.folder), "it has moved")
        assert first not in [place.look().pid]
    found = arrived(backend)
    assert ids(found["over the deletion"]) == ["before", "after"]
    assert backend.store.counts()["duplicates"] == 0
    place.until_left()


def test_what_nobody_read_in_a_deleted_folder_is_copied(backend: Backend, place: Place) -> None:
    with working(place, EPSAGON_LAUNCH="0") as worker:
        worker.do("trace whole")
        worker.do("open open")
        worker.do("add before")
        shutil.rmtree(place.folder)
        with in_foreground(place):
            # Once a second a process looks whether its folder is there; it moves when a trace opens.
            until(lambda: worker.do("trace next") == "ok" and "next" in arrived(backend), "it moves")
            worker.do("add after")
            worker.do("close")
            until(lambda: {"whole", "open"} <= arrived(backend).keys(), lambda: f"{sorted(arrived(backend))}")
    assert ids(arrived(backend)["open"]) == ["before", "after"]
    assert death(arrived(backend)["open"]) is None


def test_child_forked_after_the_deletion_has_a_folder(backend: Backend, place: Place) -> None:
    place.run(f"""
import os, shutil
import epsagon_fast as epsagon
with epsagon.trace("parent"):
    pass
assert epsagon.flush(60)
shutil.rmtree({place.folder!r})
pid = os.fork()
if pid == 0:
    with epsagon.trace("child"):
        pass
    assert epsagon.flush(60)
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
""")
    await_traces(backend, place, "parent", "child")
