"""The queue beside those of multiprocessing: what a put costs, and what becomes of the others when one is killed.

A kill: one process puts 1 KB records as fast as it can and is killed with SIGKILL; then another puts one last record,
and a reader that does not see it within HANG_S has hung, or the other has. `pytest -s benches/bench_kill.py` prints the
table; bench_ring.py has single puts by size.
"""

import multiprocessing
import os
import random
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from bench_ring import NAMES, contender, put_and_wait, put_many, wait_until_empty
from measure import memory_folder
from report import Report

from epsagon_fast.protocol import Kind
from epsagon_fast.queue import _ring, ring

ROUNDS = 25
HANG_S = 0.5
FORKED_PUTS = 100
RECORD = os.urandom(1000)
PRODUCERS, RECORDS_EACH = 4, 5000
PUTS, PUT_ROUNDS = 256, 60
STOPPED_S = 1.0
# A multiprocessing.Queue takes everything while no process reads. So many records are enough to see it.
MOST_OFFERED = 200_000
fork = multiprocessing.get_context("fork")


class Way(NamedTuple):
    """`put(who, payload)` is called in process `who`, 0 to 3; `get()` returns what has come, perhaps nothing.

    `offer` puts, or says at once that it cannot: False.
    """

    put: Callable[[int, bytes], Any]
    get: Callable[[], list[bytes]]
    offer: Callable[[int, bytes], Any]


def through(queue: Any) -> Way:
    def put(who: int, payload: bytes) -> None:
        queue.put(payload)

    return Way(put, lambda: [queue.get()], put)


def through_rings(folder: Path) -> Way:
    """A ring for each process, and its Producer made in that process: a forked child makes its own."""
    directory = os.open(folder, os.O_RDONLY)
    made = [
        ring.create(directory, os.urandom(8).hex(), 1 << 19, pid=1, start_time=1, checksummed=False) for _ in "0123"
    ]
    consumers = [_ring.Consumer(fd) for fd in made]
    producers: dict[tuple[int, int], Any] = {}
    os.close(directory)

    def offer(who: int, payload: bytes) -> bool:
        key = who, os.getpid()
        producer = producers.get(key) or producers.setdefault(key, _ring.Producer(made[who]))
        return producer.push(Kind.EVENT, 0, bytes(16), payload) != ring.FULL

    def put(who: int, payload: bytes) -> None:
        while not offer(who, payload):
            time.sleep(0.0001)

    def get() -> list[bytes]:
        found = [record[4] for consumer in consumers for record in consumer.read(1 << 20)]
        for consumer in consumers:
            consumer.commit()
        return found

    return Way(put, get, offer)


WAYS: dict[str, Callable[[Path, ExitStack], Way]] = {
    "ring": lambda folder, stack: through_rings(folder),
    "multiprocessing.Queue": lambda folder, stack: through(fork.Queue()),
    "multiprocessing.SimpleQueue": lambda folder, stack: through(fork.SimpleQueue()),
    "a manager's queue": lambda folder, stack: through(stack.enter_context(fork.Manager()).Queue()),
}
# As bench_ring.py calls them; it has no manager.
PUTTING = dict(zip(WAYS, (NAMES[0], *NAMES[2:]), strict=False))


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


def put_costs(folder: Path) -> dict[str, list[float]]:
    """Return, by queue, the median of a put in ns, and the processor time of all threads until the reader has it."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in PUTTING}
    with ExitStack() as stack:
        made = {name: stack.enter_context(contender(each, folder)) for name, each in PUTTING.items()}
        for _ in range(PUT_ROUNDS):
            for name, each in made.items():
                wait_until_empty(each)
                start = time.perf_counter_ns()
                put_many(PUTS, each.put, *each.first, RECORD)
                wall_ns = time.perf_counter_ns() - start
                wait_until_empty(each)
                start = time.process_time_ns()
                put_and_wait(PUTS, each, RECORD)
                taken[name].append((wall_ns / PUTS, (time.process_time_ns() - start) / PUTS))
    return {name: [statistics.median(column) for column in zip(*each, strict=True)] for name, each in taken.items()}


def plain_put_costs(way: Way) -> list[float]:
    """The same for a queue whose put returns when all is done."""
    taken = []
    for _ in range(PUTS):
        start, used = time.perf_counter_ns(), time.process_time_ns()
        way.put(0, RECORD)
        taken.append((time.perf_counter_ns() - start, time.process_time_ns() - used))
    return [statistics.median(column) for column in zip(*taken, strict=True)]


def records_per_second(way: Way) -> float:
    """Return how many records a second come from several producers to one reader."""
    going = fork.Barrier(PRODUCERS + 1)

    def produce(who: int) -> None:
        going.wait()
        for _ in range(RECORDS_EACH):
            way.put(who, RECORD)
        # What a queue's thread has not sent yet would go with its process.
        time.sleep(60)

    producers = [fork.Process(target=produce, args=(who,), daemon=True) for who in range(PRODUCERS)]
    for each in producers:
        each.start()
    going.wait()
    start, came = time.monotonic(), 0
    while came < PRODUCERS * RECORDS_EACH:
        came += len(way.get())
        assert time.monotonic() < start + 60, "not all records arrive"
    rate = came / (time.monotonic() - start)
    for each in producers:
        each.kill()
        each.join()
    return rate


def while_unread(way: Way) -> str:
    """Offer records for a while that no process reads, and say what happens."""
    told = fork.SimpleQueue()

    def offer() -> None:
        taken, longest_s, end = 0, 0.0, time.monotonic() + STOPPED_S
        while taken < MOST_OFFERED and (start := time.monotonic()) < end:
            taken += way.offer(0, RECORD) is not False
            longest_s = max(longest_s, time.monotonic() - start)
        told.put((taken, longest_s))

    process = fork.Process(target=offer, daemon=True)
    process.start()
    process.join(3 * STOPPED_S)
    blocked = told.empty()
    process.kill()
    process.join()
    if blocked:
        return "the put blocks"
    taken, longest_s = told.get()
    return f"takes {taken / 1000:.0f} MB, longest put {longest_s * 1000:.1f} ms"


def test_the_queue(report: Report) -> None:
    with memory_folder("bench_kill") as folder:
        costs, table = put_costs(folder), []
        for name, make in WAYS.items():
            with ExitStack() as stack:
                hangs = sum(a_kill_hangs_the_others(make(folder, stack)) for _ in range(ROUNDS))
                arrived = arrived_from_a_raw_fork(make(folder, stack))
                rate = records_per_second(make(folder, stack))
                unread = while_unread(make(folder, stack))
                cost = costs.get(name) or plain_put_costs(make(folder, stack))
            table.append([name, *cost, rate, f"{hangs} of {ROUNDS}", unread, f"{arrived} of {FORKED_PUTS}"])
            if name == "ring":
                assert (hangs, arrived) == (0, FORKED_PUTS)
    columns = ("records of 1 KB", "put ns", "CPU ns, all threads", f"records/s, {PRODUCERS} producers")
    columns += ("kills that hang the others", f"unread for {STOPPED_S:g} s", "arrive from a raw os.fork")
    note = "A full ring refuses and counts. Its CPU is mostly the wait for the reader, which looks every 2 ms."
    report.table("queue", "The queue beside those of multiprocessing", columns, table, note)
