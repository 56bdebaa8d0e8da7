"""The ledger: figures that one collector writes, that anybody reads, and that outlive collectors."""

import errno
import os
import struct
from pathlib import Path
from typing import Any

import pytest
from rings import exit_code, in_child

from epsagon_fast.queue import ledger as ledgers
from epsagon_fast.queue import ring
from epsagon_fast.queue.ledger import AT_ONCE, KEY_BYTES, MAX_SERIES, MOST_IDS, SERIES_AT_ONCE, Ledger, read

ONE = ((3, 1), (1, 0), (2, 10))
FAILED = ((4, 1), (1, 1), (2, 5))


@pytest.fixture
def ledger(folder_fd: int) -> Ledger:
    return Ledger(folder_fd)


def added(ledger: Ledger, key: bytes) -> int:
    number = ledger.number_of(key)
    assert number is not None
    return number


def test_folder_without_a_ledger_has_no_series_and_gets_none_by_reading(folder_fd: int, tmp_path: Path) -> None:
    assert read(folder_fd) == []
    assert list(tmp_path.iterdir()) == []


def test_what_was_posted_goes_on_in_the_next_collector(ledger: Ledger, folder_fd: int) -> None:
    number = added(ledger, b"shop")
    ledger.post([b"trace-01"], number, ONE)
    ledger.post([b"trace-02"], number, FAILED)
    ledger.close()
    successor = Ledger(folder_fd)
    assert successor.number_of(b"shop") == number
    successor.post([b"trace-03"], number, ONE)
    (series,) = read(folder_fd)
    assert (series.key, series.slots[:6]) == (b"shop", (0, 1, 25, 2, 1, 0))
    assert successor.posted() == {b"trace-01", b"trace-02", b"trace-03"}


def test_file_has_all_its_room_and_belongs_to_its_user_alone(ledger: Ledger, tmp_path: Path) -> None:
    # A hole in it would kill the collector on a full filesystem.
    found = os.stat(tmp_path / "ledger")
    assert found.st_blocks * 512 >= found.st_size > 0
    assert found.st_mode & 0o777 == 0o600


def test_ledger_grows_up_to_its_bound(ledger: Ledger, folder_fd: int, tmp_path: Path) -> None:
    size_bytes = os.stat(tmp_path / "ledger").st_size
    numbers = [ledger.number_of(b"%d" % n) for n in range(MAX_SERIES)]
    assert numbers == list(range(MAX_SERIES))
    ledger.post([b"trace-01"], MAX_SERIES - 1, ONE)
    assert ledger.number_of(b"one more") is None
    assert ledger.number_of(b"7") == 7
    assert read(folder_fd)[-1].slots[3] == 1
    assert os.stat(tmp_path / "ledger").st_size > size_bytes
    assert Ledger(folder_fd).number_of(b"%d" % (MAX_SERIES - 1)) == MAX_SERIES - 1


def test_series_without_room_on_the_disk_is_none_and_the_others_count_on(
    ledger: Ledger, folder_fd: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(SERIES_AT_ONCE):
        added(ledger, b"%d" % n)

    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(os, "pwrite", full)
    assert ledger.number_of(b"one more") is None
    ledger.post([b"trace-01"], 5, ONE)
    assert read(folder_fd)[5].slots[3] == 1
    monkeypatch.undo()
    assert ledger.number_of(b"one more") == SERIES_AT_ONCE


def test_ledger_that_was_taken_away_is_not_made_again_while_it_grows(ledger: Ledger, tmp_path: Path) -> None:
    for n in range(SERIES_AT_ONCE):
        added(ledger, b"%d" % n)
    (tmp_path / "ledger").unlink()
    assert ledger.number_of(b"one more") is None
    (tmp_path / "ledger").touch(0o600)
    assert ledger.number_of(b"one more") is None


def test_key_that_is_too_long_is_refused(ledger: Ledger) -> None:
    assert ledger.number_of(b"k" * KEY_BYTES) == 0
    assert ledger.number_of(b"k" * (KEY_BYTES + 1)) is None


class _Dying:
    """A mapping of which the writes end the process after a number of them."""

    def __init__(self, mapping: ring.Mapping, writes: int) -> None:
        self._mapping = mapping
        self._left = writes

    def __getattr__(self, name: str) -> Any:
        return getattr(self._mapping, name)

    def _next(self) -> None:
        if not self._left:
            os.kill(os.getpid(), 9)
        self._left -= 1

    def store(self, offset: int, value: int) -> None:
        self._next()
        self._mapping.store(offset, value)

    def write(self, offset: int, data: bytes) -> None:
        self._next()
        self._mapping.write(offset, data)


@pytest.mark.parametrize("most", [6, 7, MOST_IDS])
@pytest.mark.parametrize("writes", range(8))
@pytest.mark.parametrize("at_once", [1, 2, 3])
def test_collector_that_is_killed_while_it_counts_counts_once(
    folder_fd: int, writes: int, most: int, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledgers, "MOST_IDS", most)
    monkeypatch.setattr(ledgers, "AT_ONCE", 3)
    last, failed = [b"trace-%02d" % number for number in range(2, 2 + at_once)], ((4, at_once), (1, at_once), (2, 5))

    def counts_and_dies() -> None:
        mine: Any = Ledger(folder_fd)
        number = mine.number_of(b"shop")
        for _ in range(3):
            mine.post([b"other-01"] * at_once, mine.number_of(b"other"), ONE)
        mine.post([b"trace-01"], number, ONE)
        mine._page = _Dying(mine._page, writes)
        mine.post(last, number, failed)

    # The ids, once more if they go on at the first place, what the numbers will be, the store that makes it count, and
    # three numbers.
    died = exit_code(in_child(counts_and_dies)) == -9
    assert died == (writes < 6 or (writes < 7 and (3 * at_once + 1) % most > most - at_once))
    successor = Ledger(folder_fd)
    posted = successor.posted()
    if not posted.issuperset(last):
        assert posted.isdisjoint(last)
        successor.post(last, 0, failed)
    series, _ = read(folder_fd)
    assert series.slots[:6] == (0, at_once, 15, 1, at_once, 0)


@pytest.mark.parametrize("writes", range(3))
def test_collector_that_is_killed_while_it_adds_a_series_leaves_none_or_a_whole_one(
    folder_fd: int, writes: int
) -> None:
    def adds_and_dies() -> None:
        mine: Any = Ledger(folder_fd)
        mine._page = _Dying(mine._page, writes)
        mine.number_of(b"a long key")

    exit_code(in_child(adds_and_dies))
    successor = Ledger(folder_fd)
    added(successor, b"short")
    assert [series.key for series in read(folder_fd)] == ([b"a long key", b"short"] if writes == 2 else [b"short"])


def test_last_ids_are_known(ledger: Ledger) -> None:
    added(ledger, b"shop")
    assert ledger.posted() == set()
    for n in range(MOST_IDS + 10):
        if n == 3:
            assert ledger.posted() == {n.to_bytes(8) for n in range(3)}
        ledger.post([n.to_bytes(8) + b"rest"], 0, ONE)
    # The oldest ones' places are the next ones', which a dying collector may have begun to write.
    assert ledger.posted() == {n.to_bytes(8) for n in range(10 + AT_ONCE, MOST_IDS + 10)}


def test_sum_that_does_not_fit_wraps(ledger: Ledger, folder_fd: int) -> None:
    number = added(ledger, b"shop")
    for _ in range(2):
        ledger.post([b"trace-01"], number, ((3, 1), (1, 0), (2, 2**63)))
    assert read(folder_fd)[0].slots[2] == 0


@pytest.mark.parametrize("content", [b"my own file\n", struct.pack("=3Q", ledgers.MAGIC_VALUE, 7, 7)])
def test_file_that_is_no_ledger_is_left_alone(folder_fd: int, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "ledger").touch(0o600)
    (tmp_path / "ledger").write_bytes(content)
    for look in (Ledger, read):
        with pytest.raises(ValueError):
            look(folder_fd)
    assert (tmp_path / "ledger").read_bytes() == content


@pytest.mark.parametrize("size_bytes", [0, 8, 5000])
def test_ledger_that_was_never_finished_is_finished(folder_fd: int, tmp_path: Path, size_bytes: int) -> None:
    (tmp_path / "ledger").touch(0o600)
    (tmp_path / "ledger").write_bytes(bytes(size_bytes))
    assert read(folder_fd) == []
    added(Ledger(folder_fd), b"shop")
    assert [series.key for series in read(folder_fd)] == [b"shop"]


def test_damaged_log_harms_no_collector(folder_fd: int, tmp_path: Path) -> None:
    Ledger(folder_fd).post([b"trace-01"], added(Ledger(folder_fd), b"shop"), ONE)
    with open(tmp_path / "ledger", "r+b") as file:
        file.seek(ledgers.LOG)
        file.write(b"\xff" * (ledgers.TABLE - ledgers.LOG))
    assert added(Ledger(folder_fd), b"shop") == 0
