"""The producer's end of the queue: this process's ring in one folder.

Promises: a push never waits for another process, a lock or the disk. Nothing here raises into the application. Every
refusal is counted by its reason. After a fork the child makes a ring of its own and never writes into its parent's. An
open trace keeps its writer; a new trace may get another one (the user id has changed, or the folder was deleted).
"""

import os
from collections.abc import Callable
from time import monotonic, monotonic_ns

from epsagon_fast.interrupts import let_pass
from epsagon_fast.log import warn
from epsagon_fast.protocol import NO_TRACE, REFUSALS, Kind, Outcome
from epsagon_fast.queue import bell, layout, ring
from epsagon_fast.queue.folder import Folder
from epsagon_fast.queue.launch import Launcher
from epsagon_fast.queue.liveness import lives
from epsagon_fast.queue.moving import move_unread
from epsagon_fast.queue.no_ring import NoRing
from epsagon_fast.queue.settlements import Settlements
from epsagon_fast.queue.state import NEXT_PASS_NS, NO_BEAT, STALLED_S, StatePage

# A process looks at most this often whether a collector lives and whether its folder is still there.
LOOK_S = 1.0
# One that fills its ring looks oftener for the collector. The look costs some 20 us, so this is 0.04 % of a core.
BUSY_LOOK_S = 0.05
# A sleeping collector is rung if it would not look by itself within this time: by a process that traces again, by one
# that waits for an outcome, and by one whose ring has less than three quarters of its room left.
RESTING_NS = 220_000_000
WAITING_NS = 6_000_000
FILLING_NS = 1_000_000
FILLED = 4

REASONS = {layout.FULL: "queue_full", layout.TOO_LARGE: "too_large", layout.CLOSED: "closed"}
_SLOTS = {reason: layout.REFUSED + 8 * i for i, reason in enumerate(REFUSALS)}
_QUEUE_FULL = _SLOTS["queue_full"]


class Writer:
    """One process's ring in one folder. Made by `Writers`."""

    # The collector sends what is in the ring; see interfaces.py in producer/.
    leads_to_backend = True

    def __init__(
        self,
        path: str,
        folder: Folder | None,
        own_ring: "ring.Producer | NoRing",
        heir_at: "Callable[[str, int], Writer]",
    ) -> None:
        """`heir_at`: in a forked child, returns its own writer for a folder and the size of a ring."""
        self.path = path
        self.lacking = own_ring.lacking if isinstance(own_ring, NoRing) else None
        self.owner_pid = os.getpid()
        self._user = os.geteuid()
        self._folder = folder
        self._heir_at = heir_at
        self._ring = own_ring
        # Without a ring a collector would have nothing to read.
        self._launcher = Launcher(folder) if folder and not self.lacking else None
        self._settlements = Settlements(own_ring)
        self._state: StatePage | None = None
        # The writer that replaces this one after its folder was deleted.
        self._successor: Writer | None = None
        self.said_bye = False
        # When a trace that opens looks whether it needs another writer; see `stale`. _fast_path.pyx reads it.
        self._next_look = monotonic() + LOOK_S
        # Apart, because a process that fills its ring looks for the collector between two traces.
        self._next_collector_look = 0.0
        self._next_busy_look = 0.0
        self._last_beat = (0, 0.0)
        # For which sleep of the collector, and how, this process rang last.
        self._rung = (0, b"")
        self.push = own_ring.push
        self.record_limit_bytes = layout.largest_payload_bytes(own_ring.load(layout.CAPACITY))

    def share(self, start: bytes) -> None:
        """Have the OPENs that begin with `start` take less room in the ring from now on."""
        self._ring.share(start)

    def put(self, kind: int, flags: int, trace_id: bytes, payload: bytes) -> bool:
        """Push a record. Return False if it was refused and counted."""
        code = self.push(kind, flags, trace_id, payload)
        return code == layout.PUSHED or self.attend(code, kind, flags, trace_id, payload)

    def put_nowait(self, payload: bytes, kind: int = Kind.EVENT, trace_id: bytes = NO_TRACE) -> None:
        """Push a record with the interface of `multiprocessing.Queue`: raises queue.Full if it was refused."""
        if not self.put(kind, 0, trace_id, payload):
            import queue  # costs a millisecond, and few processes use this interface

            raise queue.Full

    def attend(self, code: int, kind: int, flags: int, trace_id: bytes, payload: bytes) -> bool:
        """Do the rest after a push that answered `code`. Return whether the record is in a ring."""
        if code == layout.CLOSED and self._successor is not None:
            return self._successor.put(kind, flags, trace_id, payload)
        if code == layout.FOREIGN:
            return self._heir().put(kind, flags, trace_id, payload)
        if code in (layout.TOO_LARGE, layout.CLOSED):
            self.refuse(self.lacking or REASONS[code])
        self._look_busily()
        return code == layout.LOOK

    def refuse(self, reason: str, count: int = 1) -> None:
        """Count records that were refused for `reason` (one of REFUSALS)."""
        if self.foreign:
            self._heir().refuse(reason, count)
        else:
            self._ring.add(_SLOTS[reason], count)

    def leave_out(self, count: int) -> None:
        """Count traces that the head has left out."""
        if self.foreign:
            self._heir().leave_out(count)
        else:
            self._ring.add(layout.LEFT_OUT, count)

    def refusals(self) -> dict[str, int]:
        """Return how many records were refused, by reason. Reasons without a refusal are left out."""
        counts = ((reason, self._ring.load(slot)) for reason, slot in _SLOTS.items())
        return {reason: count for reason, count in counts if count}

    @property
    def overflowed(self) -> bool:
        """Whether a record was ever refused because the ring was full."""
        return self._ring.load(_QUEUE_FULL) != 0

    @property
    def closed(self) -> int:
        """How many traces this process closed in this ring."""
        return self._ring.load(layout.CLOSED_COUNT)

    @property
    def settled(self) -> int:
        """How many of the closed traces are delivered, stored, rejected or dropped."""
        return self._ring.load(layout.SETTLED)

    @property
    def foreign(self) -> bool:
        """Whether this process is a fork of the one that made the ring."""
        return self._ring.foreign

    def settlement(self, trace_id: bytes) -> Outcome | None:
        """Return a trace's outcome if `recent_settlements` has read it, else None."""
        return self._settlements.outcome(trace_id)

    def recent_settlements(self) -> list[tuple[bytes, Outcome]]:
        """Return the outcomes that came since the last call."""
        return self._settlements.news()

    def drained(self) -> bool:
        """Say whether the collector has taken everything that was pushed."""
        return self._ring.load(layout.TAIL) == self._ring.head

    def collector_lives(self) -> bool:
        """Say whether a collector reads this ring: it holds the folder's lock, or mapped the ring before a deletion."""
        return self._launcher is None or self._folder is None or self._is_served() or self._adopted()

    def _is_served(self) -> bool:
        page = self._page()
        return self._folder is not None and self._folder.is_held() and not (page and page.beat().is_killed)

    def collector_may_come(self) -> bool:
        """Say whether waiting for a collector makes sense: one lives, or this program is able to start one."""
        return self._launcher is None or self._launcher.is_able or self.collector_lives()

    def ensure_collector(self) -> None:
        """Have a collector act soon, because the caller waits: start one if none lives, and wake one that sleeps."""
        if self._successor is not None:
            self._successor.ensure_collector()
        self._start_collector(looks_again=False)
        self._wake(WAITING_NS, bell.WAITS)

    def _wake(self, within_ns: int, word: bytes = bell.LOOK) -> None:
        """Ring for a collector that sleeps, unless it will look by itself within this time."""
        # As the last look left it: where no collector comes, each refused record would open the folder.
        page = self._state
        if page is None or self._folder is None:
            return
        # Once for each sleep, which is known by its end: else each record that a full ring refuses would ring.
        rings = (page.load(NEXT_PASS_NS), word)
        if rings[0] > monotonic_ns() + within_ns and rings != self._rung and bell.ring_in(self._folder.path, word):
            self._rung = rings

    def _start_collector(self, *, looks_again: bool = True) -> None:
        """Start a collector if none lives, none is being started, and the back-off allows it."""
        if self._launcher is None or self.folder_is_gone():
            return
        page = self._page()
        self._launcher.ensure(page.beat() if page else NO_BEAT, looks_again=looks_again)

    def look(self) -> None:
        """See whether a collector lives and beats, at most once a second."""
        now = monotonic()
        if now >= self._next_collector_look:
            self._next_collector_look = now + LOOK_S
            self._start_collector()
            self._watch_heartbeat(now)
            self._wake(RESTING_NS)

    def _look_busily(self) -> None:
        """See whether a collector lives, after each 64 KiB and when the ring is full. Wake one that has much to read.

        A ring may be full within a second, so waiting for the next `look` would cost records.
        """
        if self._ring.head - self._ring.load(layout.TAIL) > self._ring.load(layout.CAPACITY) // FILLED:
            self._wake(FILLING_NS)
        now = monotonic()
        if now >= self._next_collector_look:
            self.look()
        elif now >= self._next_busy_look:
            self._next_busy_look = now + BUSY_LOOK_S
            self._start_collector()

    def stale(self) -> bool:
        """Say whether the next trace needs another writer: after a fork, a change of user, or a deletion of the folder.

        The same holds where no ring could be made: it is tried again.
        """
        if self._ring.foreign or self.said_bye:
            return True
        now = monotonic()
        if now < self._next_look:
            return False
        self._next_look = now + LOOK_S
        self.look()
        return self.lacking is not None or self._user != os.geteuid() or self.folder_is_gone()

    def serves(self) -> bool:
        """Say whether traces that open now in this folder may use this writer."""
        return not (self.foreign or self.lacking or self.said_bye or self.folder_is_gone())

    def folder_is_gone(self) -> bool:
        """Say whether the folder was deleted."""
        page = self._page()
        return self._folder is not None and (not self._folder.still_there() or (page is not None and page.gone))

    def retire(self, successor: "Writer") -> None:
        """Hand over to `successor` the records that no collector will read here, and those that are still to come."""
        if self.lacking:
            self._hand_on_counts(successor)
        elif isinstance(self._ring, ring.Producer) and self._is_forsaken():
            self._hand_on_counts(successor)
            # Set before the ring is closed, because from then on `attend` hands on what open traces push.
            self._successor = successor
            move_unread(self._ring, successor.put)
            self._ring, self._settlements = successor._ring, successor._settlements

    def _hand_on_counts(self, successor: "Writer") -> None:
        for reason, count in self.refusals().items():
            successor.refuse(reason, count)
        successor.leave_out(self._ring.load(layout.LEFT_OUT))

    def _is_forsaken(self) -> bool:
        """Say whether no collector will ever read this ring: its folder was deleted, and none had mapped it before."""
        return not self._ring.foreign and self.folder_is_gone() and not self._adopted()

    def bye(self) -> None:
        """Say that this process leaves by itself. Its open traces then end as unfinished, not as `ProcessDied`."""
        if self.push(Kind.BYE, 0, NO_TRACE, b"") in (layout.PUSHED, layout.LOOK):
            self._ring.store(layout.LEFT, 1)
        # A trace that opens even later gets a new ring.
        self.said_bye = not self.lacking

    def close(self) -> None:
        """Unmap the ring; its records stay in the file."""
        self._ring.close()

    def _heir(self) -> "Writer":
        return self._heir_at(self.path, self._ring.load(layout.CAPACITY))

    def _page(self) -> StatePage | None:
        """Return the collector's state page, None if there is none yet."""
        if self._state is None and self._folder is not None:
            try:
                fd = self._folder.open()
                try:
                    self._state = StatePage(fd)
                finally:
                    os.close(fd)
            except (OSError, ValueError) as error:
                let_pass(error)
                return None
        return self._state

    def _adopted(self) -> bool:
        """Say whether a living collector has mapped this ring. It reads the ring even if the file was deleted."""
        # The ring itself names that collector, because the folder may have been deleted before this process saw the
        # state page.
        since = self._ring.load(layout.READER_START_TIME)
        return since != 0 and lives(self._ring.load(layout.READER_PID), since)

    def _watch_heartbeat(self, now: float) -> None:
        page = self._page()
        beat = page.beat().heartbeat_ns if page else 0
        seen, since = self._last_beat
        if beat != seen:
            self._last_beat = (beat, now)
        elif beat and now - since > STALLED_S and self._folder is not None and self._folder.is_held():
            self._last_beat = (beat, now)
            complaint = "the collector of %s has not moved for %d s; see `epsagon-fast status`"
            warn(complaint, self.path, STALLED_S, about="stopping a collector")
