"""What a process does for its records before it ends.

It says BYE, so that what it left open is unfinished and not the victim of a death, and waits, at most the shutdown
timeout, until its ring is empty (the collector's journal has it all) and a collector lives. In a container the
collector ends with process 1, so a process there waits until its traces are settled, unless a parent that outlives it
will.
"""

import atexit
import math
import os
import sys
import time
from typing import Final

from epsagon_fast.interrupts import let_pass
from epsagon_fast.queue import folder as folders
from epsagon_fast.queue import launch, overview
from epsagon_fast.queue.liveness import lives
from epsagon_fast.queue.writer import Writer

from .forkers import FORKERS, parent_in
from .process import process
from .reporting import report_all
from .waiting import pauses

# After the application's own finalizers, which may still trace.
LAST: Final = -1000
# The inode of the kernel's first pid namespace (PROC_PID_INIT_INO).
FIRST_PID_NAMESPACE: Final = "pid:[4026531836]"
# A record that left its ring is in no gauge before the pass ends, and a trace is counted a pass after its last record.
PASSES_TO_BE_SURE: Final = 2


def register(timeout_s: float) -> None:
    """See to it that this process waits at its end. Called when a writer is asked for; costs nothing the second time.

    Once in each process: a registration that a fork inherits is wiped by multiprocessing.
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
        # If it is not imported yet, this process is no child of it, and atexit runs.
        util = sys.modules.get(f"{name}.util")
        if util is not None:
            util.Finalize(None, say_bye, exitpriority=LAST)


def parent_waits(pid: int) -> None:
    """Say that the parent process `pid`, while it lives, waits for this process's traces at its own end."""
    process.waiting_parent_pid = pid


def say_bye() -> None:
    """Say BYE and wait. The second call in a process does nothing.

    What is traced afterwards, by exit handlers and threads that end later still, goes into a ring of its own.
    """
    own = process.own
    if own.is_exiting:
        return
    own.is_exiting = True
    for tracer in process.own_traces():
        tracer.abandon()
    for writer in own.writers.known():
        writer.bye()
    wait_until_safe()


def is_exiting() -> bool:
    """Say whether this process has begun to end."""
    return process.own.is_exiting


def wait_until_safe() -> None:
    """Wait until what is in the rings needs this process no longer, at most for what is left of its timeout."""
    own = process.own
    mine = own.writers.known()
    begun_at = time.monotonic()
    timeout_s = process.setting("shutdown_timeout_s") if own.exit_timeout_s is None else own.exit_timeout_s
    safe = _settled if _dies_with_us() else _journaled
    for pause in pauses(timeout_s):
        waiting = [writer for writer in mine if not safe(writer) and _may_come(writer)]
        if not waiting:
            break
        for writer in waiting:
            writer.ensure_collector()
        if any(map(_may_come, waiting)):
            _sleep(pause)
    own.exit_timeout_s = max(0.0, timeout_s - (time.monotonic() - begun_at))
    report_all()


def wait_for_backlog(timeout_s: float | None = None) -> bool:
    """Wait until the collector has taken over what all processes of this folder pushed, also those that are gone.

    Where it ends with process 1, wait until their traces are settled too. For servers at their end, whose children
    relied on it. `timeout_s`: by default the shutdown timeout in force. Return whether that was enough.
    """
    mine = process.writers.known()
    path = mine[-1].path if mine else folders.existing(process.setting("runtime_dir"))
    if path is None:
        return True
    if not launch.able() and not folders.is_held(os.fsencode(path)):
        return False
    quiet_at = time.monotonic()
    passes = 0
    for pause in pauses(process.setting("shutdown_timeout_s") if timeout_s is None else timeout_s):
        now = time.monotonic()
        beat_at = _last_quiet_beat(path, now)
        if beat_at is None:
            quiet_at, passes = now, 0
        elif beat_at > quiet_at:
            quiet_at, passes = now, passes + 1
        if passes == PASSES_TO_BE_SURE:
            return True
        time.sleep(pause)
    return False


def _last_quiet_beat(path: str, now: float) -> float | None:
    """Return when the collector last ended a pass; None if something waits for it. Infinity: nothing to wait for."""
    try:
        seen = overview.look(path)
    except OSError as error:
        let_pass(error)
        return math.inf
    waits = any(ring.unread_bytes for ring in seen.rings)
    if _dies_with_us():
        waits = waits or any(seen.gauges.get(name) for name in ("open_traces", "pending"))
    if waits or seen.heartbeat_age_s is None:
        return None if waits else math.inf
    return now - seen.heartbeat_age_s


def _sleep(seconds: float) -> None:
    """Sleep without letting gevent's greenlets run: what they would begin now finds the ring closed."""
    monkey = sys.modules.get("gevent.monkey")
    (monkey.get_original("time", "sleep") if monkey else time.sleep)(seconds)


def _journaled(writer: Writer) -> bool:
    return writer.drained() and writer.collector_lives()


def _settled(writer: Writer) -> bool:
    return _journaled(writer) and writer.settled >= writer.closed


def _may_come(writer: Writer) -> bool:
    """Say whether there is, or could be, a collector to wait for. The rings' files wait without us."""
    return writer.collector_may_come() and (launch.allowed() or writer.collector_lives())


def _dies_with_us() -> bool:
    """Say whether the collector may end as soon as this process does."""
    try:
        if os.readlink("/proc/self/ns/pid") == FIRST_PID_NAMESPACE:
            return False
    except OSError as error:  # no /proc, so no namespaces
        let_pass(error)
        return False
    parents = [process.waiting_parent_pid, *(parent_in(name) for name in FORKERS)]
    return not any(pid and lives(pid, 0) for pid in parents)
