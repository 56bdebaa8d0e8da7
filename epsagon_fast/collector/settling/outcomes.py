"""Settles traces: brings each outcome to everything that waits for it.

An outcome settles a trace: the journal marks it and lets go of its records, the assembly forgets it, its process is
told (replies.py), it is counted, and what it should have told of its process's losses is told by the next one
(drops.py). A stored trace has a second outcome one day, when it leaves the outbox: that is told and counted only.
"""

from collections import Counter
from collections.abc import Iterable

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
        """Act on what sending has settled."""
        for trace_id, outcome, again in settlements:
            if again:
                self._count(outcome)
                self.replies.settle(trace_id, outcome)
            else:
                self.settle(trace_id, outcome)

    def settle(self, trace_id: bytes, outcome: Outcome) -> None:
        """Settle a trace, open or finished."""
        ring_id = self._assembly.opener(trace_id) if outcome.name in LOSSES else None
        self._journal.settled(trace_id)
        self._assembly.forget(trace_id)
        self._count(outcome)
        self.replies.settle(trace_id, outcome)
        self.drops.settled(trace_id, outcome)
        if ring_id is not None:
            self.drops.count(ring_id, {_reason(outcome): 1})

    def foretell(self, trace_id: bytes, outcome: Outcome) -> None:
        """Tell a trace's process what becomes of it unless more comes: no `flush` waits for a trace that waits here."""
        self.replies.settle(trace_id, outcome)

    def note_losses(self) -> None:
        """Note the records that no trace took, to be told to the backend."""
        lost, self._assembly.lost = self._assembly.lost, {}
        for ring_id, reasons in lost.items():
            self.drops.count(ring_id, reasons)

    def _count(self, outcome: Outcome) -> None:
        self._counts[_COUNTED[outcome.name]] += 1
        if outcome.reason:
            self._counts[f"{outcome.name.lower()}_{outcome.reason}"] += 1


def _reason(outcome: Outcome) -> str:
    """Return an outcome as one word: rejected_401, too_big."""
    return f"rejected_{outcome.reason}" if outcome == Outcome.REJECTED else outcome.reason or "dropped"
