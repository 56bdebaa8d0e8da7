"""The ring within one process, over both implementations."""

import ast
import os
import pickle
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from rings import COMPILED, REFERENCE, TRACE, TWINS, Twin, fill, payloads
from strategies import pushes

from epsagon_fast.protocol import NO_TRACE, REFUSALS, Kind, Record
from epsagon_fast.queue import _pure, _ring, layout, ring

IN_PLACE = settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None)


def test_a_record_comes_out_as_it_went_in(twin: Twin, tmp_path: Path) -> None:
    producer, consumer = twin.ends(tmp_path)
    assert producer.push(Kind.OPEN, 3, TRACE, b"{}") == ring.PUSHED
    assert producer.push(Kind.CLOSE, 255, TRACE, b"twelve bytes") == ring.PUSHED
    assert consumer.read(1 << 20) == [(1, 3, 0, TRACE, b"{}"), (7, 255, 1, TRACE, b"twelve bytes")]
    assert (consumer.position, consumer.head, consumer.closes_read) == (48 + 56, 48 + 56, 1)
    assert producer.tail == 0
    consumer.commit()
    assert producer.tail == producer.head == consumer.tail == 48 + 56


@pytest.mark.parametrize("start", [0, 2**32 - 64])
def test_records_wrap_at_every_offset(twin: Twin, tmp_path: Path, start: int) -> None:
    capacity = 1024
    for shift in range(0, capacity, 8):
        producer, consumer = twin.ends(tmp_path, capacity, start + shift)
        for length in (0, 1, 7, 8, 9, 100, 216):
            payload = os.urandom(length)
            assert producer.push(Kind.EVENT, 0, TRACE, payload) in (ring.PUSHED, ring.LOOK)
            assert consumer.read(1) == [(Kind.EVENT, 0, 0, TRACE, payload)]
            consumer.commit()


@pytest.mark.parametrize("capacity", [1024, 1032, 4096, 65536, 8 * 12347])
def test_a_record_of_a_quarter_of_the_ring_fits_and_no_larger_one(twin: Twin, tmp_path: Path, capacity: int) -> None:
    producer, consumer = twin.ends(tmp_path, capacity)
    largest = layout.largest_payload_bytes(capacity)
    assert layout.record_bytes(largest) <= capacity // 4 < layout.record_bytes(largest + 1)
    for length, code in ((largest - 1, ring.PUSHED), (largest, ring.PUSHED), (largest + 1, ring.TOO_LARGE)):
        assert producer.push(Kind.EVENT, 0, TRACE, bytes(length)) in (code, code and ring.LOOK)
    assert [len(payload) for payload in payloads(consumer)] == [largest - 1, largest]


def test_close_and_bye_have_their_own_limits(twin: Twin, tmp_path: Path) -> None:
    producer, _ = twin.ends(tmp_path)
    assert producer.push(Kind.CLOSE, 0, TRACE, bytes(25)) == ring.TOO_LARGE
    assert producer.push(Kind.CLOSE, 0, TRACE, bytes(24)) == ring.PUSHED
    assert producer.push(Kind.BYE, 0, TRACE, b"x") == ring.TOO_LARGE
    assert producer.push(Kind.BYE, 0, TRACE, b"") == ring.PUSHED


@pytest.mark.parametrize(
    ("kind", "part"),
    [(Kind.EVENT, 8), (Kind.EXCEPTION, 8), (Kind.LABEL, 8), (Kind.RUNNER, 8), (Kind.OPEN, 16), (Kind.ERROR, 32)],
)
def test_each_kind_leaves_its_part_of_the_ring_free(twin: Twin, tmp_path: Path, kind: int, part: int) -> None:
    capacity = 64 * 1024
    producer, _ = twin.ends(tmp_path, capacity)
    length = 1024 if kind == Kind.OPEN else 0
    size = layout.record_bytes(length)
    assert fill(producer, kind, length) == (capacity - capacity // part) // size


def test_less_important_records_leave_room_for_the_more_important(twin: Twin, tmp_path: Path) -> None:
    producer, _ = twin.ends(tmp_path, 64 * 1024)
    for kind in (Kind.EVENT, Kind.OPEN, Kind.ERROR, Kind.CLOSE):
        assert fill(producer, kind) > 0
        assert producer.push(Kind.EVENT, 0, TRACE, b"") == ring.FULL
    assert producer.put_bye() == ring.PUSHED


@IN_PLACE
@given(actions=pushes())
def test_room_is_given_by_the_rules_and_what_is_accepted_arrives(tmp_path: Path, actions: list) -> None:
    """The rules once more, in the plainest words, beside both implementations."""
    capacity = 2048
    ends = [twin.ends(tmp_path, capacity, start=2**32 - 512) for twin in TWINS]
    used = opened = 0
    waiting: list[bytes] = []
    refused: Counter[str] = Counter()
    for kind, length in actions:
        if kind is None:
            for _, consumer in ends:
                assert payloads(consumer) == waiting
            used, waiting = 0, []
            continue
        closes = kind in (Kind.CLOSE, layout.END)
        opened_then = opened + 1 if kind == Kind.OPEN else max(opened - 1, 0) if closes else opened

        def room_for(kind: int, size: int, opened_then: int = opened_then, used: int = used) -> bool:
            keep = {Kind.OPEN: capacity // 16, Kind.ERROR: capacity // 32, Kind.CLOSE: 0}.get(kind, capacity // 8)
            return capacity - used - size >= max(keep, 64 * opened_then + 40)

        size, kept = 40 + (length + 7) // 8 * 8, length
        too_large = size > capacity // 4 or (kind == Kind.CLOSE and length > 24)
        is_cut = kind == layout.END and (too_large or not room_for(kind, size))
        if is_cut:
            refused["too_large" if too_large else "queue_full"] += 1
            kind, kept, too_large = Kind.CLOSE, min(length, 12), False
            size = 40 + (kept + 7) // 8 * 8
        fits = room_for(kind, size)
        refused["queue_full"] += not too_large and not fits
        for producer, _ in ends:
            code = producer.push(layout.END if is_cut else kind, 0, TRACE, bytes(length))
            assert code == ring.TOO_LARGE if too_large else (code in (ring.PUSHED, ring.LOOK)) == fits
            assert not (is_cut and code == ring.PUSHED)
        if fits and not too_large:
            used, opened = used + size, opened_then
            waiting += [bytes(kept)] if kind != layout.END else [bytes(max(0, kept - 12)), bytes(min(kept, 12))]
    for producer, _ in ends:
        for number, reason in enumerate(REFUSALS):
            assert producer.load(layout.REFUSED + 8 * number) == refused[reason]
    # What was opened can be closed, and the process can say good-bye, whatever came before.
    for producer, _ in ends:
        codes = {producer.push(Kind.CLOSE, 0, TRACE, bytes(24)) for _ in range(opened)}
        assert codes <= {ring.PUSHED, ring.LOOK}
        assert producer.put_bye() in (ring.PUSHED, ring.LOOK)


def test_closes_are_numbered_and_counted(twin: Twin, tmp_path: Path) -> None:
    producer, consumer = twin.ends(tmp_path)
    for kind in (Kind.OPEN, Kind.CLOSE, Kind.EVENT, Kind.CLOSE):
        producer.push(kind, 0, TRACE, b"")
    assert [record[2] for record in consumer.read(1 << 20)] == [0, 1, 0, 2]
    assert producer.load(layout.CLOSED_COUNT) == 2
    assert consumer.load(layout.CLOSES_READ) == 0
    consumer.commit()
    assert consumer.load(layout.CLOSES_READ) == consumer.closes_read == 2


def test_nothing_is_pushed_after_bye(twin: Twin, tmp_path: Path) -> None:
    producer, consumer = twin.ends(tmp_path)
    assert producer.load(layout.LEFT) == 0
    assert producer.put_bye() == ring.PUSHED
    assert producer.load(layout.LEFT) == 1
    assert producer.push(Kind.EVENT, 0, TRACE, b"") == producer.put_bye() == ring.CLOSED
    assert consumer.read(1 << 20) == [(Kind.BYE, 0, 0, NO_TRACE, b"")]


def test_a_successor_of_one_that_said_bye_stays_closed(twin: Twin, tmp_path: Path) -> None:
    fd = twin.ring(tmp_path)
    twin.producer(fd).put_bye()
    assert twin.producer(fd).push(Kind.EVENT, 0, TRACE, b"") == ring.CLOSED
    os.close(fd)


def test_push_says_when_to_look_for_a_collector(twin: Twin, tmp_path: Path) -> None:
    producer, _ = twin.ends(tmp_path, 1 << 20)
    size, looks = layout.record_bytes(1000), 0
    for number in range(1, 500):
        code = producer.push(Kind.EVENT, 0, TRACE, bytes(1000))
        assert code == (ring.LOOK if number * size // 65536 > looks else ring.PUSHED)
        looks = number * size // 65536


def test_read_stops_at_its_limits(twin: Twin, tmp_path: Path) -> None:
    producer, consumer = twin.ends(tmp_path)
    for number in range(10):
        producer.push(Kind.EVENT, 0, TRACE, b"%d" % number)
    assert consumer.read(0) == []
    assert [record[4] for record in consumer.read(49)] == [b"0", b"1"]
    assert consumer.read(1 << 20, until=96) == []
    assert [record[4] for record in consumer.read(1 << 20, until=97)] == [b"2"]
    assert [record[4] for record in consumer.read(1)] == [b"3"]
    assert len(consumer.read(1 << 20, until=1 << 40)) == 6
    assert consumer.read(1 << 20) == []


def test_a_successor_starts_at_tail_or_where_it_is_told(twin: Twin, tmp_path: Path) -> None:
    fd = twin.ring(tmp_path)
    producer, first = twin.producer(fd), twin.consumer(fd)
    for number in range(4):
        producer.push(Kind.CLOSE, 0, TRACE, b"%d" % number)
    first.read(1)
    first.commit()
    first.read(1)
    second = twin.consumer(fd)
    assert (second.position, second.closes_read) == (48, 1)
    second.seek(first.position, first.closes_read)
    assert payloads(second) == [b"2", b"3"]
    assert (second.closes_read, twin.consumer(fd).position) == (4, producer.head)
    os.close(fd)


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ((2, 0, TRACE, bytearray(3)), TypeError, "trace_id and payload must be bytes"),
        ((2, 0, TRACE, None), TypeError, "trace_id and payload must be bytes"),
        ((2, 0, "x" * 16, b""), TypeError, "trace_id and payload must be bytes"),
        (("2", 0, TRACE, b""), TypeError, "kind must be int"),
        ((2, 0.0, TRACE, b""), TypeError, "flags must be int"),
        ((2, 0, TRACE[1:], b""), ValueError, "trace_id must be 16 bytes"),
        ((2, 0, TRACE + b"x", b""), ValueError, "trace_id must be 16 bytes"),
        ((0, 0, TRACE, b""), ValueError, "kind must be 1 to 9"),
        ((10, 0, TRACE, b""), ValueError, "kind must be 1 to 9"),
        ((1 << 70, 0, TRACE, b""), ValueError, "kind must be 1 to 9"),
        ((2, -1, TRACE, b""), ValueError, "flags must be 0 to 255"),
        ((2, 256, TRACE, b""), ValueError, "flags must be 0 to 255"),
    ],
)
def test_wrong_arguments_are_refused(twin: Twin, tmp_path: Path, arguments: tuple, error: type, text: str) -> None:
    producer, _ = twin.ends(tmp_path)
    with pytest.raises(error, match=f"^{text}$"):
        producer.push(*arguments)
    for wrong in ((), arguments[:3], (*arguments, 1)):
        with pytest.raises(TypeError):
            producer.push(*wrong)
    assert producer.head == 0


def test_push_belongs_to_its_producer(twin: Twin, tmp_path: Path) -> None:
    with pytest.raises((TypeError, AttributeError)):
        twin.producer.push(object(), 2, 0, TRACE, b"")


def test_a_ring_that_was_never_made_or_is_closed_refuses(twin: Twin, tmp_path: Path) -> None:
    producer, consumer = twin.ends(tmp_path)
    for end in (producer, consumer):
        end.close()
        end.close()
    assert producer.push(Kind.EVENT, 0, TRACE, b"") == ring.CLOSED
    for call in (lambda: consumer.read(1), consumer.commit, lambda: producer.head, lambda: producer.load(0)):
        with pytest.raises(ValueError, match="the mapping is closed"):
            call()


def test_an_object_without_init_is_harmless() -> None:
    producer = _ring.Producer.__new__(_ring.Producer)
    assert producer.push(Kind.EVENT, 0, TRACE, b"") == ring.CLOSED
    assert not producer.foreign
    with pytest.raises(ValueError, match="closed"):
        _ring.Consumer.__new__(_ring.Consumer).read(1)


def test_init_again_moves_to_the_other_ring(tmp_path: Path) -> None:
    producer, _ = COMPILED.ends(tmp_path, 1 << 16)
    fd = COMPILED.ring(tmp_path, 1024)
    producer.__init__(fd)
    assert fill(producer, Kind.EVENT) == (1024 - 128) // 40
    assert payloads(COMPILED.consumer(fd)) == [b""] * 22
    os.ftruncate(fd, 100)
    with pytest.raises(ring.CorruptRing):
        producer.__init__(fd)
    os.close(fd)


def test_no_descriptor_is_kept(twin: Twin, tmp_path: Path) -> None:
    before = os.listdir("/proc/self/fd")
    producer, consumer = twin.ends(tmp_path)
    assert os.listdir("/proc/self/fd") == before
    assert producer.push(Kind.EVENT, 0, TRACE, b"x") == ring.PUSHED
    assert payloads(consumer) == [b"x"]


def test_the_mapping_goes_with_its_object(twin: Twin, tmp_path: Path) -> None:
    def mapped() -> int:
        return Path("/proc/self/maps").read_text().count(f"{tmp_path}/a.ring")

    ends = twin.ends(tmp_path)
    assert mapped() == 2
    del ends
    assert mapped() == 0


def test_mapping_reads_and_writes_within_its_bounds_only(twin: Twin, tmp_path: Path) -> None:
    path = tmp_path / "page"
    path.write_bytes(bytes(100))
    with path.open("r+b") as file:
        page = twin.mapping(file.fileno(), 96)
        with pytest.raises(ValueError, match="cannot map 101 bytes of a file of 100"):
            twin.mapping(file.fileno(), 101)
        with pytest.raises(ValueError, match="cannot map 0 bytes"):
            twin.mapping(file.fileno(), 0)
    page.store(88, 2**64 - 1)
    page.add(88, 3)
    page.write(0, b"abc")
    assert (page.load(88), page.copy(0, 4), page.copy(96, 0)) == (2, b"abc\0", b"")
    assert path.read_bytes()[:3] == b"abc"
    for offset, length in ((96, 1), (0, 97), (-1, 1), (0, -1), (97, 0), (2**62, 2**62)):
        with pytest.raises(IndexError):
            page.copy(offset, length)
    for call in (lambda: page.load(4), lambda: page.load(96), lambda: page.store(-8, 1), lambda: page.add(96, 1)):
        with pytest.raises(IndexError):
            call()
    with pytest.raises(IndexError):
        page.write(95, b"ab")
    with pytest.raises(TypeError):
        page.write(0, bytearray(1))
    for value in (-1, 2**64):
        with pytest.raises(OverflowError):
            page.store(0, value)


def test_a_producer_takes_only_a_ring_that_was_made_for_its_kind(tmp_path: Path) -> None:
    for made, other in ((COMPILED, REFERENCE), (REFERENCE, COMPILED)):
        fd = made.ring(tmp_path)
        with pytest.raises(ValueError, match="pure Python"):
            other.producer(fd)
        os.close(fd)


def test_each_implementation_reads_what_the_other_wrote(twin: Twin, tmp_path: Path) -> None:
    other = REFERENCE if twin is COMPILED else COMPILED
    fd = twin.ring(tmp_path)
    producer, consumer = twin.producer(fd), other.consumer(fd)
    for length in range(200):
        assert producer.push(Kind.EVENT, 1, TRACE, bytes(length)) in (ring.PUSHED, ring.LOOK)
        assert payloads(consumer) == [bytes(length)]
    os.close(fd)


def test_a_push_from_a_signal_handler_arrives(twin: Twin, tmp_path: Path) -> None:
    producer, consumer = twin.ends(tmp_path, 1 << 20)
    accepted: Counter[bytes] = Counter()
    arrived: Counter[bytes] = Counter()

    def push(payload: bytes) -> None:
        if producer.push(Kind.EVENT, 0, TRACE, payload) in (ring.PUSHED, ring.LOOK):
            accepted[payload] += 1

    before = signal.signal(signal.SIGALRM, lambda *_: push(b"handler"))
    signal.setitimer(signal.ITIMER_REAL, 0.0001, 0.0001)
    try:
        while accepted[b"handler"] < 300 or accepted[b"main"] < 1000:
            for _ in range(1000):
                push(b"main")
            arrived.update(payloads(consumer))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    arrived.update(payloads(consumer))
    assert arrived == accepted
    assert producer.load(layout.REFUSED) == 0


def test_both_pack_records_alike() -> None:
    records = [
        Record(kind, 255, ordinal, os.urandom(16), os.urandom(size))
        for kind in (*Kind, 65)
        for ordinal, size in ((0, 0), (1, 1), (2**64 - 1, 4097))
    ]
    assert _ring.pack(records) == _pure.pure_pack(records)
    assert _ring.pack([]) == b""


def test_records_in_one_piece_are_those_that_were_put_into_it() -> None:
    records = [Record(Kind.EVENT, 1, at, bytes([at // 2]) * 16, os.urandom(99 * at)) for at in range(70)]
    found = _ring.batch(records)
    assert found == records == list(found)
    assert found != records[1:]
    assert len(found) == 70
    assert (found[0], found[-70], found[69], found[-1]) == (records[0], records[0], records[69], records[69])
    assert (found[3:7], found[::-9], found[60:99]) == (records[3:7], records[::-9], records[60:99])
    assert _ring.batch(found) is found
    for outside in (70, -71):
        with pytest.raises(IndexError):
            found[outside]
    assert not _ring.batch([])
    with pytest.raises(TypeError):
        pickle.dumps(found)


def test_both_name_the_traces_of_records_alike() -> None:
    one, other = os.urandom(16), os.urandom(16)
    for trace_ids in ([], [one], [one, one, bytes(bytearray(one)), other, one]):
        records = [Record(Kind.EVENT, 0, 0, trace_id, b"") for trace_id in trace_ids]
        assert _ring.ids(records) == _pure.pure_ids(records) == set(trace_ids)
    with pytest.raises(TypeError):
        _ring.ids([(2, 0, 0, TRACE)])  # type: ignore[list-item]


@pytest.mark.parametrize("field", [(0, 256), (1, -1), (2, -1), (2, 2**64), (3, b"short"), (3, "x" * 16), (4, None)])
def test_what_is_no_record_is_not_packed(field: tuple[int, Any]) -> None:
    record: list[Any] = [2, 0, 0, TRACE, b"payload"]
    record[field[0]] = field[1]
    for wrong in (tuple(record), record, None, (2, 0, 0, TRACE)):
        with pytest.raises((TypeError, ValueError, OverflowError)):
            _ring.pack([wrong])  # type: ignore[list-item]


def test_the_stub_names_what_the_extension_has() -> None:
    stub = ast.parse(Path(_ring.__file__).with_name("_ring.pyi").read_text())
    for described in (node for node in stub.body if isinstance(node, ast.ClassDef)):
        made = getattr(_ring, described.name)
        named = {node.name for node in described.body if isinstance(node, ast.FunctionDef)}
        assert named <= set(dir(made))
        assert {name for name in vars(made) if not name.startswith("_")} <= named
        assert made.__doc__ == ast.get_docstring(described)


def test_records_of_a_trace_that_stand_together_share_their_id(tmp_path: Path) -> None:
    producer, consumer = COMPILED.ends(tmp_path)
    other = bytes(16)
    for trace_id in (TRACE, TRACE, other, other, TRACE):
        producer.push(Kind.EVENT, 0, trace_id, b"{}")
    ids = [record.trace_id for record in consumer.read(1 << 20)]
    assert ids == [TRACE, TRACE, other, other, TRACE]
    assert ids[0] is ids[1]
    assert ids[2] is ids[3]
