"""Makes traces of the records of many rings. No file, no clock, no thread; `now` is unix seconds.

For each record, in the order of its ring: `masked`, then into the journal, then `feed`. After each full pass, that is
one look at the folder and one at every ring up to the head then seen, `end_pass`.

- **Opened by its OPEN**, whose config rules. Records of a trace not yet opened are held until one whole pass has gone
  by, since their ring may have been read before the opener's; then they are `orphan`.
- **Closed by the process that opened it**: by its CLOSE, its BYE (unfinished) or its death (ProcessDied). Other rings,
  of forked children and attached processes, add to a trace and close nothing.
- **Acted on one whole pass later**: `end_pass` returns a trace if its closing was fed before the pass that ends. What
  other processes pushed before the CLOSE is in the trace by then.
- **Finished** when `end_pass` has returned it: what still comes is `late`. `forget` says that it is settled.

Nothing that a record holds can raise here: what is broken is counted as `malformed` and ignored.
"""

from collections import Counter, deque
from collections.abc import Iterable, Sequence
from itertools import chain

from epsagon_fast.collector.assembling.accounts import Account, Accounts
from epsagon_fast.collector.assembling.events import fetch, strays, take
from epsagon_fast.collector.assembling.masks import Masks
from epsagon_fast.collector.assembling.open_trace import OpenTrace
from epsagon_fast.collector.assembling.open_traces import OpenTraces
from epsagon_fast.collector.assembling.payloads import BROKEN
from epsagon_fast.collector.assembling.unopened import Unopened
from epsagon_fast.protocol import Kind, Record

# Settled traces that are remembered, so that what comes for them is known to be late. At a thousand traces a second it
# is twenty seconds, and 3 MiB.
REMEMBERED = 20_000

# As plain integers: comparing with a member of Kind costs more than the rest of the decision.
_OPEN, _EVENT, _EXCEPTION, _LABEL, _RUNNER, _ERROR, _CLOSE, _BYE = map(int, Kind)


class Unsettled:
    """A trace that is finished and not settled."""

    __slots__ = ("account", "body_bytes", "ordinal", "ring_id")

    def __init__(self, ring_id: bytes, ordinal: int, account: Account) -> None:
        self.ring_id = ring_id
        # The number of its CLOSE among the ring's; 0 if the process left or died instead.
        self.ordinal = ordinal
        # Its opener's, which counts what is kept of it.
        self.account = account
        self.body_bytes = 0


class Assembly:
    """The traces of one collector, between their first record and their settlement."""

    def __init__(self) -> None:
        self.counters: Counter[str] = Counter()
        # By ring, and by reason: records that no trace took. Outcomes takes them from here.
        self.lost: dict[bytes, Counter[str]] = {}
        self._open = OpenTraces()
        # The same by ring. When a service ends, hundreds of processes say BYE at once, each with traces of its own.
        self._open_of: dict[bytes, dict[bytes, OpenTrace]] = {}
        # Traces that were closed in this pass, and in the one before.
        self._closed: list[OpenTrace] = []
        self._closed_before: list[OpenTrace] = []
        self._unsettled: dict[bytes, Unsettled] = {}
        self._settled: set[bytes] = set()
        opened, unsettled, settled = self._open, self._unsettled, self._settled
        # Not a method of ours: what held us by it would wait for the garbage collector with us.
        self.masks = Masks(lambda trace_id: trace_id in opened or trace_id in unsettled or trace_id in settled, opened)
        self._settled_order: deque[bytes] = deque()
        # Memory of open traces, held records and finished traces.
        self.accounts = Accounts()
        self._unopened = Unopened(self.accounts)

    def __contains__(self, trace_id: object) -> bool:
        """Return whether a trace's records are still needed."""
        return trace_id in self._open or trace_id in self._unsettled or trace_id in self._unopened

    def knows(self, trace_id: bytes) -> bool:
        """Return whether a trace was opened, as far as that is remembered."""
        return self.masks.knows(trace_id)

    def is_open(self, trace_id: bytes) -> bool:
        """Return whether a trace takes records. One that is closed does, until `end_pass` returns it."""
        return trace_id in self._open

    def is_closed_by(self, trace_id: bytes, ring_id: bytes) -> bool:
        """Return whether a trace is closed, by that ring, and not yet returned by `end_pass`."""
        trace = self._open.get(trace_id)
        return trace is not None and trace.is_closed and trace.ring_id == ring_id

    def finished(self, trace_id: bytes) -> Unsettled | None:
        """Return what is known of a trace that is finished and not settled."""
        return self._unsettled.get(trace_id)

    def opener(self, trace_id: bytes) -> bytes | None:
        """Return the ring of a trace that is open, or finished and not settled."""
        trace = self._open.get(trace_id) or self._unsettled.get(trace_id)
        return None if trace is None else trace.ring_id

    def unclosed(self, trace_id: bytes) -> OpenTrace | None:
        """Return a trace that is open and not yet closed."""
        trace = self._open.get(trace_id)
        return None if trace is None or trace.is_closed else trace

    def ids(self) -> list[bytes]:
        """Return the traces that are open, or finished and not settled."""
        return [*chain.from_iterable(self._open_of.values()), *self._unsettled]

    def unclosed_of(self, ring_id: bytes) -> list[OpenTrace]:
        """Return the traces that a ring's process opened and that are not closed, oldest first."""
        return [trace for trace in self._open_of.get(ring_id, {}).values() if not trace.is_closed]

    @property
    def unsettled_count(self) -> int:
        """The number of finished traces that are not settled."""
        return len(self._unsettled)

    @property
    def is_closing(self) -> bool:
        """Whether the next `end_pass` returns traces, if nothing else settles them."""
        return bool(self._closed_before)

    @property
    def open_count(self) -> int:
        """The number of traces that take records."""
        return len(self._open)

    @property
    def held_bytes(self) -> int:
        """Memory of all open traces and held records, nearly."""
        return self.accounts.open_bytes

    def masked(self, record: Record) -> Record:
        """Return a record as it may be kept; the same object unless something in it is masked.

        An OPEN makes its trace's ignored keys known at once. A record that cannot be searched loses its payload.
        """
        if record.kind == _OPEN:
            return self.masks.opened(record)
        return self.masks.masked(record)

    def strays(self, records: Sequence[Record]) -> set[bytes]:
        """Return the traces of which a record stands before their OPEN, if that is not known yet."""
        return {each for each in strays(records, self._open) if not self._is_finished(each)}

    def fetch(self, records: Sequence[Record]) -> None:
        """Have the traces of records fetched that `take` gets next."""
        fetch(records, self._open)

    def take(self, ring_id: bytes, records: Sequence[Record], at: int, answered: list[bytes]) -> int:
        """Take in usual records from `at` on, as `feed` would; return where a record stands to be fed, or the end.

        Nearly every record is one. `answered` gets the traces that a CLOSE with a number has closed.
        """
        books = self._open, self._open_of, self._closed, self._is_new, self.accounts, self.counters
        return take(records, at, ring_id, *books, answered)

    def feed(self, ring_id: bytes, record: Record, now: float) -> None:
        """Take in a record of one ring."""
        trace = self._open.get(record.trace_id)
        if trace is None:
            self._feed_unopened(ring_id, record, now)
            return
        before = trace.held_bytes
        try:
            self._apply(trace, ring_id, record)
        except BROKEN:
            self.counters["malformed"] += 1
        trace.account.open_bytes += trace.held_bytes - before

    def restore(self, trace: OpenTrace) -> None:
        """Take in an open trace as a snapshot kept it."""
        self._enter(trace)

    def restore_finished(self, trace_id: bytes, ring_id: bytes, ordinal: int, body_bytes: int) -> None:
        """Take in that a trace is finished and not settled."""
        self._unsettled[trace_id] = Unsettled(ring_id, ordinal, self.accounts.of(ring_id))
        self.have_bodies([(trace_id, body_bytes)])

    def have_bodies(self, bodies: Iterable[tuple[bytes, int]]) -> None:
        """Take in, for finished traces, how many bytes are kept of each until it is settled."""
        unsettled = self._unsettled
        for trace_id, body_bytes in bodies:
            finished = unsettled[trace_id]
            finished.account.body_bytes += body_bytes - finished.body_bytes
            finished.body_bytes = body_bytes

    def bye(self, ring_id: bytes, now: float) -> None:
        """Close, as unfinished, what a process left open that went by itself."""
        for trace in self.unclosed_of(ring_id):
            trace.close_unfinished(now)
            self._closed.append(trace)

    def ring_died(self, ring_id: bytes, now: float, pid: int | None = None) -> None:
        """Close, as ProcessDied, what a process left open that died. All of its ring has been fed."""
        for trace in self.unclosed_of(ring_id):
            before = trace.held_bytes
            trace.close_died(now, pid)
            trace.account.open_bytes += trace.held_bytes - before
            self._closed.append(trace)

    def end_pass(self, now: float) -> list[OpenTrace]:
        """Return the traces whose closing was fed before this pass began: they get no more records."""
        # First: by now what finished before has its body counted, or is settled.
        self.accounts.close_empty()
        ready, self._closed_before, self._closed = self._closed_before, self._closed, []
        # What was not fed is masked again when it is read again.
        self.masks.clear()
        for ring_id, _ in self._unopened.end_pass():
            self._lose(ring_id, "orphan")
        return self._finish([trace for trace in ready if trace.trace_id in self._open])

    def forget(self, *trace_ids: bytes) -> None:
        """Let go of traces that are settled, open or finished. Records that still come for them are late."""
        unsettled, masks = self._unsettled, self.masks
        for trace_id in trace_ids:
            finished = unsettled.pop(trace_id, None)
            if finished is not None:
                finished.account.body_bytes -= finished.body_bytes
            elif (trace := self._open.get(trace_id)) is not None:
                del self._open[trace_id]
                self._leave(trace)
            if masks:
                masks.pop(trace_id, None)
        if self._unopened:
            for trace_id in trace_ids:
                for ring_id, _ in self._unopened.take(trace_id):
                    self._lose(ring_id, "late")
        self._remember(trace_ids)

    def _feed_unopened(self, ring_id: bytes, record: Record, now: float) -> None:
        if record.kind == _BYE:
            self.bye(ring_id, now)
        elif self._is_finished(record.trace_id):
            self._lose(ring_id, "late")
        elif record.kind == _OPEN:
            self._begin(ring_id, record, now)
        elif not self._unopened.hold(ring_id, record):
            self._lose(ring_id, "orphan")

    def _lose(self, ring_id: bytes, reason: str) -> None:
        self.counters[reason] += 1
        self.lost.setdefault(ring_id, Counter())[reason] += 1

    def _begin(self, ring_id: bytes, record: Record, now: float) -> None:
        try:
            trace = OpenTrace(record.trace_id, ring_id, record.payload, self.counters)
        except BROKEN:
            self.counters["malformed"] += 1
            self.masks.pop(record.trace_id, None)
            return
        self._enter(trace)
        # Only now are the trace's ignored keys known.
        for other_ring, held in self._unopened.take(record.trace_id):
            self.feed(other_ring, self.masked(held), now)

    def _apply(self, trace: OpenTrace, ring_id: bytes, record: Record) -> None:
        """Take in a record of an open trace. Raises BROKEN."""
        kind, flags, ordinal, _, payload = record
        if kind == _EVENT:
            trace.add_event(payload, flags)
        elif kind == _EXCEPTION:
            trace.add_exception(payload)
        elif kind == _LABEL:
            if not trace.add_label(payload):
                self._lose(ring_id, "labels_full")
        elif kind == _RUNNER:
            if not trace.merge_runner(payload):
                self._lose(ring_id, "runner_full")
        elif kind == _ERROR:
            trace.set_error(payload)
        elif kind == _CLOSE and ring_id == trace.ring_id and not trace.is_closed:
            # First, because a CLOSE with a broken payload closes too.
            self._closed.append(trace)
            trace.close(payload, flags, ordinal)
        else:
            # A second OPEN or CLOSE, a CLOSE by a process that did not open the trace, or an unknown kind.
            self.counters["misplaced"] += 1

    def _finish(self, ready: list[OpenTrace]) -> list[OpenTrace]:
        opened, unsettled = self._open, self._unsettled
        for trace in ready:
            trace_id = trace.trace_id
            del opened[trace_id]
            unsettled[trace_id] = Unsettled(trace.ring_id, trace.close_ordinal, trace.account)
            self._leave(trace)
        return ready

    def _is_new(self, trace_id: bytes) -> bool:
        if trace_id in self._unsettled or trace_id in self._settled:
            return False
        return not self._unopened or trace_id not in self._unopened

    def _is_finished(self, trace_id: bytes) -> bool:
        return trace_id in self._unsettled or trace_id in self._settled

    def _remember(self, trace_ids: Iterable[bytes]) -> None:
        # Each once, in their order.
        new = [trace_id for trace_id in dict.fromkeys(trace_ids) if trace_id not in self._settled]
        self._settled.update(new)
        self._settled_order += new
        for _ in range(len(self._settled_order) - REMEMBERED):
            self._settled.discard(self._settled_order.popleft())

    def _enter(self, trace: OpenTrace) -> None:
        self._open[trace.trace_id] = trace
        self._open_of.setdefault(trace.ring_id, {})[trace.trace_id] = trace
        trace.account = self.accounts.charge(trace.ring_id, trace.held_bytes, open_traces=1)

    def _leave(self, trace: OpenTrace) -> None:
        """Let go of a trace that is open no more."""
        of_ring = self._open_of[trace.ring_id]
        del of_ring[trace.trace_id]
        if not of_ring:
            del self._open_of[trace.ring_id]
        account = trace.account
        account.open_bytes -= trace.held_bytes
        account.open_traces -= 1
