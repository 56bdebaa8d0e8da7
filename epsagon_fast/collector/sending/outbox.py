"""The outbox: finished traces wait on disk for a backend that is not well. SQLite works in a thread of its own.

For the loop's thread; nothing here waits for the disk except `close`. What was asked for is answered in `answers`:

- `put`: Stored once it is committed, or Refused: then the trace is where it was, in memory and in the journal.
- `take`: Taken, with traces to be sent, or with none. Each goes back by `give_back` or `remove`.
- Waiting: how many traces a place holds, whenever that may have changed, also by another collector.
- Gone: the oldest had to make room.

Each trace's config says where (its state directory). A directory that cannot be had, or that is on a network file
system, which SQLite's log cannot use, is replaced by the collector's own folder, said once. A file that cannot be used
(no space, read-only) refuses what it is given and is tried again later; a corrupt one is set aside first.
"""

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple, TypeVar

from epsagon_fast import private
from epsagon_fast.collector.destination import Destination, Parcel
from epsagon_fast.collector.sending.lookups import lookups
from epsagon_fast.collector.sending.outbox_file import LIMIT_BYTES, NAME, OutboxFile, is_corrupt, set_aside
from epsagon_fast.foreign import escaped, shown
from epsagon_fast.queue.folder import filesystems

# What other collectors did is seen after so long, and a file that could not be used is tried again.
LOOK_S = 10.0
# A local directory answers in this time; a mount whose server is away, maybe never.
LOOK_TIMEOUT_S = 2.0
# The collector's folder is memory: the outbox may take as much of what is free there as the journal may.
SPACE_SHARE = 8
NETWORK = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ceph", "9p", "fuse.sshfs", "fuse.glusterfs"})

T = TypeVar("T")


class Stored(NamedTuple):
    """These traces are committed."""

    trace_ids: list[bytes]


class Refused(NamedTuple):
    """These traces could not be stored, and are the caller's again."""

    trace_ids: list[bytes]


class Taken(NamedTuple):
    """What there was to send for a destination."""

    destination: Destination
    parcels: list[Parcel]


class Waiting(NamedTuple):
    """How many traces each destination has in a directory, those that are being sent among them."""

    state_dir: str
    directory: str
    counts: dict[Destination, int]


class Gone(NamedTuple):
    """These stored traces are no more."""

    trace_ids: list[bytes]


Answer = Stored | Refused | Taken | Waiting | Gone


@dataclass
class _Batch:
    """What is asked of one state directory."""

    puts: list[Parcel] = field(default_factory=list)
    takes: dict[Destination, int] = field(default_factory=dict)
    give_back: list[bytes] = field(default_factory=list)
    remove: list[bytes] = field(default_factory=list)


class Outbox:
    """The outbox files that one collector uses. `folder`: its own; `owner`: the same for it and its successors."""

    def __init__(self, folder: str, owner: bytes, *, log: logging.Logger, limit_bytes: int = LIMIT_BYTES) -> None:
        self._folder = folder
        self._owner = owner
        self._log = log
        self._limit_bytes = limit_bytes
        self._changed = threading.Condition()
        # These belong to the lock of _changed.
        self._batches: dict[str, _Batch] = {}
        self._answers: list[Answer] = []
        self._thread: threading.Thread | None = None
        self._closing = False
        # These belong to the thread.
        self._places: dict[str, _Place] = {}

    def watch(self, state_dir: str) -> None:
        """Look now and then for what others left there. Nothing is created before the first `put`."""
        self._ask(state_dir)

    def put(self, parcel: Parcel) -> None:
        """Store a trace."""
        with self._changed:
            self._ask(parcel.destination.state_dir).puts.append(parcel)

    def take(self, destination: Destination, limit: int) -> None:
        """Lease up to `limit` traces of a destination."""
        with self._changed:
            self._ask(destination.state_dir).takes[destination] = limit

    def give_back(self, parcel: Parcel) -> None:
        """Put a trace that was taken behind the others."""
        with self._changed:
            self._ask(parcel.destination.state_dir).give_back.append(parcel.trace_id)

    def remove(self, parcel: Parcel) -> None:
        """Delete a trace that was taken."""
        with self._changed:
            self._ask(parcel.destination.state_dir).remove.append(parcel.trace_id)

    def answers(self) -> list[Answer]:
        """Return the answers since the last call."""
        if not self._answers:
            return []
        with self._changed:
            answers, self._answers = self._answers, []
        return answers

    def close(self, timeout_s: float) -> None:
        """Do what was asked for, for at most timeout_s, and end this collector's leases."""
        with self._changed:
            self._closing = True
            self._changed.notify()
            thread = self._thread
        if thread is not None:
            thread.join(timeout_s)

    def _ask(self, state_dir: str) -> _Batch:
        with self._changed:
            batch = self._batches.setdefault(state_dir, _Batch())
            if self._thread is None and not self._closing:
                self._thread = threading.Thread(target=self._run, name="epsagon-outbox", daemon=True)
                self._thread.start()
            self._changed.notify()
        return batch

    def _run(self) -> None:
        while (batches := self._next()) is not None:
            for state_dir, batch in batches.items():
                place = self._places.get(state_dir)
                if place is None:
                    limits = self._limit_bytes, self._owner
                    place = self._places[state_dir] = _Place(state_dir, self._folder, self._log, *limits)
                answers = place.serve(batch)
                with self._changed:
                    self._answers += answers
            # Or the bodies would be kept until there is work again.
            del batches
        for place in self._places.values():
            place.close()

    def _next(self) -> dict[str, _Batch] | None:
        """Wait for something to do; after LOOK_S that is a look at every place. None: no more."""
        with self._changed:
            if not self._batches and not self._closing:
                self._changed.wait(LOOK_S)
            batches, self._batches = self._batches, {}
            if not batches:
                return None if self._closing else {state_dir: _Batch() for state_dir in self._places}
            return batches


class _Place:
    """One state directory, and its file once there is one. Belongs to the outbox's thread."""

    def __init__(self, state_dir: str, folder: str, log: logging.Logger, limit_bytes: int, owner: bytes) -> None:
        self._state_dir = state_dir
        self._folder = folder
        self._log = log
        self._limit_bytes = limit_bytes
        self._owner = owner
        self._directory = ""
        self._file: OutboxFile | None = None
        self._retry_at = self._wipe_at = 0.0
        self._complained = False
        # What must still be told to a file that could not be used; else what was delivered would be sent again.
        self._owed = _Batch()

    def serve(self, batch: _Batch) -> list[Answer]:
        """Do what is asked; never raises."""
        self._owed.give_back += batch.give_back
        self._owed.remove += batch.remove
        nothing: list[Answer] = [Taken(destination, []) for destination in batch.takes]
        if batch.puts:
            nothing.append(Refused([parcel.trace_id for parcel in batch.puts]))
        if time.monotonic() < self._retry_at:
            return nothing
        try:
            file = self._open(create=bool(batch.puts))
            if file is None:
                return nothing
            answers = self._do(file, batch)
        except (sqlite3.Error, OSError) as error:
            self._fail(error)
            return nothing
        self._complained = False
        return answers

    def close(self) -> None:
        """End our leases and let go of the file."""
        if self._file is not None:
            with suppress(sqlite3.Error):
                self._file.take_over()
            self._file.close()

    def _do(self, file: OutboxFile, batch: _Batch) -> list[Answer]:
        now = time.time()
        answers: list[Answer] = []
        if self._owed.remove:
            file.remove(self._owed.remove)
            self._owed.remove = []
        if self._owed.give_back:
            file.give_back(self._owed.give_back)
            self._owed.give_back = []
        if time.monotonic() >= self._wipe_at:
            # What was delivered meanwhile goes from the log too.
            file.wipe()
            self._wipe_at = time.monotonic() + LOOK_S
        if batch.puts:
            gone = file.put(batch.puts, now)
            answers.append(Stored([parcel.trace_id for parcel in batch.puts]))
            answers += [Gone(gone)] if gone else []
            # They are stored: whatever fails from here on, they are not refused.
            batch.puts.clear()
        answers += [
            Taken(destination, file.take(destination, limit, now)) for destination, limit in batch.takes.items()
        ]
        return [*answers, Waiting(self._state_dir, self._directory, file.stored())]

    def _open(self, create: bool) -> OutboxFile | None:
        if self._file is not None and not self._file.still_there:
            self._file.close()
            self._file = None
        if self._file is None:
            if not create and not _in_time(os.path.exists, os.path.join(self._state_dir or self._folder, NAME)):
                return None
            self._directory = self._find_directory()
            self._file = OutboxFile(self._directory, self._owner, self._state_dir, self._limit(self._directory))
            self._file.take_over()
        return self._file

    def _find_directory(self) -> str:
        try:
            _in_time(own_state_directory, self._state_dir)
            return self._state_dir
        except OSError as error:
            if not self._directory:
                message = "no state directory (%s): undelivered traces wait in %s, which does not survive a reboot"
                self._log.warning(message, escaped(error.strerror or str(error)), escaped(self._folder))
            return self._folder

    def _limit(self, directory: str) -> int:
        if directory != self._folder:
            return self._limit_bytes
        free = os.statvfs(directory)
        return min(self._limit_bytes, free.f_bavail * free.f_frsize // SPACE_SHARE)

    def _fail(self, error: Exception) -> None:
        path = os.path.join(self._directory or self._state_dir, NAME)
        # Another collector that met the same damage may have been faster.
        replaced = self._file is not None and not self._file.still_there
        if self._file is not None:
            self._file.close()
            self._file = None
        if is_corrupt(error) and not replaced:
            try:
                aside = escaped(set_aside(path))
                self._log.error("the outbox is corrupt (%s); set aside as %s", shown(error), aside)
                return
            except OSError as failure:
                error = failure
        self._retry_at = time.monotonic() + LOOK_S
        if not self._complained:
            self._complained = True
            message = "outbox_unavailable: %s: %s; traces wait in memory and in the journal"
            self._log.error(message, escaped(path), shown(error))


def _in_time(look: Callable[[str], T], path: str) -> T:
    """Return look(path); OSError if that takes long: one directory's dead mount must not hold up all others."""
    return lookups.ask((look.__name__, path), partial(look, path), LOOK_TIMEOUT_S)


def own_state_directory(path: str) -> None:
    """Make a directory, mode 0700, or see that it is ours, that others can neither write to nor replace it, and local.

    OSError if not.
    """
    if not path:
        raise FileNotFoundError(2, "none is configured and there is no home directory")
    # SQLite opens its files by their path, however that leads there.
    private.judge_way(path)
    # Others may look in: the files are closed to them.
    os.close(private.make_directory(path, closed_to=0o022))
    network = NETWORK.intersection(filesystems(path))
    if network:
        raise OSError(95, f"it is on a network file system ({', '.join(network)})", path)
