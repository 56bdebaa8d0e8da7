"""A process's rings: one in each folder that it adds to.

If no folder can be used or no ring be made, a writer refuses and counts every record after one warning. The next look
tries again.
"""

import errno
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from epsagon_fast.config import DEFAULT_RING_BYTES, MIN_RING_BYTES
from epsagon_fast.hints import Protocol
from epsagon_fast.interrupts import let_pass
from epsagon_fast.log import warn_once
from epsagon_fast.queue import folder as folders
from epsagon_fast.queue import ring
from epsagon_fast.queue.abandoned import clean_up
from epsagon_fast.queue.folder import Folder
from epsagon_fast.queue.liveness import own_start_time
from epsagon_fast.queue.no_ring import NoRing
from epsagon_fast.queue.writer import LOOK_S, Writer

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.ENOMEM, errno.EFBIG)


class Settings(Protocol):
    """The part of a resolved Config that the queue needs."""

    @property
    def runtime_dir(self) -> str | None: ...
    @property
    def ring_bytes(self) -> int | None: ...


class Writers:
    """The writers of one process."""

    def __init__(self, here: "Callable[[], Writers] | None" = None) -> None:
        """`here`: returns the writers of the process that runs now. None: these, also in forked children."""
        self._here = here or (lambda: self)
        self._by_path: dict[str, Writer] = {}
        self._current: Writer | None = None
        self._making = threading.RLock()

    def current(self, config: Settings) -> Writer:
        """Return the writer for a trace that opens now, in the folder that `config` names."""
        writer = self._current
        if writer is None or writer.stale():
            new = self._made(lambda: folders.resolve(config.runtime_dir), config.ring_bytes or DEFAULT_RING_BYTES)
            with self._one_thread():
                # Several threads may have found the writer stale.
                if self._current is writer:
                    if writer is not None:
                        writer.retire(new)
                    self._current = new
            writer = new
        return writer

    def at(self, path: str, ring_bytes: int = DEFAULT_RING_BYTES) -> Writer:
        """Return the writer in the folder `path`, for a trace that another process opened."""
        writer = self._by_path.get(path)
        if writer is None or writer.foreign:
            return self._made(lambda: _existing(path), ring_bytes, path)
        return writer

    def known(self) -> list[Writer]:
        """Return the writers that this process made, without those of its parent."""
        return [writer for writer in self._by_path.values() if not writer.foreign]

    def _made(self, find: Callable[[], Folder], ring_bytes: int, path: str = "") -> Writer:
        """Return a writer in the folder that `find` returns: the existing one, or a new one."""
        # If another process's folder is gone, this process's own traces are not affected.
        lost = "what is added to another process's trace is lost" if path else "tracing is off in this process"
        with self._one_thread():
            folder: Folder | None = None
            abandoned: Counter[str] = Counter()
            own_ring: ring.Producer | NoRing
            try:
                folder = find()
                path = folder.path
                there = self._by_path.get(path)
                if there is not None and there.serves():
                    return there
                abandoned = clean_up(folder)
                own_ring = _new_ring(folder, ring_bytes)
                if not folders.is_memory(path):
                    slow = "%s is not in memory (tmpfs): recording an event may have to wait for the disk"
                    warn_once("disk", slow, path, about="the folder")
            except (OSError, ImportError) as error:  # an ImportError: of tempfile, after the process changed its root
                let_pass(error)
                own_ring = NoRing("no_space" if getattr(error, "errno", 0) in NO_SPACE else "no_folder", ring_bytes)
                warn_once(lost, "%s: %s", lost, error, about="the folder")
            # Registered under the lock, so that two threads do not make two rings in a folder.
            writer = self._by_path[path] = Writer(path, folder, own_ring, self._heir_at)
        for reason, count in abandoned.items():
            writer.refuse(reason, count)
        writer.look()
        return writer

    def _heir_at(self, path: str, ring_bytes: int) -> Writer:
        """Return the writer of the process that runs now, a fork of the one that had a writer here."""
        return self._here().at(path, ring_bytes)

    @contextmanager
    def _one_thread(self) -> Iterator[None]:
        """Let one thread at a time make a ring. Bounded: a thread that waits for its disk must not hold up the rest."""
        try:
            self._making.acquire(timeout=LOOK_S)
            yield
        finally:
            # Only the lock knows whether this thread holds it: an exception may have arrived right after it was taken.
            with suppress(RuntimeError):
                self._making.release()


def _existing(path: str) -> Folder:
    if not os.path.isdir(path):
        raise FileNotFoundError(errno.ENOENT, "the trace's folder is not there", path)
    return Folder(path)


def _new_ring(folder: Folder, ring_bytes: int) -> ring.Producer:
    capacity = folder.ring_capacity(ring_bytes)
    if not capacity:
        raise OSError(errno.ENOSPC, f"no room for a queue of {MIN_RING_BYTES} bytes", folder.path)
    dir_fd = folder.open()
    try:
        fd = ring.create(dir_fd, folder.new_ring_name(), capacity, pid=os.getpid(), start_time=own_start_time())
    finally:
        os.close(dir_fd)
    try:
        return ring.Producer(fd)
    finally:
        os.close(fd)
