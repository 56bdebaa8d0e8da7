"""When a collector leaves. Time is an argument; what it asks of the loop are counts.

One that a supervisor started stays until it is told. One that a traced process started leaves when no process needs it.
Both obey a signal: with processes left to serve they hand over to a successor, which goes on from the journal.
"""

import math
import os
import time

from epsagon_fast.collector.loop import Loop
from epsagon_fast.queue import state as states
from epsagon_fast.queue.liveness import is_waited_for
from epsagon_fast.queue.state import StatePage

# Wait this long for the next producer once the last one has left.
LINGER_S = 30.0
# Once asked to leave, wait this long for producers to leave first: systemd and Ctrl-C signal the whole group. What
# waits to be sent gets a good second afterwards (loop.py), so a stop takes less than two.
GRACE_S = 0.5
# Keep trying a sick backend this long after the last producer left. Then the next collector takes over.
BACKLOG_S = 600.0
# No longer once the folder was deleted. No process can find this collector then, and what it has stored in a state
# directory is safe there: whichever collector comes next sends it. The rest is lost with the folder; see Loop.finish.
GONE_BACKLOG_S = 60.0
# The outbox has looked for what earlier collectors stored after so long, unless its disk is sick.
LOOKED_S = 10.0
# A collector that starts this soon after another was asked to leave does not linger: the service goes down.
GOING_DOWN_S = 60.0
# But it goes on for so long with stored traces that its backend takes.
STORED_S = 5.0
# Pause between two looks whether our own parent waits for us, and whether a process of our control group is left.
PARENT_LOOK_S = 0.2
GROUP_LOOK_S = 0.5


class Leaving:
    """Decides after each pass whether this collector is still needed."""

    def __init__(self, state: StatePage, is_orphan: bool = False, stays: bool = False) -> None:
        """`is_orphan`: a traced process started it. `stays`: a supervisor did, and only a signal ends it."""
        self._state = state
        self._is_orphan = is_orphan
        self._stays = stays
        self._next_look = 0.0
        self._parent_waits = False
        self._next_group_look = 0.0
        self._group_is_gone = False
        # A negative time means that the clock was set back.
        self._goes_down = not stays and 0 <= time.time() - state.load(states.ASKED_AT) < GOING_DOWN_S
        self._linger_s = 0.0 if self._goes_down else linger_s()
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
            return self._keeps_its_parent(loop, now) or self._keeps_its_group(loop, now)
        if self._alone_since is None:
            self._alone_since = now
        return self._is_done(loop, now - self._alone_since)

    def _is_done(self, loop: Loop, alone_s: float) -> bool:
        """Say whether nothing is left to do for a collector without producers."""
        # Traces for a sick backend are stored or wait in the journal for the next collector.
        if self._asked is not None:
            return loop.sending.busy == 0
        if self._goes_down and alone_s > GRACE_S:
            return loop.sending.busy == 0 and (not loop.sending.sends_stored or alone_s > STORED_S)
        if self._stays:
            return loop.gone
        if loop.unsettled or loop.sending.stored:
            return alone_s > (GONE_BACKLOG_S if loop.gone else BACKLOG_S)
        if not loop.sending.has_looked and alone_s <= LOOKED_S:
            return False
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

    def _keeps_its_group(self, loop: Loop, now: float) -> bool:
        """Say whether the service that goes down waits for this collector alone.

        A worker that was finishing its last requests has started this one in its service's control group, after
        systemd had signalled the processes there. Those outside of the group start a successor in theirs.
        """
        if not self._goes_down:
            return False
        if now >= self._next_group_look:
            self._next_group_look = now + GROUP_LOOK_S
            mine = control_group(os.getpid())
            groups = {control_group(reader.pid) for reader in loop.rings}
            self._group_is_gone = bool(mine and groups) and not groups & {mine, ""}
        return self._group_is_gone


def control_group(pid: int) -> str:
    """Return the control groups of a process, as the kernel writes them; "" if that cannot be found out."""
    try:
        with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="replace") as groups:
            return groups.read()
    except OSError:
        return ""


def linger_s() -> float:
    """Return EPSAGON_LINGER_SEC, or the default if that is not a number of seconds."""
    try:
        seconds = float(os.environ["EPSAGON_LINGER_SEC"])
    except (KeyError, ValueError):
        return LINGER_S
    return max(0.0, seconds) if math.isfinite(seconds) else LINGER_S
