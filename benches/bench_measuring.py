"""What counting a trace as a request costs the collector, beside making the body of a small trace."""

import os

import orjson
from measure import Row, by_turns, memory_folder
from report import Report

from epsagon_fast.collector.assembling import body
from epsagon_fast.collector.assembling.assembly import Assembly
from epsagon_fast.collector.assembling.open_trace import OpenTrace
from epsagon_fast.collector.measuring.requests import Requests
from epsagon_fast.config import Config
from epsagon_fast.protocol import CLOSE_PAYLOAD, UNCHANGED, Kind, Record
from epsagon_fast.queue.ledger import Ledger

RING = bytes(16)
EVENTS = 10
TRACES = 200


def event(name: str, **metadata: str) -> dict[str, object]:
    resource = {"name": name, "type": "http", "operation": "GET", "metadata": metadata}
    return {"id": name, "start_time": 1.0, "resource": resource, "origin": "b", "duration": 0.1, "error_code": 0}


def closed(config: object) -> OpenTrace:
    """Return a request with a few events."""
    assembly, trace_id = Assembly(), os.urandom(16)
    runner = event("shop", path="/cart/17", route="/cart/{id}")
    opened = {"config": config, "platform": "python 3", "runner": runner, "opened_at": 1.0}
    records = [
        Record(Kind.OPEN, 0, 0, trace_id, orjson.dumps(opened)),
        *(Record(Kind.EVENT, 0, 0, trace_id, orjson.dumps(event("db", key="x" * 400))) for _ in range(EVENTS)),
        Record(Kind.CLOSE, 0, 1, trace_id, CLOSE_PAYLOAD.pack(0.1, UNCHANGED)),
    ]
    for record in records:
        assembly.feed(RING, record, 1.0)
    assembly.end_pass(1.0)
    (found,) = assembly.end_pass(1.0)
    return found


def test_counting_beside_making_a_body(report: Report) -> None:
    config = Config(token="t", collector_url="http://here").resolve().to_wire()
    traces = [closed(config) for _ in range(TRACES)]
    with memory_folder("epsagon-bench-") as path:
        fd = os.open(path, os.O_RDONLY)
        requests = Requests(Ledger(fd))
        rows = {
            "count it as a request, alone in its pass": Row(lambda each: requests.count([each]), traces),
            "make its body": Row(lambda each: body.build(each), traces),
        }
        taken = by_turns(rows, 50)
        os.close(fd)
    table = [[name, each / 1000, each / taken["make its body"]] for name, each in taken.items()]
    note = f"A trace with {EVENTS} events. The same for every trace, whatever it holds; a record costs nothing."
    report.table("collector", "CPU for a closed trace", ("what", "µs", "/ its body"), table, note)
