"""What recording costs the traced process, beside what it could do instead. Each way runs in a process of its own.

Needs the peers for their rows: `make .venv-bench/.installed`. Without them the others are measured.
"""

import json
import pathlib
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
from contenders import CONTENDERS
from measure import summed
from places import Place
from report import Report, peers_python
from sink import sink

# The same name and values for each.
BLOCK = "epsagon_fast block"
READY = "add_event of a ready dict"
PEERS = ("OpenTelemetry block", "ddtrace block", "epsagon event")
FUNCTION = "epsagon_fast function"
FUNCTIONS_OF_PEERS = ("OpenTelemetry function", "ddtrace function")
ROUNDS = 7
# Bytes of an event, and how many in a round: what half a ring holds.
SIZES = {"200 B": (200, 200), "1 KB": (1000, 200), "16 KB": (16000, 15)}
TRACES = {1: 100, 10: 50, 100: 5}
# Microseconds of a push beside a thread that wants the processor all the time.
LONG_US, TOO_LONG_US = 50, 1000


class Running:
    """A contender's process."""

    def __init__(self, python: str, name: str, env: dict[str, str]) -> None:
        script = pathlib.Path(__file__).with_name("contenders.py")
        self._process = subprocess.Popen(
            [python, script, name], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout and self._process.stdin
        self._in, self._out = self._process.stdin, self._process.stdout
        self.forget()

    def until_ready(self) -> None:
        while (line := self._out.readline()) != "ready\n":
            assert line, "the contender does not start"

    def do(self, *command: Any) -> None:
        self._in.write(json.dumps(command) + "\n")
        self._in.flush()
        while not (line := self._out.readline()).startswith("{"):
            assert line, "the contender failed"
        answer = json.loads(line)
        self.calls_ns += answer["calls_ns"]
        self.cpu_ns.append(answer["cpu_ns"])
        self.helper_ns.append(answer["helper_ns"])

    def forget(self) -> None:
        self.calls_ns: list[float] = []
        self.cpu_ns: list[float] = []
        self.helper_ns: list[float] = []

    def cpu_us(self) -> float:
        """Return the processor time of a call in the traced process."""
        return statistics.median(self.cpu_ns) / 1000

    def helper_us(self) -> float:
        """Return the processor time of a call in the process that does the rest."""
        return statistics.median(self.helper_ns) / 1000

    def close(self) -> None:
        # Its end takes the queue's reader with it, which a kill would leave behind.
        try:
            self._process.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()


Field = dict[str, Running]


@pytest.fixture(scope="module")
def field() -> Iterator[Field]:
    """All contenders, started."""
    theirs = peers_python()
    pythons = {name: theirs if name in (*PEERS, *FUNCTIONS_OF_PEERS) else sys.executable for name in CONTENDERS}
    with sink() as backend, placed(backend.url) as env, started(pythons, env) as running:
        yield running


@contextmanager
def started(pythons: Mapping[str, str | None], env: dict[str, str]) -> Iterator[Field]:
    """Start contenders. `pythons`: by their names, what runs them; None: nothing does."""
    running: Field = {}
    try:
        for name, python in pythons.items():
            if python:
                running[name] = Running(python, name, env)
        for each in running.values():
            each.until_ready()
        yield running
    finally:
        for each in running.values():
            each.close()


@contextmanager
def placed(url: str) -> Iterator[dict[str, str]]:
    place = Place(url, DD_TRACE_AGENT_URL=url.rstrip("/"), DD_INSTRUMENTATION_TELEMETRY_ENABLED="false")
    try:
        yield {**place.env, "DD_REMOTE_CONFIGURATION_ENABLED": "false", "DD_TRACE_STARTUP_LOGS": "false"}
    finally:
        place.close()


def by_turns(field: Field, *command: Any, rounds: int = ROUNDS) -> None:
    for number in range(rounds + 1):
        for each in field.values():
            each.do(*command)
            if not number:
                each.forget()


def rows(field: Field, unit: str) -> list[list[float | str]]:
    base = summed(field[unit].calls_ns).median_ns if unit in field else 0
    found: list[list[float | str]] = []
    for name, each in field.items():
        median_ns, p99_ns = summed(each.calls_ns)
        row: list[float | str] = [name, median_ns / 1000, p99_ns / 1000, each.cpu_us(), each.helper_us()]
        found.append([*row, median_ns / base] if base else row)
    return found


COLUMNS = ("", "median µs", "p99 µs", "CPU µs of the process", "and of its helper")


NOTE = """A block is timed and has the same name and values for each tracer; a ready dict was built before. CPU: all
threads, until all is encoded and handed over. The helper is our collector, or the queue's reader. The clock around each
call adds what `nothing` shows."""
# Of whole traces.
SENT = "Our collector sends each trace by HTTP, ddtrace those of a moment together; OpenTelemetry's bytes go nowhere."


@pytest.mark.parametrize("size", SIZES)
def test_an_event(field: Field, report: Report, size: str) -> None:
    chosen = {name: each for name, each in field.items() if name not in (FUNCTION, *FUNCTIONS_OF_PEERS)}
    by_turns(chosen, "events", *SIZES[size])
    title = f"One event of {size}"
    note = NOTE if size == "200 B" else ""
    report.table("worker", title, (*COLUMNS, "/ dumps"), rows(chosen, "orjson.dumps"), note)
    if size == "1 KB":
        judge(chosen, report)
    for each in chosen.values():
        each.forget()


def test_a_traced_function(field: Field, report: Report) -> None:
    chosen = {name: each for name, each in field.items() if name in ("nothing", FUNCTION, *FUNCTIONS_OF_PEERS)}
    by_turns(chosen, "events", 200, 200)
    report.table("worker", "A call of a traced function inside a trace", COLUMNS, rows(chosen, ""))
    cpu = {name: each.cpu_us() + each.helper_us() for name, each in chosen.items()}
    for name in FUNCTIONS_OF_PEERS:
        if name in cpu:
            times = cpu[name] / cpu[FUNCTION]
            what = f"a traced function at least 10x cheaper than: {name}, CPU of all processes"
            report.target(what, f"{times:.1f}x", times >= 10, CHEAPER)
    for each in chosen.values():
        each.forget()


CHEAPER = "What the collector does with an event is counted too; ready dicts cost the traced process much less."


def judge(field: Field, report: Report) -> None:
    """Note the targets for an event of 1 KB."""
    clock = summed(field["nothing"].calls_ns).median_ns
    took = {name: summed(each.calls_ns).median_ns - clock for name, each in field.items()}
    cpu = {name: each.cpu_us() + each.helper_us() for name, each in field.items()}
    ratio = took[READY] / took["orjson.dumps"]
    report.target("add_event of a ready 1 KB dict at most 2x orjson.dumps", f"{ratio:.2f}x", ratio <= 2)
    why = "Beyond dumps: the look at the event's fields, the push, and a call (bench_encoding.py, bench_ring.py)."
    report.target("and on the way to 1.3x", f"{ratio:.2f}x", ratio <= 1.3, why)
    for name in PEERS:
        if name in field:
            times = cpu[name] / cpu[BLOCK]
            what = f"a block at least 10x cheaper than: {name}, CPU of all processes"
            report.target(what, f"{times:.1f}x", times >= 10, CHEAPER)
    for name in (READY, BLOCK, *PEERS):
        if name in field:
            report.bar(name, field[name].cpu_us(), field[name].helper_us(), name in (READY, BLOCK))


@pytest.mark.parametrize("events_each", TRACES)
def test_a_whole_trace(field: Field, report: Report, events_each: int) -> None:
    chosen = {name: each for name, each in field.items() if name in (READY, BLOCK, *PEERS)}
    by_turns(chosen, "traces", events_each, TRACES[events_each])
    title = f"A whole trace of {events_each} events of 500 B, opened and closed"
    report.table("worker", title, COLUMNS, rows(chosen, ""), SENT if events_each == 1 else "")
    for each in chosen.values():
        each.forget()


def test_beside_a_busy_thread(field: Field, report: Report) -> None:
    """A thread that wants the GIL takes it every 5 ms; `nothing` shows how often between two readings of the clock."""
    chosen = {name: field[name] for name in ("nothing", "orjson.dumps", READY)}
    by_turns(chosen, "crowded", 1000, 200, rounds=100)
    found = []
    for name, each in chosen.items():
        median_ns, p99_ns = summed(each.calls_ns)
        over = [
            sum(call > limit * 1000 for call in each.calls_ns) / len(each.calls_ns) for limit in (LONG_US, TOO_LONG_US)
        ]
        found.append([name, median_ns / 1000, p99_ns / 1000, *(f"{share:.3%}" for share in over)])
        if name == "nothing":
            unavoidable = over
        if name == READY:
            report.target("beside a busy thread at most 1 in 100 over 50 µs", f"{over[0]:.3%}", over[0] <= 0.01)
            why = f"Of empty calls {unavoidable[1]:.3%} take that long: the GIL is taken between the clock readings."
            report.target("and none over 1 ms", f"{over[1]:.3%}", over[1] == 0, why)
    columns = ("", "median µs", "p99 µs", f"over {LONG_US} µs", f"over {TOO_LONG_US} µs")
    report.table("worker", "One event of 1 KB beside a thread that wants the processor all the time", columns, found)
