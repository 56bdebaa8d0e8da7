"""The collector's page, written by one and read by anybody."""

import os
from collections import Counter
from pathlib import Path

import pytest

from epsagon_fast.collector.__main__ import own_page
from epsagon_fast.collector.settling.counters import Counters
from epsagon_fast.queue import state as states
from epsagon_fast.queue.state import StatePage


@pytest.fixture
def page(folder_fd: int) -> StatePage:
    return StatePage(folder_fd, create=True)


def test_page_that_is_not_there_is_not_made_by_a_reader(folder_fd: int, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        StatePage(folder_fd)
    assert list(tmp_path.iterdir()) == []


def test_what_one_writes_another_reads(page: StatePage, folder_fd: int) -> None:
    for slot, value in ((states.PID, 7), (states.INCARNATION, 3), (states.PHASE, states.LEAVING)):
        page.store(slot, value)
    beat = StatePage(folder_fd).beat()
    assert (beat.pid, beat.incarnation, beat.phase) == (7, 3, states.LEAVING)


def test_page_outlives_its_writer_and_is_never_zeroed(page: StatePage, folder_fd: int) -> None:
    page.store(states.INCARNATION, 5)
    page.set_counter("delivered", 9)
    page.close()
    again = StatePage(folder_fd, create=True)
    assert again.load(states.INCARNATION) == 5
    assert again.counters() == {"delivered": 9}


def test_page_takes_its_room_at_once(page: StatePage, tmp_path: Path) -> None:
    # A hole in it would kill whoever writes there on a full filesystem.
    found = os.stat(tmp_path / "state")
    assert found.st_size == states.STATE_BYTES
    assert found.st_blocks * 512 >= states.STATE_BYTES
    assert found.st_mode & 0o777 == 0o600


def place(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "state").touch(0o600)
    (tmp_path / "state").write_bytes(content)


@pytest.mark.parametrize("content", [b"", b"x" * 100])
def test_page_that_is_not_whole_yet_is_no_page(folder_fd: int, tmp_path: Path, content: bytes) -> None:
    place(tmp_path, content)
    for look in (StatePage, states.read):
        with pytest.raises(ValueError, match="not complete"):
            look(folder_fd)


def test_page_of_another_layout_is_refused(folder_fd: int, tmp_path: Path) -> None:
    place(tmp_path, b"another!" + bytes(states.STATE_BYTES))
    for create in (False, True):
        with pytest.raises(ValueError, match="another layout"):
            StatePage(folder_fd, create=create)


FOREIGN = [b"my program's own state\n", bytes(states.STATE_BYTES + 1), b"EPSSTAT2", bytes(100) + b"x"]


@pytest.mark.parametrize("content", FOREIGN)
def test_foreign_file_in_the_page_s_place_is_not_written_to(folder_fd: int, tmp_path: Path, content: bytes) -> None:
    place(tmp_path, content)
    with pytest.raises(ValueError, match="another layout"):
        StatePage(folder_fd, create=True)
    assert not states.is_to_be_made(folder_fd)
    assert (tmp_path / "state").read_bytes() == content


@pytest.mark.parametrize("size_bytes", [0, 8, 100, states.STATE_BYTES])
def test_page_that_was_never_finished_is_finished(folder_fd: int, tmp_path: Path, size_bytes: int) -> None:
    place(tmp_path, bytes(size_bytes))
    assert states.is_to_be_made(folder_fd)
    StatePage(folder_fd, create=True).store(states.PID, 7)
    assert states.read(folder_fd).beat().pid == 7


@pytest.mark.parametrize("kind", ["a FIFO", "a directory", "foreign"])
def test_what_is_in_the_place_of_the_collector_s_own_page_is_set_aside(
    folder_fd: int, tmp_path: Path, kind: str
) -> None:
    if kind == "a FIFO":
        os.mkfifo(tmp_path / "state", 0o600)
    elif kind == "a directory":
        (tmp_path / "state").mkdir()
    else:
        place(tmp_path, FOREIGN[0])
    own_page(folder_fd).store(states.PID, 7)
    assert states.read(folder_fd).beat().pid == 7
    assert os.path.lexists(tmp_path / "state.corrupt")


def test_copy_of_a_page_that_is_cut_off_meanwhile_stays_whole(page: StatePage, folder_fd: int, tmp_path: Path) -> None:
    page.set_counter("delivered", 9)
    copy = states.read(folder_fd)
    os.truncate(tmp_path / "state", 0)
    # To touch the mapped page now would end this process with SIGBUS.
    assert copy.counters() == {"delivered": 9}
    assert copy.beat().pid == 0
    with pytest.raises(ValueError, match="not complete"):
        states.read(folder_fd)


def test_page_behind_a_link_is_not_opened(folder_fd: int, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(bytes(states.STATE_BYTES))
    (tmp_path / "state").symlink_to("elsewhere")
    with pytest.raises(OSError, match="not a regular file"):
        StatePage(folder_fd, create=True)


def test_page_keeps_no_descriptor(folder_fd: int) -> None:
    before = os.listdir("/proc/self/fd")
    page = StatePage(folder_fd, create=True)
    assert os.listdir("/proc/self/fd") == before
    page.close()


def test_counters_keep_their_order_and_their_values(page: StatePage, folder_fd: int) -> None:
    for name, value in (("b", 1), ("a", 2), ("b", 3)):
        assert page.set_counter(name, value)
    assert list(StatePage(folder_fd).counters().items()) == [("b", 3), ("a", 2)]


def test_name_that_is_too_long_is_cut(page: StatePage) -> None:
    assert page.set_counter("n" * 100, 1)
    assert page.counters() == {"n" * states.COUNTER_NAME_BYTES: 1}


def test_page_without_room_for_a_counter_says_so_and_keeps_the_others(page: StatePage) -> None:
    room = (states.STATE_BYTES - states.COUNTERS) // states.COUNTER_BYTES
    assert all(page.set_counter(f"c{n}", n) for n in range(room))
    assert not page.set_counter("one more", 1)
    assert page.set_counter("c0", 99)
    assert page.counters() == {f"c{n}": n or 99 for n in range(room)}


def test_gauges_are_those_that_have_names(page: StatePage, folder_fd: int) -> None:
    page.set_gauge("rings", 4)
    gauges = StatePage(folder_fd).gauges()
    assert list(gauges) == list(states.GAUGE_NAMES)
    assert gauges["rings"] == 4
    with pytest.raises(ValueError):
        page.set_gauge("no such", 1)


def test_no_two_places_of_the_page_overlap() -> None:
    slots = [value for name, value in vars(states).items() if name.isupper() and isinstance(value, int)]
    assert states.GAUGES + 8 * len(states.GAUGE_NAMES) <= states.COUNTERS
    assert states.SUSPECT + states.SUSPECT_BYTES <= states.ASKED_AT
    assert len(slots) > 10


def test_suspect_is_written_and_taken_back(page: StatePage, folder_fd: int) -> None:
    page.suspect(b"ring and position")
    assert StatePage(folder_fd).suspected().rstrip(b"\0") == b"ring and position"
    page.suspect(b"")
    assert StatePage(folder_fd).suspected() == bytes(states.SUSPECT_BYTES)


def test_counters_go_on_where_the_last_collector_left_them(page: StatePage) -> None:
    page.set_counter("delivered", 10)
    own, other = Counter[str](), Counter[str]()
    counters = Counters(page, own, other)
    own["delivered"] += 2
    other.update(delivered=3, late=1)
    counters.publish()
    assert page.counters() == {"delivered": 15, "late": 1, "unnamed": 0}
    own["delivered"] += 1
    counters.publish()
    assert page.counters() == {"delivered": 16, "late": 1, "unnamed": 0}


def test_what_finds_no_room_in_the_page_is_counted_without_its_name(page: StatePage) -> None:
    own = Counter[str]()
    for _ in range(2):
        counters = Counters(page, own)
        own.clear()
        for number in range(200):
            own[f"rejected_{number}"] += 2
            counters.publish()
        counters.publish()
    found = page.counters()
    assert found["unnamed"] == 2 * 2 * (200 - (len(found) - 1)) > 0
    assert sum(found.values()) == 2 * 2 * 200
