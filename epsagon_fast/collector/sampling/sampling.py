"""Decides for each closed trace whether it is sent, at once or after a while.

A trace that its application's rules keep is sent, and with it everything that waits of its request. One that they do
not keep waits for the others of its request, a short time and in little memory (waiting.py). What comes later follows
the decision (decisions.py). A trace that waits has no body and is not settled, so all of it is in the journal.
"""

import logging
import time
from collections import Counter
from collections.abc import Iterable

from epsagon_fast.collector.assembling.open_trace import OpenTrace
from epsagon_fast.collector.sampling.decisions import Decision, Decisions
from epsagon_fast.collector.sampling.policy import COMPANY, RATE, Policy, Ruling, Seen
from epsagon_fast.collector.sampling.seen import Request, mark, request_of, seen_of
from epsagon_fast.collector.sampling.waiting import WaitingRoom
from epsagon_fast.config import sampling as rules
from epsagon_fast.thresholds import ALWAYS

log = logging.getLogger("epsagon_fast.collector")

COMPANY_RULING = Ruling(COMPANY, ALWAYS)
# More applications than this on one host forget what their rules remember.
MOST_POLICIES = 256


class Sampling:
    """The decisions of one collector. `counts` takes how many traces were kept, by reason."""

    def __init__(self, folder_fd: int, memory_bytes: int, counts: Counter[str]) -> None:
        self.waiting = WaitingRoom(memory_bytes)
        self._decisions = Decisions(folder_fd, time.monotonic())
        self._counts = counts
        self._policies: dict[tuple[str, str], Policy | None] = {}
        # Traces of requests that were left out before.
        self._left_out: list[bytes] = []

    def judge(self, closed: OpenTrace, now: float) -> list[OpenTrace]:
        """Return the traces that are to be sent now: this one, others of its request, or none."""
        policy = self._policy_of(closed)
        if policy is None:
            return [closed]
        request = request_of(closed)
        ruling = self._ruling(policy, seen_of(closed, request), request, now)
        if ruling is None:
            self._wait(request, closed, now)
            return []
        self._decisions.keep(request.shared_id, Decision(*ruling, policy.number), now)
        return [*self._joined(request, ruling, policy), self._kept(closed, request, ruling)]

    def due(self, now: float) -> Iterable[bytes]:
        """Return the traces that are left out for good. With an infinite `now` none waits any longer."""
        left_out, self._left_out = self._left_out, []
        yield from left_out
        for shared_id, traces in self.waiting.due(now):
            self._decisions.leave_out(shared_id)
            yield from (closed.trace_id for closed in traces)

    def close(self) -> None:
        """Let go of the file."""
        self._decisions.close()

    def _ruling(self, policy: Policy, seen: Seen, request: Request, now: float) -> Ruling | None:
        """Return why a trace is sent: for a rule, as others of its request are, or by chance; None: it is not."""
        own = policy.judge(seen, now)
        if own is not None and own.reason != RATE:
            return own
        followed = self._followed(request, policy)
        if own is None and followed is not None:
            policy.kept_by_rule()
        return followed or own

    def _followed(self, request: Request, policy: Policy) -> Ruling | None:
        """Return why a trace is sent if it follows others of its request."""
        decision = self._decisions.kept(request.shared_id, policy.number)
        if decision is None:
            return None
        return Ruling(RATE, decision.threshold) if decision.reason == RATE else COMPANY_RULING

    def _joined(self, request: Request, ruling: Ruling, policy: Policy) -> list[OpenTrace]:
        """Return what has waited of a request and is sent now; by chance only what is of the same application."""
        if ruling.reason == RATE:
            joined = self.waiting.take(request.shared_id, lambda closed: self._policy_of(closed) is policy)
        else:
            joined, ruling = self.waiting.take(request.shared_id), COMPANY_RULING
        for _ in joined:
            policy.kept_by_rule()
        return [self._kept(closed, request_of(closed), ruling) for closed in joined]

    def _wait(self, request: Request, closed: OpenTrace, now: float) -> None:
        if self._decisions.is_left_out(request.shared_id):
            self._left_out.append(closed.trace_id)
        else:
            self.waiting.add(request.shared_id, closed, now)

    def _kept(self, closed: OpenTrace, request: Request, ruling: Ruling) -> OpenTrace:
        self._counts[f"kept_{ruling.reason}"] += 1
        mark(closed, request, *ruling)
        return closed

    def _policy_of(self, closed: OpenTrace) -> Policy | None:
        """Return the rules of a trace's application; None: there are none that can be read, so all is sent."""
        config = closed.config
        text = config.get("sampling")
        if not text:
            return None
        key = config["app_name"], text
        if key not in self._policies:
            if len(self._policies) >= MOST_POLICIES:
                self._policies.clear()
            self._policies[key] = self._read(*key)
        return self._policies[key]

    def _read(self, app_name: str, text: str) -> Policy | None:
        try:
            return Policy(app_name, text, rules.read(text))
        except ValueError as error:
            log.warning("every trace is sent of an application whose sampling cannot be read: %s", error)
            return None
