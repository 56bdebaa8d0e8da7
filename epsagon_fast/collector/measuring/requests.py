"""Counts the traces of each application and name, before any of them is left out: exact, whatever is sampled.

A trace is counted once, when it is closed, also if the collector dies then and the next one comes to the same trace
again. One without a runner has neither a name nor a duration, and is not counted.
"""

import time
from collections import defaultdict

from epsagon_fast.collector.assembling.open_trace import OpenTrace
from epsagon_fast.collector.assembling.terms import Terms
from epsagon_fast.collector.digests import blake2b
from epsagon_fast.collector.formats.conventions import OVERFLOW
from epsagon_fast.collector.formats.spans import name_of_runner
from epsagon_fast.collector.measuring.histogram import BOUNDS_NS, begin, placed
from epsagon_fast.collector.measuring.keys import REQUEST, cut, key_of
from epsagon_fast.collector.measuring.tally import Sums, TraceSum, tally
from epsagon_fast.collector.parcel import Destination
from epsagon_fast.queue.ledger import AT_ONCE, ID_BYTES, Ledger

# Applications whose series are remembered. One more, and all are looked up again.
MAX_REMEMBERED = 256


class Application:
    """One application's traces for one destination."""

    def __init__(self, destination: Destination, name: str, terms: Terms) -> None:
        self.destination = destination
        self.name = name
        # Of the process that closed a trace last.
        self.terms = terms
        self.digest = digest_of(destination)
        # The number of the series for names that have none of their own.
        self.overflow = 0
        self.numbers: dict[str, int] = {}


class Requests:
    """The series of requests in one ledger; without a ledger nothing is counted."""

    def __init__(self, ledger: Ledger | None) -> None:
        self._ledger = ledger
        self._applications: dict[tuple[Destination, str], Application] = {}
        # What earlier collectors counted and may not have settled. The journal brings it again.
        self._counted = ledger.posted() if ledger else set()
        # Of the last trace. Neighbours are nearly always of one application.
        self._last: Application | None = None
        # Made at once, while there is room for it.
        self._overflow = self._begun(key_of(REQUEST, "", OVERFLOW, "")) or 0

    def count(self, ready: list[OpenTrace]) -> None:
        """Count the traces that a pass has closed: once for all whose durations fall into one bucket of one series."""
        ledger = self._ledger
        if ledger is None:
            return
        for first in range(0, len(ready), AT_ONCE):
            for (number, bucket), found in self._summed(ready[first : first + AT_ONCE]).items():
                ledger.post(found.ids, number, found.amounts(bucket))

    def _summed(self, ready: list[OpenTrace]) -> Sums:
        sums: defaultdict[tuple[int, int], TraceSum] = defaultdict(TraceSum)
        at = 0
        while (at := self._tallied(ready, at, sums)) < len(ready):
            # Of another application, or with a name that is new, or nothing usual.
            trace = ready[at]
            at += 1
            application = self._last
            if application is None or application.terms is not trace.terms:
                application = self._last = self._application(trace)
            runner = trace.runner or {}
            name = name_of_runner(runner)
            number = application.numbers.get(name)
            if number is None:
                number = self._number(application, name)
            bucket, duration_ns = placed(runner.get("duration"))
            sums[number, bucket].add(trace.has_failed, duration_ns, [trace.trace_id])
        return sums

    def _tallied(self, ready: list[OpenTrace], at: int, sums: Sums) -> int:
        """Add up what is of the last application and has a name that is known; return where another one stands."""
        last = self._last
        terms, numbers = (last.terms, last.numbers) if last else (None, {})
        return tally(ready, at, terms, numbers, self._counted, ID_BYTES, BOUNDS_NS, sums)

    def applications(self) -> list[Application]:
        """Return the applications that have closed traces since this collector started."""
        return list(self._applications.values())

    def _number(self, application: Application, name: str) -> int:
        number = self._begun(key_of(REQUEST, application.name, name, application.digest))
        if number is None:
            return application.overflow
        # Not by the whole name: a series may have names without number, which differ only behind its key.
        application.numbers[cut(name)] = number
        return number

    def _application(self, trace: OpenTrace) -> Application:
        terms = trace.terms
        named = terms.destination, terms.config["app_name"]
        application = self._applications.get(named)
        if application is None:
            if len(self._applications) >= MAX_REMEMBERED:
                self._applications.clear()
            application = self._applications[named] = Application(*named, terms)
            overflow = self._begun(key_of(REQUEST, application.name, OVERFLOW, application.digest))
            application.overflow = self._overflow if overflow is None else overflow
        application.terms = terms
        return application

    def _begun(self, key: bytes) -> int | None:
        number = self._ledger.number_of(key) if self._ledger else None
        if self._ledger and number is not None:
            begin(self._ledger, number, time.time_ns())
        return number


def digest_of(destination: Destination) -> str:
    """Return a word for whom a destination's figures are for: another token may be another customer's."""
    told = "\0".join((destination.url, destination.token, destination.headers))
    return blake2b(told.encode("utf-8", "replace"), 8).hex()
