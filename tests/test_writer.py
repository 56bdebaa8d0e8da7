"""The producer's end of the queue: one ring for each process and folder, whatever becomes of either."""

import errno
import fcntl
import logging
import os
import queue
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from dying import Dying
from places import BASE, Place
from rings import in_child

from epsagon_fast import private
from epsagon_fast.producer.process import process
from epsagon_fast.protocol import NO_TRACE, REFUSALS, Kind, Outcome
from epsagon_fast.queue import folder as folders
from epsagon_fast.queue import layout, liveness, ring, settlements, writer, writers
from epsagon_fast.queue import state as states
from epsagon_fast.queue.bell import LOOK, WAITS, Bell
from epsagon_fast.queue.state import StatePage
from epsagon_fast.queue.writer import Writer

TRACE = bytes(range(16))


@pytest.fixture
def base(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A runtime directory in shared memory for a process that has no writer yet and starts no collector."""
    path = Path(BASE or tmp_path_factory.mktemp("base")) / f"epsagon-test-writer-{os.getpid()}"
    path.mkdir(0o700)
    monkeypatch.setenv("EPSAGON_LAUNCH", "0")
    monkeypatch.setattr(writer, "LOOK_S", 0.0)
    process.reset()
    yield path
    process.reset()
    shutil.rmtree(path)


def current(base: Path, ring_bytes: int = 65536) -> Writer:
    return process.writers.current(SimpleNamespace(runtime_dir=str(base), ring_bytes=ring_bytes))


def rings(base: Path) -> list[Path]:
    return sorted(base.glob("*/*.ring"))


def read(path: Path) -> list[tuple[Kind, bytes, bytes]]:
    """The kind, trace and payload of every record in a ring's file."""
    fd = os.open(path, os.O_RDWR)
    try:
        return [(Kind(kind), trace, data) for kind, _, _, trace, data in ring.Consumer(fd).read(1 << 30)]
    finally:
        os.close(fd)


def test_process_has_one_ring(base: Path) -> None:
    first = current(base)
    assert current(base) is first is process.writers.at(first.path)
    assert process.writers.known() == [first]
    (path,) = rings(base)
    assert path.parent == Path(first.path)
    assert first.put(Kind.EVENT, 0, TRACE, b"{}")
    assert read(path) == [(Kind.EVENT, TRACE, b"{}")]


def test_process_keeps_no_descriptor(base: Path) -> None:
    before = os.listdir("/proc/self/fd")
    current(base).look()
    assert os.listdir("/proc/self/fd") == before


def test_refused_records_are_counted_by_reason(base: Path) -> None:
    mine = current(base)
    assert not mine.put(Kind.EVENT, 0, TRACE, bytes(mine.record_limit_bytes + 1))
    assert mine.put(Kind.EVENT, 0, TRACE, bytes(mine.record_limit_bytes))
    while mine.put(Kind.EVENT, 0, TRACE, bytes(1000)):
        pass
    mine.refuse("misuse", 3)
    assert mine.refusals() == {"queue_full": 1, "too_large": 1, "misuse": 3}


@pytest.mark.parametrize("reason", REFUSALS)
def test_every_reason_has_a_place_of_its_own(base: Path, reason: str) -> None:
    mine = current(base)
    mine.refuse(reason)
    assert mine.refusals() == {reason: 1}


def test_queues_usual_language_is_spoken(base: Path) -> None:
    mine = current(base)
    with pytest.raises(queue.Full):
        while True:
            mine.put_nowait(bytes(1000))
    assert {trace for _, trace, _ in read(rings(base)[0])} == {NO_TRACE}


def test_process_that_leaves_says_so_once(base: Path) -> None:
    mine = current(base)
    mine.bye()
    mine.bye()
    assert not mine.put(Kind.EVENT, 0, TRACE, b"{}")
    assert [kind for kind, _, _ in read(rings(base)[0])] == [Kind.BYE]
    assert mine.refusals() == {"closed": 1}


def test_child_gets_a_ring_of_its_own_and_leaves_its_parents_alone(base: Path) -> None:
    mine = current(base)
    assert mine.put(Kind.EVENT, 0, TRACE, b"before")

    def child() -> None:
        assert mine.foreign and mine.stale()
        assert process.writers.known() == []
        assert mine.put(Kind.EVENT, 0, TRACE, b"by way of the old writer")
        mine.refuse("malformed")
        own = current(base)
        assert own is not mine and own is process.writers.at(mine.path)
        assert own.put(Kind.EVENT, 0, TRACE, b"own")
        assert own.refusals() == {"malformed": 1}

    assert os.waitpid(in_child(child), 0)[1] == 0
    assert mine.put(Kind.EVENT, 0, TRACE, b"after")
    assert sorted([data for _, _, data in read(path)] for path in rings(base)) == [
        [b"before", b"after"],
        [b"by way of the old writer", b"own"],
    ]
    assert mine.refusals() == {}


def test_folder_that_is_not_there_takes_nothing_and_says_so_once(base: Path, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(3):
        there = process.writers.at(str(base / "nowhere"))
        assert not there.put(Kind.EVENT, 0, TRACE, b"{}")
    assert there.refusals() == {"no_folder": 3}
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "another process's trace is lost" in caplog.text
    assert not (base / "nowhere").exists()


def test_count_of_refusals_moves_to_the_ring_that_is_made_later(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writers, "_new_ring", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
    lacking = current(base)
    assert lacking.lacking == "no_space"
    assert not lacking.put(Kind.OPEN, 0, TRACE, b"{}")
    monkeypatch.undo()
    monkeypatch.setenv("EPSAGON_LAUNCH", "0")
    monkeypatch.setattr(writer, "LOOK_S", 0.0)
    assert current(base).refusals() == {"no_space": 1}


def test_without_a_ring_nobody_waits_for_a_collector(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (base / "file").touch()
    lacking = process.writers.at(str(base / "file"))
    assert lacking.drained() and lacking.collector_lives()
    assert (lacking.closed, lacking.settled, lacking.recent_settlements()) == (0, 0, [])


def test_deleted_folder_is_left_and_what_nobody_read_is_moved(base: Path) -> None:
    old = current(base)
    old.put(Kind.OPEN, 0, TRACE, b"open")
    old.put(Kind.EVENT, 0, TRACE, b"unread")
    old.refuse("malformed")
    shutil.rmtree(old.path)
    new = current(base)
    assert new is not old
    # A trace that is open keeps its writer.
    assert old.put(Kind.EVENT, 0, TRACE, b"later")
    assert old.put(Kind.CLOSE, 0, TRACE, bytes(12))
    (path,) = rings(base)
    assert [data for _, _, data in read(path)] == [b"open", b"unread", b"later", bytes(12)]
    assert (old.closed, new.closed) == (1, 1)
    assert old.refusals() == new.refusals() == {"malformed": 1}
    assert process.writers.known() == [new]


def test_answer_to_a_trace_that_moved_is_found_by_its_old_writer(base: Path) -> None:
    old = current(base)
    shutil.rmtree(old.path)
    current(base)
    (path,) = rings(base)
    fd = os.open(path, os.O_RDWR)
    try:
        settlements.publish(ring.Consumer(fd), [TRACE], Outcome.DELIVERED)
    finally:
        os.close(fd)
    assert old.recent_settlements() == [(TRACE, Outcome.DELIVERED)]
    assert old.settlement(TRACE) == Outcome.DELIVERED


def serving(old: Writer, phase: int = states.SERVING) -> StatePage:
    """The page of a collector that lives: this process."""
    fd = os.open(old.path, os.O_RDONLY)
    try:
        page = StatePage(fd, create=True)
    finally:
        os.close(fd)
    page.store(states.PID, os.getpid())
    page.store(states.START_TIME, liveness.own_start_time())
    page.store(states.PHASE, phase)
    return page


def adopted(base: Path) -> ring.Consumer:
    """The only ring, mapped by a collector that lives: this process."""
    fd = os.open(rings(base)[0], os.O_RDWR)
    consumer = ring.Consumer(fd)
    os.close(fd)
    consumer.store(layout.READER_PID, os.getpid())
    consumer.store(layout.READER_START_TIME, liveness.own_start_time())
    return consumer


def test_ring_that_a_living_collector_reads_is_left_to_it(base: Path) -> None:
    old = current(base)
    serving(old)
    old.put(Kind.EVENT, 0, TRACE, b"read where it is")
    consumer = adopted(base)
    assert old.collector_lives()
    shutil.rmtree(old.path)
    current(base)
    assert old.put(Kind.EVENT, 0, TRACE, b"this too")
    (path,) = rings(base)
    assert read(path) == []
    assert [data for _, _, _, _, data in consumer.read(1 << 30)] == [b"read where it is", b"this too"]
    assert old.collector_lives()


def test_ring_is_left_to_its_reader_in_a_folder_that_was_deleted_before_the_first_look(base: Path) -> None:
    old = current(base)
    consumer = adopted(base)
    old.put(Kind.EVENT, 0, TRACE, b"read where it is")
    shutil.rmtree(old.path)
    new = current(base)
    assert new is not old
    assert read(rings(base)[0]) == []
    assert [data for _, _, _, _, data in consumer.read(1 << 30)] == [b"read where it is"]


def test_collector_that_says_that_the_folder_is_gone_is_believed(base: Path) -> None:
    old = current(base)
    page = serving(old)
    assert not old.folder_is_gone()
    page.store(states.GONE, 1)
    assert old.folder_is_gone() and old.stale()


def theirs(path: str) -> int:
    """Make a directory for whichever user we pretend to be."""
    os.makedirs(path, exist_ok=True)
    return os.stat(path).st_ino


def test_another_user_gets_another_ring_and_nothing_is_moved(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = current(base)
    old.put(Kind.EVENT, 0, TRACE, b"of the old user")
    (other,) = rings(base)
    real = os.geteuid()
    monkeypatch.setattr(writer.os, "geteuid", lambda: real + 1)
    monkeypatch.setattr(writers, "_existing", lambda path: folders.Folder(path))
    monkeypatch.setattr(private, "judge", lambda *found: None)
    new = current(base / "other")
    assert new is not old
    # Its collector will read it there: moved, it would come twice.
    assert read(other) == [(Kind.EVENT, TRACE, b"of the old user")]
    assert old.put(Kind.EVENT, 0, TRACE, b"of an open trace")


def test_process_looks_at_the_world_once_a_second(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "LOOK_S", 3600.0)
    mine = current(base)
    shutil.rmtree(mine.path)
    assert not mine.stale()
    assert current(base) is mine


def test_process_that_fills_its_ring_notices_a_deleted_folder_within_a_second(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(writer, "monotonic", lambda: clock.now)
    monkeypatch.setattr(writer, "LOOK_S", 1.0)
    mine = current(base)
    clock.now += writer.LOOK_S
    assert not mine.stale()
    shutil.rmtree(mine.path)
    # A trace of a second, with so many events that the ring is full all the time.
    for _ in range(11):
        clock.now += writer.LOOK_S / 10
        while mine.put(Kind.EVENT, 0, TRACE, bytes(1000)):
            pass
    assert mine.stale()


def test_process_that_fills_its_ring_looks_for_the_collector_before_it_is_full(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = current(base, 4 * 65536)
    calls = started(mine, monkeypatch)
    clock = SimpleNamespace(now=mine._next_collector_look - 0.9)
    monkeypatch.setattr(writer, "monotonic", lambda: clock.now)
    while not calls:
        assert mine.put(Kind.EVENT, 0, TRACE, bytes(1000))
    assert mine.refusals() == {}
    assert mine._ring.head <= 65536 + 1040
    while mine.put(Kind.EVENT, 0, TRACE, bytes(1000)):
        pass
    assert len(calls) == 1, "no more than twenty times a second, however fast it is filled"
    clock.now += writer.BUSY_LOOK_S
    assert not mine.put(Kind.EVENT, 0, TRACE, bytes(1000))
    assert len(calls) == 2


def test_collector_lives_while_the_folder_is_locked(base: Path) -> None:
    mine = current(base)
    assert not mine.collector_lives()
    holder = os.open(mine.path, os.O_RDONLY)
    fcntl.flock(holder, fcntl.LOCK_EX)
    assert mine.collector_lives()
    os.close(holder)


def started(mine: Writer, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Note how the writer would have a collector started."""
    calls: list[tuple[str, int]] = []
    launcher = SimpleNamespace(
        ensure=lambda beat, looks_again: calls.append((f"ensure {looks_again}", beat.incarnation)),
    )
    monkeypatch.setattr(mine, "_launcher", launcher)
    return calls


def test_process_that_waits_does_not_rely_on_a_later_look(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = current(base)
    calls = started(mine, monkeypatch)
    mine.ensure_collector()
    serving(mine).store(states.INCARNATION, 4)
    mine.ensure_collector()
    mine.look()
    assert calls == [("ensure False", 0), ("ensure False", 4), ("ensure True", 4)]


def test_killed_collector_does_not_live_although_it_still_holds_the_folder(base: Path) -> None:
    mine = current(base)
    holder = os.open(mine.path, os.O_RDONLY)
    fcntl.flock(holder, fcntl.LOCK_EX)
    page = serving(mine)
    with Dying() as dying:
        page.store(states.PID, dying.pid)
        page.store(states.START_TIME, dying.start_time)
        page.store(states.INCARNATION, 1)
        assert mine.collector_lives()
        dying.kill()
        assert not mine.collector_lives()
    os.close(holder)


def test_bell_is_rung_once_for_each_sleep(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = current(base)
    page = serving(mine)
    folder_fd = os.open(mine.path, os.O_RDONLY)
    bell = Bell(folder_fd)
    for _ in range(2):
        page.store(states.NEXT_PASS_NS, time.monotonic_ns() + 10**12)
        for _ in range(200):
            mine.put(Kind.EVENT, 0, TRACE, bytes(1000))
        assert mine.overflowed
        assert bell.heard() == LOOK
        # That a process waits is news in the same sleep.
        mine.ensure_collector()
        mine.ensure_collector()
        assert bell.heard() == WAITS
    page.store(states.NEXT_PASS_NS, 0)
    mine.ensure_collector()
    assert bell.heard() == b""
    bell.close()
    os.close(folder_fd)


def test_refused_record_opens_nothing_where_no_collector_has_come(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = current(base)
    monkeypatch.setattr(writer, "LOOK_S", 3600.0)
    mine.look()
    opened: list[str] = []
    monkeypatch.setattr(private, "open_directory", lambda path, **_: opened.append(path))
    mine._next_busy_look = mine._next_collector_look
    for _ in range(200):
        mine.put(Kind.EVENT, 0, TRACE, bytes(1000))
    assert mine.overflowed
    assert opened == []


def test_bell_that_could_not_be_rung_is_rung_later(base: Path) -> None:
    mine = current(base)
    serving(mine).store(states.NEXT_PASS_NS, time.monotonic_ns() + 10**12)
    mine.ensure_collector()
    folder_fd = os.open(mine.path, os.O_RDONLY)
    bell = Bell(folder_fd)
    mine.ensure_collector()
    assert bell.heard() == WAITS
    bell.close()
    os.close(folder_fd)


def test_no_collector_is_started_for_a_deleted_folder(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = current(base)
    calls = started(mine, monkeypatch)
    shutil.rmtree(mine.path)
    mine.ensure_collector()
    assert calls == []


def test_full_ring_and_every_64_kib_are_reasons_to_look(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = current(base, 1 << 20)
    calls = started(mine, monkeypatch)
    for _ in range(130):
        mine.put(Kind.EVENT, 0, TRACE, bytes(1000))
    assert len(calls) == 2
    calls.clear()
    while mine.put(Kind.EVENT, 0, TRACE, bytes(100_000)):
        pass
    assert calls


def test_collector_that_does_not_move_is_reported(
    base: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    mine = current(base)
    started(mine, monkeypatch)
    page = serving(mine)
    page.store(states.HEARTBEAT_NS, 1)
    holder = os.open(mine.path, os.O_RDONLY)
    fcntl.flock(holder, fcntl.LOCK_EX)
    try:
        for now in (100.0, 100.0 + writer.STALLED_S, 101.0 + writer.STALLED_S, 102.0 + writer.STALLED_S):
            mine._watch_heartbeat(now)
        assert len(caplog.records) == 1 and "has not moved" in caplog.text
        page.store(states.HEARTBEAT_NS, 2)
        mine._watch_heartbeat(500.0)
        assert len(caplog.records) == 1
    finally:
        os.close(holder)


RACE = """
import os, sys, threading
import epsagon_fast as epsagon
from epsagon_fast.producer.process import process

# As often as can be, so that a step that another thread may come into is found.
sys.setswitchinterval(1e-6)
config = epsagon.Config().resolve()
for _ in range(50):
    pid = os.fork()
    if pid == 0:
        barrier, found = threading.Barrier(6), []
        def look():
            barrier.wait()
            found.append(process.writers.current(config))
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
