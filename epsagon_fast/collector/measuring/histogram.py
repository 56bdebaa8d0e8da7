"""What the slots of a series in the ledger mean: how often something happened and failed, and how long it took."""

from bisect import bisect_left

from epsagon_fast.frozen import frozen
from epsagon_fast.hints import Any
from epsagon_fast.queue.ledger import WORD, Amounts, Ledger, Series

NS_PER_S = 1_000_000_000
# In seconds, as OpenTelemetry's conventions advise for the durations of HTTP requests.
BOUNDS_S = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
# An event may say any number. Longer than a year, the last one, is none of a duration.
BOUNDS_NS = (*(int(bound * NS_PER_S) for bound in BOUNDS_S), 365 * 86400 * NS_PER_S)
_MAX_S = BOUNDS_NS[-1] / NS_PER_S

# The slots: unix nanoseconds of its beginning, failures, the sum of durations, and one for each bucket, of which the
# last one has what is over all bounds.
STARTED_AT, FAILURES, SUM_NS, BUCKETS = range(4)
# The first slot behind.
OTHERS = BUCKETS + len(BOUNDS_S) + 1


@frozen
class Histogram:
    """A series as a reader sees it. `buckets` are not added up."""

    started_at_ns: int
    failures: int
    sum_ns: int
    buckets: tuple[int, ...]

    @property
    def count(self) -> int:
        """How often it happened."""
        return sum(self.buckets)

    def __add__(self, other: "Histogram") -> "Histogram":
        """Return both as if they were one series."""
        buckets = tuple(map(sum, zip(self.buckets, other.buckets, strict=True)))
        started_at_ns = min(self.started_at_ns, other.started_at_ns)
        return Histogram(started_at_ns, self.failures + other.failures, self.sum_ns + other.sum_ns, buckets)


def histogram_of(series: Series) -> Histogram:
    """Return a series' histogram."""
    slots = series.slots
    return Histogram(slots[STARTED_AT], slots[FAILURES], slots[SUM_NS], slots[BUCKETS:OTHERS])


def placed(duration_s: Any) -> tuple[int, int]:
    """Return a duration's bucket, from 0, and nanoseconds. One that is no sensible number counts as none."""
    # A tuple: a union of types would be made at each call.
    is_sensible = isinstance(duration_s, (int, float)) and 0 <= duration_s <= _MAX_S
    duration_ns = round(duration_s * NS_PER_S) if is_sensible else 0
    return bisect_left(BOUNDS_NS, duration_ns), duration_ns


class Sum:
    """What happened in a pass and has durations of one bucket of one series."""

    __slots__ = ("count", "duration_ns", "failures")

    def __init__(self) -> None:
        self.count = 0
        self.failures = 0
        self.duration_ns = 0

    def amounts(self, bucket: int) -> Amounts:
        """Return what that adds to which slots."""
        return (BUCKETS + bucket, self.count), (FAILURES, self.failures), (SUM_NS, self.duration_ns)


def begin(ledger: Ledger, number: int, now_ns: int) -> None:
    """Note when a series began, unless it did before."""
    if not ledger.load(number, STARTED_AT):
        ledger.store(number, STARTED_AT, now_ns & WORD)
