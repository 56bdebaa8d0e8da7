"""Keeps what could not be sent yet, and says when to try again. Pure: no thread, no clock; `now` is monotonic seconds.

The loop gives every finished trace to `add`, submits what `due` returns, and tells each Result to `finished`:

    for parcel in retries.due(now): delivery.submit(*parcel)
    for result in delivery.results():
        if retries.finished(result, now): ...the outcome is final, settle the trace

A destination is well until an attempt fails that may go better later. From then on one request at a time probes it,
after exponentially growing pauses, until the first 2xx. Everything else waits here, new traces too; no thread sleeps.
"""

import random
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass

from epsagon_fast.collector.destination import Destination, Parcel
from epsagon_fast.collector.verdict import Result
from epsagon_fast.protocol import Outcome

FIRST_PAUSE_S = 0.5
MAX_PAUSE_S = 60.0
# In flight at once to a destination that is well: so many may fail, one after the other, before the rest is held back.
MAX_IN_FLIGHT = 128


@dataclass
class _Illness:
    failures: int = 0
    until: float = 0.0
    # The trace that is being tried; others in flight left before the first failure came back.
    probe: bytes | None = None


class Backoff:
    """Says how many requests a destination may be sent now. Whoever keeps the traces, in memory or on disk, asks it."""

    def __init__(self, chance: Callable[[], float] = random.random) -> None:
        self._chance = chance
        self._ill: dict[Destination, _Illness] = {}
        self._in_flight: Counter[Destination] = Counter()

    def is_well(self, destination: Destination) -> bool:
        """Return whether the last attempts gave no reason to wait."""
        return destination not in self._ill

    def room(self, destination: Destination, now: float) -> int:
        """Return how many requests may start now."""
        in_flight = self._in_flight[destination]
        illness = self._ill.get(destination)
        if illness is None:
            return MAX_IN_FLIGHT - in_flight
        return int(not in_flight and now >= illness.until)

    def started(self, destination: Destination, trace_id: bytes) -> None:
        """Note that this trace was submitted."""
        self._in_flight[destination] += 1
        if illness := self._ill.get(destination):
            illness.probe = trace_id

    def finished(self, destination: Destination, result: Result, now: float) -> None:
        """Note what came back."""
        self._in_flight[destination] -= 1
        if not self._in_flight[destination]:
            del self._in_flight[destination]
        if result.outcome == Outcome.DELIVERED:
            self._ill.pop(destination, None)
        elif result.retry:
            self._failed(destination, result, now)
        # A final refusal says nothing about the next trace, so that one is the next probe, at once.

    def _failed(self, destination: Destination, result: Result, now: float) -> None:
        illness = self._ill.setdefault(destination, _Illness())
        pause_s = result.retry_after_s or 0.0
        # The requests that were in flight together fail together: that is one failure.
        if not illness.failures or illness.probe == result.trace_id:
            illness.failures += 1
            pause_s = max(pause_s, self._pause_s(illness.failures))
        illness.until = max(illness.until, now + pause_s)

    def _pause_s(self, failures: int) -> float:
        # Half of it by chance, lest the collectors of a fleet come back in step.
        longest_s: float = min(MAX_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(failures - 1, 20))
        return longest_s * (1 + self._chance()) / 2


class Retries:
    """Finished traces in memory, from `add` until their outcome is final."""

    def __init__(self, backoff: Backoff | None = None) -> None:
        self._backoff = backoff or Backoff()
        self._waiting: dict[Destination, deque[Parcel]] = {}
        self._in_flight: dict[bytes, Parcel] = {}

    @property
    def waiting(self) -> int:
        """Count the traces that are not in flight."""
        return sum(map(len, self._waiting.values()))

    @property
    def pending(self) -> int:
        """Count the traces without a final outcome."""
        return self.waiting + len(self._in_flight)

    def add(self, trace_id: bytes, destination: Destination, body: bytes) -> None:
        """Take a trace that is to be sent. An id is given once."""
        self._waiting.setdefault(destination, deque()).append(Parcel(trace_id, destination, body))

    def due(self, now: float) -> list[Parcel]:
        """Return what is to be submitted now."""
        return [parcel for destination in list(self._waiting) for parcel in self._start(destination, now)]

    def finished(self, result: Result, now: float) -> bool:
        """Take an attempt's result. True: it is final and the trace is forgotten; False: it will be tried again."""
        parcel = self._in_flight.pop(result.trace_id)
        self._backoff.finished(parcel.destination, result, now)
        if result.retry:
            # Last in the queue: a trace that its backend chokes on must not stand before the others for ever.
            self._waiting.setdefault(parcel.destination, deque()).append(parcel)
        return not result.retry

    def _start(self, destination: Destination, now: float) -> list[Parcel]:
        queue = self._waiting[destination]
        started = [queue.popleft() for _ in range(min(len(queue), self._backoff.room(destination, now)))]
        for parcel in started:
            self._in_flight[parcel.trace_id] = parcel
            self._backoff.started(destination, parcel.trace_id)
        if not queue:
            del self._waiting[destination]
        return started
