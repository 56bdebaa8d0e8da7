"""What becomes of the others when a process that puts is killed, and of records put after a raw os.fork.

`pytest -s benches/bench_kill.py` prints a line for each queue; docs/queue.md has the figures. A round: one process puts
1 KB records as fast as it can and is killed with SIGKILL; then another puts one last record, and a reader that
does not see it within HANG_S has hung, or the other has.
"""

import multiprocessing
import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from epsagon_fast.protocol import Kind
from epsagon_fast.queue import _ring, ring

ROUNDS = 25
HANG_S = 0.5
FORKED_PUTS = 100
fork = multiprocessing.get_context("fork")


class Way(NamedTuple):
    """`put(who, payload)` is called in process `who`, 0 or 1; `get()` returns what has come, perhaps nothing."""

    put: Callable[[int, bytes], Any]
    get: Callable[[], list[bytes]]


def through(queue: Any) -> Way:
    return Way(lambda who, payload: queue.put(payload), lambda: [queue.get()])


def through_rings(folder: Path) -> Way:
    """A ring for each process, and its Producer made in that process: a forked child makes its own."""
    directory = os.open(folder, os.O_RDONLY)
    made = [ring.create(directory, os.urandom(8).hex(), 1 << 19, pid=1, start_time=1, checksummed=False) for _ in "01"]
    consumers = [_ring.Consumer(fd) for fd in made]
    producers: dict[tuple[int, int], Any] = {}
    os.close(directory)

    def put(who: int, payload: bytes) -> None:
        key = who, os.getpid()
        producer = producers.get(key) or producers.setdefault(key, _ring.Producer(made[who]))
        while producer.push(Kind.EVENT, 0, bytes(16), payload) == ring.FULL:
            time.sleep(0.0001)

    def get() -> list[bytes]:
        found = [record[4] for consumer in consumers for record in consumer.read(1 << 20)]
        for consumer in consumers:
            consumer.commit()
        return found

    return Way(put, get)


WAYS = {
    "ring": through_rings,
    "multiprocessing.Queue": lambda folder: through(fork.Queue()),
    "multiprocessing.SimpleQueue": lambda folder: through(fork.SimpleQueue()),
}


def put_for_ever(way: Way) -> None:
    payload = os.urandom(1000)
    while True:
        way.put(0, payload)


def put_last(way: Way) -> None:
    way.put(1, b"last")


def get_until_last(way: Way) -> None:
    while b"last" not in way.get():
        pass


def a_kill_hangs_the_others(way: Way) -> bool:
    killed, other, reader = (
        fork.Process(target=work, args=(way,), daemon=True) for work in (put_for_ever, put_last, get_until_last)
    )
    reader.start()
    killed.start()
    time.sleep(random.uniform(0.02, 0.05))
    killed.kill()
    killed.join()
    other.start()
    reader.join(HANG_S)
    hung = reader.is_alive()
    for process in (other, reader):
        process.kill()
        process.join()
    return hung


def arrived_from_a_raw_fork(way: Way) -> int:
    """Put once, fork as gunicorn does, put FORKED_PUTS times in the child; return how many of those arrive."""
    counted = fork.Value("i", 0)

    def count() -> None:
        while counted.value < FORKED_PUTS:
            counted.value += sum(payload == b"forked" for payload in way.get())

    reader = fork.Process(target=count, daemon=True)
    reader.start()
    way.put(0, b"parent")
    child = os.fork()
    if not child:
        for _ in range(FORKED_PUTS):
            way.put(1, b"forked")
        time.sleep(2 * HANG_S)
        os._exit(0)
    reader.join(HANG_S)
    reader.kill()
    reader.join()
    os.kill(child, 9)
    os.waitpid(child, 0)
    return int(counted.value)


@pytest.mark.parametrize("name", WAYS)
def test_survivors(name: str, tmp_path: Path) -> None:
    hangs = sum(a_kill_hangs_the_others(WAYS[name](tmp_path)) for _ in range(ROUNDS))
    arrived = arrived_from_a_raw_fork(WAYS[name](tmp_path))
    print(f"\n{name}: {ROUNDS} kills, {hangs} hangs; {arrived} of {FORKED_PUTS} records arrive from a raw fork")
    if name == "ring":
        assert (hangs, arrived) == (0, FORKED_PUTS)
