"""What blocks, traced functions, labels and headers cost, beside orjson.dumps of the event that they record.

The rows take turns in one process whose ring a reader in the same process empties. A round is short, so that a busy
moment of the machine meets few of them. `python benches/bench_cost.py` tells by callgrind where the instructions go.
"""

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson
import pytest
from counting import instructions, show
from measure import Row, Times, memory_folder, rounds_of
from report import Report

import epsagon_fast as epsagon
from epsagon_fast.producer.process import process
from epsagon_fast.propagation import inject
from epsagon_fast.queue import ring

ROUNDS = 2000
CALLS = [*range(50)]
TEXTS = {"card": "visa", "url": "https://x.example/pay", "user": "alice"}
LONG = {"card": "v" * 280, "url": "u" * 280, "user": "a" * 280}
VALUES = {"status": 200, "took": 1.5, "ok": True, "none": None, "rows": [1, 2, 3]}
# Of each row: what it is compared with, and how many times that it may take.
TARGETS = {
    "event block, three texts": ("dumps, three texts", 3.0),
    "event block, three texts of 280 B": ("dumps, three texts of 280 B", 3.0),
    "event block, five values": ("dumps, five values", 3.0),
    "add_event": ("dumps, three texts", 1.3),
    "add_event, three texts of 280 B": ("dumps, three texts of 280 B", 1.3),
    "traced function": ("dumps, three texts", 3.0),
    "traced function, a trace of its own": ("dumps, three texts", 12.0),
    "label": ("dumps, three texts", 2.0),
    "inject": ("dumps, three texts", 2.0),
}
# Nanoseconds, where nothing is recorded.
OFF_MOST_NS = 300


def complete(metadata: Mapping[str, Any]) -> dict[str, Any]:
    resource = {"name": "charge", "type": "python-function", "operation": "invoke", "metadata": dict(metadata)}
    times = {"id": "0123456789abcdef", "start_time": 1700000000.123456, "resource": resource, "origin": "python"}
    return {**times, "duration": 0.00012345, "error_code": 0, "exception": None}


def block(metadata: Mapping[str, Any]) -> Callable[[object], None]:
    def enter_and_leave(_: object) -> None:
        with epsagon.event("charge") as event:
            event.metadata.update(metadata)

    return enter_and_leave


@epsagon.trace
def function(_: object) -> None:
    pass


@epsagon.trace("own", new=True)
def function_of_its_own(_: object) -> None:
    pass


@pytest.fixture
def emptied(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """Inside a trace, into a ring that no collector reads: empties it."""
    monkeypatch.setenv("EPSAGON_LAUNCH", "0")
    process.reset()
    with memory_folder("epsagon-bench-") as base:
        epsagon.init(token="t", collector_url="http://127.0.0.1:1", runtime_dir=base)
        with epsagon.trace("run"):
            [path] = base.glob("*/*.ring")
            fd = os.open(path, os.O_RDWR)
            reader = ring.Consumer(fd)
            os.close(fd)

            def empty() -> None:
                reader.read(1 << 30)
                reader.commit()

            yield empty
        process.reset()


def test_blocks_and_calls(emptied: Callable[[], None], report: Report) -> None:
    def row(call: Callable[[Any], object]) -> Row:
        return Row(call, CALLS, emptied)

    texts, long, values = complete(TEXTS), complete(LONG), complete(VALUES)
    tracer = epsagon.create_tracer()
    tracer.start()
    add = tracer.add_event
    took = rounds_of(
        {
            "nothing": row(lambda _: None),
            "dumps, three texts": row(lambda _: orjson.dumps(texts)),
            "dumps, three texts of 280 B": row(lambda _: orjson.dumps(long)),
            "dumps, five values": row(lambda _: orjson.dumps(values)),
            "add_event": row(lambda _: add(texts)),
            "add_event, three texts of 280 B": row(lambda _: add(long)),
            "event block, three texts": row(block(TEXTS)),
            "event block, three texts of 280 B": row(block(LONG)),
            "event block, five values": row(block(VALUES)),
            "traced function": row(function),
            "traced function, a trace of its own": row(function_of_its_own),
            "label": row(lambda _: epsagon.label("customer", "alice")),
            "inject": row(lambda _: inject({})),
        },
        ROUNDS,
    )
    tracer.stop(0)
    call_ns = took.pop("nothing").median_ns
    net = {name: Times(median_ns - call_ns, p99_ns - call_ns) for name, (median_ns, p99_ns) in took.items()}
    table = []
    for name, times in net.items():
        beside = net[TARGETS[name][0]] if name in TARGETS else times
        table.append((name, *times, times.median_ns / beside.median_ns, times.p99_ns / beside.p99_ns))
    columns = ("", "median ns", "p99 ns", "/ its dumps", "of the p99")
    note = "A call and the loop around it, as `nothing` shows them, are taken off. p99: of rounds of 50 calls."
    report.table("worker", "Blocks and calls inside a trace", columns, table, note)
    for name, (beside, most) in TARGETS.items():
        ratio = net[name].median_ns / net[beside].median_ns
        report.target(f"{name} at most {most:g}x orjson.dumps of the event", f"{ratio:.2f}x", ratio <= most, WHY)


WHY = "docs/performance.md says where the rest goes."


@pytest.mark.parametrize("options", [{"disable": True}, {"token": ""}], ids=["disabled", "without a token"])
def test_where_nothing_is_recorded(options: dict[str, Any], report: Report, request: pytest.FixtureRequest) -> None:
    process.reset()
    epsagon.init(**options)
    case = request.node.callspec.id

    def event_block(_: object) -> None:
        with epsagon.event("charge"):
            pass

    rows = {"nothing": Row(lambda _: None, CALLS), "traced function": Row(function, CALLS)}
    rows["event block"] = Row(event_block, CALLS)
    outside = rounds_of(rows, ROUNDS)
    inside: dict[str, Times] = {}
    epsagon.trace(lambda: inside.update(rounds_of(rows, ROUNDS)))()
    process.reset()
    table = []
    for where, took in (("", outside), (" inside a traced function", inside)):
        for name in ("traced function", "event block"):
            net = took[name].median_ns - took["nothing"].median_ns
            table.append((name + where, net, took[name].p99_ns - took["nothing"].median_ns))
            what = f"{case}: {name}{where} at most {OFF_MOST_NS} ns"
            report.target(what, f"{net:.0f} ns", net <= OFF_MOST_NS, WHY)
    report.table("worker", f"Where nothing is recorded: {case}", ("", "median ns", "p99 ns"), table)


# Runs under callgrind, which counts within any() alone.
PROGRAM = """
import os, sys, tempfile
os.environ["EPSAGON_LAUNCH"] = "0"
sys.path.insert(0, sys.argv[1])
import bench_cost, epsagon_fast as epsagon
from epsagon_fast.propagation import inject
calls = {
    "event block": bench_cost.block(bench_cost.TEXTS),
    "traced function": bench_cost.function,
    "trace of its own": bench_cost.function_of_its_own,
    "add_event": lambda _: add(texts),
    "label": lambda _: epsagon.label("customer", "alice"),
    "inject": lambda _: inject({}) and None,
}
calls["dumps"] = lambda _: bench_cost.orjson.dumps(texts) and None
call, texts = calls[sys.argv[3]], bench_cost.complete(bench_cost.TEXTS)
with tempfile.TemporaryDirectory() as folder:
    epsagon.init(token="t", collector_url="http://127.0.0.1:1", runtime_dir=folder, ring_bytes=16 << 20)
    with epsagon.trace("run") as tracer:
        add = tracer.add_event
        any(map(call, range(int(sys.argv[2]))))
"""
MEASURED = ("dumps", "event block", "traced function", "add_event", "label", "inject", "trace of its own")
TIMES, SHOWN = 2000, 25


def main() -> None:
    """Print for each call where its instructions go."""
    for name in sys.argv[1:] or MEASURED:
        show(name, instructions(PROGRAM, str(Path(__file__).parent), str(TIMES), name), TIMES, SHOWN)


if __name__ == "__main__":
    main()
