"""Takes over what an earlier collector had read and not settled, from the journal, and finds each ring's place."""

from collections import Counter

from epsagon_fast.collector.assembling.assembly import Assembly
from epsagon_fast.collector.journal import snapshot
from epsagon_fast.collector.journal.journal import Batch, Journal, Snapshot
from epsagon_fast.collector.parcel import Parcel, parcel_bytes
from epsagon_fast.collector.reading.feeding import Feeding
from epsagon_fast.collector.settling.replies import Replies
from epsagon_fast.queue.reader import Rings


class Recovery:
    """The replay of one folder's journal, once, before any ring is read. `counts` takes what was wrong."""

    def __init__(
        self,
        rings: Rings,
        journal: Journal,
        assembly: Assembly,
        feeding: Feeding,
        replies: Replies,
        counts: Counter[str],
    ) -> None:
        self._rings = rings
        self._journal = journal
        self._assembly = assembly
        self._feeding = feeding
        self._replies = replies
        self._counts = counts

    def run(self, now: float) -> list[Parcel]:
        """Feed what earlier collectors left in the journal, and find each ring's place. Return what was finished."""
        finished = []
        self._rings.scan(now)
        for item in self._journal.replay():
            if isinstance(item, Batch):
                self._feeding.feed(item.ring_id, self._feeding.masked(item.ring_id, item.records), now)
            elif isinstance(item, Snapshot):
                finished += self._restore(item)
            else:
                # Records that still come for it are late.
                self._assembly.forget(item.trace_id)
        self._counts["corrupt_segments"] = self._journal.corrupt
        closes = self._journal.closes()
        for ring_id, end in self._journal.ends().items():
            reader = self._rings.by_id(ring_id)
            if reader is None:
                self._assembly.ring_died(ring_id, now)
                self._journal.forget_ring(ring_id)
            else:
                reader.start_at(end, closes.get(ring_id, 0))
        return finished

    def _restore(self, item: Snapshot) -> list[Parcel]:
        """Take in a trace that was copied forward; return it if it was finished."""
        try:
            found = snapshot.restored(item.ring_id, item.records, self._assembly.counters)
        except snapshot.BROKEN:
            self._counts["malformed"] += 1
            return []
        if not isinstance(found, snapshot.Finished):
            self._assembly.restore(found)
            return []
        trace_id = found.parcel.trace_id
        self._assembly.restore_finished(trace_id, item.ring_id, found.ordinal, parcel_bytes(found.parcel))
        reader = self._rings.by_id(item.ring_id)
        if found.ordinal and reader is not None:
            self._replies.expect([trace_id], reader)
        return [found.parcel]
