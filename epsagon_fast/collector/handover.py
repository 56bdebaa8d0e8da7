"""Makes a parcel of a closed trace: builds its body, which tells what its process lost, and gives it to sending.

Before anything is decided, the trace is counted as a request (measuring/requests.py). Then sampling decides whether it
is sent. A trace that is left out may wait for others of its request, but its process is told at once.

A trace without a parcel is settled at once: its body kills collectors (poison.py), or not even the stub of its
runner fits its limit.
"""

import logging
from collections import Counter

from epsagon_fast.amounts import size
from epsagon_fast.collector.assembling import body
from epsagon_fast.collector.assembling.assembly import Assembly
from epsagon_fast.collector.assembling.open_trace import OpenTrace
from epsagon_fast.collector.journal import snapshot
from epsagon_fast.collector.measuring.requests import Requests
from epsagon_fast.collector.parcel import Parcel, parcel_bytes
from epsagon_fast.collector.poison import Poison
from epsagon_fast.collector.sampling.sampling import Sampling
from epsagon_fast.collector.sending.dispatch import Dispatch
from epsagon_fast.collector.settling.outcomes import Outcomes
from epsagon_fast.protocol import Outcome
from epsagon_fast.queue.reader import Rings

log = logging.getLogger("epsagon_fast.collector")


class Handover:
    """The step between assembling and sending. `counts` takes what trimming did."""

    def __init__(
        self,
        rings: Rings,
        assembly: Assembly,
        sampling: Sampling,
        poison: Poison,
        outcomes: Outcomes,
        sending: Dispatch,
        requests: Requests,
        counts: Counter[str],
    ) -> None:
        self._rings = rings
        self._assembly = assembly
        self._sampling = sampling
        self._poison = poison
        self._outcomes = outcomes
        self._sending = sending
        self._requests = requests
        self._counts = counts
        # What was built in this pass and is not counted yet. For each trace alone that takes as long as all else here.
        # A trace that waited may be sent in the same pass, or be settled.
        self._bodies: dict[bytes, int] = {}
        self._closed = self._trimmed = self._bytes_before = self._bytes_after = 0

    def hand_over(self, ready: list[OpenTrace], now: float) -> None:
        """Give closed traces to sending, settle them, or let them wait for a decision. `now`: monotonic seconds."""
        self._requests.count(ready)
        # Once for each ring, and not for each of its traces.
        asked: set[bytes] = set()
        for trace in ready:
            if trace.ring_id not in asked:
                asked.add(trace.ring_id)
                self._take_over(trace.ring_id)
            if not trace.terms.samples:
                self._send(trace)
                continue
            sent = self._sampling.judge(trace, now)
            if trace not in sent:
                self._bodies[trace.trace_id] = trace.held_bytes
                self._outcomes.foretell(trace.trace_id, Outcome.SAMPLED)
            for each in sent:
                self._send(each)
        if asked:
            self._poison.note_end()
            self._count()

    def leave_out(self, now: float) -> None:
        """Settle the traces that are not sent. `now`: monotonic seconds; infinite: none waits any longer."""
        left_out = list(self._sampling.due(now))
        if left_out:
            self._outcomes.settle(left_out, Outcome.SAMPLED)

    def _take_over(self, ring_id: bytes) -> None:
        reader = self._rings.by_id(ring_id)
        if reader is not None:
            self._outcomes.drops.take_over(reader)

    def _send(self, trace: OpenTrace) -> None:
        trace_id = trace.trace_id
        if self._poison.is_wary and self._poison.is_poison_as_body(trace_id, lambda: body.build(trace)):
            self._poison.set_aside(trace.ring_id, snapshot.of_trace(trace))
            self._drop(trace_id, "poison")
            return
        data = self._build(trace)
        if data is None:
            self._drop(trace_id, "too_big")
            return
        parcel = Parcel(trace_id, trace.terms.destination, data)
        self._bodies[trace_id] = parcel_bytes(parcel)
        self._sending.add(parcel)

    def _drop(self, trace_id: bytes, reason: str) -> None:
        self._bodies.pop(trace_id, None)
        self._outcomes.settle([trace_id], Outcome.DROPPED.because(reason))

    def _build(self, trace: OpenTrace) -> bytes | None:
        """Return a trace's body, and count it; None: it was dropped."""
        drops = self._outcomes.drops
        if drops.has_untold:
            trace.dropped_records = drops.text_for(trace.ring_id)
        # Until the next one, or until all of the pass are built.
        self._poison.note_body(trace.trace_id)
        data, size_before_bytes, trimmed, _, _, _, told = body.build(trace)
        if told:
            drops.carried(trace.trace_id, trace.ring_id)
        self._closed += 1
        self._bytes_before += size_before_bytes
        self._bytes_after += len(data or b"")
        if trimmed:
            self._trimmed += 1
            if trace.terms.debug:
                log.info("trimmed a trace from %s to %s", size(size_before_bytes), size(len(data or b"")))
        return data

    def _count(self) -> None:
        """Count what was built in this pass."""
        self._assembly.have_bodies(self._bodies.items())
        self._bodies.clear()
        self._counts["closed"] += self._closed
        self._counts["trimmed"] += self._trimmed
        self._counts["bytes_before_trimming"] += self._bytes_before
        self._counts["bytes_after_trimming"] += self._bytes_after
        self._closed = self._trimmed = self._bytes_before = self._bytes_after = 0
