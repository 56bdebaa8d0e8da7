"""Masks records and feeds them to the assembly. Each batch is noted in the state page first, in case it kills us."""

from collections.abc import Iterator, Sequence
from functools import partial

from epsagon_fast.collector.assembling.assembly import Assembly
from epsagon_fast.collector.assembling.events import unmasked
from epsagon_fast.collector.poison import Poison
from epsagon_fast.collector.settling.replies import Replies
from epsagon_fast.protocol import Record
from epsagon_fast.queue.reader import Rings
from epsagon_fast.queue.ring import batch


class Feeding:
    """The way of records into the assembly, and of closed traces among those whose processes wait for an answer."""

    def __init__(self, rings: Rings, assembly: Assembly, poison: Poison, replies: Replies) -> None:
        self._rings = rings
        self._assembly = assembly
        self._poison = poison
        self._replies = replies

    def masked(self, ring_id: bytes, records: Sequence[Record]) -> Sequence[Record]:
        """Return records of one ring as they may be kept, without those that are poison."""
        safe: Sequence[Record]
        noted = self._poison.note_batch(ring_id, records, self._masked)
        if isinstance(noted, Iterator):
            # Each is noted before it is masked, in case it kills us, so each is masked alone.
            safe = batch([each for record in noted for each in self._masked([record])])
        else:
            safe = self._masked(noted)
        self._poison.note_end()
        return safe

    def _masked(self, records: Sequence[Record]) -> Sequence[Record]:
        records = batch(records)
        masked, masks = self._assembly.masked, self._assembly.masks
        safe: list[Record] = []
        at = 0
        # Nearly every record needs no change.
        while (to := unmasked(records, at, masks)) < len(records):
            safe += records[at:to]
            record = records[to]
            at = to + 1
            try:
                safe.append(masked(record))
            except Exception:
                self._poison.note_record(record)
                raise
        if not at:
            return records
        safe += records[at:]
        return batch(safe)

    def feed(self, ring_id: bytes, records: Sequence[Record], now: float) -> None:
        """Take masked records of one ring into the assembly."""
        noted = self._poison.note_batch(ring_id, records, partial(self._feed, ring_id, now=now))
        if isinstance(noted, Iterator):
            # Each is noted before it is fed, in case it kills us, so each is fed alone.
            for record in noted:
                self._feed(ring_id, [record], now)
        else:
            self._feed(ring_id, noted, now)
        self._poison.note_end()

    def _feed(self, ring_id: bytes, records: Sequence[Record], now: float) -> None:
        records = batch(records)
        feed, take = self._assembly.feed, self._assembly.take
        answered: list[bytes] = []
        self._assembly.fetch(records)
        at = 0
        while (at := take(ring_id, records, at, answered)) < len(records):
            record = records[at]
            at += 1
            try:
                feed(ring_id, record, now)
            except Exception:
                self._poison.note_record(record)
                raise
            # A CLOSE may have closed nothing.
            if record.ordinal and self._assembly.is_closed_by(record.trace_id, ring_id):
                answered.append(record.trace_id)
        reader = self._rings.by_id(ring_id) if answered else None
        if reader is not None:
            self._replies.expect(answered, reader)
