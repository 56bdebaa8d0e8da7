"""An exception comes in from outside at any moment of our code: a soft time limit, a job's timeout, an alarm.

It always reaches the application, no trace stays open or current, and what is in the ring are whole records.
"""

import json
from collections import Counter

import pytest
from places import FULL, Place, times

FUZZ = """
import collections, datetime, decimal, json, os, random, signal, sys
import epsagon_fast as epsagon
from epsagon_fast.producer import entering
from epsagon_fast.producer.process import process
from epsagon_fast.protocol import Kind
from epsagon_fast.producer.process import process
from epsagon_fast.queue.reader import Rings

class Limit(Exception):
    pass

class Stop(BaseException):
    pass

class Row:
    def __init__(self, number):
        self.number = number
    def __repr__(self):
        return f"<Row {self.number}>"

class Broken:
    def __repr__(self):
        raise Limit("its own failure, which is no interruption")

KINDS = (Limit, TimeoutError, Stop)
ROWS = [{"id": i, "row": Row(i), "day": datetime.date(2026, 1, 1), "price": decimal.Decimal("1.5")} for i in range(5)]
COMPLETE = {"id": "1", "start_time": 1.0, "origin": "o", "duration": 0.1, "error_code": 0, "exception": None,
            "resource": {"name": "n", "type": "t", "operation": "o", "metadata": {"k": "v" * 300}}}

def nested():
    with epsagon.trace("outer"):
        with epsagon.trace("inner"), epsagon.event("e") as event:
            event.metadata["k"] = 1

def values():
    with epsagon.trace("values"), epsagon.event("query") as event:
        event.metadata.update(rows=ROWS, seen=set(range(50)), broken=Broken(), large="x" * 100_000)

def failing():
    try:
        with epsagon.trace("failing"):
            try:
                {}["k"]
            except KeyError as error:
                epsagon.error(error)
            raise ValueError(Row(1))
    except ValueError:
        pass

@epsagon.trace
def items():
    for number in range(3):
        epsagon.label("number", number)
        yield number

def generator():
    for _ in items():
        pass

def plain():
    with epsagon.create_tracer() as tracer:
        tracer.add_event(COMPLETE)
        tracer.add_label("k", 1.5)
        tracer.set_runner_metadata("k", ROWS)
        with epsagon.attach(tracer.handle()):
            epsagon.add_exception_type_and_message("T", "m")

WORKS = (nested, values, failing, generator, plain)
wanted, seed = int(sys.argv[1]), int(sys.argv[2])
random.seed(seed)
found = collections.Counter()
kind = Limit

def handle(*_):
    raise kind("time is up")

signal.signal(signal.SIGALRM, handle)
nested()
[mine] = process.writers.known()
folder = os.open(mine.path, os.O_RDONLY)
rings = Rings(folder, 1)
open_ids = set()

def drain():
    rings.scan(0.0)
    for ring in rings:
        while records := ring.read(1 << 20, ring.head):
            for record in records:
                found["records"] += 1
                if record.kind == Kind.CLOSE:
                    found["orphans"] += record.trace_id not in open_ids
                    open_ids.discard(record.trace_id)
                elif record.kind != Kind.BYE:
                    json.loads(record.payload)
                if record.kind == Kind.OPEN:
                    open_ids.add(record.trace_id)
            ring.release()

for number in range(wanted):
    kind, work = KINDS[number % 3], random.choice(WORKS)
    try:
        signal.setitimer(signal.ITIMER_REAL, random.uniform(0.00002, 0.002))
        for _ in range(2000):
            work()
        found["swallowed by " + work.__name__] += 1
    except kind as error:
        found["reached"] += error.args == ("time is up",)
        # Inside the handler of the exception, whose traceback holds every frame that it passed through.
        found["open"] += len(process.open_traces)
        found["current"] += entering.current.get() is not None
        entering.current.set(None)
        for tracer in process.own_traces():
            tracer.abandon()
    found["entered"] += any(block.is_open for block in entering.entered.get())
    drain()
found["never closed"] = len(open_ids)
print(json.dumps(found))
"""
LEFT_BEHIND = ("open", "current", "entered", "never closed")
AT_FULL = 100_000


@pytest.mark.parametrize("implementation", ["compiled", "reference"])
def test_exception_from_outside_always_reaches_the_application(place: Place, implementation: str) -> None:
    wanted = times(AT_FULL, 300) if implementation == "compiled" else times(AT_FULL // 10, 150)
    env = {"EPSAGON_FAST_IMPL": implementation, "EPSAGON_LAUNCH": "0"}
    found = Counter(json.loads(place.run(FUZZ, str(wanted), "1", env=env, timeout_s=3600 if FULL else 60)))
    left = {name: found[name] for name in LEFT_BEHIND if found[name]}
    print(f"exceptions from outside, {implementation}: {found}")
    assert found["reached"] == wanted, found
    if implementation == "compiled":
        assert not left
    # In Python the first step of leaving a block can be interrupted: see entering.py.
    assert found["never closed"] <= wanted // 50
    assert found["open"] + found["current"] <= wanted // 30
