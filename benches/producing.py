"""A process that traces as it is told, a command a line, and answers with a line of JSON when it has done so.

It never has a record refused, so what the collector has to do is known: it goes on when its ring is empty again, and
when not too many of its traces are under way.
"""

import itertools
import json
import os
import statistics
import struct
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

from events import of_size

import epsagon_fast as epsagon
from epsagon_fast import Tracer
from epsagon_fast.producer.process import process
from epsagon_fast.queue.writer import Writer

PATIENCE_S = 60.0
# Of the ring: OPEN and EVENT have their reserves, see docs/queue.md.
FILL = 0.5
UNSETTLED = 200
# From one open trace to the next that gets an event: those that were opened one after the other lie side by side in the
# collector's memory, those of many processes would not. Prime, so that each trace has its turn.
STRIDE = 7919

# What a worker answers: how many traces it has recorded, and how many records were refused.
ANSWER = struct.Struct("=QQ")

tracers: list[Tracer] = []
pushed = itertools.count()


def writer() -> Writer:
    [mine] = process.writers.known()
    return mine


def drained() -> bool:
    return all(each.drained() for each in process.writers.known())


def wait(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.0005)


class Room:
    """Keeps count of what was pushed since the ring was empty."""

    def __init__(self) -> None:
        self._left = 0.0

    def take(self, size_bytes: int) -> None:
        if self._left < size_bytes:
            wait(drained, "the collector does not empty the ring")
            self._left = process.config().ring_bytes * FILL
        self._left -= size_bytes


def events(size_bytes: int, count: int = 100) -> list[dict[str, Any]]:
    return [of_size(number, size_bytes) for number in range(count)]


def open_traces(count: int) -> None:
    """Open so many traces, of which none is closed before `close_all`."""
    first = epsagon.create_tracer()
    first.start()
    tracers.append(first)
    room = Room()
    for _ in range(count - 1):
        room.take(1024)
        tracer = epsagon.create_tracer()
        tracer.start()
        tracers.append(tracer)
    wait(drained, "the collector does not empty the ring")


def push(count: int, size_bytes: int) -> None:
    """Add so many events, in turns to all open traces."""
    room, made = Room(), events(size_bytes)
    for number in itertools.islice(pushed, count):
        room.take(size_bytes + 300)
        tracers[number * STRIDE % len(tracers)].add_event(made[number % len(made)])
    wait(drained, "the collector does not empty the ring")


def trace(count: int, events_each: int, size_bytes: int) -> None:
    """Record so many whole traces and wait until they are settled."""
    room, made = Room(), events(size_bytes)
    for _ in range(count):
        room.take(1024)
        with epsagon.create_tracer() as tracer:
            for number in range(events_each):
                room.take(size_bytes + 300)
                tracer.add_event(made[number % len(made)])
        mine = writer()
        if mine.closed - mine.settled > UNSETTLED:
            wait(lambda mine=mine: mine.closed - mine.settled <= UNSETTLED // 2, "traces are not settled")
    wait(lambda: writer().closed == writer().settled, "traces are not settled")


def stream(count: int, events_each: int, size_bytes: int, per_second: float) -> None:
    """Record so many whole traces at a rate, whatever the collector does, and wait until they are settled."""
    made, start = events(size_bytes), time.monotonic()
    for done in range(count):
        # A request's worth of them at a time: a sleep for each would be longer than a trace.
        if done % 20 == 0 and (ahead_s := done / per_second - (time.monotonic() - start)) > 0:
            time.sleep(ahead_s)
        with epsagon.create_tracer() as tracer:
            for number in range(events_each):
                tracer.add_event(made[number % len(made)])
    wait(lambda: writer().closed == writer().settled, "traces are not settled")


def keep_pushing(seconds: float, size_bytes: int) -> int:
    """Add events, a hundred to a trace, for so long; return how many once all are delivered."""
    room, made = Room(), events(size_bytes)
    count, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        with epsagon.create_tracer() as tracer:
            for one in made:
                room.take(size_bytes + 300)
                tracer.add_event(one)
        count += len(made)
    wait(lambda: writer().closed == writer().settled, "traces are not settled")
    return count


def keep_tracing(seconds: float, events_each: int, size_bytes: int) -> int:
    """Record whole traces for so long and wait until they are settled; return how many."""
    count, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        trace(20, events_each, size_bytes)
        count += 20
    return count


def close_one_by_one(count: int, pause_s: float) -> dict[str, float]:
    """Record so many traces, a pause between them; return when each was closed, by its id."""
    closed = {}
    for number in range(count):
        with epsagon.create_tracer() as tracer:
            tracer.add_event(events(1000, 1)[0])
        closed[tracer.trace_id] = time.monotonic()
        # Not in step with the collector's passes.
        time.sleep(pause_s * (0.5 + number * 0.618 % 1))
    return closed


def close_all() -> None:
    for tracer in tracers:
        tracer.send_stop_signal()
    tracers.clear()
    wait(lambda: writer().closed == writer().settled, "traces are not settled")


def add(count: int, size_bytes: int) -> float:
    """Add so many events, each to a trace of its own; return the median time of a call, in nanoseconds."""
    room, made, calls_ns = Room(), events(size_bytes, 10), []
    for number in range(count):
        room.take(size_bytes + 1300)
        with epsagon.create_tracer() as tracer:
            add_event, event = tracer.add_event, made[number % 10]
            start = time.perf_counter_ns()
            add_event(event)
            calls_ns.append(time.perf_counter_ns() - start)
    wait(lambda: writer().closed == writer().settled, "traces are not settled")
    return statistics.median(calls_ns)


class Work(NamedTuple):
    """What each worker records."""

    per_second: float
    seconds: float
    events_each: int
    size_bytes: int


class Crew:
    """Forked workers, as a server forks them. Each has a ring of its own. They end when this process does."""

    def __init__(self, count: int, work: Work) -> None:
        self._count = count
        starts, self._start = os.pipe()
        self._answers, answers = os.pipe()
        for number in range(count):
            if os.fork() == 0:
                os.close(self._start)
                labour(number / count, starts, answers, work)
        os.close(starts)
        os.close(answers)
        self._all_answer()

    def work(self) -> tuple[int, int]:
        """Have all of them work; return how many traces they recorded, and how many records were refused."""
        os.write(self._start, bytes(self._count))
        return self._all_answer()

    def _all_answer(self) -> tuple[int, int]:
        counts = [ANSWER.unpack(os.read(self._answers, ANSWER.size)) for _ in range(self._count)]
        return sum(traces for traces, _ in counts), sum(refusals for _, refusals in counts)


def labour(share: float, starts: int, answers: int, work: Work) -> NoReturn:
    """Open a ring, and record traces for each byte that comes. `share`: of a trace's time this one begins later."""
    try:
        with epsagon.create_tracer():
            pass
        os.write(answers, ANSWER.pack(0, 0))
        while os.read(starts, 1):
            made, count = events(work.size_bytes, work.events_each), 0
            start = time.monotonic()
            while (due := (count + share) / work.per_second) < work.seconds:
                time.sleep(max(0.0, start + due - time.monotonic()))
                with epsagon.create_tracer() as tracer:
                    for event in made:
                        tracer.add_event(event)
                count += 1
            time.sleep(max(0.0, start + work.seconds - time.monotonic()))
            os.write(answers, ANSWER.pack(count, sum(process.refusals().values())))
    finally:
        os._exit(0)


crews: list[Crew] = []


def hire(count: int, *work: Any) -> None:
    """Fork so many workers."""
    crews.append(Crew(count, Work(*work)))


def work() -> tuple[int, int]:
    return crews[0].work()


def refused() -> dict[str, int]:
    return dict(process.refusals())


COMMANDS: dict[str, Callable[..., Any]] = {
    each.__name__: each
    for each in (
        *(open_traces, push, trace, stream, keep_pushing, keep_tracing, close_one_by_one, close_all, add, hire, work),
        refused,
    )
}

if __name__ == "__main__":
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        print(json.dumps(COMMANDS[name](*arguments)), flush=True)
