"""The journal's files: what a commit writes, what a successor finds, what damage does."""

import errno
import logging
import os
import random
import resource
import shutil
import stat
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from mortal import Crash, Kernel, bury, instead_of_os, segment_paths
from reading import Page

from epsagon_fast.collector.journal import segments as segments_module
from epsagon_fast.collector.journal.frames import HEAD_BYTES, MAGIC, encode_head, parse
from epsagon_fast.collector.journal.journal import Batch, Journal, Settled
from epsagon_fast.protocol import NO_TRACE, Kind, Record
from epsagon_fast.queue.state import StatePage

RING = b"r" * 16
OTHER_RING = b"s" * 16


def trace_id(number: int) -> bytes:
    return number.to_bytes(16, "big")


def event(trace: int, payload: bytes = b"{}") -> Record:
    return Record(Kind.EVENT, 0, 0, trace_id(trace), payload)


@pytest.fixture
def dir_fd(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


@pytest.fixture
def page() -> Page:
    return Page()


@pytest.fixture
def journal(dir_fd: int, page: Page) -> Iterator[Journal]:
    with_small_segments = Journal(dir_fd, page, segment_bytes=1000)
    yield with_small_segments
    with_small_segments.close()


def replayed(dir_fd: int) -> list[Batch | Settled]:
    return list(Journal(dir_fd).replay())


def fill(journal: Journal, traces: int, payload_bytes: int = 400) -> None:
    """One commit with one record for each trace; two of them fit in a segment of 1000 bytes."""
    for number in range(1, traces + 1):
        journal.append(RING, number * 448, [event(number, bytes(payload_bytes))])
        journal.commit()


def test_nothing_is_created_before_the_first_commit(journal: Journal, tmp_path: Path) -> None:
    assert list(journal.replay()) == []
    journal.append(RING, 64, [event(1)])
    assert list(tmp_path.iterdir()) == []
    assert journal.buffered_bytes > 0


def test_a_commit_of_nothing_creates_nothing(journal: Journal, tmp_path: Path) -> None:
    journal.commit()
    assert list(tmp_path.iterdir()) == []


def test_a_successor_reads_back_what_was_committed(journal: Journal, dir_fd: int) -> None:
    records = [
        Record(Kind.OPEN, 0, 0, trace_id(1), b'{"config":{}}'),
        Record(Kind.EVENT, 1, 0, trace_id(1), bytes(range(256))),
        Record(Kind.CLOSE, 1, 2**63, trace_id(1), b""),
        Record(Kind.BYE, 0, 0, NO_TRACE, b""),
    ]
    journal.append(RING, 2**63 + 8, records)
    journal.append(OTHER_RING, 0, [])
    journal.commit()
    assert replayed(dir_fd) == [Batch(RING, 2**63 + 8, records), Batch(OTHER_RING, 0, [])]


def test_plain_tuples_are_records_too(journal: Journal, dir_fd: int) -> None:
    journal.append(RING, 48, [(2, 0, 0, trace_id(1), b"x")])  # type: ignore[list-item]
    journal.commit()
    assert replayed(dir_fd) == [Batch(RING, 48, [Record(2, 0, 0, trace_id(1), b"x")])]


def test_what_was_not_committed_is_not_there(journal: Journal, dir_fd: int) -> None:
    journal.append(RING, 64, [event(1)])
    journal.commit()
    journal.append(RING, 128, [event(2)])
    assert replayed(dir_fd) == [Batch(RING, 64, [event(1)])]


def test_replay_leaves_out_settled_traces_wherever_their_mark_stands(journal: Journal, dir_fd: int) -> None:
    journal.append(RING, 128, [event(1), event(2)])
    journal.commit()
    journal.settled(trace_id(1))
    journal.append(RING, 192, [event(1, b"late")])
    journal.commit()
    assert replayed(dir_fd) == [
        Batch(RING, 128, [event(2)]),
        Batch(RING, 192, []),
        Settled(trace_id(1)),
    ]


def test_ends_and_closes_are_known_as_soon_as_replay_returns(journal: Journal, dir_fd: int) -> None:
    journal.append(RING, 64, [Record(Kind.CLOSE, 0, 1, trace_id(1), b"")])
    journal.append(OTHER_RING, 72, [event(2)])
    journal.commit()
    journal.append(RING, 256, [Record(Kind.CLOSE, 0, 2, trace_id(3), b""), event(4)])
    journal.settled(trace_id(3))
    journal.commit()
    successor = Journal(dir_fd)
    successor.replay()
    assert successor.ends() == {RING: 256, OTHER_RING: 72}
    assert successor.closes() == {RING: 2}
    successor.forget_ring(RING)
    assert successor.ends() == {OTHER_RING: 72}
    assert successor.closes() == {}


def test_a_ring_whose_file_is_gone_is_still_named_while_its_trace_is_open(journal: Journal, dir_fd: int) -> None:
    """So a successor that finds no such file knows that this process died."""
    journal.append(RING, 64, [Record(Kind.OPEN, 0, 0, trace_id(1), b"")])
    journal.commit()
    fill(journal, 9)
    for number in range(2, 10):
        journal.settled(trace_id(number))
    journal.commit()
    successor = Journal(dir_fd)
    assert Batch(RING, 64, [Record(Kind.OPEN, 0, 0, trace_id(1), b"")]) in list(successor.replay())
    assert RING in successor.ends()


def test_segments_are_private_files_in_order(journal: Journal, tmp_path: Path) -> None:
    fill(journal, 5)
    paths = segment_paths(tmp_path)
    assert [path.name for path in paths] == [f"journal-{n:016}" for n in (1, 2, 3)]
    assert {stat.S_IMODE(path.stat().st_mode) for path in paths} == {0o600}
    assert journal.segments == 3
    assert journal.size_bytes == sum(path.stat().st_size for path in paths)


def test_a_batch_larger_than_a_segment_has_one_of_its_own(journal: Journal, dir_fd: int) -> None:
    fill(journal, 1)
    journal.append(RING, 10**6, [event(2, bytes(5000))])
    journal.commit()
    journal.append(RING, 10**6 + 48, [event(3)])
    journal.commit()
    assert [sorted(journal.pinned(n)) for n in range(3)] == [[trace_id(1)], [trace_id(2)], [trace_id(3)]]
    assert len(replayed(dir_fd)) == 3


def test_more_frames_than_one_writev_takes_are_all_written(
    journal: Journal, dir_fd: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segments_module, "_IOV_MAX", 3)
    for number in range(20):
        journal.append(trace_id(number), number, [event(number)])
    journal.commit()
    assert [batch.end for batch in replayed(dir_fd)] == list(range(20))  # type: ignore[union-attr]


def test_the_oldest_segments_go_when_their_traces_are_settled(journal: Journal, tmp_path: Path) -> None:
    fill(journal, 7)
    for number in (3, 4, 5):
        journal.settled(trace_id(number))
    journal.commit()
    assert len(segment_paths(tmp_path)) == 4, "the oldest is still needed, so none may go"
    journal.settled(trace_id(1))
    journal.settled(trace_id(2))
    journal.commit()
    assert [path.name[-1] for path in segment_paths(tmp_path)] == ["3", "4"], "trace 6 keeps the third"


def test_the_segment_being_written_stays(journal: Journal, tmp_path: Path) -> None:
    """A successor reads in it how far the rings were read."""
    fill(journal, 1)
    journal.settled(trace_id(1))
    journal.commit()
    journal.commit()
    assert len(segment_paths(tmp_path)) == 1


def test_records_of_no_trace_keep_no_segment(journal: Journal, tmp_path: Path) -> None:
    journal.append(RING, 40, [Record(Kind.BYE, 0, 0, NO_TRACE, bytes(900))])
    journal.commit()
    assert journal.pinned(0) == frozenset()
    fill(journal, 1)
    assert [path.name[-1] for path in segment_paths(tmp_path)] == ["2"]


def test_a_trace_that_nobody_knows_keeps_no_segment(journal: Journal, tmp_path: Path) -> None:
    fill(journal, 5)
    journal.keep_only({trace_id(4)})
    journal.commit()
    assert [path.name[-1] for path in segment_paths(tmp_path)] == ["2", "3"]
    assert trace_id(4) in journal.pinned(0)
    journal.keep_only(set())
    assert journal.pinned(0) == set()


def test_segment_that_is_needed_is_not_searched_to_the_end(journal: Journal) -> None:
    """Each second it is asked, and with very many open traces a look at all of them took a third of a processor."""
    asked = []

    class All:
        def __contains__(self, trace_id: object) -> bool:
            asked.append(trace_id)
            return True

    journal.append(RING, 48, [Record(Kind.EVENT, 0, 0, trace_id(number), b"") for number in range(1, 251)])
    journal.commit()
    for _ in range(3):
        journal.keep_only(All())
    assert len(asked) == 3
    assert len(journal.pinned(0)) == 250


def test_records_that_are_not_committed_are_kept_by_keep_only(journal: Journal) -> None:
    journal.append(RING, 48, [event(1)])
    journal.keep_only(set())
    journal.commit()
    assert journal.pinned(0) == {trace_id(1)}


def test_closing_leaves_no_file_when_all_is_settled(journal: Journal, tmp_path: Path) -> None:
    fill(journal, 3)
    for number in (1, 2, 3):
        journal.settled(trace_id(number))
    journal.commit()
    journal.close()
    assert list(tmp_path.iterdir()) == []


def test_closing_keeps_what_is_not_settled(journal: Journal, dir_fd: int) -> None:
    fill(journal, 1)
    journal.close()
    assert len(replayed(dir_fd)) == 1


def test_a_successor_writes_to_a_segment_of_its_own(journal: Journal, dir_fd: int, tmp_path: Path) -> None:
    fill(journal, 1)
    successor = Journal(dir_fd)
    list(successor.replay())
    successor.append(RING, 1000, [event(2)])
    successor.commit()
    successor.close()
    assert [path.name[-1] for path in segment_paths(tmp_path)] == ["1", "2"]
    assert [batch.end for batch in replayed(dir_fd)] == [448, 1000]  # type: ignore[union-attr]


def test_a_successor_deletes_what_its_predecessor_left_settled(journal: Journal, dir_fd: int, tmp_path: Path) -> None:
    fill(journal, 3)
    for number in (1, 2, 3):
        journal.settled(trace_id(number))
    journal._write()
    successor = Journal(dir_fd)
    list(successor.replay())
    assert segment_paths(tmp_path), "only a commit deletes: before it the rings' tails were moved"
    successor.commit()
    assert segment_paths(tmp_path) == []


def test_a_name_that_is_taken_is_passed_by(journal: Journal, dir_fd: int, tmp_path: Path) -> None:
    (tmp_path / f"journal-{1:016}").mkdir()
    journal.append(RING, 48, [event(1)])
    with pytest.raises(FileExistsError):
        journal.commit()
    journal.commit()
    assert replayed(dir_fd) == [Batch(RING, 48, [event(1)])]


def test_no_descriptor_is_left_open(dir_fd: int, tmp_path: Path) -> None:
    (tmp_path / f"journal-{1:016}").mkdir()
    before = len(os.listdir("/dev/fd"))
    journal = Journal(dir_fd, segment_bytes=1000)
    list(journal.replay())
    fill(journal, 9)
    journal.close()
    (segment_paths(tmp_path)[0]).write_bytes(b"not a segment at all")
    list(Journal(dir_fd).replay())
    assert len(os.listdir("/dev/fd")) == before


def test_marks_are_written_once(journal: Journal, dir_fd: int) -> None:
    for number in (1, 2, 3):
        journal.settled(trace_id(number))
        journal.commit()
    assert replayed(dir_fd) == [Settled(trace_id(1)), Settled(trace_id(2)), Settled(trace_id(3))]


def test_a_deleted_folder_makes_no_error_and_fills_no_memory(journal: Journal, tmp_path: Path) -> None:
    fill(journal, 1)
    shutil.rmtree(tmp_path)
    for _ in range(3):
        fill(journal, 3)
        journal.settled(trace_id(1))
        journal.settled(trace_id(2))
        journal.settled(trace_id(3))
        journal.commit()
    assert journal.buffered_bytes == 0
    assert journal.segments == 0


# Files that are used again


def settle_all(journal: Journal, traces: int) -> None:
    for number in range(1, traces + 1):
        journal.settled(trace_id(number))
    journal.commit()


@pytest.fixture
def used_again(journal: Journal, tmp_path: Path) -> Path:
    """The first file, in which the third segment has one commit over the two of the first, all of one length."""
    fill(journal, 3)
    settle_all(journal, 2)
    journal.append(RING, 4 * 448, [event(4, bytes(400))])
    journal.commit()
    (path,) = (path for path in segment_paths(tmp_path) if path.name[-1] == "1")
    return path


def assert_torn_anywhere(journal: Journal, dir_fd: int, path: Path, before: bytes, ends: list[int]) -> None:
    """Let the last write to a file be torn at each byte. All batches but the last are found, and that one if whole."""
    after, size_bytes = path.read_bytes(), journal._segments[-1].size_bytes
    for length in range(size_bytes + 1):
        path.write_bytes(after[:length] + before[length:])
        successor = Journal(dir_fd)
        batches = [item for item in successor.replay() if isinstance(item, Batch) and item.records]
        assert [batch.end for batch in batches] == (ends if length == size_bytes else ends[:-1])
        assert successor.corrupt == 0


def test_the_file_of_a_segment_that_is_needed_no_more_is_used_again(
    journal: Journal, dir_fd: int, tmp_path: Path
) -> None:
    """The folder stays as it is, so no collector has to look for new rings in it."""
    fill(journal, 3)
    settle_all(journal, 2)
    names = sorted(os.listdir(tmp_path))
    first = tmp_path / names[0]
    os.utime(tmp_path, (1, 1))
    inode = first.stat().st_ino
    for number in range(4, 20):
        journal.append(RING, number * 448, [event(number, bytes(400))])
        journal.settled(trace_id(number - 1))
        journal.commit()
    assert sorted(os.listdir(tmp_path)) == names
    assert tmp_path.stat().st_mtime == 1
    assert first.stat().st_ino == inode
    assert journal.size_bytes <= 3000
    found = [item for item in replayed(dir_fd) if isinstance(item, Batch) and item.records]
    assert found == [Batch(RING, 19 * 448, [event(19, bytes(400))])]


def test_of_an_older_segment_in_the_same_file_nothing_is_found(journal: Journal, dir_fd: int, used_again: Path) -> None:
    """A process that is killed in the middle of a write leaves its beginning, and behind it what was there before."""
    before = used_again.read_bytes()
    assert before.count(bytes(400)) == 2, "the older segment's second frame is still there"
    journal.append(RING, 5 * 448, [event(5, b"x" * 400)])
    journal.commit()
    assert_torn_anywhere(journal, dir_fd, used_again, before, [3 * 448, 4 * 448, 5 * 448])


def test_an_older_frame_where_a_new_one_would_stand_is_none(journal: Journal, dir_fd: int, tmp_path: Path) -> None:
    """Frames of one length, as a steady load has them: a file's third segment has its first over that of its second."""
    for number in range(1, 10):
        journal.keep_only(())
        journal.append(RING, number * 448, [event(number, bytes(400))])
        journal.commit()
    last = journal._segments[-1]
    assert (last.number, last.file_number) == (5, 1)
    data = (tmp_path / last.name).read_bytes()
    assert len(data) == last.old_bytes == 2 * last.size_bytes - HEAD_BYTES
    assert parse(data).good_bytes == last.size_bytes
    assert parse(encode_head(3, last.old_bytes) + data[last.size_bytes :]).frames, "it is whole, but an older one's"
    records = [record for item in replayed(dir_fd) if isinstance(item, Batch) for record in item.records]
    assert event(6, bytes(400)) not in records


def test_the_first_write_to_such_a_file_may_be_torn_anywhere(journal: Journal, dir_fd: int, tmp_path: Path) -> None:
    fill(journal, 3)
    settle_all(journal, 2)
    first = tmp_path / f"journal-{1:016}"
    before = first.read_bytes()
    assert bytes(400) in before
    journal.append(RING, 4 * 448, [event(4, bytes(400))])
    journal.commit()
    assert_torn_anywhere(journal, dir_fd, first, before, [3 * 448, 4 * 448])


def test_segments_are_read_in_the_order_in_which_they_began(
    journal: Journal, dir_fd: int, tmp_path: Path, used_again: Path
) -> None:
    assert [path.name[-1] for path in segment_paths(tmp_path)] == ["1", "2"]
    ends = [item.end for item in replayed(dir_fd) if isinstance(item, Batch)]
    assert ends == [3 * 448, 4 * 448]
    fill_from = Journal(dir_fd, segment_bytes=1000)
    list(fill_from.replay())
    fill_from.append(RING, 5 * 448, [event(5)])
    fill_from.commit()
    assert [path.name[-1] for path in segment_paths(tmp_path)] == ["1", "2", "4"]
    fill_from.close()


def test_a_whole_segment_ends_where_its_file_ends(journal: Journal, dir_fd: int, used_again: Path) -> None:
    assert used_again.stat().st_size > journal._segments[-1].size_bytes
    journal.append(RING, 10**6, [event(5, bytes(900))])
    journal.commit()
    assert used_again.stat().st_size == journal._segments[-2].size_bytes
    damaged = bytearray(used_again.read_bytes())
    damaged[-1] ^= 1
    used_again.write_bytes(damaged)
    successor = Journal(dir_fd)
    list(successor.replay())
    assert successor.corrupt == 1


@pytest.mark.parametrize("at", range(8, 29))
def test_a_head_that_is_damaged_is_not_taken_for_another(
    journal: Journal, dir_fd: int, used_again: Path, at: int
) -> None:
    damaged = bytearray(used_again.read_bytes())
    damaged[at] ^= 2
    used_again.write_bytes(damaged)
    successor = Journal(dir_fd)
    assert [item.end for item in successor.replay() if isinstance(item, Batch)] == [3 * 448]
    assert successor.corrupt == 1


def test_what_a_file_held_is_gone_before_it_is_used_again(journal: Journal, dir_fd: int, tmp_path: Path) -> None:
    """The marks of its traces may be deleted while it waits, and not all that is needed no more has a mark."""
    traces = 2 * segments_module.SPARES + 5
    fill(journal, traces)
    journal.keep_only(())
    journal.commit()
    assert len(os.listdir(tmp_path)) == segments_module.SPARES + 1
    # The process dies here.
    assert replayed(dir_fd) == [Batch(RING, traces * 448, [event(traces, bytes(400))])]


def test_files_that_are_used_again_survive_a_death_at_any_byte(tmp_path: Path) -> None:
    """What was committed and has no mark is found; what has one is not; what was being written may be either."""
    deaths_over_old_bytes = 0
    for seed in range(100):
        chance = random.Random(seed)
        folder = tmp_path / str(seed)
        folder.mkdir()
        fd = os.open(folder, os.O_RDONLY)
        page = Page()
        journal, kernel = Journal(fd, page, segment_bytes=600), Kernel()
        needed: set[bytes] = set()
        for number in range(1, 40):
            new = event(number, bytes(chance.choice((100, 100, 180))))
            done = {each for each in sorted(needed) if chance.random() < 0.7}
            journal.append(RING, number, [new])
            journal.settled(*done)
            if chance.random() < 0.2:
                kernel.calls_left, kernel.torn_bytes = chance.randrange(4), chance.randrange(400)
            try:
                with instead_of_os(kernel):
                    journal.commit()
                needed = needed - done | {new.trace_id}
            except Crash:
                deaths_over_old_bytes += any(segment.old_bytes for segment in journal._segments)
                bury(journal._segments)
                journal, kernel = Journal(fd, page, segment_bytes=600), Kernel()
                found = {
                    record.trace_id for item in journal.replay() if isinstance(item, Batch) for record in item.records
                }
                assert needed - done <= found <= needed | {new.trace_id}
                assert journal.corrupt == 0
                needed = found
        journal.close()
        os.close(fd)
    assert deaths_over_old_bytes > 100


def test_a_spare_file_that_is_not_needed_goes(journal: Journal, tmp_path: Path) -> None:
    fill(journal, 3)
    settle_all(journal, 2)
    journal.tidy()
    assert len(os.listdir(tmp_path)) == 2, "a segment has begun since the last look"
    journal.tidy()
    assert [path.name[-1] for path in tmp_path.iterdir()] == ["2"]
    journal.tidy()
    fill(journal, 3)
    assert len(replayed(os.open(tmp_path, os.O_RDONLY))) > 1


def test_a_segment_that_is_too_large_is_no_spare(journal: Journal, tmp_path: Path) -> None:
    journal.append(RING, 48, [event(1, bytes(2000))])
    journal.commit()
    fill(journal, 1)
    settle_all(journal, 1)
    assert [path.name[-1] for path in tmp_path.iterdir()] == ["2"]


def test_a_successor_deletes_a_spare_file(journal: Journal, dir_fd: int, tmp_path: Path) -> None:
    fill(journal, 3)
    settle_all(journal, 2)
    successor = Journal(dir_fd)
    list(successor.replay())
    assert successor.corrupt == 0
    successor.commit()
    assert [path.name[-1] for path in tmp_path.iterdir()] == ["2"]


# No space


@contextmanager
def full_at(size_bytes: int) -> Iterator[None]:
    """Let no file grow over a size: the kernel writes what fits and then refuses, as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_failed_commit_leaves_nothing_torn_and_is_whole_at_the_next(
    journal: Journal, dir_fd: int, tmp_path: Path
) -> None:
    fill(journal, 1)
    size_bytes = journal.size_bytes
    journal.append(RING, 500, [event(2)])
    journal.append(RING, 900, [event(3, bytes(300))])
    journal.settled(trace_id(9))
    for _ in range(3):
        with full_at(700), pytest.raises(OSError) as raised:
            journal.commit()
        assert raised.value.errno == errno.EFBIG
        assert segment_paths(tmp_path)[0].stat().st_size == journal.size_bytes == size_bytes
    journal.commit()
    assert journal.buffered_bytes == 0
    assert replayed(dir_fd) == [
        Batch(RING, 448, [event(1, bytes(400))]),
        Batch(RING, 500, [event(2)]),
        Batch(RING, 900, [event(3, bytes(300))]),
        Settled(trace_id(9)),
    ]


def test_a_partial_write_that_cannot_be_cut_off_holds_up_the_next(
    journal: Journal, dir_fd: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(fd: int, length: int) -> None:
        raise OSError(errno.EIO, "no cut")

    fill(journal, 1)
    journal.append(RING, 500, [event(2)])
    journal.append(RING, 900, [event(3, bytes(300))])
    with monkeypatch.context() as patch:
        patch.setattr(os, "ftruncate", refuse)
        for code in (errno.EFBIG, errno.EIO, errno.EIO):
            with full_at(700), pytest.raises(OSError) as raised:
                journal.commit()
            assert raised.value.errno == code
    assert segment_paths(tmp_path)[0].stat().st_size == 700
    journal.commit()
    assert [batch.end for batch in replayed(dir_fd)] == [448, 500, 900]  # type: ignore[union-attr]


def test_settled_segments_go_even_when_nothing_can_be_written(
    journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are what fills the disk; waiting for their marks to fit would wait for ever."""

    def refuse(fd: int, buffers: list[bytes]) -> int:
        raise OSError(errno.ENOSPC, "no space")

    fill(journal, 3)
    journal.settled(trace_id(1))
    journal.settled(trace_id(2))
    monkeypatch.setattr(os, "writev", refuse)
    with pytest.raises(OSError):
        journal.commit()
    assert [path.name[-1] for path in segment_paths(tmp_path)] == ["2"]


def test_a_short_write_is_completed(journal: Journal, dir_fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    writev, write = os.writev, os.write
    monkeypatch.setattr(os, "writev", lambda fd, buffers: writev(fd, [b"".join(buffers)[:5]]))
    monkeypatch.setattr(os, "write", lambda fd, rest: write(fd, rest[:7]))
    fill(journal, 3)
    monkeypatch.undo()
    assert [batch.end for batch in replayed(dir_fd)] == [448, 896, 1344]  # type: ignore[union-attr]


# Damage


def test_a_torn_end_is_cut_off_at_every_byte(journal: Journal, dir_fd: int, tmp_path: Path) -> None:
    journal.append(RING, 48, [event(1)])
    journal.commit()
    (path,) = segment_paths(tmp_path)
    good_bytes = path.stat().st_size
    journal.append(RING, 96, [event(2)])
    journal.commit()
    whole = path.read_bytes()
    for length in range(good_bytes, len(whole)):
        path.write_bytes(whole[:length])
        assert replayed(dir_fd) == [Batch(RING, 48, [event(1)])]
        assert path.stat().st_size == good_bytes
    for length in range(good_bytes):
        path.write_bytes(whole[:length])
        assert replayed(dir_fd) == []
    assert list(tmp_path.iterdir()) == [path], "what is torn was never promised, so it is not set aside"


def test_a_segment_that_was_never_written_to_is_no_damage(dir_fd: int, tmp_path: Path) -> None:
    for number in (1, 2):
        (tmp_path / f"journal-{number:016}").touch(0o600)
    journal = Journal(dir_fd)
    assert list(journal.replay()) == []
    assert journal.corrupt == 0


def test_a_segment_larger_than_any_is_set_aside_and_not_read_into_memory(dir_fd: int, tmp_path: Path) -> None:
    path = tmp_path / f"journal-{1:016}"
    path.touch(0o600)
    path.write_bytes(MAGIC)
    os.truncate(path, 1 << 30)
    tracemalloc.start()
    try:
        journal = Journal(dir_fd)
        assert list(journal.replay()) == []
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
    assert journal.corrupt == 1
    assert [each.name for each in tmp_path.iterdir()] == [f"{path.name}.corrupt"]
    assert (tmp_path / f"{path.name}.corrupt").stat().st_size == 1 << 30


def test_an_end_of_zeros_is_not_taken_for_frames(journal: Journal, dir_fd: int, tmp_path: Path) -> None:
    """A disk may come back from a crash with a file's length and not its bytes."""
    fill(journal, 1)
    (path,) = segment_paths(tmp_path)
    path.write_bytes(path.read_bytes() + bytes(500))
    assert len(replayed(dir_fd)) == 1


def test_what_stands_behind_a_corrupt_frame_is_set_aside(
    journal: Journal, dir_fd: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fill(journal, 6)
    second = segment_paths(tmp_path)[1]
    damaged = bytearray(second.read_bytes())
    damaged[len(damaged) // 2 - 20] ^= 1
    second.write_bytes(damaged)
    successor = Journal(dir_fd)
    with caplog.at_level(logging.WARNING):
        found = list(successor.replay())
    assert [batch.end for batch in found] == [448 * n for n in (1, 2, 5, 6)]  # type: ignore[union-attr]
    assert successor.corrupt == 1
    assert len(caplog.records) == 1
    assert "wrong CRC" in caplog.text
    aside = second.with_name(second.name + ".corrupt")
    assert second.read_bytes() + aside.read_bytes() == bytes(damaged)
    assert stat.S_IMODE(aside.stat().st_mode) == 0o600
    again = Journal(dir_fd)
    assert list(again.replay()) == found
    assert again.corrupt == 0


def test_a_corrupt_length_in_an_older_segment_is_not_a_torn_end(journal: Journal, dir_fd: int, tmp_path: Path) -> None:
    fill(journal, 3)
    first = segment_paths(tmp_path)[0]
    damaged = bytearray(first.read_bytes())
    damaged[8 + 3] = 0x7F
    first.write_bytes(damaged)
    successor = Journal(dir_fd)
    assert [batch.end for batch in successor.replay()] == [1344]  # type: ignore[union-attr]
    assert successor.corrupt == 1


@pytest.fixture(params=["a new file", "a file that is used again"])
def youngest(request: pytest.FixtureRequest, journal: Journal, tmp_path: Path) -> Path:
    """The file that is written. It has two commits."""
    if request.param == "a new file":
        fill(journal, 2)
        return segment_paths(tmp_path)[0]
    path: Path = request.getfixturevalue("used_again")
    journal.append(RING, 5 * 448, [event(5, b"x" * 350)])
    journal.commit()
    return path


def assert_told(dir_fd: int, page: Page, path: Path, damaged: bytes) -> None:
    """Each record of a damaged file is read or set aside, and that is told once."""
    path.write_bytes(damaged)
    told = Page()
    told._slots.update(page._slots)
    successor = Journal(dir_fd, told)
    list(successor.replay())
    assert successor.corrupt == 1
    aside = path.with_name(path.name + ".corrupt")
    assert path.read_bytes() + aside.read_bytes() == damaged
    aside.unlink()
    again = Journal(dir_fd, told)
    list(again.replay())
    assert again.corrupt == 0


def test_damage_anywhere_in_what_was_written_is_told(journal: Journal, dir_fd: int, page: Page, youngest: Path) -> None:
    """It is no torn end, whatever it makes of a length, and whatever stands behind it."""
    whole, size_bytes = youngest.read_bytes(), journal._segments[-1].size_bytes
    for at in {*range(2 * HEAD_BYTES), *range(0, size_bytes, 13), size_bytes - 1}:
        damaged = bytearray(whole)
        damaged[at] ^= 1
        assert_told(dir_fd, page, youngest, bytes(damaged))


def test_what_was_written_and_is_cut_off_is_told(journal: Journal, dir_fd: int, page: Page, youngest: Path) -> None:
    whole = youngest.read_bytes()
    for length in range(0, journal._segments[-1].size_bytes, 13):
        assert_told(dir_fd, page, youngest, whole[:length])


def test_youngest_file_that_somebody_deleted_is_told(
    dir_fd: int, page: Page, youngest: Path, caplog: pytest.LogCaptureFixture
) -> None:
    youngest.unlink()
    for corrupt in (1, 0):
        successor = Journal(dir_fd, page)
        list(successor.replay())
        assert successor.corrupt == corrupt
    assert caplog.messages == [f"{youngest.name} was deleted, with what had not arrived"]


@pytest.mark.parametrize("name", ["1", "2", "3"])
def test_file_that_somebody_deletes_is_missed_and_not_written_to(
    journal: Journal, dir_fd: int, page: Page, tmp_path: Path, name: str
) -> None:
    """The first is a spare one, the third is the one that is written."""
    fill(journal, 5)
    settle_all(journal, 2)
    (tmp_path / f"journal-{1:016}").with_name(f"journal-{name:0>16}").unlink()
    assert journal.miss() == ([] if name == "1" else [f"journal-{name:0>16}"])
    assert journal.miss() == []
    assert journal.incomplete == (name != "1")
    for number in range(6, 10):
        journal.append(RING, number * 448, [event(number, bytes(400))])
        journal.commit()
    successor = Journal(dir_fd, page)
    ends = [item.end for item in successor.replay() if isinstance(item, Batch) and item.records]
    assert ends == [n * 448 for n in range(3, 10) if n not in {"1": (), "2": (3, 4), "3": (5,)}[name]]
    assert successor.corrupt == 0


@pytest.mark.parametrize("traces", [1, 2, 3])
def test_file_that_goes_because_nothing_needs_it_is_not_missed(
    journal: Journal, dir_fd: int, page: Page, tmp_path: Path, traces: int
) -> None:
    fill(journal, traces)
    settle_all(journal, traces)
    journal.close()
    assert list(tmp_path.iterdir()) == []
    successor = Journal(dir_fd, page)
    list(successor.replay())
    assert successor.corrupt == 0


@pytest.mark.parametrize("number", [2**32 - 2, 2**32 - 1, 10**15])
def test_a_number_that_somebody_else_made_large_is_gone_on_from(dir_fd: int, tmp_path: Path, number: int) -> None:
    (tmp_path / f"journal-{number:016}").touch(0o600)
    page = StatePage(dir_fd, create=True)
    journal = Journal(dir_fd, page)
    assert list(journal.replay()) == []
    fill(journal, 1)
    assert segment_paths(tmp_path)[-1].name == f"journal-{number + 1:016}"
    successor = Journal(dir_fd, page)
    assert [batch.end for batch in successor.replay()] == [448]  # type: ignore[union-attr]
    assert successor.corrupt == 0


def test_a_segment_of_another_version_is_set_aside(dir_fd: int, tmp_path: Path) -> None:
    (tmp_path / f"journal-{7:016}").touch(0o600)
    (tmp_path / f"journal-{7:016}").write_bytes(b"EPSFJRN9" + bytes(100))
    journal = Journal(dir_fd)
    assert list(journal.replay()) == []
    assert journal.corrupt == 1
    journal.append(RING, 48, [event(1)])
    journal.commit()
    journal.close()
    assert [path.name for path in segment_paths(tmp_path)] == [f"journal-{8:016}"]


def test_a_number_that_was_set_aside_is_not_used_again(dir_fd: int, tmp_path: Path) -> None:
    aside = tmp_path / f"journal-{7:016}.corrupt"
    aside.write_bytes(b"kept")
    journal = Journal(dir_fd)
    assert list(journal.replay()) == []
    journal.append(RING, 48, [event(1)])
    journal.commit()
    assert [path.name for path in segment_paths(tmp_path)] == [f"journal-{8:016}"]
    assert aside.read_bytes() == b"kept"


@pytest.mark.parametrize("plant", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("/etc/passwd")])
def test_what_is_no_file_is_set_aside(dir_fd: int, tmp_path: Path, plant: Callable[[Path], None]) -> None:
    plant(tmp_path / f"journal-{1:016}")
    journal = Journal(dir_fd)
    assert list(journal.replay()) == []
    assert journal.corrupt == 1
    assert [path.name for path in tmp_path.iterdir()] == [f"journal-{1:016}.corrupt"]


def test_other_files_of_the_folder_are_left_alone(dir_fd: int, tmp_path: Path) -> None:
    for name in ("journal-1", "journal-0000000000000001.corrupt", "state", "start", "x.ring"):
        (tmp_path / name).write_bytes(b"x")
    journal = Journal(dir_fd)
    assert list(journal.replay()) == []
    journal.commit()
    assert len(list(tmp_path.iterdir())) == 5


def test_replay_survives_a_folder_that_is_deleted_meanwhile(journal: Journal, dir_fd: int, tmp_path: Path) -> None:
    fill(journal, 4)
    successor = Journal(dir_fd)
    found = successor.replay()
    next(found)
    gone = segment_paths(tmp_path)
    for path in gone:
        path.unlink()
    assert len(list(found)) == 1
    assert successor.corrupt == len(gone) - 1, "all but the one that was being read"


def test_random_damage_never_raises_and_never_invents_a_record(tmp_path: Path) -> None:
    """Whatever bytes are flipped, cut, doubled or zeroed: only records that were written come out."""
    for seed in range(300):
        chance = random.Random(seed)
        folder = tmp_path / str(seed)
        folder.mkdir()
        fd = os.open(folder, os.O_RDONLY)
        journal = Journal(fd, segment_bytes=600)
        written = set()
        for number in range(1, 13):
            record = event(number, chance.randbytes(chance.randrange(200)))
            written.add(record)
            journal.append(RING, number, [record] * chance.randrange(3))
            if chance.random() < 0.3:
                journal.settled(trace_id(chance.randrange(number)))
            journal.commit()
        journal.close()
        for path in segment_paths(folder):
            path.write_bytes(damage(path.read_bytes(), chance))
        successor = Journal(fd, segment_bytes=600)
        for found in successor.replay():
            assert isinstance(found, Settled) or written.issuperset(found.records)
        successor.append(RING, 99, [event(99)])
        successor.commit()
        successor.close()
        last = replayed(fd)[-1]
        assert last == Batch(RING, 99, [event(99)])
        os.close(fd)


def damage(data: bytes, chance: random.Random) -> bytes:
    damaged = bytearray(data)
    for _ in range(chance.randrange(4)):
        at, end = sorted(chance.randrange(len(data) + 1) for _ in range(2))
        match chance.randrange(5):
            case 0:
                damaged[at : at + 1] = chance.randbytes(1)
            case 1:
                del damaged[at:end]
            case 2:
                damaged[at:end] = damaged[at:end] * 2
            case 3:
                damaged[at:end] = bytes(end - at)
            case 4:
                damaged[at:at] = chance.randbytes(chance.randrange(64))
    return bytes(damaged)
