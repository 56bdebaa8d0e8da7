"""Rings of dead processes where no collector comes: bounded, oldest first, and counted."""

import fcntl
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from places import Place
from rings import TWINS, Twin, child, in_child

from epsagon_fast.protocol import Kind
from epsagon_fast.queue import abandoned, layout, ring
from epsagon_fast.queue.folder import Folder
from epsagon_fast.queue.liveness import start_time

TRACE = bytes(range(16))
DATA_BYTES = 64 * 1024
# As the filesystem counts it.
SIZE_BYTES = layout.HEADER_BYTES + DATA_BYTES


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(str(tmp_path / "folder"))


@pytest.fixture
def dead() -> Iterator[tuple[int, int]]:
    """The pid and start time of a process that has ended."""
    pid = in_child(lambda: 0)
    yield pid, 12345
    os.waitpid(pid, 0)


@pytest.fixture
def room_for_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(abandoned, "MOST_BYTES", 2 * SIZE_BYTES + 4096)


def make(
    folder: Folder, number: int, whose: tuple[int, int], twin: Twin = TWINS[0], traces: int = 1
) -> "ring.Producer":
    """The ring of a process that closed so many traces."""
    dir_fd = folder.open()
    pid, since = whose
    name = f"{number:032x}.ring"
    fd = ring.create(dir_fd, name, DATA_BYTES, pid=pid, start_time=since, checksummed=twin.checksummed)
    try:
        os.pwrite(fd, number.to_bytes(8, "little"), layout.CREATED_NS)
        producer = twin.producer(fd)
        for _ in range(traces):
            for kind, payload in ((Kind.OPEN, b"{}"), (Kind.EVENT, b"{}"), (Kind.CLOSE, bytes(24))):
                assert producer.push(kind, 0, TRACE, payload) in (layout.PUSHED, layout.LOOK)
        producer.put_bye()
        return producer  # type: ignore[no-any-return]
    finally:
        os.close(fd)
        os.close(dir_fd)


def left(folder: Folder) -> list[int]:
    return sorted(int(name.removesuffix(".ring"), 16) for name in os.listdir(folder.path))


@pytest.mark.usefixtures("room_for_two")
def test_oldest_rings_beyond_the_bound_are_removed_and_counted(
    folder: Folder, dead: tuple[int, int], twin: Twin
) -> None:
    # Not in the order of their names.
    for number in (3, 5, 1, 4, 2):
        make(folder, number, dead, twin, traces=number).close()
    assert abandoned.clean_up(folder) == {"no_collector": 3 * (1 + 2 + 3)}
    assert left(folder) == [4, 5]


def test_below_the_bound_they_wait_for_a_collector(folder: Folder, dead: tuple[int, int]) -> None:
    for number in range(5):
        make(folder, number, dead).close()
    assert not abandoned.clean_up(folder)
    assert left(folder) == [0, 1, 2, 3, 4]


@pytest.mark.usefixtures("room_for_two")
def test_rings_of_living_processes_stay_and_take_none_of_the_room(folder: Folder, dead: tuple[int, int]) -> None:
    with child(lambda: os.read(os.pipe()[0], 1)) as pid:
        for number in range(4):
            make(folder, number, (pid, start_time(pid) or 0)).close()
        for number in range(4, 7):
            make(folder, number, dead).close()
        abandoned.clean_up(folder)
        assert left(folder) == [0, 1, 2, 3, 5, 6]


@pytest.mark.usefixtures("room_for_two")
def test_what_an_earlier_process_counted_is_counted_on(folder: Folder, dead: tuple[int, int]) -> None:
    for number in range(3):
        producer = make(folder, number, dead)
        producer.add(layout.QUEUE_FULL, 5)
        producer.close()
    assert abandoned.clean_up(folder) == {"no_collector": 3, "queue_full": 5}


@pytest.mark.usefixtures("room_for_two")
def test_where_a_collector_lives_nothing_is_removed(folder: Folder, dead: tuple[int, int]) -> None:
    for number in range(3):
        make(folder, number, dead).close()
    holder = folder.open()
    fcntl.flock(holder, fcntl.LOCK_EX)
    assert not abandoned.clean_up(folder)
    assert left(folder) == [0, 1, 2]
    os.close(holder)


@pytest.mark.usefixtures("room_for_two")
def test_lock_is_given_back_though_a_child_has_the_descriptor(
    folder: Folder, dead: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another thread may fork at any moment; its child would keep every collector away."""
    for number in range(3):
        make(folder, number, dead).close()
    copies: list[int] = []
    reduce = abandoned._reduce

    def meanwhile(dir_fd: int, names: list[str], bound_bytes: int) -> object:
        copies.append(os.dup(dir_fd))
        return reduce(dir_fd, names, bound_bytes)

    monkeypatch.setattr(abandoned, "_reduce", meanwhile)
    abandoned.clean_up(folder)
    assert not folder.is_held()
    os.close(*copies)


@pytest.mark.usefixtures("room_for_two")
def test_nonsense_under_a_rings_name_is_left_alone(folder: Folder, dead: tuple[int, int]) -> None:
    Path(folder.path, f"{9:032x}.ring").write_bytes(b"x" * 3 * SIZE_BYTES)
    for number in range(3):
        make(folder, number, dead).close()
    abandoned.clean_up(folder)
    assert left(folder) == [1, 2, 9]


JOBS = """
import os, epsagon_fast as epsagon
for _ in range(30):
    pid = os.fork()
    if not pid:
        with epsagon.trace("job"):
            pass
        os._exit(0)
    os.waitpid(pid, 0)
"""


@pytest.mark.root
def test_short_jobs_without_a_collector_leave_the_application_its_shared_memory(place: Place) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m,mode=0700", "tmpfs", place.runtime_dir], check=True)
    try:
        place.run(JOBS, env={"EPSAGON_LAUNCH": "0"})
        space = os.statvfs(place.runtime_dir)
        # The last one's ring is there beside what waits.
        assert space.f_bavail * space.f_frsize > 12 << 20
        rings = place.look().rings
        lost = sum(view.refused.get("no_collector", 0) for view in rings)
        # Each traced OPEN and CLOSE; what is not here was counted by one that still is.
        assert lost == 2 * (30 - len(rings))
    finally:
        subprocess.run(["umount", "-l", place.runtime_dir], check=True)
