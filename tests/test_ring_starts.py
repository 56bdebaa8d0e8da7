"""Starts that OPENs share: kept once in a ring's header, put back by whatever reads the ring."""

import json
import os
import random
import signal
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from in_ring import Read, recorded
from places import times
from rings import COMPILED, TRACE, TWINS, Twin, child, exit_code, payloads
from waiting import until

import epsagon_fast as epsagon
from epsagon_fast.protocol import Kind
from epsagon_fast.queue import layout, ring
from epsagon_fast.queue.moving import move_unread

IN_PLACE = settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None)
START = b'{"config":{"app_name":"shop"},"runner":'
REST = b"null}"
ROOM = layout.STARTS_END - layout.STARTS - 8
OPENED = st.tuples(st.sampled_from(range(6)), st.binary(max_size=40))


def header(fd: int) -> bytes:
    return os.pread(fd, layout.STARTS_END - layout.STARTS, layout.STARTS)


def test_an_open_comes_out_whole_and_takes_the_room_of_its_rest(twin: Twin, tmp_path: Path) -> None:
    producer, consumer = twin.ends(tmp_path)
    number = producer.share(START)
    assert number == layout.STARTS // 8
    assert producer.push(Kind.OPEN, 3, TRACE, START + REST) == ring.PUSHED
    assert producer.head == layout.record_bytes(len(REST))
    assert consumer.read(1 << 20) == [(Kind.OPEN, 3, 0, TRACE, START + REST)]
    assert consumer.position == consumer.head


def test_what_does_not_begin_so_stands_whole_in_the_ring(twin: Twin, tmp_path: Path) -> None:
    producer, consumer = twin.ends(tmp_path)
    producer.share(START)
    pushed = [(Kind.OPEN, START[:-1]), (Kind.OPEN, b"x" + START), (Kind.EVENT, START + REST), (Kind.OPEN, b"")]
    for kind, payload in pushed:
        assert producer.push(kind, 0, TRACE, payload) == ring.PUSHED
    assert producer.head == sum(layout.record_bytes(len(payload)) for _, payload in pushed)
    assert payloads(consumer) == [payload for _, payload in pushed]


def test_a_start_is_kept_once(twin: Twin, tmp_path: Path) -> None:
    fd = twin.ring(tmp_path)
    numbers = {twin.producer(fd).share(start) for start in (START, START, START + b"x", START)}
    assert len(numbers) == 2
    assert header(fd).count(START) == 2
    os.close(fd)


@pytest.mark.parametrize("start", [b"", bytes(ROOM + 1), bytes(1 << 20)])
def test_a_start_for_which_there_is_no_room_is_not_kept(twin: Twin, tmp_path: Path, start: bytes) -> None:
    producer, consumer = twin.ends(tmp_path, 1 << 16)
    assert producer.share(start) == 0
    assert producer.push(Kind.OPEN, 0, TRACE, start[:9000] + REST) == ring.PUSHED
    assert payloads(consumer) == [start[:9000] + REST]
    assert producer.share(bytes(ROOM)) == layout.STARTS // 8
    assert producer.share(b"x") == 0


def test_what_is_no_start_is_refused(twin: Twin, tmp_path: Path) -> None:
    producer, _ = twin.ends(tmp_path)
    for wrong in (None, "x", bytearray(1)):
        with pytest.raises(TypeError):
            producer.share(wrong)


def test_the_start_counts_where_a_record_may_be_too_large(twin: Twin, tmp_path: Path) -> None:
    producer, consumer = twin.ends(tmp_path)
    largest = layout.largest_payload_bytes(1024)
    producer.share(START)
    assert producer.push(Kind.OPEN, 0, TRACE, START.ljust(largest)) == ring.PUSHED
    assert producer.push(Kind.OPEN, 0, TRACE, START.ljust(largest + 1)) == ring.TOO_LARGE
    assert payloads(consumer) == [START.ljust(largest)]


def test_a_read_is_bounded_by_what_it_hands_over(twin: Twin, tmp_path: Path) -> None:
    producer, consumer = twin.ends(tmp_path, 1 << 16)
    producer.share(START)
    for _ in range(10):
        producer.push(Kind.OPEN, 0, TRACE, START + REST)
    size = layout.record_bytes(len(START + REST))
    assert len(consumer.read(3 * size)) == 3
    assert len(consumer.read(3 * size + 1)) == 4


@IN_PLACE
@given(
    st.lists(st.binary(max_size=30) | st.sampled_from([bytes(ROOM - 20), bytes(ROOM + 1)]), min_size=6, max_size=6),
    st.lists(st.integers(0, 5) | OPENED, max_size=40),
)
@example([b"a", b"ab", b"abc", b"", b"b", b"a"], [2, 1, 0, (2, b"d"), (1, b""), (0, b"bcd"), (4, b"")])
def test_both_keep_the_same_and_each_reads_the_other(tmp_path: Path, starts: list[bytes], actions: list[Any]) -> None:
    """An action keeps a start, or pushes an OPEN that begins with one, kept or not."""
    heads, headers = set(), set()
    for made in TWINS:
        fd = made.ring(tmp_path, 1 << 17, start=2**32 - 512)
        producer = made.producer(fd)
        pushed = []
        for action in actions:
            if isinstance(action, int):
                producer.share(starts[action])
            else:
                pushed.append(starts[action[0]] + action[1])
                assert producer.push(Kind.OPEN, 0, TRACE, pushed[-1]) in (ring.PUSHED, ring.LOOK)
        for reader in TWINS:
            assert [record[4] for record in reader.consumer(fd).read(1 << 30)] == pushed
        moved: list[bytes] = []
        move_unread(producer, lambda kind, flags, trace_id, payload, moved=moved: not moved.append(payload))
        assert moved == pushed
        heads.add(producer.head)
        headers.add(header(fd))
        os.close(fd)
    assert len(heads) == len(headers) == 1


@pytest.mark.parametrize("reader", TWINS)
@pytest.mark.parametrize(
    ("offset", "word"),
    [
        # The record names: the word behind the start's length, a place before and one behind all starts.
        (layout.HEADER_BYTES + 10, struct.pack("=H", layout.STARTS // 8 + 1)),
        (layout.HEADER_BYTES + 10, struct.pack("=H", layout.TAIL // 8)),
        (layout.HEADER_BYTES + 10, struct.pack("=H", layout.STARTS_END // 8)),
        (layout.HEADER_BYTES + 10, b"\xff\xff"),
        # The start's length, and one of its bytes.
        (layout.STARTS, struct.pack("=Q", 0)),
        (layout.STARTS, struct.pack("=Q", 2**64 - 1)),
        (layout.STARTS, struct.pack("=Q", ROOM + 1)),
        (layout.STARTS + 8, b"?"),
    ],
)
def test_a_damaged_start_loses_the_records_that_have_it(reader: Twin, tmp_path: Path, offset: int, word: bytes) -> None:
    for made in TWINS:
        fd = made.ring(tmp_path)
        producer, consumer = made.producer(fd), reader.consumer(fd)
        producer.share(START)
        producer.push(Kind.OPEN, 0, TRACE, START + REST)
        producer.push(Kind.EVENT, 0, TRACE, b"next")
        os.pwrite(fd, word, offset)
        if made is COMPILED:
            damaged, after = payloads(consumer)
            assert damaged != START + REST
            assert damaged.endswith(REST)
            assert after == b"next"
        else:
            assert payloads(consumer) == []
            assert consumer.stuck
        os.close(fd)


def test_only_an_open_may_name_a_start(tmp_path: Path) -> None:
    fd = COMPILED.ring(tmp_path)
    producer = COMPILED.producer(fd)
    producer.share(START)
    producer.push(Kind.EVENT, 0, TRACE, b"")
    os.pwrite(fd, struct.pack("=H", layout.STARTS // 8), layout.HEADER_BYTES + 10)
    for reader in TWINS:
        with pytest.raises(ring.CorruptRing, match="no record at position 0"):
            reader.consumer(fd).read(1)
    os.close(fd)


def test_a_ring_of_the_version_without_starts_is_read(twin: Twin, tmp_path: Path) -> None:
    fd = twin.ring(tmp_path)
    os.pwrite(fd, struct.pack("=Q", 1), layout.VERSION)
    twin.producer(fd).push(Kind.OPEN, 0, TRACE, START + REST)
    for reader in TWINS:
        assert [record[4] for record in reader.consumer(fd).read(1 << 20)] == [START + REST]
    os.close(fd)


def test_a_forked_child_and_a_closed_ring_keep_nothing(twin: Twin, tmp_path: Path) -> None:
    fd = twin.ring(tmp_path)
    producer = twin.producer(fd)
    with child(lambda: producer.share(START)) as pid:
        assert exit_code(pid) == 0
    producer.close()
    assert producer.share(START) == 0
    assert not any(header(fd))
    os.close(fd)


def test_a_killed_producer_leaves_whole_records_only(twin: Twin, tmp_path: Path) -> None:
    """It keeps new starts all the time, and uses each at once."""
    chance = random.Random(7)
    starts = [chance.randbytes(40) for _ in range(60)]

    def open_for_ever(producer: Any) -> None:
        while True:
            for start in starts:
                producer.share(start)
                while producer.push(Kind.OPEN, 0, TRACE, start + start[:9]) == ring.FULL:
                    os.sched_yield()

    for _ in range(times(40, 10)):
        fd = twin.ring(tmp_path, 1 << 14)
        consumer = twin.consumer(fd)
        seen = 0
        with child(lambda fd=fd: open_for_ever(twin.producer(fd))) as pid:
            wanted = chance.randrange(100)
            while seen <= wanted:
                seen += follow(
                    starts, seen, until(lambda consumer=consumer: payloads(consumer), "records come", pause_s=0)
                )
            os.kill(pid, signal.SIGKILL)
            assert exit_code(pid) == -signal.SIGKILL
        follow(starts, seen, payloads(consumer))
        assert consumer.position == consumer.head
        # A new process with this file goes on.
        after = twin.producer(fd)
        for start in starts:
            after.share(start)
        assert after.push(Kind.OPEN, 0, TRACE, starts[0] + b"after") in (ring.PUSHED, ring.LOOK)
        assert payloads(consumer) == [starts[0] + b"after"]
        os.close(fd)


def follow(starts: list[bytes], seen: int, batch: list[bytes]) -> int:
    """Check a batch behind so many others; return how many there are."""
    expected = [starts[number % len(starts)] for number in range(seen, seen + len(batch))]
    assert batch == [start + start[:9] for start in expected]
    return len(batch)


# With a whole process.


@pytest.fixture
def read(untraced: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Read]:
    with recorded(monkeypatch, tmp_path) as reader:
        yield reader


def configs_in(folder: Path) -> list[int]:
    """Return how often a config stands in each ring of a folder."""
    return sorted(path.read_bytes().count(b'"app_name"') for path in folder.glob("*/*.ring"))


def opened(read: Read) -> list[bytes]:
    return [record.payload for record in read() if record.kind == Kind.OPEN]


def test_a_config_stands_once_in_a_ring_however_many_traces_have_it(read: Read, tmp_path: Path) -> None:
    for _ in range(5):
        with epsagon.trace("t"):
            pass
    found = opened(read)
    assert len(found) == 5
    assert len({payload.partition(b',"runner":')[0] for payload in found}) == 1
    assert configs_in(tmp_path) == [1]


def test_configs_that_take_turns_and_new_ones_stand_once_each(read: Read, tmp_path: Path) -> None:
    names = ["one", "two", "one", "two", "three", "one"]
    for name in names:
        epsagon.init(application_name=name)
        for _ in range(2):
            with epsagon.trace("t"):
                pass
    assert [json.loads(each)["config"]["app_name"] for each in opened(read)] == [each for each in names for _ in "ab"]
    # With that of the first trace.
    assert configs_in(tmp_path) == [4]


def test_a_config_that_is_too_large_stands_in_each_trace(read: Read, tmp_path: Path) -> None:
    epsagon.init(application_name="a" * ROOM)
    for _ in range(3):
        with epsagon.trace("t"):
            pass
    assert [payload.count(b"a" * ROOM) for payload in opened(read)] == [1, 1, 1]
    assert configs_in(tmp_path) == [4]


def test_a_forked_child_has_the_config_in_its_own_ring(read: Read, tmp_path: Path) -> None:
    def trace_twice() -> None:
        for _ in range(2):
            with epsagon.trace("child"):
                pass

    [own] = tmp_path.glob("*/*.ring")
    with child(trace_twice) as pid:
        assert exit_code(pid) == 0
    with epsagon.trace("parent"):
        pass
    assert len(opened(read)) == 1
    assert configs_in(tmp_path) == [1, 1]
    [other] = {*tmp_path.glob("*/*.ring")} - {own}
    fd = os.open(other, os.O_RDWR)
    children = [record.payload for record in ring.Consumer(fd).read(1 << 20) if record.kind == Kind.OPEN]
    os.close(fd)
    assert [json.loads(each)["config"]["app_name"] for each in children] == ["", ""]
