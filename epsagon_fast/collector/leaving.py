"""When a collector leaves. Time is an argument; what it asks of the loop are counts."""

import math
import os
import time

from epsagon_fast.collector.loop import Loop
from epsagon_fast.queue import state as states
from epsagon_fast.queue.liveness import is_waited_for
from epsagon_fast.queue.state import StatePage

# Wait this long for the next producer once the last one has left.
LINGER_S = 30.0
# Once asked to leave, wait this long for producers to leave first: systemd and Ctrl-C signal the whole group.
GRACE_S = 30.0
# Keep trying a sick backend this long after the last producer left. Then the next collector takes over.
BACKLOG_S = 600.0
# A collector that starts this soon after another was asked to leave does not linger: the service goes down.
GOING_DOWN_S = 60.0
# Pause between two looks whether our own parent waits for us.
PARENT_LOOK_S = 0.2


class Leaving:
    """Decides after each pass whether this collector is still needed."""

    def __init__(self, state: StatePage, is_orphan: bool = False) -> None:
        """`is_orphan`: a traced process started this collector, and no supervisor wants it to stay."""
        self._state = state
        self._is_orphan = is_orphan
        self._next_look = 0.0
        self._parent_waits = False
        # A negative time means that the clock was set back.
        going_down = 0 <= time.time() - state.load(states.ASKED_AT) < GOING_DOWN_S
        self._linger_s = 0.0 if going_down else linger_s()
        self._asked: float | None = None
        self._insisted = False
        self._alone_since: float | None = None

    @property
    def asked(self) -> bool:
        """Whether the collector was asked to leave."""
        return self._asked is not None

    def ask(self, now: float) -> None:
        """Note a request to leave. The second request makes it leave at once."""
        self._insisted = self._asked is not None
        self._asked = self._asked or now
        self._state.store(states.ASKED_AT, int(time.time()))

    def due(self, loop: Loop, now: float) -> bool:
        """Say whether to leave now. Before it says yes, it shows LEAVING and passes over the rings once more."""
        if not self._may_leave(loop, now):
            self._state.store(states.PHASE, states.SERVING)
            return False
        self._state.store(states.PHASE, states.LEAVING)
        loop.one_pass()
        return self._may_leave(loop, now)

    def _may_leave(self, loop: Loop, now: float) -> bool:
        if self._insisted or (self._asked is not None and now - self._asked > GRACE_S):
            return True
        if len(loop.rings) or loop.assembly.open_count:
            self._alone_since = None
            return self._keeps_its_parent(loop, now)
        if self._alone_since is None:
            self._alone_since = now
        alone_s = now - self._alone_since
        if self._asked is not None:
            # Traces for a sick backend are stored or wait in the journal for the next collector.
            return loop.sending.busy == 0
        if loop.unsettled or loop.sending.stored:
            return alone_s > BACKLOG_S
        return loop.gone or alone_s >= self._linger_s

    def _keeps_its_parent(self, loop: Loop, now: float) -> bool:
        """Say whether the only producer left is our own parent, which waits for our end.

        An orphan's parent is process 1 of its container, or a subreaper, and that may be the application itself. Its
        `while True: os.wait()` ends when this collector ends. A trace that it has open meanwhile is in the journal.
        """
        if not self._is_orphan or loop.unsettled or {reader.pid for reader in loop.rings} != {os.getppid()}:
            return False
        if now >= self._next_look:
            self._next_look = now + PARENT_LOOK_S
            self._parent_waits = is_waited_for()
        return self._parent_waits


def linger_s() -> float:
    """Return EPSAGON_LINGER_SEC, or the default if that is not a number of seconds."""
    try:
        seconds = float(os.environ["EPSAGON_LINGER_SEC"])
    except (KeyError, ValueError):
        return LINGER_S
    return max(0.0, seconds) if math.isfinite(seconds) else LINGER_S
