"""Records of traces that are not opened yet: their ring was read before the opener's, or they belong to no trace."""

from collections import Counter
from itertools import chain

from epsagon_fast.collector.assembling.accounts import Accounts
from epsagon_fast.protocol import Record

# The bound for one ring.
MAX_HELD_BYTES = 4 * 1024 * 1024
# Memory of a record's tuple and payload object, without its bytes.
RECORD_BYTES = 200

# A record with the ring that it came from.
RingRecord = tuple[bytes, Record]


class Unopened:
    """Holds records for one whole pass after the one that they came in. What they take is in their rings' accounts."""

    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts
        # By trace, in this pass and in the one before.
        self._now: dict[bytes, list[RingRecord]] = {}
        self._before: dict[bytes, list[RingRecord]] = {}
        # By ring.
        self._bytes: Counter[bytes] = Counter()

    def __bool__(self) -> bool:
        return bool(self._now or self._before)

    def __contains__(self, trace_id: object) -> bool:
        return trace_id in self._now or trace_id in self._before

    def hold(self, ring_id: bytes, record: Record) -> bool:
        """Hold a record; False: its ring has too much here."""
        size_bytes = _record_bytes(record)
        if self._bytes.get(ring_id, 0) + size_bytes > MAX_HELD_BYTES:
            return False
        self._now.setdefault(record.trace_id, []).append((ring_id, record))
        self._bytes[ring_id] += size_bytes
        self._accounts.charge(ring_id, size_bytes)
        return True

    def take(self, trace_id: bytes) -> list[RingRecord]:
        """Give up what is held of a trace, in the order in which it came."""
        if trace_id not in self:
            return []
        return self._let_go([*self._before.pop(trace_id, ()), *self._now.pop(trace_id, ())])

    def end_pass(self) -> list[RingRecord]:
        """Give up what was held for a whole pass."""
        over, self._before, self._now = self._before, self._now, {}
        return self._let_go(list(chain.from_iterable(over.values()))) if over else []

    def _let_go(self, held: list[RingRecord]) -> list[RingRecord]:
        for ring_id, record in held:
            size_bytes = _record_bytes(record)
            self._bytes[ring_id] -= size_bytes
            if not self._bytes[ring_id]:
                del self._bytes[ring_id]
            self._accounts.charge(ring_id, -size_bytes)
        return held


def _record_bytes(record: Record) -> int:
    return len(record.payload) + RECORD_BYTES
