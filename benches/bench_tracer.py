"""What add_event costs, beside orjson.dumps of the same events; and what it costs where tracing cannot work.

`pytest benches/bench_tracer.py` prints both; the number in brackets is the ratio, budget 2. A round goes over many
events made anew, as in bench_encoding.py; before each the ring is emptied by a reader in the same process.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from bench_encoding import EVENTS_PER_ROUND, event
from pytest_benchmark.fixture import BenchmarkFixture

from epsagon_fast import Config, Tracer, create_tracer
from epsagon_fast.producer import process
from epsagon_fast.queue import ring
from epsagon_fast.queue import writer as writers

ROUNDS = 300
MEMORY = Path("/dev/shm")


@pytest.fixture
def runtime_dir(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A place of its own, in memory where there is such, that no collector reads."""
    monkeypatch.setenv("EPSAGON_LAUNCH", "0")
    monkeypatch.setattr(process, "_first_use", None)
    monkeypatch.setattr(writers, "_current", None)
    monkeypatch.setattr(writers, "_writers", {})
    path = tempfile.mkdtemp(prefix="epsagon-bench-", dir=MEMORY if MEMORY.is_dir() else None)
    yield path
    shutil.rmtree(path)


def started(runtime_dir: str) -> Tracer:
    tracer = create_tracer(Config(token="t", collector_url="http://127.0.0.1:1", runtime_dir=runtime_dir))
    tracer.start()
    return tracer


def reader(runtime_dir: str) -> ring.Consumer:
    [path] = Path(runtime_dir).glob("*/*.ring")
    fd = os.open(path, os.O_RDWR)
    try:
        return ring.Consumer(fd)
    finally:
        os.close(fd)


def measure(benchmark: BenchmarkFixture, call: Callable[[Any], Any], prepare: Callable[[], None]) -> None:
    benchmark.group = f"a complete event of 1 KB, {EVENTS_PER_ROUND} events"
    events = [event(number, 10, 80) for number in range(EVENTS_PER_ROUND)]

    def round_of_events() -> None:
        for one in events:
            call(one)

    benchmark.pedantic(round_of_events, setup=prepare, rounds=ROUNDS, warmup_rounds=10)


def test_orjson_dumps(benchmark: BenchmarkFixture) -> None:
    measure(benchmark, orjson.dumps, lambda: None)


def test_add_event(benchmark: BenchmarkFixture, runtime_dir: str) -> None:
    tracer = started(runtime_dir)
    emptied = reader(runtime_dir)

    def empty() -> None:
        emptied.read(1 << 30)
        emptied.commit()

    measure(benchmark, tracer.add_event, empty)


def test_add_event_to_a_full_ring(benchmark: BenchmarkFixture, runtime_dir: str) -> None:
    tracer = started(runtime_dir)
    filler = event(0, 10, 80)
    while not process.refusals():
        tracer.add_event(filler)
    measure(benchmark, tracer.add_event, lambda: None)


def test_add_event_without_a_runtime_directory(benchmark: BenchmarkFixture, runtime_dir: str) -> None:
    squatted = Path(runtime_dir) / "file"
    squatted.touch()
    measure(benchmark, started(str(squatted)).add_event, lambda: None)
