"""Settles traces: brings each outcome to everything that waits for it.

An outcome settles a trace: the journal marks it and lets go of its records, the assembly forgets it, its process is
told (replies.py), it is counted, and what it should have told of its process's losses is told by the next one
(drops.py). A stored trace has a second outcome one day, when it leaves the outbox: that is told and counted only.
"""

from collections import Counter
from collections.abc import Iterable, Sequence

from epsagon_fast.collector.assembling.assembly import Assembly
from epsagon_fast.collector.journal.journal import Journal
from epsagon_fast.collector.parcel import Settlement
from epsagon_fast.collector.settling.drops import LOSSES, Drops
from epsagon_fast.collector.settling.replies import Replies
from epsagon_fast.protocol import OUTCOMES, Outcome

_COUNTED = {outcome.name: outcome.name.lower() for outcome in OUTCOMES}


class Outcomes:
    """The outcomes of one collector's traces. `counts` takes how many there were of each."""

    def __init__(self, assembly: Assembly, journal: Journal, counts: Counter[str]) -> None:
        self.replies = Replies()
        self.drops = Drops()
        self._assembly = assembly
        self._journal = journal
        self._counts = counts

    def take(self, settlements: Iterable[Settlement]) -> None:
        """Act on what sending has settled. Neighbours nearly always have one outcome, so that is done at once."""
        trace_ids: list[bytes] = []
        before: Settlement | None = None
        for settlement in settlements:
            trace_id, outcome, again = settlement
            if before is not None and (outcome is not before.outcome or again is not before.again):
                self._take(trace_ids, before)
                trace_ids = []
            trace_ids.append(trace_id)
            before = settlement
        if before is not None:
            self._take(trace_ids, before)

    def settle(self, trace_ids: Sequence[bytes], outcome: Outcome) -> None:
        """Settle traces, open or finished, that have the same outcome."""
        lost = filter(None, map(self._assembly.opener, trace_ids)) if outcome.name in LOSSES else ()
        losses = Counter(lost)
        self._journal.settled(*trace_ids)
        self._assembly.forget(*trace_ids)
        self._count(outcome, len(trace_ids))
        self.replies.settle(trace_ids, outcome)
        self.drops.settled(trace_ids, outcome)
        for ring_id, count in losses.items():
            self.drops.count(ring_id, {_reason(outcome): count})

    def foretell(self, trace_id: bytes, outcome: Outcome) -> None:
        """Tell a trace's process what becomes of it unless more comes: no `flush` waits for a trace that waits here."""
        self.replies.settle([trace_id], outcome)

    def note_losses(self) -> None:
        """Note the records that no trace took, to be told to the backend."""
        lost, self._assembly.lost = self._assembly.lost, {}
        for ring_id, reasons in lost.items():
            self.drops.count(ring_id, reasons)

    def _take(self, trace_ids: list[bytes], settled: Settlement) -> None:
        """Act on a settlement that these traces have."""
        if settled.again:
            self._count(settled.outcome, len(trace_ids))
            self.replies.settle(trace_ids, settled.outcome)
        else:
            self.settle(trace_ids, settled.outcome)

    def _count(self, outcome: Outcome, traces: int) -> None:
        self._counts[_COUNTED[outcome.name]] += traces
        if outcome.reason:
            self._counts[f"{outcome.name.lower()}_{outcome.reason}"] += traces


def _reason(outcome: Outcome) -> str:
    """Return an outcome as one word: rejected_401, too_big."""
    return f"rejected_{outcome.reason}" if outcome == Outcome.REJECTED else outcome.reason or "dropped"
