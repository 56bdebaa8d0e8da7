"""Adds the closed traces of a pass up, by series and bucket, so that the ledger is written once for all of them.

`tally` passes over the traces of one application of which the names are known: nearly all are that. What it leaves is
looked at by requests.py, so it may leave whatever it likes.
"""

from collections.abc import Mapping, Set

from epsagon_fast.collector.assembling.events import IMPLEMENTATION
from epsagon_fast.collector.assembling.open_trace import OpenTrace
from epsagon_fast.collector.assembling.terms import Terms
from epsagon_fast.collector.formats.spans import name_of_runner
from epsagon_fast.collector.measuring.histogram import Sum, placed
from epsagon_fast.compiled import COMPILED
from epsagon_fast.hints import TYPE_CHECKING

__all__ = ["TraceSum", "pure_tally", "tally"]


class TraceSum(Sum):
    """The traces of a pass that fall into one bucket of one series."""

    __slots__ = ("ids",)

    def __init__(self) -> None:
        super().__init__()
        self.ids: list[bytes] = []

    def add(self, failures: int, duration_ns: int, ids: list[bytes]) -> None:
        """Add traces, of which so many failed, with the sum of their durations."""
        self.count += len(ids)
        self.failures += failures
        self.duration_ns += duration_ns
        self.ids += ids


# By the number of the series and the bucket, from 0. One that is missing is made when it is asked for.
Sums = Mapping[tuple[int, int], TraceSum]


def pure_tally(
    traces: list[OpenTrace],
    at: int,
    terms: Terms | None,
    numbers: dict[str, int],
    counted: Set[bytes],
    id_bytes: int,
    bounds_ns: tuple[int, ...],
    sums: Sums,
) -> int:
    """Add closed traces up from `at` on; return where one stands that has to be looked at, or the end.

    terms: those of all but what is left. numbers: of the series, by the names of traces. counted: the first
    `id_bytes` of the ids of traces that are passed by. bounds_ns: see histogram.py.
    """
    while 0 <= at < len(traces):
        trace = traces[at]
        runner = trace.runner
        if runner is not None and trace.trace_id[:id_bytes] not in counted:
            number = numbers.get(name_of_runner(runner)) if trace.terms is terms else None
            if number is None:
                break
            bucket, duration_ns = placed(runner.get("duration"))
            sums[number, bucket].add(trace.has_failed, duration_ns, [trace.trace_id])
        at += 1
    return at


if TYPE_CHECKING or IMPLEMENTATION != COMPILED:
    tally = pure_tally
else:
    from epsagon_fast.collector.assembling._feeding import tally
