"""The collector's end of the queue: the rings of a folder, their processes, and what is no ring."""

import fcntl
import os
import queue
import signal
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from counting import opcodes
from rings import TWINS, Twin, child, in_child

from epsagon_fast.protocol import REFUSALS, Kind, Outcome, Record
from epsagon_fast.queue import layout, liveness, reader, ring
from epsagon_fast.queue.layout import LARGEST_COUNT
from epsagon_fast.queue.liveness import own_start_time, start_time
from epsagon_fast.queue.reader import Reader, Rings
from epsagon_fast.queue.settlements import Settlements

TRACE = bytes(range(16))


class Folder:
    """A folder of rings, filled by hand."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        self.made = 0

    def ring(self, twin: Twin = TWINS[0], pid: int = 0, started: int | None = None) -> "ring.Producer":
        """Make the ring of a process, by default of this one; return the end that fills it."""
        pid = pid or os.getpid()
        self.made += 1
        name = f"{self.made:032x}.ring"
        ticks = start_time(pid) or 0 if started is None else started
        fd = ring.create(self.fd, name, 65536, pid=pid, start_time=ticks, checksummed=twin.checksummed)
        try:
            return twin.producer(fd)  # type: ignore[no-any-return]
        finally:
            os.close(fd)

    def names(self) -> list[str]:
        return sorted(os.listdir(self.path))


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    made = Folder(tmp_path)
    yield made
    os.close(made.fd)


def push(producer: "ring.Producer", *payloads: bytes, kind: Kind = Kind.EVENT) -> None:
    for payload in payloads:
        assert producer.push(kind, 0, TRACE, payload) in (ring.PUSHED, ring.LOOK)


def read(found: Reader) -> list[bytes]:
    return [record.payload for record in found.read(1 << 30, found.head)]


def test_records_come_out_as_they_went_in(folder: Folder, twin: Twin) -> None:
    producer = folder.ring(twin)
    push(producer, b"one", b"")
    push(producer, bytes(12), kind=Kind.CLOSE)
    (found,) = Rings(folder.fd, 1).scan(0)
    assert found.read(1 << 30, found.head) == [
        Record(Kind.EVENT, 0, 0, TRACE, b"one"),
        Record(Kind.EVENT, 0, 0, TRACE, b""),
        Record(Kind.CLOSE, 0, 1, TRACE, bytes(12)),
    ]
    assert found.pid == os.getpid()


def test_room_is_given_back_only_by_release(folder: Folder, twin: Twin) -> None:
    producer = folder.ring(twin)
    push(producer, b"one")
    (found,) = Rings(folder.fd, 1).scan(0)
    read(found)
    assert producer.tail == 0
    # Another collector would read it again.
    assert read(Reader(folder.fd, found.name)) == [b"one"]
    found.release()
    assert producer.tail == producer.head
    assert read(Reader(folder.fd, found.name)) == []


def test_get_speaks_the_queues_usual_language(folder: Folder, twin: Twin) -> None:
    producer = folder.ring(twin)
    push(producer, b"one", b"two")
    (found,) = Rings(folder.fd, 1).scan(0)
    assert [found.get().payload, found.get(1.0).payload] == [b"one", b"two"]
    for timeout_s in (0.0, 0.01):
        with pytest.raises(queue.Empty):
            found.get(timeout_s)


def test_successor_starts_where_the_journal_ends(folder: Folder, twin: Twin) -> None:
    producer = folder.ring(twin)
    push(producer, b"one")
    end = producer.head
    push(producer, b"two")
    (found,) = Rings(folder.fd, 1).scan(0)
    found.start_at(end, 0)
    assert producer.tail == end
    assert read(found) == [b"two"]
    found.release()
    # A journal that ends before the tail is older than it.
    found.start_at(end, 0)
    assert read(found) == []


def test_closed_traces_count_as_settled_when_all_answers_are_there(folder: Folder, twin: Twin) -> None:
    producer = folder.ring(twin)
    push(producer, bytes(12), bytes(12), kind=Kind.CLOSE)
    (found,) = Rings(folder.fd, 1).scan(0)
    read(found)
    found.unsettled = 2
    found.release()
    assert producer.load(layout.SETTLED) == 0
    found.settle([TRACE], Outcome.DELIVERED)
    assert producer.load(layout.SETTLED) == 1
    found.settle([TRACE], Outcome.REJECTED.because("401"))
    assert producer.load(layout.SETTLED) == producer.load(layout.CLOSED_COUNT) == 2
    assert [str(outcome) for _, outcome in Settlements(producer).news()] == ["DELIVERED", "REJECTED (401)"]


def test_refusals_are_read_in_their_order(folder: Folder) -> None:
    producer = folder.ring()
    for number in range(len(REFUSALS)):
        producer.add(layout.REFUSED + 8 * number, number + 1)
    (found,) = Rings(folder.fd, 1).scan(0)
    assert found.refusals()[: len(REFUSALS)] == tuple(range(1, len(REFUSALS) + 1))


def test_new_rings_are_found_once_oldest_first(folder: Folder) -> None:
    producers = [folder.ring() for _ in range(5)]
    for number, producer in enumerate(producers):
        producer.store(layout.CREATED_NS, 100 - number)
    # Writing to a ring may change its file's time.
    os.utime(folder.path / f"{1:032x}.ring", ns=(0, 0))
    rings = Rings(folder.fd, 7)
    assert [found.created_ns for found in rings.scan(0)] == [96, 97, 98, 99, 100]
    assert rings.scan(0) == []
    assert len(rings) == 5
    assert {producer.load(layout.ADOPTED) for producer in producers} == {7}
    assert rings.by_id(bytes.fromhex(f"{1:032x}")) is not None
    assert rings.by_id(bytes(16)) is None


def test_removed_ring_is_gone_with_its_file(folder: Folder) -> None:
    folder.ring()
    rings = Rings(folder.fd, 1)
    (found,) = rings.scan(0)
    before = len(os.listdir("/proc/self/fd"))
    rings.remove(found)
    assert folder.names() == []
    assert len(rings) == 0
    assert len(os.listdir("/proc/self/fd")) == before - 1, "the pidfd is closed"


def test_unreadable_ring_is_set_aside_with_its_file(folder: Folder) -> None:
    folder.ring()
    rings = Rings(folder.fd, 1)
    (found,) = rings.scan(0)
    rings.quarantine(found, "a reason")
    assert folder.names() == [found.name + ".corrupt"]
    assert (len(rings), rings.set_aside) == (0, 1)
    assert rings.scan(0) == []


def test_folder_is_listed_only_when_a_ring_may_have_come(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    listings: list[int] = []
    monkeypatch.setattr(reader.os, "listdir", lambda fd, ask=os.listdir: listings.append(fd) or ask(fd))
    rings = Rings(folder.fd, 1)

    def found(at_s: float) -> tuple[int, int]:
        """How many rings a look finds, and how often it lists the folder."""
        listings.clear()
        return len(rings.scan(at_s)), len(listings)

    folder.ring()
    os.utime(folder.path, ns=(0, 10**9))
    assert found(2.0) == (1, 1)
    # The folder's time may be the one before the listing.
    assert found(2.1) == (0, 1)
    assert found(10.0) == (0, 1)
    assert found(10.1) == (0, 0)
    folder.ring()
    assert found(10.2) == (1, 1)
    os.utime(folder.path, ns=(0, 10**9))
    assert found(10.3) == (0, 1)
    assert found(10.4) == (0, 0)
    # What a file system did not tell.
    assert found(10.4 + reader.LISTING_S) == (0, 1)
    # The clock was set back.
    assert found(5.0) == (0, 1)
    (folder.path / f"{9:032x}.ring").touch()
    os.utime(folder.path, ns=(0, 10**9))
    assert found(20.0) == (0, 1)
    assert found(20.1) == (0, 1), "it is looked at again until it is finished"


# Processes.


def test_death_of_a_process_is_noticed_and_wakes_up(folder: Folder) -> None:
    rings = Rings(folder.fd, 1)
    with child(signal.pause) as pid:
        folder.ring(pid=pid)
        folder.ring()
        rings.scan(0)
        assert rings.ended() == []
        os.kill(pid, signal.SIGKILL)
        # Ends by the death; its timeout would fail the test.
        rings.wait(100)
        # A zombie has ended, too.
        assert [found.pid for found in rings.ended()] == [pid]


def test_process_that_ended_before_its_ring_was_found_has_ended(folder: Folder) -> None:
    pid = in_child(lambda: 0)
    folder.ring(pid=pid, started=start_time(pid) or 1)
    os.waitpid(pid, 0)
    rings = Rings(folder.fd, 1)
    rings.scan(0)
    assert len(rings.ended()) == 1


def test_pid_that_came_back_is_another_process(folder: Folder) -> None:
    folder.ring(started=own_start_time() - 1)
    rings = Rings(folder.fd, 1)
    rings.scan(0)
    assert len(rings.ended()) == 1


@pytest.mark.parametrize("begun", ["in one look", "one after the other"])
def test_newer_ring_of_a_process_supersedes_one_that_it_let_go_of(
    folder: Folder, begun: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As after an exec. Here this very process has it mapped, as the reader.
    monkeypatch.setattr(reader, "maps", lambda pid, name: False)
    rings = Rings(folder.fd, 1)
    first = folder.ring()
    if begun == "one after the other":
        rings.scan(0)
    second = folder.ring()
    # An older clock's file time says nothing.
    os.utime(folder.path / f"{2:032x}.ring", ns=(0, 0))
    rings.scan(0)
    assert first.load(layout.CREATED_NS) < second.load(layout.CREATED_NS)
    assert [found.name for found in rings.ended()] == [f"{1:032x}.ring"]


def test_look_at_many_new_rings_takes_a_step_for_each(folder: Folder) -> None:
    # When a server is reloaded, all its workers begin at once.
    def steps(count: int) -> int:
        rings, made = Rings(folder.fd, 1), [folder.ring(started=number) for number in range(count)]
        taken = opcodes(lambda: rings.scan(0))
        assert len(rings) == len(made)
        for found in rings:
            rings.remove(found)
        return taken

    few, many = steps(10), steps(60)
    assert many < 7 * few


@pytest.mark.parametrize("is_mapped", [True, None], ids=["mapped", "unknown"])
def test_older_ring_lives_while_its_process_may_have_it_mapped(
    folder: Folder, is_mapped: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Two copies of the package in one process, or sub-interpreters.
    if is_mapped is None:
        monkeypatch.setattr(reader, "maps", lambda pid, name: None)
    rings = Rings(folder.fd, 1)
    first = folder.ring()
    rings.scan(0)
    folder.ring()
    rings.scan(0)
    assert rings.ended() == []
    # One that said BYE takes nothing more.
    first.put_bye()
    folder.ring()
    rings.scan(0)
    assert [found.name for found in rings.ended()] == [f"{1:032x}.ring"]


def test_where_there_is_no_pidfd_the_process_is_looked_for(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(reader.os, "pidfd_open")
    rings = Rings(folder.fd, 1)
    with child(signal.pause) as pid:
        mapped = [folder.ring(pid=pid), folder.ring(pid=pid, started=0), folder.ring()]
        assert [found.pidfd for found in rings.scan(0)] == [None] * len(mapped)
        assert rings.ended() == []
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        assert [found.pid for found in rings.ended()] == [pid, pid]


@pytest.fixture
def hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where /proc shows no process of another: hidepid, ProtectProc=invisible, a worker that is not dumpable."""
    monkeypatch.setattr(liveness, "start_time", lambda pid: None if liveness._is_taken(pid) else 0)


@pytest.mark.usefixtures("hidden")
@pytest.mark.parametrize("has_pidfd", [True, False])
def test_process_that_cannot_be_looked_at_lives_until_it_ends(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, has_pidfd: bool
) -> None:
    if not has_pidfd:
        monkeypatch.delattr(reader.os, "pidfd_open")
    rings = Rings(folder.fd, 1)
    with child(signal.pause) as pid:
        # This process has it mapped in the child's place.
        mapped = folder.ring(pid=pid, started=12345)
        (found,) = rings.scan(0)
        assert (found.pidfd is not None) is has_pidfd
        assert rings.ended() == []
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        assert rings.ended() == [found]
        mapped.close()


@pytest.mark.usefixtures("hidden")
def test_ring_that_no_process_has_mapped_is_a_dead_ones_whatever_has_its_pid(folder: Folder) -> None:
    folder.ring(started=12345).close()
    rings = Rings(folder.fd, 1)
    rings.scan(0)
    assert len(rings.ended()) == 1


def test_look_at_a_file_does_not_end_the_process_that_looks(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel signals it if another process opens the file meanwhile, by default with one that is deadly."""
    folder.ring().close()
    path = folder.path / f"{1:032x}.ring"
    ask = fcntl.fcntl

    def meanwhile(fd: int, what: int, how: int) -> int:
        if how == fcntl.F_UNLCK:
            with pytest.raises(BlockingIOError):
                os.open(path, os.O_RDWR | os.O_NONBLOCK)
            assert Rings(folder.fd, 1).scan(0) == [] and path.exists(), "it is left alone for this moment"
        return ask(fd, what, how)

    fd = os.open(path, os.O_RDWR)
    monkeypatch.setattr(liveness.fcntl, "fcntl", meanwhile)
    assert liveness.is_unused(fd)
    os.close(fd)


# What is no ring.


def damaged(folder: Folder, offset: int, value: int) -> None:
    folder.ring()
    with open(folder.path / f"{folder.made:032x}.ring", "r+b") as file:
        file.seek(offset)
        file.write(struct.pack("=Q", value))


@pytest.mark.parametrize(
    ("offset", "value"),
    [(layout.MAGIC, 1), (layout.VERSION, 99), (layout.CAPACITY, 1 << 40), (layout.CAPACITY, 65528)],
    ids=["magic", "version", "huge", "size"],
)
def test_ring_with_a_wrong_header_is_set_aside_and_others_go_on(folder: Folder, offset: int, value: int) -> None:
    damaged(folder, offset, value)
    push(folder.ring(), b"well")
    rings = Rings(folder.fd, 1)
    (found,) = rings.scan(0)
    assert read(found) == [b"well"]
    assert rings.set_aside == 1
    assert len([name for name in folder.names() if name.endswith(".corrupt")]) == 1


def test_damaged_record_is_no_record(folder: Folder) -> None:
    push(folder.ring(), b"one")
    with open(folder.path / f"{1:032x}.ring", "r+b") as file:
        file.seek(layout.HEADER_BYTES)
        file.write(b"\xff" * 4)
    (found,) = Rings(folder.fd, 1).scan(0)
    with pytest.raises(layout.CorruptRing):
        read(found)


def test_ring_that_is_being_made_is_waited_for_and_then_set_aside(folder: Folder) -> None:
    name = "0" * 32 + ".ring"
    (folder.path / name).touch(0o600)
    (folder.path / name).write_bytes(bytes(100))
    rings = Rings(folder.fd, 1)
    assert rings.scan(1000.0) == []
    assert rings.scan(1000.0 + reader.UNFINISHED_S) == []
    assert folder.names() == [name]
    rings.scan(1001.0 + reader.UNFINISHED_S)
    assert folder.names() == [name + ".corrupt"]


def test_ring_is_served_when_it_is_made(folder: Folder) -> None:
    folder.ring()
    (path,) = folder.path.iterdir()
    whole = path.read_bytes()
    path.write_bytes(bytes(len(whole)))
    rings = Rings(folder.fd, 1)
    assert rings.scan(0) == []
    path.write_bytes(whole)
    assert len(rings.scan(1)) == 1


def strange(path: Path, kind: str) -> None:
    if kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to("/etc/passwd" if kind == "link" else "nowhere")


@pytest.mark.parametrize("kind", ["directory", "fifo", "link", "dangling"])
def test_strange_file_with_a_rings_name_harms_nobody(folder: Folder, kind: str) -> None:
    strange(folder.path / ("a" * 32 + ".ring"), kind)
    folder.ring()
    rings = Rings(folder.fd, 1)
    for now in (0.0, 100.0, 200.0):
        rings.scan(now)
    assert len(rings) == 1
    assert "a" * 32 + ".ring.corrupt" in folder.names()


@pytest.mark.parametrize(
    "name", ["no number.ring", "ab.ring", ".ring", "é.ring", "A" * 32 + ".ring", "a" * 34 + ".ring"]
)
def test_ring_of_a_name_that_no_process_gives_is_not_ours_to_touch(folder: Folder, name: str) -> None:
    folder.ring()
    (path,) = folder.path.iterdir()
    path.rename(folder.path / name)
    rings = Rings(folder.fd, 1)
    assert rings.scan(0) == []
    assert folder.names() == [name]


def test_ring_of_another_user_is_not_read(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.ring()
    real = os.geteuid()
    monkeypatch.setattr(reader.os, "geteuid", lambda: real + 1)
    rings = Rings(folder.fd, 1)
    assert rings.scan(0) == []
    assert rings.set_aside == 1


SLOTS = {
    name: getattr(layout, name)
    for name in (
        *("MAGIC", "VERSION", "CAPACITY", "PID", "START_TIME", "CHECKSUMMED", "CREATED_NS", "HEAD", "CLOSED_COUNT"),
        *("QUEUE_FULL", "LEFT", "TAIL", "CLOSES_READ", "SETTLED", "SETTLEMENTS", "ADOPTED", "TOLD"),
    )
}


@pytest.mark.parametrize("value", [0, 1, 2**31, 2**63, 2**64 - 1])
@pytest.mark.parametrize("slot", SLOTS)
def test_whatever_a_header_says_only_that_ring_is_set_aside(folder: Folder, slot: str, value: int) -> None:
    producer = folder.ring()
    push(producer, b"one")
    push(producer, bytes(12), kind=Kind.CLOSE)
    early, late = Rings(folder.fd, 1), Rings(folder.fd, 1)
    early.scan(0)
    producer.store(SLOTS[slot], value)
    late.scan(0)
    for rings in (early, late):
        rings.scan(0)
        rings.ended()
        for found in rings:
            with suppress(layout.CorruptRing):
                found.read(1 << 20, found.head)
            found.unsettled += 1
            found.settle([TRACE], Outcome.DELIVERED)
            found.release()
            assert all(0 <= count <= LARGEST_COUNT for count in (*found.refusals(), *found.take_refusals().values()))
            assert isinstance(found.unread_closes, int) and isinstance(found.ended(), bool)
            rings.quarantine(found, "done")
