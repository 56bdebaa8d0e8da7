"""Measuring side by side: the rows of a table take turns, so that a busy moment of the machine falls on all of them."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from time import perf_counter_ns
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
    """One of those that are compared: `call` gets each of `arguments` in a round, after `prepare` has run unmeasured."""

    call: Callable[[object], object]
    arguments: Sequence[object]
    prepare: Callable[[], object] = lambda: None


def by_turns(rows: Mapping[str, Row], rounds: int) -> dict[str, float]:
    """Return the median over the rounds of what a call took, in nanoseconds, the loop around it included."""
    taken: dict[str, list[float]] = {name: [] for name in rows}
    for _ in range(rounds):
        for name, (call, arguments, prepare) in rows.items():
            prepare()
            start = perf_counter_ns()
            for argument in arguments:
                call(argument)
            taken[name].append((perf_counter_ns() - start) / len(arguments))
    return {name: statistics.median(each) for name, each in taken.items()}
