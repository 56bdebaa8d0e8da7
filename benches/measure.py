"""Measuring side by side: the rows of a table take turns, so that a busy moment of the machine falls on all of them."""

import os
import shutil
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import clock_gettime_ns, perf_counter_ns
from typing import NamedTuple


class Times(NamedTuple):
    """What single calls took, in nanoseconds."""

    median_ns: float
    p99_ns: float


def summed(calls_ns: Sequence[float]) -> Times:
    """Return the median and the 99th percentile."""
    ordered = sorted(calls_ns)
    return Times(statistics.median(ordered), ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)])


class Row(NamedTuple):
    """One of those that are compared: in a round `call` gets each of `arguments`; `prepare` runs before, unmeasured."""

    call: Callable[[object], object]
    arguments: Sequence[object]
    prepare: Callable[[], object] = lambda: None


def by_turns(rows: Mapping[str, Row], rounds: int) -> dict[str, float]:
    """Return the median over the rounds of what a call took, in nanoseconds, the loop around it included."""
    return {name: times.median_ns for name, times in rounds_of(rows, rounds).items()}


def rounds_of(rows: Mapping[str, Row], rounds: int) -> dict[str, Times]:
    """Return what a call took, over the rounds, the loop around it included."""
    taken: dict[str, list[float]] = {name: [] for name in rows}
    for _ in range(rounds):
        for name, (call, arguments, prepare) in rows.items():
            prepare()
            start = perf_counter_ns()
            for argument in arguments:
                call(argument)
            taken[name].append((perf_counter_ns() - start) / len(arguments))
    return {name: summed(each) for name, each in taken.items()}


@contextmanager
def memory_folder(name: str) -> Iterator[Path]:
    """Make a folder in shared memory, as the real one; on a disk writing back dirty pages would be measured too."""
    path = tempfile.mkdtemp(prefix=name, dir="/dev/shm" if os.path.isdir("/dev/shm") else None)
    try:
        yield Path(path)
    finally:
        shutil.rmtree(path)


def cpu_clock_ns(pid: int) -> int:
    """Return the processor time of another process, all its threads, ended ones too; 0 for the pid 0."""
    # As clock_getcpuclockid(3) makes the clock's number of a pid.
    return clock_gettime_ns(~pid << 3 | 2) if pid else 0
