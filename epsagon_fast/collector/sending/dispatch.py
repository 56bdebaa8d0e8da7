"""Decides which finished traces are sent now, stored, or taken from the outbox. It does no input or output itself.

A trace is sent at once while its destination is well. If that fails for a reason that may pass, it goes to the outbox,
and so do all traces that come while the destination is ill. The oldest are taken from there as `Backoff` allows, one at
a time until one arrives. If the outbox refuses (no space, read-only), traces wait in memory, by the same rules.

The body of a stored trace is not kept in memory. `now` is monotonic seconds.
"""

from collections import Counter, deque
from typing import Protocol

from epsagon_fast.collector.parcel import Destination, Parcel, Settlement, parcel_bytes
from epsagon_fast.collector.sending.backoff import Backoff
from epsagon_fast.collector.sending.outbox.messages import Gone, Refused, Report, Stored, Taken, Waiting
from epsagon_fast.collector.sending.verdict import Verdict
from epsagon_fast.protocol import Outcome

# Stored traces are taken in parts of this size, and as many places in flight are kept for them.
TAKEN_AT_ONCE = 32
# Pause before an outbox is asked again that refused, or whose traces are all leased by other collectors.
REFUSED_S = 10.0
NOTHING_THERE_S = 1.0
# A leaving collector waits this long for the answers to its last requests, and for the disk.
LAST_ANSWERS_S = 1.0
LAST_STORED_S = 5.0
# How long each of the two may take when a successor waits.
LAST_HANDED_OVER_S = 0.6


class Sender(Protocol):
    """The part of Delivery that Dispatch needs."""

    def submit(self, trace_id: bytes, destination: Destination, body: bytes) -> None: ...
    def verdicts(self) -> list[Verdict]: ...
    def close(self, timeout_s: float) -> None: ...


class Shelf(Protocol):
    """The part of Outbox that Dispatch needs."""

    def watch(self, state_dir: str) -> None: ...
    def put(self, parcel: Parcel) -> None: ...
    def take(self, destination: Destination, limit: int) -> None: ...
    def give_back(self, parcel: Parcel) -> None: ...
    def remove(self, parcel: Parcel) -> None: ...
    def reports(self) -> list[Report]: ...
    def close(self, timeout_s: float) -> None: ...


class Dispatch:
    """The finished traces of one collector, from `add` until their outcome is known."""

    def __init__(self, delivery: Sender, outbox: Shelf, backoff: Backoff | None = None) -> None:
        self.counts: Counter[str] = Counter()
        self._delivery = delivery
        self._outbox = outbox
        self._backoff = backoff or Backoff()
        # All that is in memory.
        self._held: dict[bytes, Parcel] = {}
        # Parcels that are neither in flight nor on their way to the outbox.
        self._fresh: dict[Destination, deque[Parcel]] = {}
        self._storing: dict[bytes, Parcel] = {}
        self._in_flight: dict[bytes, Parcel] = {}
        # Traces in flight that the outbox has too.
        self._stored: set[bytes] = set()
        # Why a destination's traces are not delivered.
        self._reasons: dict[Destination, Outcome] = {}
        self._waiting: dict[str, Waiting] = {}
        self._not_before: dict[str | Destination, float] = {}
        self._asked: set[Destination] = set()
        self._watched: set[str] = set()
        self._doubles: list[Settlement] = []
        self._held_bytes = 0
        self._is_finishing = False

    @property
    def held_bytes(self) -> int:
        """About how much memory all traces here take."""
        return self._held_bytes

    @property
    def busy(self) -> int:
        """How many traces are in flight or being stored. They need only a moment."""
        return len(self._in_flight) + len(self._storing)

    @property
    def stored(self) -> int:
        """How many traces are in the outboxes that this collector uses, its own and others'."""
        directories = {waiting.directory: sum(waiting.counts.values()) for waiting in self._waiting.values()}
        return sum(directories.values())

    def stored_in(self, directory: str) -> int:
        """Return how many traces are stored in one directory."""
        counts = [sum(each.counts.values()) for each in self._waiting.values() if each.directory == directory]
        return max(counts, default=0)

    def watch(self, state_dir: str) -> None:
        """Send also the traces that earlier collectors left in a state directory. Those of new traces are watched."""
        if state_dir not in self._watched:
            self._watched.add(state_dir)
            self._outbox.watch(state_dir)

    def add(self, parcel: Parcel) -> None:
        """Take a trace that is to be sent."""
        self.watch(parcel.destination.state_dir)
        if parcel.trace_id in self._held:
            # A collector died after storing it and before noting that. The outbox's copy is on its way already.
            self._doubles.append(Settlement(parcel.trace_id, Outcome.STORED, False))
            return
        self._hold(parcel)
        self._fresh.setdefault(parcel.destination, deque()).append(parcel)

    def parcel(self, trace_id: bytes) -> Parcel | None:
        """Return a trace that is in memory."""
        return self._held.get(trace_id)

    def step(self, now: float) -> list[Settlement]:
        """Send and store what is due. Return the settlements since the last call."""
        settled = self._hear_all(now)
        for destination in list(self._fresh):
            self._send(destination, now)
        for waiting in self._waiting.values():
            for destination, count in waiting.counts.items():
                self._ask(destination, count, now)
        return settled

    def finish(self, now: float, hands_over: bool = False) -> list[Settlement]:
        """Wait a moment for the requests in flight, store what is left, and return the settlements.

        `hands_over`: a successor waits. It finds in the journal what is not stored in time.
        """
        self._is_finishing = True
        self._delivery.close(LAST_HANDED_OVER_S if hands_over else LAST_ANSWERS_S)
        settled = self._hear_all(now)
        for trace_id, parcel in self._held.items():
            if trace_id not in self._storing and trace_id not in self._stored:
                self._store(parcel)
        self._outbox.close(LAST_HANDED_OVER_S if hands_over else LAST_STORED_S)
        return settled + self._hear_all(now)

    def _hear_all(self, now: float) -> list[Settlement]:
        settled, self._doubles = self._doubles, []
        settled += [each for report in self._outbox.reports() for each in self._hear(report, now)]
        return settled + [each for verdict in self._delivery.verdicts() for each in self._finished(verdict, now)]

    def _hear(self, report: Report, now: float) -> list[Settlement]:
        if isinstance(report, Stored):
            return [self._note_stored(self._storing.pop(trace_id)) for trace_id in report.trace_ids]
        if isinstance(report, Refused):
            self._refused([self._storing.pop(trace_id) for trace_id in report.trace_ids], now)
        elif isinstance(report, Taken):
            self._taken(report, now)
        elif isinstance(report, Waiting):
            self._waiting[report.state_dir] = report
        elif isinstance(report, Gone):
            return [Settlement(trace_id, Outcome.DROPPED.because("outbox_full"), True) for trace_id in report.trace_ids]
        return []

    def _note_stored(self, parcel: Parcel) -> Settlement:
        self._let_go(parcel)
        return Settlement(parcel.trace_id, self._reasons.get(parcel.destination, Outcome.STORED), False)

    def _refused(self, parcels: list[Parcel], now: float) -> None:
        self.counts["outbox_unavailable"] += len(parcels)
        for parcel in parcels:
            self._not_before[parcel.destination.state_dir] = now + REFUSED_S
            self._fresh.setdefault(parcel.destination, deque()).append(parcel)

    def _taken(self, taken: Taken, now: float) -> None:
        self._asked.discard(taken.destination)
        self._not_before[taken.destination] = now + NOTHING_THERE_S
        for parcel in taken.parcels:
            if self._is_finishing or parcel.trace_id in self._held or not self._backoff.room(taken.destination, now):
                # This collector is leaving, the trace came from the journal too, or its destination fell ill meanwhile.
                self._outbox.give_back(parcel)
                continue
            self._not_before.pop(taken.destination, None)
            self._hold(parcel)
            self._stored.add(parcel.trace_id)
            self._submit(parcel)

    def _finished(self, verdict: Verdict, now: float) -> list[Settlement]:
        parcel = self._in_flight.pop(verdict.trace_id)
        destination = parcel.destination
        self._backoff.finished(destination, verdict, now)
        again = verdict.trace_id in self._stored
        self._stored.discard(verdict.trace_id)
        if verdict.retry:
            self._reasons[destination] = verdict.outcome
            if again:
                self._let_go(parcel)
                self._outbox.give_back(parcel)
            else:
                # Last in the queue, so that a trace that its backend chokes on does not hold up the others for ever.
                self._fresh.setdefault(destination, deque()).append(parcel)
            return []
        if self._backoff.is_well(destination):
            self._reasons.pop(destination, None)
        self._let_go(parcel)
        if again:
            self._outbox.remove(parcel)
        return [Settlement(parcel.trace_id, verdict.outcome, again)]

    def _send(self, destination: Destination, now: float) -> None:
        queue = self._fresh.pop(destination)
        if not self._backoff.is_well(destination) and now >= self._not_before.get(destination.state_dir, 0.0):
            for parcel in queue:
                self._store(parcel)
            return
        room = self._backoff.room(destination, now)
        if room > TAKEN_AT_ONCE and self._count_stored(destination):
            room -= TAKEN_AT_ONCE
        for _ in range(min(len(queue), room)):
            self._submit(queue.popleft())
        if queue:
            self._fresh[destination] = queue

    def _ask(self, destination: Destination, count: int, now: float) -> None:
        """Take traces from the outbox if it has more than those that are in flight already."""
        if destination in self._asked or now < self._not_before.get(destination, 0.0):
            return
        in_flight = sum(1 for trace_id in self._stored if self._in_flight[trace_id].destination == destination)
        room = min(self._backoff.room(destination, now), TAKEN_AT_ONCE - in_flight)
        if room > 0 and count > in_flight:
            self._asked.add(destination)
            self._outbox.take(destination, room)

    def _submit(self, parcel: Parcel) -> None:
        self._in_flight[parcel.trace_id] = parcel
        self._backoff.started(parcel.destination, parcel.trace_id)
        self._delivery.submit(*parcel)

    def _store(self, parcel: Parcel) -> None:
        self._storing[parcel.trace_id] = parcel
        self._outbox.put(parcel)

    def _count_stored(self, destination: Destination) -> int:
        waiting = self._waiting.get(destination.state_dir)
        return waiting.counts.get(destination, 0) if waiting else 0

    def _hold(self, parcel: Parcel) -> None:
        self._held[parcel.trace_id] = parcel
        self._held_bytes += parcel_bytes(parcel)

    def _let_go(self, parcel: Parcel) -> None:
        del self._held[parcel.trace_id]
        self._held_bytes -= parcel_bytes(parcel)
