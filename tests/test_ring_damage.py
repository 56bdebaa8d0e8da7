"""What the ring makes of bytes that no producer wrote, or that are not visible yet."""

import os
import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from rings import COMPILED, REFERENCE, TRACE, TWINS, Twin, payloads
from strategies import damage

from epsagon_fast.protocol import Kind
from epsagon_fast.queue import layout, ring

START = bytes(range(20))
IN_PLACE = settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None)


@IN_PLACE
@given(damage())
@example([(layout.HEAD, struct.pack("=Q", 2**64 - 8))])
@example([(layout.TAIL, struct.pack("=Q", 2**64 - 8))])
@example([(layout.HEADER_BYTES, struct.pack("=I", 2**32 - 1))])
@example([(layout.STARTS, struct.pack("=Q", 2**64 - 1))])
@example([(layout.STARTS, struct.pack("=Q", layout.STARTS_END))])
def test_damage_is_reported_and_never_crashes(tmp_path: Path, wounds: list) -> None:
    """Both consumers say the same of the same bytes, and both producers go on."""
    for made in TWINS:
        fd = made.ring(tmp_path, start=2**32 - 512)
        producer = made.producer(fd)
        producer.share(START)
        for number, length in enumerate((3, 0, 200, 60, 9, 100)):
            producer.push((Kind.CLOSE if length == 9 else Kind.EVENT), number, TRACE, bytes([number]) * length)
        producer.push(Kind.OPEN, 0, TRACE, START + b"rest")
        producer.push(layout.END, 1, TRACE, b"newstwelve bytes")
        for offset, data in wounds:
            os.pwrite(fd, data, offset)
        assert _verdict(COMPILED, fd) == _verdict(REFERENCE, fd)
        assert _codes(made, fd) <= {ring.PUSHED, ring.LOOK, ring.FULL, ring.CLOSED}
        os.close(fd)


def _codes(twin: Twin, fd: int) -> set[int]:
    """Return what a new producer's pushes answer; nothing if it refuses the header."""
    try:
        producer = twin.producer(fd)
    except ValueError:
        return set()
    producer.share(START)
    producer.share(START[1:])
    kinds = (Kind.OPEN, Kind.EVENT, Kind.ERROR, Kind.CLOSE, layout.END)
    return {producer.push(kind, 0, TRACE, START) for kind in kinds}


def _verdict(twin: Twin, fd: int) -> tuple:
    """Return all that one can learn from a consumer of a ring."""
    seen = []
    try:
        consumer = twin.consumer(fd)
        while records := consumer.read(100):
            seen += records
        return seen, consumer.position, consumer.closes_read, consumer.stuck
    except ring.CorruptRing as error:
        return seen, type(error), str(error)


def test_a_record_that_is_not_visible_yet_is_waited_for(twin: Twin, tmp_path: Path) -> None:
    """As on a processor that makes `head` visible before the record."""
    fd = REFERENCE.ring(tmp_path)
    producer, consumer = REFERENCE.producer(fd), twin.consumer(fd)
    for payload in (b"first", b"second"):
        producer.push(Kind.EVENT, 0, TRACE, payload)
    place = layout.HEADER_BYTES + layout.record_bytes(5)
    second = os.pread(fd, 48, place)
    os.pwrite(fd, bytes(48), place)
    assert payloads(consumer) == [b"first"]
    assert consumer.stuck
    assert payloads(consumer) == []
    os.pwrite(fd, second, place)
    assert payloads(consumer) == [b"second"]
    assert not consumer.stuck
    os.close(fd)


def test_a_whole_record_of_the_last_lap_does_not_pass_for_a_new_one(twin: Twin, tmp_path: Path) -> None:
    fd = REFERENCE.ring(tmp_path)
    producer, consumer = REFERENCE.producer(fd), twin.consumer(fd)
    for lap in range(2):
        for number in range(16):
            stale = os.pread(fd, 64, layout.HEADER_BYTES)
            producer.push(Kind.EVENT, 0, TRACE, b"%08d" % number * 3)
            if lap and not number:
                os.pwrite(fd, stale, layout.HEADER_BYTES)
                assert consumer.read(1) == []
                assert consumer.stuck
                break
            assert len(payloads(consumer)) == 1
    os.close(fd)


def test_good_records_before_a_bad_one_are_handed_over_first(tmp_path: Path) -> None:
    fd = COMPILED.ring(tmp_path)
    producer = COMPILED.producer(fd)
    for _ in range(3):
        producer.push(Kind.EVENT, 0, TRACE, b"")
    os.pwrite(fd, b"\xff", layout.HEADER_BYTES + 80 + 8)
    for reader in TWINS:
        consumer = reader.consumer(fd)
        assert len(consumer.read(1 << 20)) == 2
        with pytest.raises(ring.CorruptRing, match="no record at position 80: kind 255"):
            consumer.read(1 << 20)
        assert consumer.position == 80
    os.close(fd)
