"""Makes room when the collector holds all that it may and no trace is settled any more.

The bounds stop the rings of processes that hold their share. That helps as soon as one of their traces is settled. If
none is settled for a while, the process that holds most open traces loses the oldest of them.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable

from epsagon_fast.amounts import size
from epsagon_fast.collector.assembling.assembly import Assembly
from epsagon_fast.collector.bounds import Bounds, Held
from epsagon_fast.collector.settling.outcomes import Outcomes
from epsagon_fast.protocol import Outcome
from epsagon_fast.queue.reader import Rings

log = logging.getLogger("epsagon_fast.collector")

# The log says that there is room again once no ring was stopped for this long.
ROOM_AGAIN_S = 1.0


class Relief:
    """Logs that the collector is full, and makes room. `look` measures what is held and tells the bounds."""

    def __init__(
        self,
        bounds: Bounds,
        assembly: Assembly,
        rings: Rings,
        outcomes: Outcomes,
        look: Callable[[], Held],
        counts: Counter[str],
    ) -> None:
        self._bounds = bounds
        self._assembly = assembly
        self._rings = rings
        self._outcomes = outcomes
        self._look = look
        self._counts = counts
        # When a ring was last stopped; None: the log has said that there is room again.
        self._full_at: float | None = None

    def step(self) -> None:
        """React to the rings that the bounds stopped in this pass."""
        now = time.monotonic()
        if self._bounds.stopped:
            if self._full_at is None:
                self._counts["full"] += 1
                log.warning("full (%s): processes keep what they trace, and refuse what does not fit", self._held())
            self._full_at = now
            if self._bounds.stuck():
                self._make_room()
        elif self._full_at is not None and now - self._full_at > ROOM_AGAIN_S:
            self._full_at = None
            log.info("room again (%s)", self._held())

    def _make_room(self) -> None:
        """Drop the oldest open traces of the process that holds most, down to its share."""
        ring_id = self._assembly.accounts.holds_most()
        self._look()
        self._bounds.relieved()
        if ring_id is None:
            return
        excess_bytes, dropped = self._bounds.excess_bytes(self._assembly.accounts.held_by(ring_id)), 0
        for trace in self._assembly.unclosed_of(ring_id):
            if excess_bytes <= 0:
                break
            excess_bytes -= trace.held_bytes
            dropped += 1
            self._outcomes.settle([trace.trace_id], Outcome.DROPPED.because("memory"))
        reader = self._rings.by_id(ring_id)
        log.warning("dropped the oldest %d open traces of process %s, which has most", dropped, reader and reader.pid)

    def _held(self) -> str:
        held = self._look()
        return f"{size(held.memory_bytes)} in memory, {size(held.journal_bytes)} in the journal"
