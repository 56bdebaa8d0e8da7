"""The collector's loop: read the rings, feed the assembly, hand finished traces over. No logic of its own.

One pass:

1. Look for new rings, and for processes that ended.
2. Note every ring's head; read all rings up to there in rounds, a bounded part of each ring in each round, so that one
   storm does not keep the others waiting. Each round goes: mask, journal, assembly, and only then the rings' room is
   given back. So a record is in its ring until it is in the journal.
3. Close what is due. A CLOSE is acted on one whole pass after it was read: by then every record that any process had
   pushed before it has been read too.
4. Hand finished traces to delivery, take its results, mark them as settled.

No HTTP happens in this thread. An exception ends the process: the next collector goes on from the journal, and
`suspect` tells it what to be careful with.
"""

import logging
import os
import time
from collections import Counter

from epsagon_fast.collector import body, snapshot
from epsagon_fast.collector.assembly import Assembly, ClosedTrace
from epsagon_fast.collector.compaction import Compaction
from epsagon_fast.collector.counters import Counters
from epsagon_fast.collector.delivery import Delivery
from epsagon_fast.collector.destination import Parcel
from epsagon_fast.collector.journal import Batch, Journal, Snapshot
from epsagon_fast.collector.outbox import Outbox
from epsagon_fast.collector.replies import Replies
from epsagon_fast.collector.sending import Sending, Settlement
from epsagon_fast.config import Config
from epsagon_fast.protocol import REFUSALS, Kind, Outcome, Record
from epsagon_fast.queue import state as states
from epsagon_fast.queue.layout import CorruptRing
from epsagon_fast.queue.reader import Reader, Rings
from epsagon_fast.queue.state import State

log = logging.getLogger("epsagon_fast.collector")

# What one ring may bring into one round.
QUOTA_BYTES = 64 * 1024
SECOND_S = 1.0


class Loop:
    """All that one pass needs. `folder_fd` is the folder, locked by the caller; `path` is only compared with it."""

    def __init__(self, folder_fd: int, path: str, state: State, incarnation: int) -> None:
        self._folder_fd = folder_fd
        self._path = path
        self._inode = os.fstat(folder_fd).st_ino
        self.state = state
        self.rings = Rings(folder_fd, incarnation)
        self.journal = Journal(folder_fd)
        self.assembly = Assembly()
        self.sending = Sending(Delivery(log=log), Outbox(path, state.folder_id(), log=log))
        self.compaction = Compaction(self.journal, self.assembly, self.sending)
        self.replies = Replies()
        self.counts: Counter[str] = Counter()
        self.counters = Counters(state, self.counts, self.assembly.counters, self.sending.counts)
        self.gone = False
        self._next_second = 0.0
        self._journal_complaint = False

    def recover(self) -> None:
        """Feed what earlier collectors left in the journal, find each ring's place, and look for what is stored."""
        now = time.time()
        # No trace may come that would say where.
        for state_dir in ("", Config(disable=True).resolve().state_dir):
            self.sending.watch(state_dir)
        self.rings.scan(now)
        for item in self.journal.replay():
            if isinstance(item, Batch):
                self._feed(item.ring_id, [self.assembly.masked(record) for record in item.records], now)
            elif isinstance(item, Snapshot):
                self._restore(item)
        closes = self.journal.closes()
        for ring_id, end in self.journal.ends().items():
            reader = self.rings.by_id(ring_id)
            if reader is None:
                self.assembly.ring_died(ring_id, now)
                self.journal.forget_ring(ring_id)
            else:
                reader.start_at(end, closes.get(ring_id, 0))

    def one_pass(self) -> bool:
        """Do all that the module says once. Return whether any record came."""
        now = time.time()
        ended = self._find_rings(now)
        heads = {reader: reader.head for reader in self.rings}
        came = False
        while batches := self._read_round(heads):
            self._take(batches, now)
            came = True
        for reader in ended:
            self._bury(reader, now)
        for closed in self.assembly.end_pass(now):
            self._hand_over(closed)
        settled = self.sending.step(time.monotonic())
        self._settle_all(settled)
        self.compaction.step()
        self._commit()
        if came or settled:
            # At once: this process may be killed in its next breath, and `status` is where drops are seen.
            self.publish()
        self._each_second()
        self.state.store(states.HEARTBEAT_NS, time.monotonic_ns())
        return came

    def finish(self) -> None:
        """Give the requests in flight a moment, store what is left, and settle what comes of that."""
        self._settle_all(self.sending.finish(time.monotonic()))
        self._commit()
        self.publish()
        self.journal.keep_only(self.assembly)
        self.journal.close()

    @property
    def unsettled(self) -> int:
        """How many finished traces are on their way."""
        return self.assembly.unsettled_count

    def publish(self) -> None:
        """Write counters and gauges to the state page."""
        self.counters.publish()
        gauges = {
            "rings": len(self.rings),
            "open_traces": self.assembly.open_count,
            "held_bytes": self.assembly.held_bytes + self.sending.held_bytes,
            "pending": self.unsettled,
            "journal_bytes": self.journal.size_bytes,
            "stored": self.sending.stored,
        }
        for name, value in gauges.items():
            self.state.set_gauge(name, value)

    def _find_rings(self, now: float) -> list[Reader]:
        """Map new rings; return those whose processes have ended. In this order: what they pushed last is then read."""
        if not self.gone:
            self.rings.scan(now)
        return self.rings.ended()

    def _read_round(self, heads: dict[Reader, int]) -> list[tuple[Reader, list[Record]]]:
        batches = []
        for reader, head in list(heads.items()):
            if reader.position >= head:
                continue
            try:
                records = reader.read(QUOTA_BYTES, head)
            except CorruptRing as error:
                del heads[reader]
                self._give_up(reader, str(error))
                continue
            if records:
                batches.append((reader, records))
        return batches

    def _take(self, batches: list[tuple[Reader, list[Record]]], now: float) -> None:
        masked = self.assembly.masked
        # Masks come with OPEN: all of this round's first, since another process's events may stand in an earlier ring.
        for _, records in batches:
            for record in records:
                if record.kind == Kind.OPEN:
                    masked(record)
        safe = [(reader, [masked(record) for record in records]) for reader, records in batches]
        for reader, records in safe:
            self.journal.append(reader.ring_id, reader.position, records)
        self._commit()
        for reader, records in safe:
            self._feed(reader.ring_id, records, now)
            reader.release()

    def _feed(self, ring_id: bytes, records: list[Record], now: float) -> None:
        feed = self.assembly.feed
        for record in records:
            feed(ring_id, record, now)
            if record.ordinal:
                self._expect(ring_id, record.trace_id)

    def _restore(self, item: Snapshot) -> None:
        """Take in a trace that was copied forward."""
        try:
            found = snapshot.restored(item.ring_id, item.records, self.assembly.counters)
        except snapshot.BROKEN:
            self.counts["malformed"] += 1
            return
        if isinstance(found, snapshot.Finished):
            parcel, ordinal = found
            self.assembly.restore_finished(parcel.trace_id, item.ring_id, ordinal)
            self.sending.add(parcel)
            reader = self.rings.by_id(item.ring_id)
            if ordinal and reader is not None:
                self.replies.expect(parcel.trace_id, reader)
        else:
            self.assembly.restore(found)

    def _expect(self, ring_id: bytes, trace_id: bytes) -> None:
        """Note that a process waits for the outcome of a trace, unless its CLOSE closed nothing."""
        reader = self.rings.by_id(ring_id)
        if reader is not None and self.assembly.is_closed_by(trace_id, ring_id):
            self.replies.expect(trace_id, reader)

    def _hand_over(self, closed: ClosedTrace) -> None:
        trace_id = closed.trace_id
        built = body.build(closed.trace)
        self.counts["closed"] += 1
        self.counts["trimmed"] += built.trimmed
        self.counts["bytes_before_trimming"] += built.size_before_bytes
        self.counts["bytes_after_trimming"] += built.size_bytes
        if closed.debug and built.trimmed:
            log.info("trimmed a trace from %d to %d KB", built.size_before_bytes // 1024, built.size_bytes // 1024)
        if built.data is None:
            self._settle(trace_id, Outcome.DROPPED.because("too_big"))
        else:
            self.sending.add(Parcel(trace_id, closed.destination, built.data))

    def _settle_all(self, settled: list[Settlement]) -> None:
        for trace_id, outcome, again in settled:
            if again:
                self._count(outcome)
                self.replies.settle(trace_id, outcome)
            else:
                self._settle(trace_id, outcome)

    def _settle(self, trace_id: bytes, outcome: Outcome) -> None:
        self.journal.settled(trace_id)
        self.assembly.forget(trace_id)
        self._count(outcome)
        self.replies.settle(trace_id, outcome)

    def _count(self, outcome: Outcome) -> None:
        self.counts[outcome.name.lower()] += 1
        if outcome.reason:
            self.counts[f"{outcome.name.lower()}_{outcome.reason}"] += 1

    def _bury(self, reader: Reader, now: float) -> None:
        """Close the traces of a process that ended; all that it pushed has been read."""
        if reader.position < reader.head and not reader.stuck:
            return
        self.assembly.ring_died(reader.ring_id, now, reader.pid)
        for reason, count in zip(REFUSALS, reader.refusals(), strict=False):
            self.counts[f"refused_{reason}"] += count
        self._forget(reader)
        self.rings.remove(reader)

    def _give_up(self, reader: Reader, reason: str) -> None:
        self.counts["corrupt_rings"] += 1
        self.assembly.ring_died(reader.ring_id, time.time(), reader.pid)
        self._forget(reader)
        self.rings.quarantine(reader, reason)

    def _forget(self, reader: Reader) -> None:
        self.journal.forget_ring(reader.ring_id)
        self.replies.forget(reader)

    def _commit(self) -> None:
        try:
            self.journal.commit()
            self._journal_complaint = False
        except OSError as error:
            # Traces go on without it: they are in memory, and delivered if this process lives.
            self.counts["journal_unavailable"] += 1
            if not self._journal_complaint:
                self._journal_complaint = True
                log.error("the journal cannot be written: %s", error)

    def _each_second(self) -> None:
        now = time.monotonic()
        if now < self._next_second:
            return
        self._next_second = now + SECOND_S
        self.publish()
        self.journal.keep_only(self.assembly)
        if not self.gone and not self._still_there():
            self.gone = True
            self.state.store(states.GONE, 1)
            log.warning("the folder was deleted: serving the processes that are here until they leave")

    def _still_there(self) -> bool:
        try:
            return os.stat(self._path, follow_symlinks=False).st_ino == self._inode
        except OSError:
            return False
