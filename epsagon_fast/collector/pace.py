"""How long the collector sleeps from one pass to the next. No clock and no file; `now` is monotonic seconds.

A pass costs about the same for one record as for twenty, and several times as much after a sleep that has emptied the
processor's caches: ten passes a second may cost more than a hundred traces. So passes are few, and what cannot wait for
the next one rings the bell (queue/bell.py).
"""

from epsagon_fast.hints import Final
from epsagon_fast.queue import bell
from epsagon_fast.rows import NamedTuple

# While records come: a trace is delivered after half of that, in the mean. After a pass that finds nothing the second
# one. The third one is for a collector that has nothing and has heard nothing for so long: then each process rings for
# its next trace, because its last one is longer ago than `writer.LOOK_S`.
PASS_S: Final = 0.2
RESTING_PASS_S: Final = 0.25
IDLE_PASS_S: Final = 1.0
IDLE_AFTER_S: Final = 2.0
# While there is so much to do that the next pass should not wait for a bell.
BUSY_PASS_S: Final = 0.005
# While a process waits for an outcome, or nothing can wake us: right after a record, and otherwise.
WAITED_FOR_PASS_S: Final = 0.002
WAITING_PASS_S: Final = 0.005
RECENT_S: Final = 0.02
# A process that waits rings again within that time, unless a pass is near.
WAITED_FOR_S: Final = 0.1
# Without a bell, when there is nothing to do.
UNHEARD_PASS_S: Final = 0.05
UNHEARD_RESTING_S: Final = 600.0


class Passed(NamedTuple):
    """What a pass has shown."""

    # Whether a record came.
    came: bool = False
    # Whether something only needs one more pass, a CLOSE above all.
    again: bool = False
    # Whether rings, the outbox or the senders have much to do.
    busy: bool = False
    # Whether traces are on their way to a backend or to the outbox.
    sends: bool = False
    # Whether a trace is open, or not settled yet, or stored: what is due for it comes with no bell.
    holds: bool = False


class Pace:
    """Decides when the next pass is."""

    def __init__(self, now: float) -> None:
        # When a record last came, and when a record or a bell did.
        self._record_at = now
        self._heard_at = now
        self._next_s = PASS_S
        self._waited_for_until = now
        self._is_second = False

    def heard(self, rung: bytes, now: float) -> None:
        """Take in what was rung."""
        if rung:
            self._heard_at = now
            self._next_s = PASS_S
        if bell.WAITS in rung:
            self._waited_for_until = now + WAITED_FOR_S

    def pause_s(self, passed: Passed, now: float, *, hears: bool, ends: bool) -> float:
        """Return how long to sleep now. `hears`: processes can ring. `ends`: the collector was asked to leave."""
        if passed.came:
            self._record_at = self._heard_at = now
            self._next_s = PASS_S
        # Once, because what others push meanwhile would keep us passing for ever.
        self._is_second = passed.again and not self._is_second
        if self._is_second:
            return 0.0
        if ends or now < self._waited_for_until or not hears:
            return self._hurried_s(passed, now, is_waited_for=ends or hears)
        if passed.busy:
            return BUSY_PASS_S
        if now - self._heard_at > IDLE_AFTER_S and not passed.holds:
            return IDLE_PASS_S
        pause_s, self._next_s = self._next_s, RESTING_PASS_S
        return pause_s

    def _hurried_s(self, passed: Passed, now: float, is_waited_for: bool) -> float:
        quiet_s = now - self._record_at
        if quiet_s < RECENT_S:
            return WAITED_FOR_PASS_S
        if is_waited_for or passed.busy or passed.sends:
            return WAITING_PASS_S
        return UNHEARD_PASS_S if quiet_s < UNHEARD_RESTING_S else RESTING_PASS_S
