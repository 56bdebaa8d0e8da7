"""The collector's loop: read the rings, feed the assembly, hand finished traces over. No logic of its own.

One pass:

1. Look for new rings, and for processes that ended.
2. Note every ring's head; read all rings up to there in rounds, a bounded part of each ring in each round, so that one
   storm does not keep the others waiting. Each round goes: mask, journal, assembly, and only then the rings' room is
   given back. So a record is in its ring until it is in the journal. Less is read when too much is held (bounds.py).
3. Close what is due. A CLOSE is acted on one whole pass after it was read: by then every record that any process had
   pushed before it has been read too.
4. Hand finished traces over to be sent or stored, and mark those that are settled.

No HTTP and no SQLite happens in this thread. An exception ends the process: the next collector goes on from the
journal, and the state page tells it what to be careful with (poison.py).
"""

import logging
import os
import time
from collections import Counter

from epsagon_fast.collector.assembling import body
from epsagon_fast.collector.assembling.assembly import Assembly, ClosedTrace
from epsagon_fast.collector.bounds import Bounds
from epsagon_fast.collector.intake import Intake
from epsagon_fast.collector.journal import snapshot
from epsagon_fast.collector.journal.compaction import Compaction
from epsagon_fast.collector.journal.journal import SEGMENT_BYTES
from epsagon_fast.collector.parcel import Parcel, Settlement, parcel_bytes
from epsagon_fast.collector.poison import Poison
from epsagon_fast.collector.sending.delivery import Delivery
from epsagon_fast.collector.sending.dispatch import Dispatch
from epsagon_fast.collector.sending.outbox.outbox import Outbox
from epsagon_fast.collector.settling.counters import Counters
from epsagon_fast.collector.settling.drops import Drops
from epsagon_fast.collector.settling.replies import Replies
from epsagon_fast.config import Config
from epsagon_fast.protocol import Outcome
from epsagon_fast.queue import state as states
from epsagon_fast.queue.reader import Reader
from epsagon_fast.queue.state import State

log = logging.getLogger("epsagon_fast.collector")

SECOND_S = 1.0
# In a journal at its bound. The one that is written stays, whatever is in it.
SEGMENTS = 16


class Loop:
    """All that one pass needs. `folder_fd` is the folder, locked by the caller; `path` is only compared with it."""

    def __init__(self, folder_fd: int, path: str, state: State, incarnation: int) -> None:
        self._folder_fd = folder_fd
        self._path = path
        self._inode = os.fstat(folder_fd).st_ino
        self._incarnation = incarnation
        self.state = state
        self.counts: Counter[str] = Counter()
        self.assembly = Assembly()
        self.replies = Replies()
        self.poison = Poison(folder_fd, state, self.counts)
        self.bounds = Bounds()
        self.intake = Intake(folder_fd, incarnation, self.assembly, self.replies, self.poison, self.bounds, self.counts)
        self.rings = self.intake.rings
        self.journal = self.intake.journal
        self.sending = Dispatch(Delivery(log=log), Outbox(path, state.folder_id(), log=log))
        self.compaction = Compaction(self.journal, self.assembly, self.sending)
        self.drops = Drops()
        self.counters = Counters(state, self.counts, self.assembly.counters, self.sending.counts)
        self.gone = False
        self._next_second = 0.0
        # When any ring was last stopped; None: that was reported to be over.
        self._full_at: float | None = None

    def recover(self) -> None:
        """Take in what earlier collectors left in the folder, and look for what they stored."""
        # No trace may come that would say where.
        for state_dir in ("", Config(disable=True).resolve().state_dir):
            self.sending.watch(state_dir)
        for parcel in self.intake.recover(time.time()):
            self.sending.add(parcel)

    def one_pass(self) -> bool:
        """Do all that the module says once. Return whether any record came."""
        now = time.time()
        ended = self._find_rings(now)
        came = self.intake.read(self.sending.held_bytes, ended, now)
        for reader in ended:
            self._bury(reader, now)
        finished = self.assembly.end_pass(now)
        for closed in finished:
            self._hand_over(closed)
        settled = self.sending.step(time.monotonic())
        self._settle_all(settled)
        self._take_note_of_losses()
        if self.journal.size_bytes >= self.bounds.journal_bytes:
            self.journal.keep_only(self.assembly)
        self.compaction.step(bound_bytes=self.bounds.journal_bytes)
        self.intake.commit()
        self._stay_within_bounds()
        if came or settled:
            # At once: this process may be killed in its next breath, and `status` is where drops are seen.
            self.publish()
        self._each_second()
        self.state.store(states.HEARTBEAT_NS, time.monotonic_ns())
        self.state.store(states.SERVED, self._incarnation)
        return came

    def finish(self) -> None:
        """Give the requests in flight a moment, store what is left, and settle what comes of that."""
        self._settle_all(self.sending.finish(time.monotonic()))
        self.intake.commit()
        self.publish()
        self.journal.keep_only(self.assembly)
        self.journal.close()

    @property
    def unsettled(self) -> int:
        """How many finished traces are on their way."""
        return self.assembly.unsettled_count

    @property
    def held_bytes(self) -> int:
        """Memory of all that is here, nearly."""
        return self.assembly.held_bytes + self.sending.held_bytes + self.journal.buffered_bytes

    def publish(self) -> None:
        """Write counters and gauges to the state page."""
        self.counts["corrupt_rings"] = self.rings.set_aside
        self.counters.publish()
        gauges = {
            "rings": len(self.rings),
            "open_traces": self.assembly.open_count,
            "held_bytes": self.held_bytes,
            "pending": self.unsettled,
            "journal_bytes": self.journal.size_bytes,
            "stored": self.sending.stored,
            "full": self.bounds.stopped,
        }
        for name, value in gauges.items():
            self.state.set_gauge(name, value)

    def _find_rings(self, now: float) -> list[Reader]:
        """Map new rings; return those whose processes have ended. In this order: what they pushed last is then read."""
        if not self.gone:
            self.rings.scan(now)
        return self.rings.ended()

    def _bury(self, reader: Reader, now: float) -> None:
        if self.rings.by_id(reader.ring_id) is not reader:
            # It was found corrupt in this pass, and set aside.
            return
        self.drops.take_over(reader)
        self.intake.bury(reader, now)

    def _hand_over(self, closed: ClosedTrace) -> None:
        trace_id = closed.trace_id
        if self.poison.is_body(trace_id):
            self.poison.set_aside(closed.ring_id, snapshot.of_trace(closed.trace))
            self._settle(trace_id, Outcome.DROPPED.because("poison"))
            return
        reader = self.rings.by_id(closed.ring_id)
        if reader is not None:
            self.drops.take_over(reader)
        closed.trace.dropped_records = self.drops.text_for(closed.ring_id)
        self.poison.body(trace_id)
        built = body.build(closed.trace)
        self.poison.nothing()
        if built.told:
            self.drops.carried(trace_id, closed.ring_id)
        self.counts["closed"] += 1
        self.counts["trimmed"] += built.trimmed
        self.counts["bytes_before_trimming"] += built.size_before_bytes
        self.counts["bytes_after_trimming"] += built.size_bytes
        if closed.debug and built.trimmed:
            log.info("trimmed a trace from %d to %d KB", built.size_before_bytes // 1024, built.size_bytes // 1024)
        if built.data is None:
            self._settle(trace_id, Outcome.DROPPED.because("too_big"))
        else:
            parcel = Parcel(trace_id, closed.destination, built.data)
            self.assembly.has_body(trace_id, parcel_bytes(parcel))
            self.sending.add(parcel)

    def _settle_all(self, settled: list[Settlement]) -> None:
        for trace_id, outcome, again in settled:
            if again:
                self._count(outcome)
                self.replies.settle(trace_id, outcome)
            else:
                self._settle(trace_id, outcome)

    def _settle(self, trace_id: bytes, outcome: Outcome) -> None:
        ring_id = self.assembly.opener(trace_id)
        self.journal.settled(trace_id)
        self.assembly.forget(trace_id)
        self._count(outcome)
        self.replies.settle(trace_id, outcome)
        self.drops.settled(trace_id, outcome)
        if ring_id is not None and outcome in (Outcome.REJECTED, Outcome.DROPPED):
            self.drops.count(ring_id, {_reason(outcome): 1})

    def _count(self, outcome: Outcome) -> None:
        self.counts[outcome.name.lower()] += 1
        if outcome.reason:
            self.counts[f"{outcome.name.lower()}_{outcome.reason}"] += 1

    def _take_note_of_losses(self) -> None:
        lost, self.assembly.lost = self.assembly.lost, {}
        for ring_id, reasons in lost.items():
            self.drops.count(ring_id, reasons)

    def _stay_within_bounds(self) -> None:
        now = time.monotonic()
        if self.bounds.stopped:
            if self._full_at is None:
                self.counts["full"] += 1
                log.warning("full (%s): processes keep what they trace, and refuse what does not fit", self._held())
            self._full_at = now
            if self.bounds.stuck():
                self._relieve()
        elif self._full_at is not None and now - self._full_at > SECOND_S:
            self._full_at = None
            log.info("room again (%s)", self._held())

    def _relieve(self) -> None:
        """Drop the oldest open traces of the process that has most, down to its share."""
        ring_id = self.assembly.accounts.holds_most()
        self.intake.look()
        self.bounds.relieved()
        if ring_id is None:
            return
        excess_bytes, dropped = self.bounds.excess_bytes(self.assembly.accounts.held_by(ring_id)), 0
        for trace in self.assembly.unclosed_of(ring_id):
            if excess_bytes <= 0:
                break
            excess_bytes -= trace.held_bytes
            dropped += 1
            self._settle(trace.trace_id, Outcome.DROPPED.because("memory"))
        reader = self.rings.by_id(ring_id)
        log.warning("dropped the oldest %d open traces of process %s, which has most", dropped, reader and reader.pid)

    def _held(self) -> str:
        return f"{self.held_bytes >> 20} MiB in memory, {self.journal.size_bytes >> 20} MiB in the journal"

    def _each_second(self) -> None:
        now = time.monotonic()
        if now < self._next_second:
            return
        self._next_second = now + SECOND_S
        self.publish()
        for reader in self.rings:
            reader.publish_held(self.assembly.accounts.held_by(reader.ring_id).memory_bytes)
        if self.journal.segments > 1:
            self.journal.keep_only(self.assembly)
        self.bounds.fit_journal(self._folder_fd, self.journal.size_bytes)
        self.journal.segment_bytes = min(SEGMENT_BYTES, self.bounds.journal_bytes // SEGMENTS)
        if not self.gone and not self._still_there():
            self.gone = True
            self.state.store(states.GONE, 1)
            log.warning("the folder was deleted: serving the processes that are here until they leave")

    def _still_there(self) -> bool:
        try:
            return os.stat(self._path, follow_symlinks=False).st_ino == self._inode
        except OSError:
            return False


def _reason(outcome: Outcome) -> str:
    """Return an outcome as one word: rejected_401, too_big."""
    return f"rejected_{outcome.reason}" if outcome == Outcome.REJECTED else outcome.reason or "dropped"
