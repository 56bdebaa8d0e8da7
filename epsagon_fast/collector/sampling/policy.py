"""The rules of one application: they say for each closed trace why it is sent, or that it is not.

Each rule says a rejection threshold for the trace (thresholds.py), and the lowest one counts. So a trace that a rule
keeps in any case has the threshold 0 and stands for itself alone, and one that is kept by chance says by which chance.
"""

from zlib import crc32

import epsagon_fast.thresholds as thresholds
from epsagon_fast.collector.sampling.budget import Budget
from epsagon_fast.collector.sampling.names import Names
from epsagon_fast.config.sampling import Rules
from epsagon_fast.rows import NamedTuple

# Why a trace is sent. The position is a reason's number in the file of decisions: append only.
REASONS = ("rate", "error", "slow", "slowest", "least", "company")
RATE, ERROR, SLOW, SLOWEST, LEAST, COMPANY = REASONS


class Seen(NamedTuple):
    """What rules ask of a closed trace."""

    name: str
    failed: bool
    # None: the trace has no runner that says it.
    duration_s: float | None
    # The 56 random bits that all traces of its request share.
    randomness: int


class Ruling(NamedTuple):
    """The reason why a trace is sent, and the threshold that it has passed."""

    reason: str
    threshold: int


class Policy:
    """The rules of one application, with what they remember of its traces. `now` is monotonic seconds."""

    def __init__(self, app_name: str, text: str, rules: Rules) -> None:
        # The same number in every collector, so that a file can name a policy.
        self.number = crc32(f"{app_name}\n{text}".encode("utf-8", "replace"))
        self._rules = rules
        self._names = Names()
        self._budget = Budget(rules.rate, rules.budget_per_s)
        self._rate_threshold = thresholds.threshold_of(rules.rate)

    def judge(self, seen: Seen, now: float) -> Ruling | None:
        """Return why a trace is sent; None: no rule keeps it, nor does chance."""
        if self._budget.tick(now):
            self._take_rate()
        ruling = self._ruled(seen, now)
        by_rule = ruling.reason != RATE
        kept = seen.randomness >= ruling.threshold
        if by_rule and kept:
            self.kept_by_rule()
        elif self._budget.seen(kept):
            self._take_rate()
        if kept and self._rules.least_per_minute:
            self._names.of(seen.name, now).kept += 1
        return ruling if kept else None

    def kept_by_rule(self) -> None:
        """Note that a trace is sent, whatever the budget says."""
        self._budget.kept_by_rule()

    def _ruled(self, seen: Seen, now: float) -> Ruling:
        rules = self._rules
        ruling = Ruling(RATE, self._rate_threshold)
        if rules.slowest and seen.duration_s is not None:
            # First, because a trace that another rule keeps is one of its name's traces, too.
            share = self._names.of(seen.name, now).durations.share(seen.duration_s, rules.slowest)
            threshold = thresholds.threshold_of(min(1.0, share))
            if threshold < ruling.threshold:
                ruling = Ruling(SLOWEST, threshold)
        if rules.errors and seen.failed:
            return Ruling(ERROR, thresholds.ALWAYS)
        if rules.slower_s is not None and seen.duration_s is not None and seen.duration_s >= rules.slower_s:
            return Ruling(SLOW, thresholds.ALWAYS)
        if rules.least_per_minute and self._names.of(seen.name, now).kept < rules.least_per_minute:
            return Ruling(LEAST, thresholds.ALWAYS)
        return ruling

    def _take_rate(self) -> None:
        self._rate_threshold = thresholds.threshold_of(self._budget.rate)
