"""The collector's loop: read the rings, feed the assembly, hand finished traces over. No logic of its own.

One pass:

1. Look for new rings, and for processes that ended.
2. Note every ring's head; read all rings up to there in rounds, a bounded part of each ring in each round, so that one
   storm does not keep the others waiting. Each round goes: mask, journal, assembly, and only then the rings' room is
   given back. So a record is in its ring until it is in the journal. Less is read when too much is held (bounds.py).
3. Close what is due. A CLOSE is acted on one whole pass after it was read: by then every record that any process had
   pushed before it has been read too.
4. Hand finished traces over to be sent or stored, unless sampling leaves them out, and mark those that are settled.

No HTTP and no SQLite happens in this thread. An exception ends the process: the next collector goes on from the
journal, and the state page tells it what to be careful with (poison.py).
"""

import logging
import math
import time
from collections import Counter

from epsagon_fast.amounts import counted
from epsagon_fast.collector.assembling.assembly import Assembly
from epsagon_fast.collector.bounds import Bounds
from epsagon_fast.collector.handover import Handover
from epsagon_fast.collector.journal.compaction import Compaction
from epsagon_fast.collector.journal.journal import Journal
from epsagon_fast.collector.measuring.deliveries import MeasuredSender, MeasuredShelf
from epsagon_fast.collector.measuring.measuring import Measuring
from epsagon_fast.collector.measuring.own import cpu_ms, resident_bytes
from epsagon_fast.collector.pace import BUSY_PASS_S
from epsagon_fast.collector.poison import Poison
from epsagon_fast.collector.reading.feeding import Feeding
from epsagon_fast.collector.reading.folder import ServedFolder
from epsagon_fast.collector.reading.intake import Intake
from epsagon_fast.collector.reading.recovery import Recovery
from epsagon_fast.collector.sampling.sampling import Sampling
from epsagon_fast.collector.sending.arrived import Arrived
from epsagon_fast.collector.sending.delivery import Delivery
from epsagon_fast.collector.sending.dispatch import Dispatch, Shelf
from epsagon_fast.collector.sending.outbox.outbox import Outbox
from epsagon_fast.collector.settling.counters import Counters
from epsagon_fast.collector.settling.outcomes import Outcomes
from epsagon_fast.collector.settling.relief import Relief
from epsagon_fast.config import Config
from epsagon_fast.protocol import Outcome
from epsagon_fast.queue import state as states
from epsagon_fast.queue.bell import Bell
from epsagon_fast.queue.reader import Rings
from epsagon_fast.queue.state import StatePage

log = logging.getLogger("epsagon_fast.collector")

SECOND_S = 1.0
# A leaving collector sends for so long, with the wait for the last answers, and waits so long for the disk.
LAST_REQUESTS_S = 1.0
LAST_STORED_S = 5.0
# How long each of the two may take when a successor waits.
LAST_HANDED_OVER_S = 0.6
# The end of the first, in which no more requests are begun. What has no answer then is stored, and sent once more.
LAST_ANSWERS_S = 0.3
# Pause between two looks whether there is room for more requests.
LAST_PAUSE_S = 0.005
# What becomes of traces that no collector will find, because the folder in which they are was deleted.
LOST = Outcome.DROPPED.because("folder_gone")


class Loop:
    """All that one pass needs. `folder_fd` is the folder, locked by the caller; `path` is only compared with it.

    `measuring`: what counts the requests; None: one of its own.
    """

    def __init__(
        self, folder_fd: int, path: str, state: StatePage, incarnation: int, measuring: Measuring | None = None
    ) -> None:
        self._incarnation = incarnation
        self.state = state
        self.counts: Counter[str] = Counter()
        self.folder = ServedFolder(folder_fd, path, state)
        self.rings = Rings(folder_fd, incarnation)
        self.journal = Journal(folder_fd, state)
        self.assembly = Assembly()
        self.bounds = Bounds()
        self.poison = Poison(folder_fd, state, self.counts)
        self.outcomes = Outcomes(self.assembly, self.journal, self.counts)
        replies = self.outcomes.replies
        feeding = Feeding(self.rings, self.assembly, self.poison, replies)
        self.recovery = Recovery(self.rings, self.journal, self.assembly, feeding, replies, self.counts)
        self.intake = Intake(
            self.folder, self.rings, self.journal, self.assembly, feeding, self.outcomes, self.bounds, self.counts
        )
        self.measuring = measuring or Measuring(folder_fd, state.folder_id())
        self.arrived = Arrived(folder_fd)
        # Of an earlier collector, which was killed.
        self._arrived_last = self.arrived.last()
        # An orphan's own outbox goes with its folder, and what all folders share is measured once.
        outbox: Shelf = Outbox(path, state.folder_id(), log=log, arrived=self._arrived_last)
        if measuring is None:
            outbox = MeasuredShelf(outbox, self.measuring.deliveries)
        sender = MeasuredSender(Delivery(log=log, arrived=self.arrived), self.measuring.deliveries)
        self.sending = Dispatch(sender, outbox)
        self.sampling = Sampling(folder_fd, self.bounds.memory_bytes, self.counts)
        self.handover = Handover(
            self.rings,
            self.assembly,
            self.sampling,
            self.poison,
            self.outcomes,
            self.sending,
            self.measuring.requests,
            self.counts,
        )
        self.compaction = Compaction(self.journal, self.assembly, self.sending)
        self.relief = Relief(self.bounds, self.assembly, self.rings, self.outcomes, self.intake.look, self.counts)
        self.counters = Counters(state, self.counts, self.assembly.counters, self.sending.counts)
        self._next_second = 0.0
        self._bell: Bell | None = None

    def recover(self) -> None:
        """Take in what earlier collectors left in the folder, and look for what they stored."""
        # Said here, because there may come no trace that names a state directory.
        for state_dir in ("", Config(disable=True).resolve().state_dir):
            self.sending.watch(state_dir)
        finished = self.recovery.run(time.time())
        last = self._arrived_last
        if arrived := [each for each in self.assembly.ids() if each in last]:
            self.outcomes.settle(arrived, Outcome.DELIVERED)
            # At once, because what arrives next is noted in the same places.
            self.intake.commit()
        for parcel in finished:
            if parcel.trace_id not in last:
                self.sending.add(parcel)

    def one_pass(self) -> bool:
        """Do all that the module says once. Return whether any record came."""
        now = time.time()
        ended = self.intake.find(now)
        came = self.intake.read(self._finished_bytes, ended, now)
        for reader in ended:
            self.intake.bury(reader, now)
        since_boot_s = time.monotonic()
        self.handover.hand_over(self.assembly.end_pass(now), since_boot_s)
        self.handover.leave_out(since_boot_s)
        settled = self.sending.step(time.monotonic())
        self.outcomes.take(settled)
        self.outcomes.note_losses()
        self.compaction.step(bound_bytes=self.bounds.journal_bytes)
        self.intake.commit()
        self.relief.step()
        if came or settled:
            # At once, because this process may be killed at any moment and `status` must show what was dropped.
            self.publish()
        self._each_second()
        self.state.store(states.HEARTBEAT_NS, time.monotonic_ns())
        self.state.store(states.SERVED, self._incarnation)
        return came

    def finish(self, hands_over: bool = False) -> None:
        """Send for a moment, store what is left, and settle what comes of that.

        `hands_over`: a successor waits, so all takes less time. It finds the rest in the journal. If the folder was
        deleted none does, and the rest is lost.
        """
        hands_over = hands_over and not self.gone
        if not hands_over:
            self.handover.leave_out(math.inf)
        requests_s, stored_s = (LAST_HANDED_OVER_S,) * 2 if hands_over else (LAST_REQUESTS_S, LAST_STORED_S)
        until = time.monotonic() + requests_s
        while self.sending.sends_more and (now := time.monotonic()) < until - LAST_ANSWERS_S:
            self.outcomes.take(self.sending.last_step(now))
            time.sleep(LAST_PAUSE_S)
        now = time.monotonic()
        self.outcomes.take(self.sending.finish(now, max(0.0, until - now), stored_s))
        if self.gone:
            self._lose_with_folder()
        self.intake.commit()
        self.publish()
        self.journal.keep_only(self.assembly)
        self.journal.close()
        self.sampling.close()

    def _lose_with_folder(self) -> None:
        """Settle the traces that no collector will find: those of which only the journal knows."""
        lost = self.assembly.ids()
        self.outcomes.settle(lost, LOST)
        if lost:
            log.warning("%s lost with the folder, which was deleted", counted(len(lost), "trace"))

    def listen(self, bell: Bell) -> None:
        """Have `wait` hear the folder's bell."""
        self._bell = bell
        self.rings.listen(bell)

    @property
    def hears(self) -> bool:
        """Whether processes can ring: there is a bell, and the folder in which they find it."""
        return self._bell is not None and self._bell.is_public and not self.gone

    def wait(self, pause_s: float) -> bytes:
        """Sleep for so long, or until a process dies or rings; return what was rung. Processes see for how long."""
        self.state.store(states.NEXT_PASS_NS, time.monotonic_ns() + int(pause_s * 1e9))
        # A process whose ring filled during the pass has not rung, because no sleep was to be seen.
        rung = self.rings.wait(min(pause_s, BUSY_PASS_S) if self.intake.has_much else pause_s)
        self.state.store(states.NEXT_PASS_NS, 0)
        return rung

    @property
    def awaits_a_pass(self) -> bool:
        """Whether the next pass closes traces, or reads what this one has put off."""
        return self.assembly.is_closing or self.intake.has_put_off

    @property
    def is_busy(self) -> bool:
        """Whether rings fill, wait for room, or the senders and the outbox have much to do."""
        return self.intake.had_much or self.bounds.stopped > 0 or self.sending.is_pressed(time.monotonic())

    @property
    def gone(self) -> bool:
        """Whether the folder was deleted."""
        return self.folder.gone

    @property
    def unsettled(self) -> int:
        """How many finished traces are on their way."""
        return self.assembly.unsettled_count

    @property
    def holds(self) -> bool:
        """Whether traces are open, on their way, or stored."""
        return bool(self.assembly.open_count or self.unsettled or self.sending.stored)

    @property
    def held_bytes(self) -> int:
        """Memory of all that is here, nearly."""
        return self.assembly.held_bytes + self._finished_bytes + self.journal.buffered_bytes

    @property
    def _finished_bytes(self) -> int:
        """Memory of the traces that get no more records."""
        return self.sending.held_bytes + self.sampling.waiting.held_bytes

    def publish(self) -> None:
        """Write counters and gauges to the state page."""
        self.counts["corrupt_rings"] = self.rings.set_aside
        self.counters.publish(
            rings=len(self.rings),
            open_traces=self.assembly.open_count,
            held_bytes=self.held_bytes,
            # The processes of those that wait for others of their request know an outcome already.
            pending=self.unsettled - len(self.sampling.waiting),
            journal_bytes=self.journal.size_bytes,
            stored=self.sending.stored,
            full=self.bounds.stopped,
        )

    def _publish_own(self) -> None:
        """Write what this process takes of the machine, and all that is published."""
        self.counts["cpu_ms"] = cpu_ms()
        self.state.set_gauge("resident_bytes", resident_bytes())
        self.publish()

    def _each_second(self) -> None:
        now = time.monotonic()
        if now >= self._next_second:
            self._next_second = now + SECOND_S
            # First, because it counts what processes refused, and this process may be killed at any moment.
            self.intake.tidy()
            if not self.gone:
                self.arrived.look()
                if self._bell is not None:
                    self._bell.look()
            self._publish_own()
