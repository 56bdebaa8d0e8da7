"""From the rings, through the journal, into the assembly.

A record stays in its ring until it is in the journal. While the journal cannot be written, traces go on in memory, and
are delivered if this process lives. Each pass tries the journal again. Once it can be written, journal/compaction.py
copies into it what it lacks.
"""

import logging
import time
from collections import Counter
from collections.abc import Sequence
from operator import itemgetter

from epsagon_fast.collector.assembling.assembly import Assembly
from epsagon_fast.collector.bounds import Bounds, Held
from epsagon_fast.collector.journal.journal import SEGMENT_BYTES, Journal
from epsagon_fast.collector.reading.feeding import Feeding
from epsagon_fast.collector.reading.folder import ServedFolder
from epsagon_fast.collector.settling.outcomes import Outcomes
from epsagon_fast.protocol import NO_TRACE, Kind, Record
from epsagon_fast.queue.layout import CorruptRing
from epsagon_fast.queue.reader import Reader, Rings

log = logging.getLogger("epsagon_fast.collector")

# Segments of a journal at its bound: several, because the one that is written cannot be deleted.
SEGMENTS = 16
# What all rings bring into one round together, and what each may bring in any case. A round takes as long as a hundred
# events beside what it brings, so one ring of few brings more than one of many.
ROUND_BYTES = 256 * 1024
QUOTA_BYTES = 64 * 1024
# A ring and what was read of it.
_Read = tuple[Reader, Sequence[Record]]
_trace_id = itemgetter(Record._fields.index("trace_id"))
# As a plain integer: comparing with a member of Kind costs several times as much.
_OPEN = int(Kind.OPEN)


class Intake:
    """One folder's rings, read into journal and assembly. `counts` takes what is counted here."""

    def __init__(
        self,
        folder: ServedFolder,
        rings: Rings,
        journal: Journal,
        assembly: Assembly,
        feeding: Feeding,
        outcomes: Outcomes,
        bounds: Bounds,
        counts: Counter[str],
    ) -> None:
        self.rings = rings
        self.journal = journal
        self.journal_works = True
        self._folder = folder
        self._assembly = assembly
        self._feeding = feeding
        self._outcomes = outcomes
        self._bounds = bounds
        self._counts = counts
        # Memory of finished traces as of the last pass. Reading does not change it.
        self._sending_bytes = 0
        self._ended: list[Reader] = []
        # Rings that the next pass reads after all others.
        self._put_off: list[Reader] = []
        # Whether a ring had so much in the last pass that it may be full before long.
        self.had_much = False

    @property
    def has_much(self) -> bool:
        """Whether a ring has so much now that it may be full before long."""
        return any(reader.head - reader.position > QUOTA_BYTES for reader in self.rings)

    @property
    def has_put_off(self) -> bool:
        """Whether the next pass reads rings that this one has left."""
        return bool(self._put_off)

    def find(self, now: float) -> list[Reader]:
        """Map new rings; return those whose processes have ended. In this order: what they pushed last is then read."""
        if not self._folder.gone:
            self.rings.scan(now)
        return self.rings.ended()

    def read(self, sending_bytes: int, ended: list[Reader], now: float) -> bool:
        """Read the rings up to where they are now, as far as each has room. Return whether any record came.

        A ring without room is passed by, and its process goes on. `sending_bytes`: memory of finished traces.
        """
        self._sending_bytes = sending_bytes
        self._ended = ended
        self._bounds.begin(time.monotonic())
        heads = {reader: reader.head for reader in self.rings}
        self.had_much = self.has_much
        last = {reader: heads.pop(reader) for reader in self._put_off if reader in heads}
        self._put_off.clear()
        came = False
        for part in (heads, last):
            while batches := self._read_round(part):
                self._take(self._fit_for_the_journal(batches, part, part is last), now)
                came = True
        return came

    def bury(self, reader: Reader, now: float) -> bool:
        """Close the traces of a process that ended. False: not all that it pushed has been read."""
        if self.rings.by_id(reader.ring_id) is not reader:
            # The ring was found corrupt in this pass, and set aside.
            return True
        self._outcomes.drops.take_over(reader)
        if reader.position < reader.head:
            if not reader.stuck:
                return False
            self._give_up(reader, "its process ended before a record was complete")
            return True
        self._assembly.ring_died(reader.ring_id, now, reader.pid)
        self._forget(reader)
        self.rings.remove(reader)
        return True

    def commit(self) -> None:
        """Write the journal, if that is possible."""
        try:
            self.journal.commit()
        except OSError as error:
            self._counts["journal_unavailable"] += 1
            if self.journal_works:
                log.error("journal_unavailable: %s; traces go on without it", error)
            self.journal_works = False
            return
        if not self.journal_works:
            log.info("the journal can be written again")
        self.journal_works = True

    def look(self) -> Held:
        """Tell the bounds how much is held, and return it."""
        held_bytes = self._assembly.held_bytes + self._sending_bytes + self.journal.buffered_bytes
        journal_bytes = self.journal.size_bytes
        self._bounds.look(held_bytes, journal_bytes if self.journal_works else 0)
        return Held(held_bytes, journal_bytes)

    def tidy(self) -> None:
        """Do what is due once a second: for the processes, the journal and the folder."""
        for reader in self.rings:
            self._count(reader)
            reader.publish_held(self._assembly.accounts.held_by(reader.ring_id).memory_bytes)
        if self.journal.segments > 1:
            self.journal.keep_only(self._assembly)
        self.journal.tidy()
        self._bounds.fit_journal(self._folder.fd, self.journal.size_bytes)
        self.journal.segment_bytes = min(SEGMENT_BYTES, self._bounds.journal_bytes // SEGMENTS)
        self._folder.look()
        # In a folder that was deleted no successor will look for them.
        for name in self.journal.miss() if not self._folder.gone else ():
            self._counts["journal_unavailable"] += 1
            log.warning("%s was deleted; what it held is written again", name)

    def _read_round(self, heads: dict[Reader, int]) -> list[_Read]:
        """Read a part of each ring that has room, and of one that is read for its CLOSE."""
        behind = [reader for reader, head in heads.items() if reader.position < head]
        if not behind:
            return []
        self.look()
        rooms = {reader: self._room_bytes(reader, len(behind)) for reader in behind}
        stopped = [reader for reader, room_bytes in rooms.items() if room_bytes <= 0]
        if closing := [reader for reader in stopped if self._is_closing(reader)]:
            # Only the ring nearest to its end: several would take each other's room, and none would come to its CLOSE.
            first = min(closing, key=lambda reader: heads[reader] - reader.position)
            rooms[first] = self._bounds.room_for_close_bytes(self._assembly.accounts.held_by(first.ring_id))
        quota = max(QUOTA_BYTES, ROUND_BYTES // len(behind))
        batches = [(reader, self._read(reader, heads, min(quota, room))) for reader, room in rooms.items() if room > 0]
        return [(reader, records) for reader, records in batches if records]

    def _room_bytes(self, reader: Reader, readers: int) -> int:
        return self._bounds.room_bytes(reader.ring_id, self._assembly.accounts.held_by(reader.ring_id), readers)

    def _is_closing(self, reader: Reader) -> bool:
        # The end of a process closes its traces too.
        return reader.unread_closes > 0 or reader in self._ended

    def _read(self, reader: Reader, heads: dict[Reader, int], limit_bytes: int) -> Sequence[Record]:
        try:
            return reader.read(limit_bytes, heads[reader])
        except CorruptRing as error:
            del heads[reader]
            self._give_up(reader, str(error))
            return []

    def _fit_for_the_journal(self, batches: list[_Read], heads: dict[Reader, int], opened_by_now: bool) -> list[_Read]:
        """Return the batches without records whose ignored keys are not known.

        Masks come with OPEN, which may stand in a ring that is read later: so a ring with records of an unknown trace
        is read again in the next pass, after all others. A trace that is unknown even then was never opened.
        """
        for _, records in batches:
            if self._assembly.strays(records):
                break
        else:
            return batches
        known = {NO_TRACE}
        for reader, records in batches:
            if opens := [record for record in records if record.kind == _OPEN]:
                self._feeding.masked(reader.ring_id, opens)
                known.update(map(_trace_id, opens))
        fit = []
        for reader, records in batches:
            unknown = {each for each in set(map(_trace_id, records)) - known if not self._assembly.knows(each)}
            if not unknown:
                fit.append((reader, records))
            elif opened_by_now:
                fit.append((reader, [_without_payload(each) if each.trace_id in unknown else each for each in records]))
            else:
                reader.back()
                del heads[reader]
                self._put_off.append(reader)
        return fit

    def _take(self, batches: list[_Read], now: float) -> None:
        safe = [(reader, self._feeding.masked(reader.ring_id, records)) for reader, records in batches]
        for reader, records in safe:
            self.journal.append(reader.ring_id, reader.position, records)
        self.commit()
        for reader, records in safe:
            self._counts["records"] += len(records)
            self._feeding.feed(reader.ring_id, records, now)
            reader.release()

    def _give_up(self, reader: Reader, reason: str) -> None:
        self._assembly.ring_died(reader.ring_id, time.time(), reader.pid)
        self._forget(reader)
        self.rings.quarantine(reader, reason)

    def _count(self, reader: Reader) -> None:
        for reason, count in reader.uncounted_refusals().items():
            self._counts[f"refused_{reason}"] += count
        if count := reader.uncounted_left_out():
            self._counts["left_out_at_head"] += count

    def _forget(self, reader: Reader) -> None:
        self._count(reader)
        self.journal.forget_ring(reader.ring_id)
        self._outcomes.replies.forget(reader)


def _without_payload(record: Record) -> Record:
    return record._replace(payload=b"")
