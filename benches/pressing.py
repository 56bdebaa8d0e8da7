"""A process that looks at each of its calls while others want the processor, and says of the long ones why they were.

A command a line, as for producing.py. Three calls follow each other in one loop: an empty one; one that computes as
long as add_event, in C, and asks no other process and no kernel for anything; and add_event. What the scheduler and the
interpreter's lock do to a program falls on the last two alike, so the second tells what cannot be helped.

A long call has one of these causes, as the kernel's count of this thread's switches tells:

- SLICE: the thread had held the interpreter's lock as long as it may (`sys.getswitchinterval`), and had to give it up
  after the call, since other threads wait for it.
- PREEMPTED: the kernel gave the processor to another process.
- GIVEN_UP: the thread slept though its time was not over. A call does that which gives up the lock, or waits.
- BUSY: none of these. It computed all the time, or the whole machine stood still.
"""

import json
import resource
import sys
import threading
import time
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from events import of_size
from producing import Room

import epsagon_fast as epsagon

EMPTY, STAND_IN, ADD = "an empty call", "a sum that takes as long as add_event", "add_event"
TRACE = "a trace, opened and closed"
SLICE, PREEMPTED, GIVEN_UP, BUSY = CAUSES = ("slice", "preempted", "given up", "busy")
LONG_NS = 1_000_000
# A thread that waits asks for the lock when its own time is over, not to the microsecond when ours is.
NEARLY = 0.9
EVENTS_EACH = 100
PERCENTILES = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999, "longest": 1.0}


class Watch:
    """Tells causes by what the kernel counted for this thread since the last look."""

    def __init__(self) -> None:
        self.found = {name: dict.fromkeys(CAUSES, 0) for name in (EMPTY, STAND_IN, ADD, TRACE)}
        self._slice_ns = NEARLY * sys.getswitchinterval() * 1e9
        self._slept = self._preempted = 0
        # Since when this thread has the lock.
        self._since_ns = 0

    def look(self) -> tuple[bool, bool]:
        """Return whether the thread slept, and whether it was preempted, since the last look."""
        used = resource.getrusage(resource.RUSAGE_THREAD)
        slept, preempted = used.ru_nvcsw > self._slept, used.ru_nivcsw > self._preempted
        if slept:
            self._since_ns = time.perf_counter_ns()
        self._slept, self._preempted = used.ru_nvcsw, used.ru_nivcsw
        return slept, preempted

    def judge(self, name: str, start_ns: int, end_ns: int) -> None:
        """Note why a call of this name, which has just ended, was long, if it was."""
        if end_ns - start_ns <= LONG_NS:
            return
        held_ns = start_ns - self._since_ns
        slept, preempted = self.look()
        if slept and held_ns >= self._slice_ns:
            cause = SLICE
        elif preempted:
            cause = PREEMPTED
        else:
            cause = GIVEN_UP if slept else BUSY
        self.found[name][cause] += 1


@contextmanager
def busy_threads(count: int) -> Iterator[None]:
    """Run threads that want the interpreter's lock all the time."""
    stop = threading.Event()

    def burn() -> None:
        while not stop.is_set():
            sum(range(1000))

    threads = [threading.Thread(target=burn) for _ in range(count)]
    for each in threads:
        each.start()
    try:
        yield
    finally:
        stop.set()
        for each in threads:
            each.join()


def as_long_as_add(made: list[dict[str, Any]]) -> range:
    """Return the numbers of which the sum takes as long as add_event."""
    now, numbers = time.perf_counter_ns, range(100)
    adds, sums = [], []
    with epsagon.create_tracer() as tracer:
        for event in made:
            start = now()
            tracer.add_event(event)
            middle = now()
            sum(numbers)
            adds.append(middle - start)
            sums.append(now() - middle)
    return range(len(numbers) * sorted(adds)[len(made) // 2] // sorted(sums)[len(made) // 2])


def press(calls: int, threads: int, size_bytes: int, waits: bool) -> dict[str, dict[str, int]]:
    """Make so many calls of each kind beside so many busy threads; return what they took, in nanoseconds, and causes.

    `waits`: it goes on only when the collector has made room, so that no record is refused.
    """
    made = [of_size(number, size_bytes) for number in range(EVENTS_EACH)]
    numbers, room, now = as_long_as_add(made), Room(), time.perf_counter_ns
    took = {name: array("q") for name in (EMPTY, STAND_IN, ADD, TRACE)}
    empty, stand_in, add, trace = (each.append for each in took.values())
    watch, nothing = Watch(), ()
    with busy_threads(threads):
        for _ in range(calls // EVENTS_EACH):
            if waits:
                room.take(EVENTS_EACH * (size_bytes + 300) + 1024)
            watch.look()
            a = now()
            tracer = epsagon.create_tracer().__enter__()
            d = now()
            watch.judge(TRACE, a, d)
            open_ns, add_event = d - a, tracer.add_event
            for event in made:
                a = now()
                if a - d > LONG_NS:
                    watch.look()
                len(nothing)
                b = now()
                sum(numbers)
                c = now()
                add_event(event)
                d = now()
                empty(b - a)
                stand_in(c - b)
                add(d - c)
                if d - a > LONG_NS:
                    watch.judge(EMPTY, a, b)
                    watch.judge(STAND_IN, b, c)
                    watch.judge(ADD, c, d)
            watch.look()
            a = now()
            tracer.__exit__(None, None, None)
            d = now()
            watch.judge(TRACE, a, d)
            trace(open_ns + d - a)
    return {name: {**percentiles(took[name]), **watch.found[name]} for name in took}


def percentiles(calls_ns: "array[int]") -> dict[str, int]:
    """Return what PERCENTILES names."""
    ordered = sorted(calls_ns)
    return {name: ordered[min(len(ordered) - 1, int(len(ordered) * share))] for name, share in PERCENTILES.items()}


def flood(size_bytes: int) -> None:
    """Push for ever, whatever is refused."""
    made = [of_size(number, size_bytes) for number in range(EVENTS_EACH)]
    while True:
        with epsagon.create_tracer() as tracer:
            for event in made:
                tracer.add_event(event)


COMMANDS = {each.__name__: each for each in (press, flood)}

if __name__ == "__main__":
    for line in sys.stdin:
        command, *arguments = json.loads(line)
        print(json.dumps(COMMANDS[command](*arguments)), flush=True)
