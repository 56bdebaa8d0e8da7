"""When a destination may be sent something again. No thread, no clock; `now` is monotonic seconds.

A destination is well until an attempt fails that may go better later. From then on one request at a time probes it,
after exponentially growing pauses, until the first 2xx.
"""

from collections.abc import Callable

from epsagon_fast.collector.parcel import Destination
from epsagon_fast.collector.sending.verdict import Verdict

FIRST_PAUSE_S = 0.5
MAX_PAUSE_S = 60.0
# Requests in flight at once to a destination that is well. As many may fail before the rest is held back.
MAX_IN_FLIGHT = 128


class _Illness:
    def __init__(self) -> None:
        self.failures = 0
        self.until = 0.0
        # The first trace of the request that probes. Others in flight were sent before the first failure came back.
        self.probe: bytes | None = None


def _chance() -> float:
    # What sends has loaded it, beside the loop.
    from random import random

    return random()


class Backoff:
    """How many requests each destination may be sent now, for traces in memory and on disk alike."""

    def __init__(self, chance: Callable[[], float] = _chance) -> None:
        self._chance = chance
        self._ill: dict[Destination, _Illness] = {}
        # A dict: each change of a Counter calls Python.
        self._in_flight: dict[Destination, int] = {}

    def is_well(self, destination: Destination) -> bool:
        """Return whether the last attempts gave no reason to wait."""
        return destination not in self._ill

    def room(self, destination: Destination, now: float) -> int:
        """Return how many requests may start now."""
        in_flight = self._in_flight.get(destination, 0)
        illness = self._ill.get(destination)
        if illness is None:
            return MAX_IN_FLIGHT - in_flight
        return int(not in_flight and now >= illness.until)

    def started(self, destination: Destination, trace_id: bytes, requests: int = 1) -> None:
        """Note that requests were submitted. `trace_id`: the first of the last one's traces."""
        self._in_flight[destination] = self._in_flight.get(destination, 0) + requests
        if self._ill and (illness := self._ill.get(destination)):
            illness.probe = trace_id

    def arrived(self, destination: Destination, requests: int = 1) -> None:
        """Note that requests have arrived."""
        self._ended(destination, requests)
        if self._ill:
            self._ill.pop(destination, None)

    def finished(self, destination: Destination, verdict: Verdict, now: float) -> None:
        """Note the verdict of a request that did not arrive."""
        self._ended(destination, 1)
        if verdict.retry:
            self._failed(destination, verdict, now)
        # A rejected trace says nothing about the next one, so the next one is a probe at once.

    def _ended(self, destination: Destination, requests: int) -> None:
        in_flight = self._in_flight[destination] - requests
        if in_flight:
            self._in_flight[destination] = in_flight
        else:
            del self._in_flight[destination]

    def _failed(self, destination: Destination, verdict: Verdict, now: float) -> None:
        illness = self._ill.setdefault(destination, _Illness())
        pause_s = verdict.retry_after_s or 0.0
        # Requests that were in flight together fail together. They count as one failure.
        if not illness.failures or illness.probe == verdict.trace_ids[0]:
            illness.failures += 1
            pause_s = max(pause_s, self._pause_s(illness.failures))
        illness.until = max(illness.until, now + pause_s)

    def _pause_s(self, failures: int) -> float:
        # Half of the pause is random, lest the collectors of a fleet come back in step.
        longest_s: float = min(MAX_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(failures - 1, 20))
        return longest_s * (1 + self._chance()) / 2
