"""Folders beside our own that no collector serves any more: of an older version, a container or service that is gone.

A folder is an orphan if its lock can be had, its heartbeat is over a minute old and no process, in any container, has a
ring in it: containers may share the directory, and see other pids. This collector serves it by the same loop, until all
that was in it is delivered or stored, and removes it. One orphan at a time, with a pass after each of our own.
"""

import fcntl
import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial

import epsagon_fast.private as private
from epsagon_fast.collector.loop import Loop
from epsagon_fast.collector.sending.outbox.file import NAME as OUTBOX
from epsagon_fast.patterns import pattern
from epsagon_fast.queue import layout
from epsagon_fast.queue import state as states
from epsagon_fast.queue.folder import beside
from epsagon_fast.queue.liveness import is_open
from epsagon_fast.queue.names import ARRIVED, BELL, DECISIONS, JOURNAL_NAME, LEDGER, LOG, RING_NAME, START, STATE
from epsagon_fast.queue.overview import look

log = logging.getLogger("epsagon_fast.collector")

LOOK_S = 60.0
# A folder with a younger heartbeat may have a collector that is just starting.
SILENT_S = 60.0
# Serve an orphan this long. The next collector takes over what is then neither delivered nor stored.
PATIENCE_S = 600.0
# An orphan's bound of memory, beside all that our own folder takes.
MEMORY_BYTES = 32 * 1024 * 1024
# A user's runtime directory may hold other things. So a name like those of folder.instance_name proves nothing until a
# file of ours is found in the folder, and only these files are removed. Files that were set aside are for a person.
_VERSION = r"\d+\.\d+\.\d+[0-9a-z.+]*"
_OUTBOX = [re.escape(OUTBOX + companion) for companion in ("", *private.COMPANIONS)]
_PROBE = "[0-9a-f]{32}"
_REMOVED = pattern("|".join([STATE, BELL, LEDGER, ARRIVED, DECISIONS, START, JOURNAL_NAME.pattern, *_OUTBOX, _PROBE]))


class Orphans:
    """The sibling folders of `path`. `serve` makes a loop for a folder that is locked, by its descriptor and path."""

    def __init__(self, path: str, serve: Callable[[int, str], Loop]) -> None:
        self._own = path
        self._base, own_name = os.path.split(path)
        # A name has as many namespaces as ours, because the kernel is the same.
        self._name = re.compile(_VERSION + r"-\d+" * own_name.count("-"))
        self._serve = serve
        self._loop: Loop | None = None
        self._path = ""
        self._fd = -1
        self._since = 0.0
        self._next_look = 0.0
        # Paths of folders that failed once: another process may try them.
        self._left_alone: set[str] = set()
        self.adopted = 0

    @property
    def busy(self) -> bool:
        """Whether an orphan is being served."""
        return self._loop is not None

    def step(self, now: float) -> None:
        """Serve an orphan's next pass, or once a minute look for one. `now` is monotonic."""
        if self._loop is None:
            if now >= self._next_look:
                self._next_look = now + LOOK_S
                self._look(now)
            return
        try:
            self._loop.one_pass()
            if _is_done(self._loop, self._path):
                self._release(remove=True)
                # There may be more orphans.
                self._next_look = now
            elif now - self._since > PATIENCE_S:
                self._release(remove=False)
        except Exception:
            self._give_up()

    def close(self) -> None:
        """Leave an orphan that is not done to the next collector."""
        if self._loop is not None:
            self._release(remove=False)

    def _look(self, now: float) -> None:
        with suppress(OSError):
            for path in self._siblings():
                self._try(path, now)
                if self._loop is not None:
                    return

    def _siblings(self) -> Iterator[str]:
        for base in beside(self._base):
            for name in filter(self._name.fullmatch, sorted(os.listdir(base))):
                path = os.path.join(base, name)
                if path not in (self._own, *self._left_alone):
                    yield path

    def _try(self, path: str, now: float) -> None:
        fd = _locked_orphan(path)
        if fd is None:
            return
        self._path, self._fd, self._since = path, fd, now
        log.info("serving %s too, which no other collector does", path)
        try:
            self._loop = self._serve(fd, path)
            self._loop.bounds.memory_bytes = min(MEMORY_BYTES, self._loop.bounds.memory_bytes)
            self._loop.recover()
        except Exception:
            self._give_up()

    def _release(self, remove: bool) -> None:
        assert self._loop is not None
        self._loop.finish()
        self._loop.state.store(states.PHASE, states.NONE)
        if remove and _remove(self._fd, self._path):
            self.adopted += 1
            log.info("%s is done and removed", self._path)
        self._loop = None
        os.close(self._fd)

    def _give_up(self) -> None:
        # Our own folder must not suffer. The state page tells the next collector what this one died of.
        log.exception("%s cannot be served", self._path)
        self._left_alone.add(self._path)
        self._loop = None
        os.close(self._fd)


def _is_done(loop: Loop, path: str) -> bool:
    return not (len(loop.rings) or loop.assembly.open_count or loop.unsettled) and loop.sending.is_empty(path)


def _locked_orphan(path: str) -> int | None:
    """Return a descriptor of an orphan, locked; None if the folder is none."""
    try:
        fd = private.open_directory(path)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _is_silent(fd) and not any(view.lives for view in look(path).rings) and not _is_used(fd):
            return fd
    except OSError:
        pass
    os.close(fd)
    return None


def _is_silent(fd: int) -> bool:
    try:
        heartbeat_ns = states.read(fd).beat().heartbeat_ns
    except (OSError, ValueError):
        # No collector has ever been here, so a ring must prove that the folder is ours.
        return states.is_to_be_made(fd) and any(map(partial(_is_ring, fd), os.listdir(fd))) and _age_s(fd) > SILENT_S
    # A heartbeat in the future is from before the last boot.
    return not 0 <= (time.monotonic_ns() - heartbeat_ns) / 1e9 <= SILENT_S


def _is_ring(fd: int, name: str) -> bool:
    if not RING_NAME.fullmatch(name):
        return False
    try:
        ring_fd = private.open_file(name, os.O_RDONLY, dir_fd=fd)
    except OSError:
        return False
    try:
        return bool(layout.read_capacity(ring_fd))
    except layout.CorruptRing:
        return False
    finally:
        os.close(ring_fd)


def _is_used(fd: int) -> bool:
    rings = [name for name in os.listdir(fd) if RING_NAME.fullmatch(name)]
    return any(is_open(fd, name) for name in rings) and _can_tell(fd)


def _can_tell(fd: int) -> bool:
    """Say whether this kernel tells that no process has a file open; before Linux 5.3 it did not for a tmpfs."""
    probe = os.urandom(16).hex()
    os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=fd))
    try:
        return not is_open(fd, probe)
    finally:
        os.unlink(probe, dir_fd=fd)


def _age_s(fd: int) -> float:
    return time.time() - os.fstat(fd).st_mtime


def _remove(fd: int, path: str) -> bool:
    """Remove our files from a folder, and the folder if it has no others. Return False if a process just came to it."""
    names = set(os.listdir(fd))
    if any(RING_NAME.fullmatch(name) for name in names):
        return False
    ours = {name for name in names if _REMOVED.fullmatch(name)}
    # The log stays beside files that were set aside, because it says why.
    for name in ours | {LOG} if names <= ours | {LOG} else ours:
        with suppress(OSError):
            os.unlink(name, dir_fd=fd)
    try:
        os.rmdir(path)
    except OSError:
        return False
    return True
