"""What add_event costs, beside orjson.dumps of the same events; and what it costs where tracing cannot work.

A round goes over many events made anew, as in bench_encoding.py; before each the ring is emptied by a reader in the
same process. What a live collector and a process of its own change, bench_worker.py shows.
"""

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest
from bench_encoding import EVENTS_PER_ROUND
from events import event
from measure import Row, by_turns
from report import Report

from epsagon_fast import Config, Tracer, create_tracer, current_ids
from epsagon_fast.integrations import logging as instrumentation
from epsagon_fast.integrations.structlog import add_ids
from epsagon_fast.producer.current import within
from epsagon_fast.producer.process import process
from epsagon_fast.queue import ring

ROUNDS = 300
MEMORY = Path("/dev/shm")
# Beside a healthy add_event.
REFUSED_MOST = 1.5
# Added to what the logging module itself takes for a record.
IDS_MOST_NS = 500


@pytest.fixture
def base(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A place of its own, in memory where there is such, that no collector reads."""
    monkeypatch.setenv("EPSAGON_LAUNCH", "0")
    path = Path(tempfile.mkdtemp(prefix="epsagon-bench-", dir=MEMORY if MEMORY.is_dir() else None))
    process.reset()
    yield path
    process.reset()
    shutil.rmtree(path)


def started(runtime_dir: Path) -> Tracer:
    """Return a trace in a directory, as the first of this process."""
    process.own.first_use = process.writers._current = None
    tracer = create_tracer(Config(token="t", collector_url="http://127.0.0.1:1", runtime_dir=runtime_dir))
    tracer.start()
    return tracer


def reader(runtime_dir: Path) -> ring.Consumer:
    [path] = runtime_dir.glob("*/*.ring")
    fd = os.open(path, os.O_RDWR)
    try:
        return ring.Consumer(fd)
    finally:
        os.close(fd)


def test_adding_and_refusing(base: Path, report: Report) -> None:
    events = [event(number, 10, 80) for number in range(EVENTS_PER_ROUND)]
    healthy, full = started(base / "healthy"), started(base / "full")
    while not process.refusals():
        full.add_event(events[0])
    (base / "file").touch()
    nowhere = started(base / "file")
    emptied = reader(base / "healthy")

    def empty() -> None:
        emptied.read(1 << 30)
        emptied.commit()

    rows = {
        "orjson.dumps": Row(orjson.dumps, events),
        "add_event": Row(healthy.add_event, events, empty),
        "add_event, the ring is full": Row(full.add_event, events),
        "add_event, no runtime directory": Row(nowhere.add_event, events),
    }
    took = by_turns(rows, ROUNDS)
    own = took["add_event"]
    table = [(name, ns, ns / took["orjson.dumps"], ns / own) for name, ns in took.items()]
    note = "Without other processes and without a clock around each call."
    columns = ("", "median ns", "/ dumps", "/ add_event")
    report.table("worker", "One complete event of 1 KB, and where tracing cannot work", columns, table, note)
    worst = max(ns for name, ns in took.items() if "," in name) / own
    what = f"add_event with a full ring or without a folder at most {REFUSED_MOST}x a healthy one"
    report.target(what, f"{worst:.2f}x", worst <= REFUSED_MOST)


def test_a_log_record_with_ids(base: Path, report: Report) -> None:
    logger = logging.getLogger("bench")
    record = (logger.name, logging.INFO, __file__, 1, "paid", (), None)
    numbers = [*range(EVENTS_PER_ROUND)]
    rows = {
        "a log record": Row(lambda _: logger.makeRecord(*record), numbers, instrumentation.uninstrument),
        "the same with ids": Row(lambda _: logger.makeRecord(*record), numbers, instrumentation.instrument),
        "current_ids": Row(lambda _: current_ids(), numbers),
        "structlog.add_ids": Row(lambda _: add_ids(None, "info", {"event": "paid"}), numbers),
    }
    with within(started(base)):
        took = by_turns(rows, ROUNDS)
    instrumentation.uninstrument()
    table = [(name, ns, ns / took["a log record"]) for name, ns in took.items()]
    report.table("worker", "The ids of the current trace in log lines", ("", "median ns", "/ record"), table)
    more = took["the same with ids"] - took["a log record"]
    report.target(f"ids on a log record in at most {IDS_MOST_NS} ns", f"{more:.0f} ns", more <= IDS_MOST_NS)
