"""Ends: a RUNNER and the CLOSE behind it in one record of a ring, and two for whatever reads it."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from fakes import FakeQueue
from in_ring import Read, recorded, told
from mortal import Kernel
from reading import ListReader, ListRing
from rings import TRACE, TWINS, Twin, fill

import epsagon_fast as epsagon
from epsagon_fast import Config, ErrorCode, Tracer
from epsagon_fast.producer.process import process
from epsagon_fast.producer.runner import new_runner
from epsagon_fast.protocol import CLOSE_PAYLOAD, UNCHANGED, Kind, Record
from epsagon_fast.queue import layout, ring
from epsagon_fast.queue.moving import move_unread
from epsagon_fast.queue.reader import Reader

CLOSE = CLOSE_PAYLOAD.pack(1.5, UNCHANGED)
NEWS = b'{"error_code":1}'
BOTH = [(Kind.RUNNER, 0, 0, TRACE, NEWS), (Kind.CLOSE, 3, 1, TRACE, CLOSE)]


def test_an_end_is_one_record_and_comes_out_as_two(twin: Twin, tmp_path: Path) -> None:
    fd = twin.ring(tmp_path)
    producer = twin.producer(fd)
    assert producer.push(layout.END, 3, TRACE, NEWS + CLOSE) == ring.PUSHED
    assert producer.head == layout.record_bytes(len(NEWS + CLOSE))
    assert producer.load(layout.CLOSED_COUNT) == 1
    for reader in TWINS:
        consumer = reader.consumer(fd)
        assert consumer.read(1) == BOTH
        assert (consumer.position, consumer.closes_read) == (producer.head, 1)
    os.close(fd)


def test_ends_and_closes_are_numbered_together(twin: Twin, tmp_path: Path) -> None:
    producer, consumer = twin.ends(tmp_path)
    for kind in (Kind.CLOSE, layout.END, Kind.CLOSE, layout.END):
        producer.push(kind, 0, TRACE, CLOSE)
    assert [record[2] for record in consumer.read(1 << 20)] == [1, 0, 2, 3, 0, 4]


def test_without_room_for_the_news_the_trace_is_closed(twin: Twin, tmp_path: Path) -> None:
    producer, consumer = twin.ends(tmp_path, 64 * 1024)
    producer.push(Kind.OPEN, 0, TRACE, b"")
    fill(producer, Kind.EVENT)
    before = producer.load(layout.QUEUE_FULL)
    assert producer.push(layout.END, 3, TRACE, NEWS + CLOSE) == ring.LOOK
    assert producer.load(layout.QUEUE_FULL) == before + 1
    assert consumer.read(1 << 30)[-1] == BOTH[1]


def test_without_its_news_a_trace_is_closed_if_they_are_too_large(twin: Twin, tmp_path: Path) -> None:
    producer, consumer = twin.ends(tmp_path)
    largest = layout.largest_payload_bytes(1024) - len(CLOSE)
    assert producer.push(layout.END, 3, TRACE, bytes(largest) + CLOSE) == ring.PUSHED
    assert producer.push(layout.END, 3, TRACE, bytes(largest + 1) + CLOSE) == ring.LOOK
    assert producer.load(layout.NEWS_TOO_LARGE) == 1
    assert [record[4] for record in consumer.read(1 << 20)] == [bytes(largest), CLOSE, CLOSE]


def test_what_is_moved_is_moved_as_two(twin: Twin, tmp_path: Path) -> None:
    producer, _ = twin.ends(tmp_path)
    producer.push(layout.END, 3, TRACE, NEWS + CLOSE)
    moved: list[Any] = []
    assert move_unread(producer, lambda *record: not moved.append(record)) == 2
    assert moved == [(Kind.RUNNER, 0, TRACE, NEWS), (Kind.CLOSE, 3, TRACE, CLOSE)]


def test_get_returns_the_two_one_by_one(twin: Twin, tmp_path: Path) -> None:
    producer, consumer = twin.ends(tmp_path)
    reader: Reader = ListReader(ListRing(b"r"), Kernel())
    reader._ring, reader._got = consumer, []
    producer.push(layout.END, 3, TRACE, NEWS + CLOSE)
    assert reader.get() == BOTH[0]
    # Until then it is in the file alone.
    assert producer.tail == 0
    assert reader.get() == BOTH[1]
    assert producer.tail == producer.head


# With a whole process.


@pytest.fixture
def read(untraced: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Read]:
    with recorded(monkeypatch, tmp_path) as reader:
        yield reader


def begun() -> Tracer:
    tracer = Tracer(process.config().resolve(), new_runner("n", "t", "o", {}, 1_700_000_000_000_000_000))
    tracer.start()
    return tracer


def records_in_ring() -> int:
    """Return how many records stand in the ring since its tail."""
    own = process.own.writers._current._ring
    position, count = own.tail, 0
    while position < own.head:
        offset = layout.HEADER_BYTES + position % own.load(layout.CAPACITY)
        position += layout.record_bytes(int.from_bytes(own.copy(offset, 4), "little"))
        count += 1
    return count


def test_an_update_and_the_close_leave_the_records_that_they_leave_apart(read: Read) -> None:
    error = {"type": "E", "message": "m"}
    begun().update_and_close({"k": "v"}, ErrorCode.ERROR, error)
    assert records_in_ring() == 2
    together = told(read())
    apart = begun()
    apart.update_runner({"k": "v"}, ErrorCode.ERROR, error)
    apart.send_stop_signal()
    assert records_in_ring() == 3
    assert told(read()) == together
    assert [name for name, *_ in together] == ["OPEN", "RUNNER", "CLOSE"]


def test_a_restatement_goes_with_the_close(read: Read) -> None:
    tracer = begun()
    runner = tracer.runner_event
    assert runner is not None
    tracer.restate_and_close({**runner, "duration": 2.5, "error_code": 2})
    assert records_in_ring() == 2
    _, (_, _, _, news), (_, _, _, closing) = told(read())
    assert news["error_code"] == 2
    assert closing == ["nan", "2"]


def test_news_that_are_too_large_are_cut(read: Read) -> None:
    tracer = begun()
    limit_bytes = process.own.writers._current.record_limit_bytes
    tracer.update_and_close(None, ErrorCode.ERROR, {"type": "E", "message": "m" * limit_bytes})
    _, news, closed = read()
    assert len(news.payload) <= limit_bytes
    assert json.loads(news.payload)["exception"]["type"] == "E"
    assert closed.kind == Kind.CLOSE
    assert process.own.writers._current.refusals() == {"cut": 1}


def test_a_trace_that_is_not_open_is_not_closed_again(read: Read) -> None:
    tracer = begun()
    tracer.send_stop_signal()
    for close in (tracer.update_and_close, lambda: tracer.restate_and_close({"error_code": 1})):
        close()
    assert [record.kind for record in read()] == [Kind.OPEN, Kind.CLOSE]


def test_a_hook_sees_the_last_news_and_may_keep_them(read: Read) -> None:
    seen = []

    def hook(event: dict[str, Any]) -> dict[str, Any] | None:
        seen.append(event)
        return event if "k" in event["resource"]["metadata"] else None

    epsagon.init(before_send=hook)
    for metadata in ({"k": "v"}, {"other": "v"}):
        begun().update_and_close(metadata)
    assert len(seen) == 4
    kinds = [record.kind for record in read()]
    assert kinds.count(Kind.CLOSE) == 2


@pytest.mark.parametrize("code", [layout.LOOK, layout.FULL, layout.CLOSED])
def test_an_end_that_was_not_just_pushed_is_looked_after(queue: FakeQueue, code: int) -> None:
    tracer = Tracer(Config(token="t").resolve(), new_runner("n", "t", "o", {}, 0))
    tracer.start()
    queue.codes.append(code)
    tracer.update_and_close({"k": "v"})
    assert queue.attended == [code]
    assert tracer.stopped


def test_memory_keeps_an_end_as_two() -> None:
    from epsagon_fast.producer.memory import MemoryWriter

    kept: list[Record] = []
    writer = MemoryWriter()
    writer.finish = kept.extend  # type: ignore[method-assign]
    writer.push(Kind.OPEN, 0, TRACE, b"")
    writer.push(layout.END, 3, TRACE, NEWS + CLOSE)
    assert kept[1:] == BOTH
    assert orjson.loads(kept[1].payload) == {"error_code": 1}
