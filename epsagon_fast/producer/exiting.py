"""The end of a traced process: what it still does for its records.

It pushes BYE, so that its open traces end as unfinished and not as `ProcessDied`. Then it waits, at most the shutdown
timeout, until its ring is empty (the collector's journal has all records) and a collector lives. In a container the
collector ends with process 1, which may be a server's parent process that knows nothing of us and waits for its workers
alone. So a process there waits until its traces are settled, unless its parent has said that it will wait for them; and
process 1, if it traces, waits for those of all others too.
"""

import atexit
import math
import os
import sys
import time

from epsagon_fast.hints import Final
from epsagon_fast.interrupts import let_pass
from epsagon_fast.queue import bell, launch
from epsagon_fast.queue import folder as folders
from epsagon_fast.queue import state as states
from epsagon_fast.queue.liveness import lives
from epsagon_fast.queue.writer import Writer

from .forkers import FORKERS
from .process import process
from .reporting import report_all
from .waiting import pauses

# After the application's own finalizers, which may still trace.
LAST: Final = -1000
# The inode of the kernel's first pid namespace (PROC_PID_INIT_INO).
FIRST_PID_NAMESPACE: Final = "pid:[4026531836]"
# This many quiet passes must go by. A record that has left its ring is in no gauge before the pass ends, and a trace is
# counted only a pass after its last record.
PASSES_TO_BE_SURE: Final = 2


def register(timeout_s: float | None = None) -> None:
    """Register the exit hooks of this process. Called with each writer; the second call is cheap.

    `timeout_s`: how long the end may take; None: as the config in force then says.

    Each process must register its own, because multiprocessing wipes those that a fork inherits.
    """
    own = process.own
    if own.is_exiting:
        return
    own.exit_timeout_s = timeout_s
    if own.is_registered:
        return
    if not process.has_exit_hook:
        atexit.register(say_bye)
    process.has_exit_hook = own.is_registered = True
    for name in FORKERS:
        # If the library is not imported, it has not made this process, so atexit runs.
        util = sys.modules.get(f"{name}.util")
        if util is not None:
            util.Finalize(None, say_bye, exitpriority=LAST)


def parent_waits(pid: int) -> None:
    """Note that the parent process `pid` will wait for this process's traces at its own end."""
    process.waiting_parent_pid = pid


def say_bye() -> None:
    """Push BYE and wait. The second call in a process does nothing.

    Traces that open afterwards, in exit handlers and in threads that end later, go into a new ring.
    """
    own = process.own
    if own.is_exiting:
        return
    own.is_exiting = True
    for tracer in process.own_traces():
        tracer.abandon()
    process.tell_left_out()
    for writer in own.writers.known():
        writer.bye()
    wait_until_safe()


def is_exiting() -> bool:
    """Say whether this process has begun to end."""
    return process.own.is_exiting


def dies_with_us() -> bool:
    """Say whether the collector may end as soon as this process does."""
    try:
        if os.readlink("/proc/self/ns/pid") == FIRST_PID_NAMESPACE:
            return False
    except OSError as error:  # no /proc, so no namespaces
        let_pass(error)
        return False
    parent = process.waiting_parent_pid
    return not (parent and lives(parent, 0))


def wait_until_safe() -> None:
    """Wait until the records in the rings do not need this process any more, at most for the rest of its timeout."""
    own = process.own
    mine = own.writers.known()
    begun_at = time.monotonic()
    timeout_s = process.setting("shutdown_timeout_s") if own.exit_timeout_s is None else own.exit_timeout_s
    safe = _settled if dies_with_us() else _journaled
    for pause in pauses(timeout_s):
        waiting = [writer for writer in mine if not safe(writer) and _may_come(writer)]
        if not waiting:
            break
        for writer in waiting:
            writer.ensure_collector()
        if any(map(_may_come, waiting)):
            _sleep(pause)
    own.exit_timeout_s = max(0.0, timeout_s - (time.monotonic() - begun_at))
    if os.getpid() == 1 and any(map(_may_come, mine)):
        wait_for_backlog(own.exit_timeout_s)
    report_all()


def wait_for_backlog(timeout_s: float | None = None) -> bool:
    """Wait until the collector has read the records of all processes of this folder, dead ones too.

    If the collector ends with process 1, wait until their traces are settled too. A server calls this at its end,
    because its children rely on it. `timeout_s`: by default the shutdown timeout in force. Return whether it is done.
    """
    mine = process.writers.known()
    path = mine[-1].path if mine else folders.existing(process.setting("runtime_dir"))
    if path is None:
        return True
    if not launch.able() and not folders.is_held(os.fsencode(path)):
        return False
    ensure_collector = mine[-1].ensure_collector if mine else Starter(path).ensure_collector
    quiet_at = time.monotonic()
    passes = 0
    for pause in pauses(process.setting("shutdown_timeout_s") if timeout_s is None else timeout_s):
        now = time.monotonic()
        beat_at = _last_quiet_beat(path, now)
        if beat_at is None:
            quiet_at, passes = now, 0
            # None may have been started yet, and one that was may have died.
            ensure_collector()
        elif beat_at > quiet_at:
            quiet_at, passes = now, passes + 1
        if passes == PASSES_TO_BE_SURE:
            return True
        bell.ring_in(path, bell.WAITS)
        _sleep(pause)
    return False


class Starter:
    """Starts collectors for a folder in which this process has no ring."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._launcher: launch.Launcher | None = None

    def ensure_collector(self) -> None:
        """Start a collector if none lives and the back-off allows it."""
        # While the real and the effective user differ, a started program could become root again.
        if os.getuid() != os.geteuid():
            return
        try:
            self._launcher = self._launcher or launch.Launcher(folders.Folder(self._path))
        except OSError as error:
            let_pass(error)
            return
        self._launcher.ensure(states.beat_in(self._path), looks_again=False)


def _last_quiet_beat(path: str, now: float) -> float | None:
    """Return when the collector last ended a pass; None if records or traces wait for it, infinity if there is none."""
    try:
        # Only who waits for others needs it. The first trace and each fork import it.
        from epsagon_fast.queue import overview

        seen = overview.look(path)
    except (OSError, ImportError) as error:
        let_pass(error)
        return math.inf
    waits = any(ring.unread_bytes for ring in seen.rings)
    if dies_with_us():
        waits = waits or any(seen.gauges.get(name) for name in ("open_traces", "pending"))
    if waits or seen.heartbeat_age_s is None:
        return None if waits else math.inf
    return now - seen.heartbeat_age_s


def _sleep(seconds: float) -> None:
    """Sleep without letting gevent's greenlets run: the traces that they would open now find the ring closed."""
    monkey = sys.modules.get("gevent.monkey")
    (monkey.get_original("time", "sleep") if monkey else time.sleep)(seconds)


def _journaled(writer: Writer) -> bool:
    return writer.drained() and writer.collector_lives()


def _settled(writer: Writer) -> bool:
    return _journaled(writer) and writer.settled >= writer.closed


def _may_come(writer: Writer) -> bool:
    """Say whether a collector lives or could be started. If not, waiting is useless: the rings' files stay anyway."""
    return writer.collector_may_come() and (launch.allowed() or writer.collector_lives())
