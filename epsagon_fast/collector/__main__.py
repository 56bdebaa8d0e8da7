"""The collector process: takes the folder's lock, serves it, and leaves when no process needs it or a signal says so.

    python -m epsagon_fast.collector --runtime-dir FOLDER

Exit codes: 0; 1 after an error. Never 3 or 4: gunicorn halts when it reaps a process that ended so.
"""

import faulthandler
import fcntl
import logging
import os
import resource
import signal
import sys
import threading
import time
from contextlib import suppress
from functools import partial

import epsagon_fast.private as private
from epsagon_fast.collector import inherited
from epsagon_fast.collector.leaving import Leaving
from epsagon_fast.collector.log import BoundedLog
from epsagon_fast.collector.loop import Loop
from epsagon_fast.collector.measuring.measuring import Measuring
from epsagon_fast.collector.orphans import Orphans
from epsagon_fast.collector.pace import Pace, Passed
from epsagon_fast.compiled import COMPILED, implementation
from epsagon_fast.hints import TYPE_CHECKING
from epsagon_fast.queue import state as states
from epsagon_fast.queue.bell import Bell
from epsagon_fast.queue.liveness import is_ending, own_start_time
from epsagon_fast.queue.names import CORRUPT, STATE
from epsagon_fast.queue.state import StatePage

if TYPE_CHECKING:
    from argparse import ArgumentParser

log = logging.getLogger("epsagon_fast.collector")

PR_SET_DUMPABLE = 4
# Retry the lock this long: a process that asks whether it is held takes it for a moment itself.
LOCK_TIMEOUT_S = 5.0
# A collector that a supervisor started waits as long as another one serves, and looks this often.
STANDBY_S = 0.1
THREAD_STACK_BYTES = 1024 * 1024


def main(argv: list[str] | None = None, *, stays: bool = False) -> int:
    """Serve the folder that the command line names, as `serve_folder` says. Return the exit code."""
    args = parser().parse_args(argv)
    return serve_folder(args.runtime_dir, args.start_lock_fd, stays=stays)


def serve_folder(path: str, start_lock_fd: int | None, *, stays: bool = False) -> int:
    """Serve one folder until no process needs it or, with `stays`, until a signal comes. Return the exit code.

    `start_lock_fd`: the descriptor of the start lock that a traced process has handed down.
    """
    inherited_texts = settle_down(start_lock_fd)
    folder_fd = private.make_directory(path)
    if not take_lock(folder_fd):
        log.info("another collector serves %s", path)
        if not stays or not stand_by(folder_fd):
            return 0
    state = own_page(folder_fd)
    state.set_inherited(inherited_texts)
    leaving = Leaving(state, is_orphan=start_lock_fd is not None, stays=stays)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: leaving.ask(time.monotonic()))
    loop = Loop(folder_fd, path, state, sign_in(state))
    bell = Bell(folder_fd)
    # A signal must not wait for the next pass.
    signal.set_wakeup_fd(bell.ringing_fd, warn_on_full_buffer=False)
    loop.listen(bell)
    if start_lock_fd is not None:
        os.close(start_lock_fd)
    log.info("serving %s", path)
    serve(loop, leaving, Orphans(path, partial(open_loop, loop.measuring)))
    return 0


def open_loop(measuring: Measuring, folder_fd: int, path: str) -> Loop:
    """Return a loop for another folder that this process has locked. Its folder goes, so it counts in ours."""
    state = StatePage(folder_fd, create=True)
    return Loop(folder_fd, path, state, sign_in(state), measuring)


def parser() -> "ArgumentParser":
    """Return the command line's parser."""
    # A traced process starts a collector without it; it takes as long as twenty modules of ours.
    from argparse import ArgumentParser

    made = ArgumentParser(prog="epsagon_fast.collector")
    made.add_argument("--runtime-dir", required=True, help="the folder of rings to serve")
    made.add_argument("--start-lock-fd", type=int, help="descriptor of the inherited start lock")
    return made


def settle_down(start_lock_fd: int | None) -> list[str]:
    """Let go of what the starter left with us, keep our memory to ourselves, and log to
    stderr. Return texts about what stays."""
    os.umask(0o077)
    os.chdir("/")
    # The default is the stack limit of the process that started us, which may be anything.
    threading.stack_size(THREAD_STACK_BYTES)
    stays = []
    if start_lock_fd is not None:
        os.closerange(start_lock_fd + 1, 65536)
        os.set_inheritable(start_lock_fd, False)
        stays = inherited.shed()
    # Last, because it gives the files in /proc/self to root.
    close_memory()
    logging.basicConfig(handlers=[BoundedLog()], level=logging.INFO)
    # Somebody who cuts off a file that is mapped here ends this process, by SIGBUS. Then the log has a word of it.
    with suppress(RuntimeError):  # without a stderr
        faulthandler.enable()
    return stays


def close_memory() -> None:
    """Let no core file and no other process of this user show what is in memory: bodies, tokens."""
    # Both, because a core file that is piped into a program ignores the limit.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if implementation("start") == COMPILED:
        from epsagon_fast.queue import _spawn

        with suppress(OSError):
            _spawn.close_memory()
    elif sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)


def own_page(folder_fd: int) -> StatePage:
    """Map the state page of the folder that we serve. A file in its place that is none is set aside."""
    try:
        return StatePage(folder_fd, create=True)
    except (private.NotOurs, ValueError) as error:
        log.warning("%s is set aside: %s", STATE, error)
        os.rename(STATE, STATE + CORRUPT, src_dir_fd=folder_fd, dst_dir_fd=folder_fd)
        return StatePage(folder_fd, create=True)


def take_lock(folder_fd: int) -> bool:
    """Take the folder's lock for the life of this process; False if another collector has it and keeps it."""
    deadline = time.monotonic() + LOCK_TIMEOUT_S
    while True:
        try:
            fcntl.flock(folder_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > deadline or is_served(folder_fd):
                return False
        time.sleep(0.01)


def stand_by(folder_fd: int) -> bool:
    """Wait until the collector that serves the folder has left, and take its lock; False if a signal came first.

    A supervisor would start us again and again if we left, and then find its collector not running.
    """
    told = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: told.set())
    while not told.wait(STANDBY_S):
        with suppress(BlockingIOError):
            fcntl.flock(folder_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
    return False


def is_served(folder_fd: int) -> bool:
    """Say whether a collector serves the folder and is not leaving; False if the state page cannot tell."""
    try:
        beat = states.read(folder_fd).beat()
    except (OSError, ValueError):
        return False
    return beat.phase == states.SERVING and beat.start_time != 0 and not is_ending(beat.pid, beat.start_time)


def sign_in(state: StatePage) -> int:
    """Write into the state page that this process serves. Return its incarnation, the number of this collector here."""
    incarnation = state.load(states.INCARNATION) + 1
    slots = {
        states.PHASE: states.SERVING,
        states.PID: os.getpid(),
        states.START_TIME: own_start_time(),
        states.HEARTBEAT_NS: time.monotonic_ns(),
        states.STARTED_AT: int(time.time()),
        states.GONE: 0,
        states.INCARNATION: incarnation,
    }
    for slot, value in slots.items():
        state.store(slot, value)
    return incarnation


def serve(loop: Loop, leaving: Leaving, orphans: Orphans) -> None:
    """Pass over the rings until `leaving` says that no process needs us."""
    loop.recover()
    pace = Pace(time.monotonic())
    while True:
        came = loop.one_pass()
        # Only now, because it takes as long as all before, and meanwhile rings fill.
        loop.sending.prepare()
        now = time.monotonic()
        orphans.step(now)
        loop.measuring.step(now)
        loop.counts["adopted_folders"] = orphans.adopted
        if (leaving.asked or not orphans.busy) and leaving.due(loop, now):
            break
        busy = loop.is_busy or orphans.busy
        passed = Passed(came, loop.awaits_a_pass, busy, loop.sending.busy > 0, loop.holds)
        rung = loop.wait(pace.pause_s(passed, now, hears=loop.hears, ends=leaving.asked))
        pace.heard(rung, time.monotonic())
    orphans.close()
    loop.measuring.begin_end()
    loop.finish(hands_over=len(loop.rings) > 0)
    loop.measuring.end(leaving.asked)
    loop.state.store(states.PHASE, states.NONE)
    log.info("leaving")


if __name__ == "__main__":
    sys.exit(main())
