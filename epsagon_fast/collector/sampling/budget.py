"""Adapts a rate, so that about as many traces a second are sent as a budget allows. `now` is monotonic seconds."""

# A rate falls at once and rises by this part of the difference each second.
RISE = 0.25
TURN_S = 1.0


class Budget:
    """The rate of what no rule keeps. What rules keep is sent in any case, and leaves less for the rest."""

    def __init__(self, most_rate: float, per_s: float | None) -> None:
        """`most_rate`: the rate where the budget is not reached; `per_s`: None without a budget."""
        self._most_rate = most_rate
        self._per_s = per_s
        self.rate = most_rate
        self._turned_at: float | None = None
        self._kept_by_rules = 0
        self._rest = 0
        # How many of the rest were kept in this second, and how many may be before the rate is halved.
        self._kept_rest = 0
        self._brake = 0.0

    def tick(self, now: float) -> bool:
        """Adapt the rate if a second has gone by. Return whether it did."""
        if self._per_s is None or (self._turned_at is not None and now - self._turned_at < TURN_S):
            return False
        if self._turned_at is not None:
            self._adapt(self._per_s, now - self._turned_at)
        self._turned_at = now
        self._kept_by_rules = self._rest = self._kept_rest = 0
        self._brake = self._next_brake()
        return True

    def kept_by_rule(self) -> None:
        """Note that a trace is sent because a rule says so."""
        self._kept_by_rules += 1

    def seen(self, kept: bool) -> bool:
        """Note a trace that no rule keeps. Return whether the rate has changed: a burst must not wait a second."""
        self._rest += 1
        self._kept_rest += kept
        if self._per_s is None or self._kept_rest <= self._brake:
            return False
        self._brake += self._next_brake() / 5
        self.rate /= 2
        return True

    def _adapt(self, per_s: float, elapsed_s: float) -> None:
        left = max(0.0, per_s - self._kept_by_rules / elapsed_s)
        fits = min(self._most_rate, left * elapsed_s / self._rest) if self._rest else self._most_rate
        self.rate = fits if fits < self.rate else self.rate + RISE * (fits - self.rate)

    def _next_brake(self) -> float:
        # Of a budget of one trace in ten seconds one trace must be able to come.
        return max(1.0, 1.25 * (self._per_s or 0.0))
