"""Decides which finished traces are sent now, stored, or taken from the outbox. It does no input or output itself.

A trace is sent while its destination is well, at once or with others in one request (batches.py). If that fails for a
reason that may pass, it goes to the outbox, and so do all traces that come while the destination is ill. The oldest are
taken from there as `Backoff` allows: one at a time until one arrives, then as many as share a request. If the outbox
refuses (no space, read-only), traces wait in memory, by the same rules.

The body of a stored trace is not kept in memory. `now` is monotonic seconds.
"""

from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence

from epsagon_fast.collector.formats.choice import format_for
from epsagon_fast.collector.parcel import Destination, Parcel, Settlement, parcel_bytes
from epsagon_fast.collector.sending.backoff import Backoff
from epsagon_fast.collector.sending.batches import Batches
from epsagon_fast.collector.sending.outbox.messages import (
    Delivered,
    Gone,
    Refused,
    Report,
    Stored,
    Taken,
    Unknown,
    Waiting,
)
from epsagon_fast.collector.sending.verdict import ARRIVED, Verdict
from epsagon_fast.hints import Protocol
from epsagon_fast.protocol import Outcome
from epsagon_fast.rows import maker

# Of the requests in flight at once, so many are kept for stored traces.
STORED_AT_ONCE = 32
# Stored traces that are taken at once where they share requests. The outbox has a bound in bytes too.
TAKEN_AT_ONCE = 1000
# Pause before an outbox is asked again that refused, or whose traces are all leased by other collectors.
REFUSED_S = 10.0
NOTHING_THERE_S = 1.0
_settlement = maker(Settlement)


class Sender(Protocol):
    """The part of Delivery that Dispatch needs."""

    def prepare(self) -> None: ...
    def submit(self, parcels: Sequence[Parcel]) -> None: ...
    def verdicts(self) -> list[Verdict]: ...
    def lags(self, now: float) -> bool: ...
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
        self._batches = Batches()
        # All that is in memory.
        self._held: dict[bytes, Parcel] = {}
        # Parcels that are neither in flight nor on their way to the outbox.
        self._fresh: dict[Destination, deque[Parcel]] = {}
        # Where the last one stands. Neighbours nearly always have one destination, and a hash of it is one of 9 fields.
        self._last: Destination | None = None
        self._last_queue: deque[Parcel] = deque()
        self._storing: dict[bytes, Parcel] = {}
        self._in_flight: dict[bytes, Parcel] = {}
        # Traces in memory that the outbox has too.
        self._stored: dict[Destination, set[bytes]] = {}
        # Why a destination's traces are not delivered.
        self._reasons: dict[Destination, Outcome] = {}
        self._waiting: dict[str, Waiting] = {}
        self._not_before: dict[str | Destination, float] = {}
        self._asked: set[Destination] = set()
        self._watched: set[str] = set()
        # Into which of them the outbox has looked, or has tried to.
        self._looked: set[str] = set()
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

    def is_pressed(self, now: float) -> bool:
        """Say whether `step` should come soon: the senders do not keep up, or stored traces are being sent."""
        return self.sends_stored or self._delivery.lags(now)

    @property
    def sends_stored(self) -> bool:
        """Whether traces are being taken from the outbox and sent."""
        return bool(self._asked or self._stored)

    @property
    def stored(self) -> int:
        """How many traces are in the outboxes that this collector uses, its own and others'."""
        directories = {waiting.directory: sum(waiting.counts.values()) for waiting in self._waiting.values()}
        return sum(directories.values())

    def is_empty(self, directory: str) -> bool:
        """Say whether no trace is stored in one directory. False until the outbox has looked there."""
        counts = [sum(each.counts.values()) for each in self._waiting.values() if each.directory == directory]
        return counts != [] and not any(counts)

    @property
    def has_looked(self) -> bool:
        """Whether the outbox has looked, or tried to, into each watched directory. Until then, more may be stored."""
        return self._watched <= self._looked

    @property
    def sends_more(self) -> bool:
        """Whether traces wait until a destination that is well has room for more requests."""
        return any(map(self._backoff.is_well, self._fresh))

    def watch(self, state_dir: str) -> None:
        """Send also the traces that earlier collectors left in a state directory. Those of new traces are watched."""
        if state_dir not in self._watched:
            self._watched.add(state_dir)
            self._outbox.watch(state_dir)

    def prepare(self) -> None:
        """Have imported, beside this thread, what the first request will need."""
        self._delivery.prepare()

    def add(self, parcel: Parcel) -> None:
        """Take a trace that is to be sent."""
        destination = parcel.destination
        if parcel.trace_id in self._held:
            # A collector died after storing it and before noting that. The outbox's copy is on its way already.
            self._doubles.append(Settlement(parcel.trace_id, Outcome.STORED, False))
            return
        self._hold(parcel)
        if destination is not self._last:
            self._last, self._last_queue = destination, self._queue(destination)
        self._last_queue.append(parcel)

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

    def last_step(self, now: float) -> list[Settlement]:
        """Send what waits for others or for room, and take nothing from the outbox any more."""
        self._is_finishing = True
        settled = self._hear_all(now)
        for destination in list(self._fresh):
            self._send(destination, now, at_once=True)
        return settled

    def finish(self, now: float, answers_s: float, stored_s: float) -> list[Settlement]:
        """Wait so long for the requests in flight, store what is left in so long, and return the settlements.

        What is not stored in time is in the journal.
        """
        settled = self.last_step(now)
        self._delivery.close(answers_s)
        settled += self._hear_all(now)
        for trace_id, parcel in self._held.items():
            if trace_id not in self._storing and not self._is_stored(parcel):
                self._store(parcel)
        self._outbox.close(stored_s)
        # The senders are not heard any more: they may have had an answer about a trace that was stored meanwhile.
        return settled + self._hear_outbox(now)

    def _queue(self, destination: Destination) -> deque[Parcel]:
        """Return the queue of a destination's traces, and watch its directory."""
        if destination.state_dir not in self._watched:
            self.watch(destination.state_dir)
        return self._fresh.setdefault(destination, deque())

    def _hear_all(self, now: float) -> list[Settlement]:
        return [*self._hear_outbox(now), *self._hear_senders(now)]

    def _hear_senders(self, now: float) -> list[Settlement]:
        """Act on what was answered. Neighbours nearly always arrived at one destination, so that is done at once."""
        settled: list[Settlement] = []
        arrived: list[Parcel] = []
        outcome, requests = Outcome.DELIVERED, 0
        in_flight, batches = self._in_flight, self._batches
        for verdict in self._delivery.verdicts():
            trace_ids, answer, *_ = verdict
            parcels = [in_flight.pop(trace_id) for trace_id in trace_ids]
            has_arrived = answer.name == ARRIVED
            goes_on = has_arrived and answer is outcome
            if requests and not (goes_on and parcels[0].destination is arrived[0].destination):
                settled += self._arrived(arrived, outcome, requests)
                arrived, requests = [], 0
            if has_arrived:
                batches.are_over(parcels, arrived=True)
                outcome = answer
                arrived += parcels
                requests += 1
            else:
                settled += self._finished(parcels, verdict, now)
        return settled + self._arrived(arrived, outcome, requests) if requests else settled

    def _hear_outbox(self, now: float) -> list[Settlement]:
        settled, self._doubles = self._doubles, []
        for report in self._outbox.reports():
            settled += self._hear(report, now)
        return settled

    def _hear(self, report: Report, now: float) -> list[Settlement]:
        if isinstance(report, Stored):
            return [self._note_stored(self._storing.pop(trace_id)) for trace_id in report.trace_ids]
        if isinstance(report, Refused):
            self._refused([self._storing.pop(trace_id) for trace_id in report.trace_ids], now)
        elif isinstance(report, Taken):
            self._taken(report, now)
        elif isinstance(report, Waiting):
            self._waiting[report.state_dir] = report
            self._looked.add(report.state_dir)
        elif isinstance(report, Unknown):
            self._looked.add(report.state_dir)
        elif isinstance(report, Gone):
            return [Settlement(trace_id, Outcome.DROPPED.because("outbox_full"), True) for trace_id in report.trace_ids]
        elif isinstance(report, Delivered):
            return [Settlement(trace_id, Outcome.DELIVERED, True) for trace_id in report.trace_ids]
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
        destination = taken.destination
        self._asked.discard(destination)
        self._not_before[destination] = now + NOTHING_THERE_S
        # A trace that is held came from the journal too.
        mine = deque(parcel for parcel in taken.parcels if parcel.trace_id not in self._held)
        others = [parcel for parcel in taken.parcels if parcel.trace_id in self._held]
        while mine and not self._is_finishing and self._backoff.room(destination, now):
            self._not_before.pop(destination, None)
            parcels = self._batches.next(mine, now)
            for parcel in parcels:
                self._hold(parcel)
            self._stored.setdefault(destination, set()).update(parcel.trace_id for parcel in parcels)
            self._submit(destination, [parcels])
        # This collector is leaving, or the destination fell ill meanwhile.
        for parcel in (*others, *mine):
            self._outbox.give_back(parcel)

    def _arrived(self, parcels: list[Parcel], outcome: Outcome, requests: int) -> list[Settlement]:
        """Act on requests to one destination that arrived."""
        destination = parcels[0].destination
        self._backoff.arrived(destination, requests)
        if self._reasons:
            self._reasons.pop(destination, None)
        return self._settled(parcels, outcome)

    def _finished(self, parcels: list[Parcel], verdict: Verdict, now: float) -> list[Settlement]:
        """Act on a request that did not arrive."""
        destination = parcels[0].destination
        self._backoff.finished(destination, verdict, now)
        if verdict.halve and self._batches.halve(parcels, verdict.shrink):
            self._fresh.setdefault(destination, deque()).extendleft(reversed(parcels))
            return []
        self._batches.are_over(parcels, arrived=False)
        if verdict.retry:
            self._reasons[destination] = verdict.outcome
            for parcel in parcels:
                self._put_back(parcel)
            return []
        if self._reasons and self._backoff.is_well(destination):
            self._reasons.pop(destination, None)
        return self._settled(parcels, verdict.outcome)

    def _settled(self, parcels: list[Parcel], outcome: Outcome) -> list[Settlement]:
        if self._stored:
            return [_settlement((each.trace_id, outcome, self._is_taken(each))) for each in parcels]
        # Nothing of it is in the outbox.
        held = self._held
        for each in parcels:
            del held[each.trace_id]
        self._held_bytes -= sum(map(parcel_bytes, parcels))
        return [_settlement((each.trace_id, outcome, False)) for each in parcels]

    def _put_back(self, parcel: Parcel) -> None:
        if self._is_stored(parcel):
            self._let_go(parcel)
            self._outbox.give_back(parcel)
        else:
            # Last in the queue, so that a trace that its backend chokes on does not hold up the others for ever.
            self._fresh.setdefault(parcel.destination, deque()).append(parcel)

    def _is_taken(self, parcel: Parcel) -> bool:
        """Let go of a trace that is settled, wherever it is. Return whether that was the outbox too."""
        was_stored = self._let_go(parcel)
        if was_stored:
            self._outbox.remove(parcel)
        return was_stored

    def _send(self, destination: Destination, now: float, at_once: bool = False) -> None:
        """Send a destination's traces that are due, or all; store them if it is ill."""
        queue = self._fresh.pop(destination)
        self._last = None
        is_well = self._backoff.is_well(destination)
        if not is_well and now >= self._not_before.get(destination.state_dir, 0.0):
            for parcel in queue:
                if self._is_stored(parcel):
                    self._put_back(parcel)
                else:
                    self._store(parcel)
            return
        if at_once or not is_well or self._batches.are_due(destination, len(queue), now):
            room = self._room(destination, now)
            # A destination that is ill is probed with one trace.
            self._submit(destination, self._batches.take(queue, room, now) if is_well else _alone(queue, room))
            if queue:
                self._batches.found_no_room(destination)
        if queue:
            self._fresh[destination] = queue

    def _room(self, destination: Destination, now: float) -> int:
        """Return how many requests new traces may have now."""
        room = self._backoff.room(destination, now)
        in_memory = len(self._stored.get(destination, ()))
        if not self._backoff.is_well(destination) or now < self._not_before.get(destination, 0.0):
            return room
        # New traces may come for ever, and all together they must not take the places of stored ones.
        kept = STORED_AT_ONCE - in_memory if self._count_stored(destination) > in_memory else 0
        return room - max(0, kept)

    def _ask(self, destination: Destination, count: int, now: float) -> None:
        """Take traces from the outbox if it has more than those that are in memory already."""
        in_memory = len(self._stored.get(destination, ()))
        if destination in self._asked or count <= in_memory or now < self._not_before.get(destination, 0.0):
            return
        room = self._backoff.room(destination, now)
        if not self._backoff.is_well(destination):
            limit = room
        elif format_for(destination).collect_s:
            limit = TAKEN_AT_ONCE - in_memory if room > 0 else 0
        else:
            limit = min(room, STORED_AT_ONCE - in_memory)
        if limit > 0:
            self._asked.add(destination)
            self._outbox.take(destination, limit)

    def _submit(self, destination: Destination, requests: Iterable[list[Parcel]]) -> None:
        """Have requests made, each of these traces."""
        in_flight, submit = self._in_flight, self._delivery.submit
        number, first = 0, b""
        for parcels in requests:
            number, first = number + 1, parcels[0].trace_id
            for parcel in parcels:
                in_flight[parcel.trace_id] = parcel
            submit(parcels)
        if number:
            self._backoff.started(destination, first, number)

    def _store(self, parcel: Parcel) -> None:
        self._storing[parcel.trace_id] = parcel
        self._outbox.put(parcel)

    def _count_stored(self, destination: Destination) -> int:
        waiting = self._waiting.get(destination.state_dir)
        return waiting.counts.get(destination, 0) if waiting else 0

    def _is_stored(self, parcel: Parcel) -> bool:
        # First without looking for the destination, because mostly nothing is.
        return bool(self._stored) and parcel.trace_id in self._stored.get(parcel.destination, ())

    def _hold(self, parcel: Parcel) -> None:
        self._held[parcel.trace_id] = parcel
        self._held_bytes += parcel_bytes(parcel)

    def _let_go(self, parcel: Parcel) -> bool:
        """Let go of a trace in memory. Return whether the outbox has it too."""
        trace_id = parcel.trace_id
        del self._held[trace_id]
        self._held_bytes -= parcel_bytes(parcel)
        stored = self._stored.get(parcel.destination) if self._stored else None
        if stored is None or trace_id not in stored:
            return False
        stored.discard(trace_id)
        if not stored:
            del self._stored[parcel.destination]
        return True


def _alone(queue: deque[Parcel], most: int) -> Iterator[list[Parcel]]:
    for _ in range(min(most, len(queue))):
        yield [queue.popleft()]
