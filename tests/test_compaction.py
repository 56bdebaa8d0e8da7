"""Copying forward in the journal: nothing changes but the journal's size."""

import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from records import added, closed, event, exception_fields, label, opened, own_runner, record
from strategies import trace_records

from epsagon_fast.collector.assembling import body
from epsagon_fast.collector.assembling.assembly import Assembly
from epsagon_fast.collector.assembling.open_trace import OpenTrace
from epsagon_fast.collector.journal import journal, snapshot
from epsagon_fast.collector.journal.compaction import Compaction
from epsagon_fast.collector.journal.journal import Batch, Journal, Settled, Snapshot
from epsagon_fast.collector.parcel import Destination, Parcel
from epsagon_fast.collector.sending.dispatch import Dispatch
from epsagon_fast.protocol import Kind, Record

from test_dispatch import Senders, Shelf  # isort: skip

SEGMENT_BYTES = 4096
OPENER = b"ring of 16 bytes"


def numbered(number: int) -> bytes:
    # No trace has the id of zeros.
    return (number + 1).to_bytes(16, "big")


class Collector:
    """What the loop does with journal, assembly and snapshots; a new one is a successor."""

    def __init__(self, dir_fd: int) -> None:
        self.journal = Journal(dir_fd, segment_bytes=SEGMENT_BYTES)
        self.assembly = Assembly()
        self.sending = Dispatch(Senders(), Shelf())
        self.compaction = Compaction(self.journal, self.assembly, self.sending)
        self.position = 0
        for item in self.journal.replay():
            if isinstance(item, Batch):
                self.feed(item.records)
            elif isinstance(item, Snapshot):
                self.restore(item)

    def restore(self, item: Snapshot) -> None:
        found = snapshot.restored(item.ring_id, item.records, self.assembly.counters)
        if isinstance(found, OpenTrace):
            self.assembly.restore(found)
        else:
            self.assembly.restore_finished(found.parcel.trace_id, item.ring_id, found.ordinal, 0)
            self.sending.add(found.parcel)

    def feed(self, records: list[Record]) -> None:
        for each in records:
            self.assembly.feed(OPENER, self.assembly.masked(each), 0.0)

    def take(self, *records: Record) -> None:
        """One pass: journal, feed, copy forward."""
        self.position += 64
        self.journal.append(OPENER, self.position, [self.assembly.masked(each) for each in records])
        self.journal.commit()
        self.feed(list(records))
        self.compaction.step()
        self.journal.commit()

    def finish(self) -> list[OpenTrace]:
        return [*self.assembly.end_pass(0.0), *self.assembly.end_pass(0.0)]

    def settle(self, trace_id: bytes) -> None:
        self.journal.settled(trace_id)
        self.assembly.forget(trace_id)

    def copy_all(self) -> None:
        self.journal.incomplete = True
        self.compaction.step()
        self.journal.commit()


@pytest.fixture
def dir_fd(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_RDONLY)
    yield fd
    os.close(fd)


def of_trace(number: int, each: Record) -> Record:
    return each._replace(trace_id=numbered(number))


def short_trace(number: int) -> list[Record]:
    records = [opened(own_runner()), added(event(number, weak="x" * 300)), closed()]
    return [of_trace(number, each) for each in records]


@settings(max_examples=200)
@given(trace_records(), st.frozensets(st.integers(0, 40), max_size=4))
def test_a_snapshot_at_any_time_changes_no_byte(records: list[Record], after: frozenset[int]) -> None:
    plain, copied = Assembly(), Assembly()
    for number, each in enumerate([*records, closed()]):
        plain.feed(OPENER, plain.masked(each), 0.0)
        copied.feed(OPENER, copied.masked(each), 0.0)
        for trace_id in copied.ids() if number in after else ():
            trace = copied.unclosed(trace_id)
            if trace is not None:
                successor = Assembly()
                restored = snapshot.restored(OPENER, snapshot.of_trace(trace), successor.counters)
                assert isinstance(restored, OpenTrace)
                successor.restore(restored)
                assert successor.held_bytes == copied.held_bytes
                copied = successor
    assert [built(plain)] == [built(copied)]


def built(assembly: Assembly) -> body.Body:
    (ready,) = [*assembly.end_pass(0.0), *assembly.end_pass(0.0)]
    return body.build(ready)


def test_ignored_keys_are_masked_after_a_snapshot_too(dir_fd: int) -> None:
    collector = Collector(dir_fd)
    collector.take(opened(own_runner(), ignored_keys=["pin"]))
    collector.copy_all()
    successor = Collector(dir_fd)
    successor.take(added(event(pin="1234")), closed())
    (ready,) = successor.finish()
    assert b'"pin":"****"' in (body.build(ready).data or b"")


def test_labels_of_any_size_and_form_are_kept(dir_fd: int) -> None:
    collector = Collector(dir_fd)
    collector.take(opened(own_runner()), label("big", 1), label("text", "é\ud800".encode("utf-8", "replace").decode()))
    huge = Record(Kind.LABEL, 0, 0, bytes(range(16)), b'["huge",%d]' % 10**40)
    collector.take(huge)
    collector.copy_all()
    successor = Collector(dir_fd)
    (trace,) = (successor.assembly.unclosed(trace_id) for trace_id in successor.assembly.ids())
    assert trace is not None and trace.labels["huge"] == 10**40


def test_a_trace_that_stays_open_does_not_hold_the_journal(dir_fd: int) -> None:
    collector = Collector(dir_fd)
    collector.take(of_trace(0, opened(own_runner())), of_trace(0, added(event("first"))))
    for number in range(1, 500):
        collector.take(*short_trace(number))
        for ready in collector.finish():
            collector.settle(ready.trace_id)
        assert collector.journal.size_bytes <= 8 * SEGMENT_BYTES
    collector.take(of_trace(0, added(event("last"))), of_trace(0, closed()))
    (ready,) = Collector(dir_fd).finish()
    assert ready.close_ordinal == 1
    sent = body.build(ready).data
    assert sent is not None and sent.index(b"event-first") < sent.index(b"event-last")


def test_many_open_traces_are_copied_in_parts(dir_fd: int) -> None:
    collector = Collector(dir_fd)
    for number in range(200):
        collector.take(of_trace(number, opened(own_runner())), of_trace(number, added(event(number))))
    collector.journal.incomplete = True
    parts = 0
    while collector.journal.incomplete or collector.compaction._to_copy:
        collector.compaction.step(part_bytes=10_000)
        assert collector.journal.buffered_bytes < 15_000
        collector.journal.commit()
        parts += 1
    assert parts > 10
    assert Collector(dir_fd).assembly.open_count == 200


def test_open_traces_that_are_needed_are_not_copied_over_and_over(dir_fd: int) -> None:
    collector = Collector(dir_fd)
    for number in range(400):
        collector.take(of_trace(number, opened(own_runner())))
    # All of it is needed: nothing is to be gained.
    assert collector.journal.size_bytes < 1.2 * collector.journal.batch_bytes


def test_a_finished_trace_is_kept_as_its_body(dir_fd: int) -> None:
    collector = Collector(dir_fd)
    collector.take(*short_trace(1))
    (ready,) = collector.finish()
    parcel = Parcel(ready.trace_id, ready.terms.destination, body.build(ready).data or b"")
    collector.sending.add(parcel)
    collector.copy_all()
    successor = Collector(dir_fd)
    assert successor.sending.parcel(numbered(1)) == parcel
    found = successor.assembly.finished(numbered(1))
    assert found is not None and (found.ring_id, found.ordinal, found.body_bytes) == (OPENER, 1, 0)
    assert successor.finish() == []
    # What still comes for it is late.
    successor.take(of_trace(1, added(event())))
    assert successor.assembly.counters["late"] == 1


def test_the_ring_of_a_copied_trace_is_known_though_its_batches_are_gone(dir_fd: int) -> None:
    collector = Collector(dir_fd)
    collector.take(of_trace(0, opened(own_runner())))
    for number in range(1, 100):
        collector.take(*short_trace(number))
        for ready in collector.finish():
            collector.settle(ready.trace_id)
    collector.copy_all()
    other = Journal(dir_fd, segment_bytes=SEGMENT_BYTES)
    assert [type(item) for item in other.replay() if not isinstance(item, Settled)].count(Snapshot) == 1
    assert list(other.ends()) == [OPENER]


def test_a_settled_trace_s_snapshot_does_not_come_back(dir_fd: int) -> None:
    collector = Collector(dir_fd)
    collector.take(*short_trace(1)[:2])
    collector.copy_all()
    collector.settle(numbered(1))
    collector.take(*short_trace(2)[:2])
    assert Collector(dir_fd).assembly.ids() == [numbered(2)]


def test_a_broken_snapshot_is_refused() -> None:
    counters = Assembly().counters
    for records in (
        [Record(Kind.OPEN, 0, 0, numbered(1), b"{}")],
        [Record(snapshot.STATE, 0, 0, numbered(1), b"no JSON")],
        [Record(snapshot.STATE, 0, 0, numbered(1), b'{"destination":[]}')],
        [Record(snapshot.STATE, 0, 0, numbered(1), b"{}")],
    ):
        with pytest.raises(snapshot.BROKEN):
            snapshot.restored(OPENER, records, counters)


# While nothing can be written


@contextmanager
def full_disk() -> Iterator[None]:
    """No file may grow."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_journal_that_could_not_be_written_is_whole_again(dir_fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "MAX_BUFFERED_BYTES", 5000)
    collector = Collector(dir_fd)
    collector.take(of_trace(0, opened(own_runner())), of_trace(0, added(event("before"))))
    with full_disk():
        for number in range(1, 50):
            records = [of_trace(number, opened(own_runner())), of_trace(number, added(event(number, weak="x" * 300)))]
            collector.position += 64
            collector.journal.append(OPENER, collector.position, records)
            with pytest.raises(OSError):
                collector.journal.commit()
            collector.feed(records)
            assert collector.journal.buffered_bytes < 10_000
        collector.feed([of_trace(7, closed())])
        (ready,) = collector.finish()
        collector.settle(ready.trace_id)
    assert collector.journal.incomplete
    collector.compaction.step()
    collector.journal.commit()
    successor = Collector(dir_fd)
    assert sorted(successor.assembly.ids()) == [numbered(number) for number in range(50) if number != 7]
    assert successor.assembly.held_bytes == collector.assembly.held_bytes


def test_marks_do_not_pile_up_while_nothing_can_be_written(dir_fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "MAX_BUFFERED_BYTES", 5000)
    collector = Collector(dir_fd)
    with full_disk():
        for number in range(200):
            collector.journal.append(OPENER, 64 * number, short_trace(number))
            with pytest.raises(OSError):
                collector.journal.commit()
            collector.journal.settled(numbered(number))
    assert len(collector.journal._uncommitted.marks) < 50


def test_a_parcel_of_any_destination_is_kept() -> None:
    destination = Destination("http://x/?secret", "tok\ud83d", 0.25, "http://proxy", None, "/state")
    parcel = Parcel(numbered(1), destination, b'{"a":"\xc3\xa9"}')
    assert snapshot.restored(OPENER, snapshot.of_parcel(parcel, 3), Assembly().counters) == (parcel, 3)


def test_exceptions_are_kept(dir_fd: int) -> None:
    collector = Collector(dir_fd)
    collector.take(opened(own_runner()), record(Kind.EXCEPTION, exception_fields("kept")))
    collector.copy_all()
    successor = Collector(dir_fd)
    successor.take(closed())
    (ready,) = successor.finish()
    assert b"kept" in (body.build(ready).data or b"")
