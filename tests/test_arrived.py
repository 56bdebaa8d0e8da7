"""Traces that arrived are known to the next collector, although this one has not settled them."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import servers
from hypothesis import given
from hypothesis import strategies as st
from passes import Folder, Process, made_folder, passes
from waiting import until

from epsagon_fast.collector.sending.arrived import MOST_IDS, SIZE_BYTES, Arrived
from epsagon_fast.queue import layout
from epsagon_fast.queue.names import ARRIVED


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Folder]:
    with made_folder(tmp_path, monkeypatch) as made:
        yield made


def ids(first: int, count: int) -> list[bytes]:
    return [number.to_bytes(16) for number in range(first, first + count)]


def test_trace_that_arrived_is_settled_by_the_next_collector_and_not_sent_again(folder: Folder) -> None:
    process, first = Process(folder), folder.collector()
    closed = {process.open(f"trace {number}") for number in range(3)}
    opened = process.open("open")
    for trace_id in closed:
        process.close(trace_id)
    passes(first, lambda: first.counts["closed"] == 3)
    # No pass takes the answers.
    until(lambda: first.arrived.last() >= closed, "they arrive")
    assert process.counts() == (3, 0)
    second = folder.collector()
    assert process.counts() == (3, 3)
    assert second.counts["delivered"] == 3
    process.close(opened)
    passes(second, lambda: process.counts() == (4, 4))
    assert folder.arrived().keys() == {"trace 0", "trace 1", "trace 2", "open"}


def test_finished_trace_that_the_journal_has_copied_forward_is_not_sent_again(folder: Folder) -> None:
    process, first = Process(folder), folder.collector()
    trace_id = process.open("copied")
    process.close(trace_id)
    passes(first, lambda: first.counts["closed"] == 1)
    first.journal.incomplete = True
    first.compaction.step()
    first.intake.commit()
    until(lambda: trace_id in first.arrived.last(), "it arrives")
    second = folder.collector()
    assert process.counts() == (1, 1)
    assert second.sending.parcel(trace_id) is None


def test_stored_trace_that_arrived_is_not_taken_again_by_the_next_collector(folder: Folder) -> None:
    folder.server.behave = servers.status(503)
    process, first = Process(folder), folder.collector()
    trace_id = process.open("stored")
    process.close(trace_id)
    passes(first, lambda: first.counts["stored"] == 1)
    folder.server.requests.clear()
    folder.server.behave = servers.status(200)
    passes(first, lambda: first.sending.busy)
    # No pass takes the answer.
    until(lambda: trace_id in first.arrived.last(), "it arrives")
    second = folder.collector()
    passes(second, lambda: second.counts["delivered"] == 1)
    assert second.sending.stored == 0
    assert folder.arrived().keys() == {"stored"}


def test_trace_that_did_not_arrive_is_not_noted(folder: Folder) -> None:
    folder.server.behave = lambda *_: False
    process, loop = Process(folder), folder.collector()
    process.close(process.open("main"))
    passes(loop, lambda: process.ring.load(layout.SETTLED) == 1)
    assert loop.counts["stored"] == 1
    assert loop.arrived.last() == {bytes(16)}


@given(st.lists(st.integers(0, 2 * MOST_IDS), max_size=4))
def test_last_ids_are_known(tmp_path_factory: pytest.TempPathFactory, counts: list[int]) -> None:
    folder_fd = os.open(tmp_path_factory.mktemp("arrived"), os.O_RDONLY)
    arrived, noted = Arrived(folder_fd), 1
    for count in counts:
        arrived.note(ids(noted, count))
        noted += count
    os.close(folder_fd)
    last = min(MOST_IDS, noted - 1)
    assert arrived.last() - {bytes(16)} == set(ids(noted - last, last))


def test_next_collector_finds_what_was_noted(folder_fd: int) -> None:
    Arrived(folder_fd).note(ids(1, 3))
    second = Arrived(folder_fd)
    assert second.last() == {bytes(16), *ids(1, 3)}
    second.note(ids(9, 1))
    assert Arrived(folder_fd).last() == {bytes(16), *ids(2, 2), *ids(9, 1)}


@pytest.mark.parametrize("size_bytes", [0, 5, SIZE_BYTES - 1, SIZE_BYTES + 5])
def test_file_of_another_size_is_used_as_far_as_it_goes(tmp_path: Path, folder_fd: int, size_bytes: int) -> None:
    (tmp_path / ARRIVED).write_bytes(b"x" * size_bytes)
    (tmp_path / ARRIVED).chmod(0o600)
    arrived = Arrived(folder_fd)
    arrived.note(ids(1, 1))
    assert arrived.last() >= set(ids(1, 1))


@pytest.mark.parametrize("meddle", [Path.unlink, lambda path: os.truncate(path, 5), lambda path: path.rename("gone")])
def test_file_that_somebody_takes_away_is_made_again(
    tmp_path: Path, folder_fd: int, meddle: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arrived = Arrived(folder_fd)
    meddle(tmp_path / ARRIVED)
    arrived.look()
    arrived.note(ids(1, 3))
    arrived.look()
    assert Arrived(folder_fd).last() >= set(ids(1, 3))


def test_file_has_no_holes_that_a_full_disk_cannot_fill(tmp_path: Path, folder_fd: int) -> None:
    Arrived(folder_fd).note(ids(1, 3))
    noted = (tmp_path / ARRIVED).read_bytes()[:48]
    os.truncate(tmp_path / ARRIVED, 48)
    os.truncate(tmp_path / ARRIVED, SIZE_BYTES)
    assert Arrived(folder_fd).last() == {bytes(16), *ids(1, 3)}
    assert (tmp_path / ARRIVED).read_bytes() == noted.ljust(SIZE_BYTES, b"\0")
    assert (tmp_path / ARRIVED).stat().st_blocks * 512 >= SIZE_BYTES


def test_without_its_file_nothing_is_noted(tmp_path: Path, folder_fd: int, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / ARRIVED).symlink_to("elsewhere")
    arrived = Arrived(folder_fd)
    arrived.note(ids(1, 1))
    assert arrived.last() == set()
    assert "may come twice" in caplog.text
