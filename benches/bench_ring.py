"""What a push costs its caller, beside the puts of multiprocessing, each with a live reader in another process.

`pytest benches/bench_ring.py` prints tables by payload size; a row is so many calls as its title says. docs/queue.md
has figures. Before each round the queue is empty, so nothing is refused. "until it is sent" is the processor time of
all threads of the putting process: multiprocessing.Queue leaves its work to one, which competes for the GIL.
"""

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from measure import memory_folder
from pytest_benchmark.fixture import BenchmarkFixture

from epsagon_fast.protocol import Kind
from epsagon_fast.queue import _pure, _ring, ring

# Payload bytes, and calls per round: what a ring of 512 KiB holds.
SIZES = {"200 B": (200, 256), "1 KB": (1000, 256), "16 KB": (16000, 16)}
TRACE = bytes(range(16))
# As the collector does while records come.
POLL_S = 0.002
fork = multiprocessing.get_context("fork")


class Contender(NamedTuple):
    """`put` takes `first` and a payload; `is_empty` says whether the reader has taken all."""

    put: Callable[..., Any]
    first: tuple[Any, ...]
    is_empty: Callable[[], bool]


@contextmanager
def reader(work: Callable[[], None]) -> Iterator[None]:
    process = fork.Process(target=work, daemon=True)
    process.start()
    try:
        yield
    finally:
        process.kill()
        process.join()


def poll(consumer: Any) -> None:
    while True:
        if not consumer.read(1 << 20):
            time.sleep(POLL_S)
        consumer.commit()


@contextmanager
def a_ring(folder: Path, module: Any, prefix: str) -> Iterator[Contender]:
    directory = os.open(folder, os.O_RDONLY)
    fd = ring.create(directory, os.urandom(8).hex(), 512 * 1024, pid=1, start_time=1, checksummed=module is _pure)
    producer, consumer = getattr(module, prefix + "Producer")(fd), getattr(module, prefix + "Consumer")(fd)
    os.close(fd)
    os.close(directory)
    with reader(lambda: poll(consumer)):
        yield Contender(producer.push, (int(Kind.EVENT), 0, TRACE), lambda: producer.tail == producer.head)


@contextmanager
def a_queue(queue: Any, is_empty: Callable[[], bool]) -> Iterator[Contender]:
    def get_for_ever() -> None:
        while True:
            queue.get()

    with reader(get_for_ever):
        yield Contender(queue.put, (), is_empty)


@contextmanager
def contender(name: str, folder: Path) -> Iterator[Contender]:
    if name == "multiprocessing.Queue":
        queue = fork.Queue()
        with a_queue(queue, lambda: queue.qsize() == 0) as made:
            yield made
        queue.cancel_join_thread()
        queue.close()
    elif name == "multiprocessing.SimpleQueue":
        simple = fork.SimpleQueue()
        with a_queue(simple, simple.empty) as made:
            yield made
        simple.close()
    else:
        with a_ring(folder, *((_ring, "") if name == "ring, compiled" else (_pure, "Pure"))) as made:
            yield made


@pytest.fixture
def folder() -> Iterator[Path]:
    with memory_folder("bench_ring") as path:
        yield path


def put_many(count: int, put: Callable[..., Any], *arguments: Any) -> None:
    for _ in range(count):
        put(*arguments)


def wait_until_empty(made: Contender) -> None:
    deadline = time.monotonic() + 10
    while not made.is_empty():
        assert time.monotonic() < deadline, "the reader stands still"
        time.sleep(0.0005)


def put_and_wait(count: int, made: Contender, payload: bytes) -> None:
    put_many(count, made.put, *made.first, payload)
    wait_until_empty(made)


NAMES = ("ring, compiled", "ring, pure Python", "multiprocessing.Queue", "multiprocessing.SimpleQueue")
by_size = pytest.mark.parametrize(("size_bytes", "count"), SIZES.values(), ids=SIZES)
by_name = pytest.mark.parametrize("name", NAMES)


@by_name
@by_size
def test_put(benchmark: BenchmarkFixture, folder: Path, name: str, size_bytes: int, count: int) -> None:
    benchmark.group = f"{count} puts of {size_bytes} bytes"
    payload = os.urandom(size_bytes)
    with contender(name, folder) as made:

        def empty() -> tuple[tuple[Any, ...], dict[str, Any]]:
            wait_until_empty(made)
            return (count, made.put, *made.first, payload), {}

        benchmark.pedantic(put_many, setup=empty, rounds=200, warmup_rounds=20)


@pytest.mark.benchmark(timer=time.process_time)
@by_name
@by_size
def test_processor_time(benchmark: BenchmarkFixture, folder: Path, name: str, size_bytes: int, count: int) -> None:
    benchmark.group = f"{count} puts of {size_bytes} bytes until it is sent, all threads"
    with contender(name, folder) as made:
        benchmark.pedantic(put_and_wait, args=(count, made, os.urandom(size_bytes)), rounds=200, warmup_rounds=20)


@by_size
def test_bare_push(benchmark: BenchmarkFixture, folder: Path, size_bytes: int, count: int) -> None:
    """The compiled push alone: the consumer is in this process and runs between the rounds."""
    benchmark.group = f"{count} pushes of {size_bytes} bytes, no other process"
    directory = os.open(folder, os.O_RDONLY)
    fd = ring.create(directory, os.urandom(8).hex(), 512 * 1024, pid=1, start_time=1, checksummed=False)
    producer, consumer = _ring.Producer(fd), _ring.Consumer(fd)
    os.close(fd)
    os.close(directory)

    def drain() -> tuple[tuple[Any, ...], dict[str, Any]]:
        consumer.read(1 << 20)
        consumer.commit()
        return (count, producer.push, 2, 0, TRACE, bytes(size_bytes)), {}

    benchmark.pedantic(put_many, setup=drain, rounds=1000, warmup_rounds=100)
